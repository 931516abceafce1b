"""Contract: what is read from an image depends on that image alone, and reading leaves no trace."""

import random
from typing import Any

import numpy as np
import torch
from contracts.tiny_configs import tiny_batch, tiny_lines, tiny_model, tiny_processor
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_ocr.models.reading import read_images


def padding_changes_no_logit(model_class: Any) -> None:
    model = tiny_model(model_class)
    inputs = tiny_batch(model_class)
    with torch.no_grad():
        padded, order = _among_others(inputs)
        together = model(**padded)
        for place, row in enumerate(order):
            alone = model(_alone(inputs, row)).logits[0]
            assert len(alone) == together.logit_lengths.tolist()[place], f"row {row}: other frames than alone"
            difference = float((together.logits[place, : len(alone)] - alone).abs().max())
            allowed = 1e-5 * max(1.0, float(alone.abs().max()))  # what float32 can tell apart grows with the logits
            assert difference <= allowed, f"row {row}: padding changes logits by {difference:.1e}"


def text_and_score_are_those_of_the_image_alone(model_class: Any) -> None:
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    inputs = tiny_batch(model_class)
    alone = [model.recognize(_alone(inputs, row)) for row in range(len(inputs["widths"]))]
    padded, order = _among_others(inputs)
    for num_beams in (1, 4):
        if num_beams > 1:
            alone = [model.recognize(_alone(inputs, row), num_beams=num_beams) for row in range(len(alone))]
        together = model.recognize(**padded, num_beams=num_beams)
        texts = processor.batch_decode(together.sequences)
        expected = [processor.batch_decode(alone[row].sequences)[0] for row in order]
        assert len(set(expected)) == len(expected), "every line should have a text of its own"
        assert texts == expected, f"{num_beams} beams: the text depends on the batch"
        _assert_equal_scores(together.scores, torch.cat([alone[row].scores for row in order]))

    images = tiny_lines()
    readings = [read_images(model, processor, [image])[0] for image in images]
    for batch_size in (1, 2, 64):
        for step in (1, -1):
            found = read_images(model, processor, images[::step], batch_size=batch_size)[::step]
            texts = [reading.text for reading in found]
            assert texts == [reading.text for reading in readings], f"batch size {batch_size}: other texts"
            _assert_equal_scores(*(torch.tensor([one.score for one in many]) for many in (found, readings)))


def eval_mode_is_deterministic(model_class: Any) -> None:
    model = tiny_model(model_class)
    inputs = tiny_batch(model_class)
    with torch.no_grad():
        assert torch.equal(model(**inputs).logits, model(**inputs).logits), "two forward passes differ in eval mode"
    first, second = (model.recognize(**inputs) for _ in range(2))
    for name in first:
        assert torch.equal(first[name], second[name]), f"{name} of two readings differ"


def training_differs_by_dropout_alone(model_class: Any) -> None:
    """Batch norms aside, which read the statistics of the batch while they train."""
    model = tiny_model(model_class)
    inputs = tiny_batch(model_class)
    with torch.no_grad():
        expected = model(**inputs).logits
        dropouts = []
        for module in model.train().modules():
            if isinstance(module, _BatchNorm):
                module.eval()
            elif isinstance(module, nn.modules.dropout._DropoutNd) and module.p > 0:
                dropouts.append(module)
        assert dropouts, "the tiny configuration has no dropout"
        assert not torch.equal(model(**inputs).logits, expected), "dropout does nothing while training"
        for module in dropouts:
            module.p = 0.0
        torch.testing.assert_close(
            model(**inputs).logits, expected, atol=1e-6, rtol=0, msg="train mode changes logits without dropout"
        )


def recognize_leaves_mode_random_state_and_weights(model_class: Any) -> None:
    inputs = tiny_batch(model_class)
    wrong = inputs["pixel_values"][:, :, 1:]
    for training in (True, False):
        model = tiny_model(model_class).train(training)
        next(module for module in model.modules() if not list(module.children())).train(not training)
        modes = {name: module.training for name, module in model.named_modules()}
        tensors = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        states = _random_states()
        result = model.recognize(**inputs)
        assert states == _random_states(), "recognize draws random numbers"
        assert not any(tensor.requires_grad for tensor in result.values()), "recognize keeps gradients"
        assert all(torch.equal(tensors[name], tensor) for name, tensor in model.state_dict().items()), (
            "recognize changes weights or buffers"
        )
        assert model.training == training, "recognize changes the mode"
        try:
            model.recognize(wrong)
        except ValueError:
            assert model.training == training, "recognize changes the mode when it fails"
        changed = [name for name, module in model.named_modules() if module.training != modes[name]]
        assert not changed, f"recognize changes the mode of {', '.join(changed)}"


def a_copy_for_reading_reads_the_same(model_class: Any) -> None:
    """And so does a copy of the copy; batch norms are folded, and the model stays as it was."""
    model, inputs = tiny_model(model_class).train(), tiny_batch(model_class)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    copied = model.reading_copy(torch.float32)
    folded = not any(isinstance(module, torch.nn.BatchNorm2d) for module in copied.modules())
    assert folded, "a batch norm is not folded"
    assert model.training and not copied.training, "the copy is not the one in eval mode"
    with torch.no_grad():
        expected = model.eval()(**inputs).logits
        for reader in (copied, copied.reading_copy(torch.float32)):
            torch.testing.assert_close(reader(**inputs).logits, expected, atol=1e-3, rtol=1e-3, msg="the copy differs")
    assert model.reading_copy(torch.bfloat16).dtype == torch.bfloat16, "the copy has another type than was asked for"
    same = all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert same and model.state_dict().keys() == before.keys(), "making a copy changes the model"


def _alone(inputs: dict[str, torch.Tensor], row: int) -> torch.Tensor:
    return inputs["pixel_values"][row : row + 1, ..., : int(inputs["widths"][row])]


def _among_others(inputs: dict[str, torch.Tensor]) -> tuple[dict[str, torch.Tensor], list[int]]:
    """The same images in another order, with rubbish behind their widths and 37 px more of it; and the order."""
    pixel_values, widths = inputs["pixel_values"], inputs["widths"]
    order = [*range(1, len(widths), 2), *range(0, len(widths), 2)]
    generator = torch.Generator().manual_seed(0)
    padded = torch.randn(*pixel_values.shape[:3], pixel_values.shape[-1] + 37, generator=generator)
    for place, row in enumerate(order):
        padded[place, ..., : int(widths[row])] = _alone(inputs, row)[0]
    return {"pixel_values": padded, "widths": widths[order]}, order


def _assert_equal_scores(scores: torch.Tensor, expected: torch.Tensor) -> None:
    torch.testing.assert_close(scores, expected, atol=1e-5, rtol=0, msg="the score depends on the batch")
    # The scores of random weights are far smaller than 1e-5: compared in proportion, too.
    torch.testing.assert_close(scores.log(), expected.log(), atol=1e-3, rtol=0, msg="the score depends on the batch")


def _random_states() -> tuple[bytes, str, Any]:
    return torch.get_rng_state().numpy().tobytes(), str(np.random.get_state()), random.getstate()


CONTRACTS = (
    padding_changes_no_logit,
    text_and_score_are_those_of_the_image_alone,
    eval_mode_is_deterministic,
    training_differs_by_dropout_alone,
    recognize_leaves_mode_random_state_and_weights,
    a_copy_for_reading_reads_the_same,
)
