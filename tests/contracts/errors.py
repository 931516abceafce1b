"""Contract: wrong tensors raise a ValueError that names the thing, the value seen, what was expected and the cure."""

import re
from collections.abc import Callable
from typing import Any

import torch
from contracts.readings import most_symbols
from contracts.tiny_configs import tiny_model


def wrong_pixel_values_are_named(model_class: Any) -> None:
    model = tiny_model(model_class)
    channels, height = model.config.num_channels, model.config.image_height
    for shape in ((2, 4 - channels, height, 64), (2, channels, height + 1, 64), (channels, height, 64)):
        wrong = torch.zeros(shape)
        _refused(lambda wrong=wrong: model(wrong), "pixel_values", str(shape), f"{channels}, {height}")
        _refused(lambda wrong=wrong: model.recognize(wrong), "pixel_values", str(shape), f"{channels}, {height}")
    bytes_ = torch.zeros(2, channels, height, 64, dtype=torch.uint8)
    _refused(lambda: model(bytes_), "pixel_values", "torch.uint8", "float")


def wrong_widths_are_named(model_class: Any) -> None:
    model = tiny_model(model_class)
    pixel_values = _images(model)
    for widths, expectation in (
        (torch.tensor([64]), "for each"),  # one is missing
        (torch.tensor([64, 65]), "64 px"),
        (torch.tensor([[64], [64]]), "for each"),
        (torch.tensor([64.0, 64.0]), "integer"),
    ):
        _refused(lambda widths=widths: model(pixel_values, widths), "widths", str(widths.tolist()), expectation)
    for width in (0, -64):
        _refused(lambda width=width: model(pixel_values, torch.tensor([64, width])), f"{width} px", "at least")
    with torch.no_grad():
        whole = model(pixel_values, torch.tensor([64, 64])).logits
        assert torch.equal(model(pixel_values).logits, whole), "without widths, not the whole of each image is read"


def wrong_labels_are_named(model_class: Any) -> None:
    model = tiny_model(model_class)
    pixel_values, vocab_size = _images(model), model.config.vocab_size
    with torch.no_grad():
        output = model(pixel_values)
        frames, most = int(output.logit_lengths[1]), int(most_symbols(model, output)[1])
    unit = "characters" if hasattr(model.config, "max_label_length") else "frames"
    for label, *needles in (
        ([1, vocab_size], "row 1", f"[1, {vocab_size}]", f"1 to {vocab_size - 1}"),
        ([1, 0], "row 1", "[1, 0]", f"1 to {vocab_size - 1}"),
        ([1, -5], "row 1", "[1, -5]", f"1 to {vocab_size - 1}"),
        ([1, 2] * frames, "row 1", "[1, 2, 1, 2", f"{most} {unit}"),
        ([1] * frames, "row 1", "[1, 1, 1", f"{most} {unit}"),  # equal frames need a blank between them
        ([1, -100, 2], "row 1", "[1, -100, 2]", "end"),
    ):
        rows = torch.full((2, max(len(label), 3)), -100)
        rows[0, :3] = torch.tensor([1, 2, 3])
        rows[1, : len(label)] = torch.tensor(label)
        _refused(lambda rows=rows: model(pixel_values, labels=rows), "labels", *needles)
    for labels in (torch.ones(3, 2, dtype=torch.int64), torch.ones(2, dtype=torch.int64)):
        _refused(
            lambda labels=labels: model(pixel_values, labels=labels), "labels", str(tuple(labels.shape)), "expected"
        )


def wrong_lexicons_are_named(model_class: Any) -> None:
    model = tiny_model(model_class)
    pixel_values, vocab_size = _images(model), model.config.vocab_size
    for lexicon, *needles in (
        (["ab"], "a list", "torch.int64", "padded with 0"),
        (torch.tensor([1, 2]), "(2,)", "(texts, symbols)"),
        (torch.tensor([[1.0, 2.0]]), "torch.float32", "torch.int64"),
        (torch.tensor([[1, 2, 3], [1, vocab_size, 0]]), f"the id {vocab_size} in row 1", f"to {vocab_size - 1}"),
        (torch.tensor([[1, 2, 3], [1, -100, -100]]), "the id -100 in row 1", f"to {vocab_size - 1}"),
        (torch.tensor([[1, 0, 2]]), "row 0, at position 1", "behind"),  # not read as [1, 0]
    ):
        _refused(lambda lexicon=lexicon: model.recognize(pixel_values, lexicon=lexicon), "lexicon", *needles)
    words = torch.tensor([[1, 2]])
    _refused(lambda: model.recognize(pixel_values, lexicon=words, allowed_ids=[1]), "allowed_ids", "[1]", "lexicon")


def _images(model: Any) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.rand(2, model.config.num_channels, model.config.image_height, 64, generator=generator)


def _refused(call: Callable[[], Any], *needles: str) -> None:
    """The needles: the thing, the value seen, what was expected. The cure is a sentence of its own."""
    what = " / ".join(needles)
    try:
        call()
    except ValueError as error:
        message = str(error)
    except Exception as error:
        raise AssertionError(f"{what}: a {type(error).__name__} instead of a ValueError: {error}") from error
    else:
        raise AssertionError(f"{what}: accepted")
    for needle in needles:
        assert needle in message, f"the error does not say {needle!r}: {message}"
    assert re.search(r"\. [A-Z][a-z]+ .*\.$", message), f"{what}: the error names no cure: {message}"


CONTRACTS = (wrong_pixel_values_are_named, wrong_widths_are_named, wrong_labels_are_named, wrong_lexicons_are_named)
