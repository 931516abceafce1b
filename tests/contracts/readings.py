"""Contract: texts to ids and back, and what `recognize` may read."""

import itertools
from typing import Any

import torch
from contracts.persistence import saved
from contracts.tiny_configs import ALPHABET, FEW, tiny_batch, tiny_lines, tiny_model, tiny_processor
from transformers import pipeline

WORDS = ["abba", "b€e", "0 1", "é"]


def encoding_and_decoding_is_the_identity(model_class: Any) -> None:
    processor = tiny_processor(model_class)
    texts = [*ALPHABET, ALPHABET, ALPHABET[::-1], "aa bb  ", " ", ""]
    labels = processor(text=texts, return_tensors="pt")["labels"]
    assert processor.batch_decode(labels) == texts, "decoding labels does not give their texts back"
    ids = labels.masked_fill(labels == -100, 0)
    assert processor.batch_decode(ids) == texts, "decoding padded ids does not give their texts back"
    for text, row in zip(texts, ids, strict=True):
        assert processor.decode(row) == text, f"decoding the ids of {text!r} alone gives something else"
        assert int((row != 0).sum()) == len(text), f"{text!r} has other than one id a character"


def blank_and_padding_never_appear(model_class: Any) -> None:
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    inputs = tiny_batch(model_class)
    for name, settings in {
        "greedy": {},
        "beams": {"num_beams": 4},
        "lexicon": {"lexicon": _ids(processor, WORDS)},
        "allowed": {"allowed_ids": _ids(processor, ["abc"])[0].tolist()},
    }.items():
        result = model.recognize(**inputs, **settings)
        sequences = result.sequences
        assert sequences.dtype == torch.int64, f"{name}: sequences are {sequences.dtype}"
        assert ((sequences >= 0) & (sequences < model.config.vocab_size)).all(), f"{name}: ids outside the alphabet"
        lengths = (sequences != 0).sum(-1)
        behind = torch.arange(sequences.shape[1]) >= lengths[:, None]
        assert (sequences[behind] == 0).all(), f"{name}: a blank inside a text"
        texts = processor.batch_decode(sequences)
        assert [len(text) for text in texts] == lengths.tolist(), f"{name}: texts of other lengths than their ids"
        assert set("".join(texts)) <= set(ALPHABET), f"{name}: characters outside the alphabet"
        assert any(texts), f"{name}: nothing was read"
        assert ((result.scores >= 0) & (result.scores <= 1)).all(), f"{name}: scores are no probabilities"
        assert result.character_scores.shape == sequences.shape, f"{name}: shape of character_scores"
        assert not result.character_scores[behind].any(), f"{name}: scores of padding"
        if result.character_spans is not None:
            spans = result.character_spans
            assert spans.shape == (*sequences.shape, 2), f"{name}: shape of character_spans"
            assert not spans[behind].any(), f"{name}: spans of padding"
            inside = (
                (spans[..., 0] >= 0) & (spans[..., 0] < spans[..., 1]) & (spans[..., 1] <= inputs["widths"][:, None])
            )
            assert inside[~behind].all(), f"{name}: a span outside its image"


def lexicon_and_allowed_ids_restrict(model_class: Any) -> None:
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    inputs = tiny_batch(model_class)
    found = model.recognize(**inputs, lexicon=_ids(processor, WORDS))
    texts = processor.batch_decode(found.sequences)
    assert set(texts) <= set(WORDS), f"{texts} is not in the lexicon {WORDS}"
    scores = torch.stack([model.recognize(**inputs, lexicon=_ids(processor, [word])).scores for word in WORDS])
    best = [WORDS[index] for index in scores.argmax(0).tolist()]
    assert texts == best, f"{texts} is not the best of the lexicon, {best}"
    torch.testing.assert_close(found.scores, scores.amax(0), msg="the score of a word depends on the lexicon")
    for num_beams in (1, 4):
        allowed = _ids(processor, ["ab 0"])[0].tolist()
        texts = processor.batch_decode(model.recognize(**inputs, allowed_ids=allowed, num_beams=num_beams).sequences)
        assert set("".join(texts)) <= set("ab 0"), f"{num_beams} beams: {texts} has characters that are not allowed"


def characters_multiply_to_the_text(model_class: Any) -> None:
    """A character's score is given those before it, and the last one's says that nothing follows."""
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    for settings in ({}, {"num_beams": 4}, {"lexicon": _ids(processor, WORDS)}):
        for temperature in (1.0, 0.5):
            model.config.temperature = temperature
            result = model.recognize(**tiny_batch(model_class), **settings)
            product = result.character_scores.masked_fill(result.sequences == 0, 1.0).double().prod(1)
            read = (result.sequences != 0).any(1)
            assert read.any(), "nothing was read"
            torch.testing.assert_close(
                product[read].log(), result.scores[read].double().log(), atol=1e-3, rtol=1e-4,
                msg="the scores of the characters do not multiply to that of the text",
            )  # fmt: skip


def temperature_changes_scores_alone(model_class: Any) -> None:
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    inputs = tiny_batch(model_class)
    for settings in ({}, {"num_beams": 4}, {"lexicon": _ids(processor, WORDS)}):
        model.config.temperature = 1.0
        plain = model.recognize(**inputs, **settings)
        assert plain.raw_scores is None or torch.equal(plain.raw_scores, plain.scores), "other scores without need"
        model.config.temperature = 0.25
        sure = model.recognize(**inputs, **settings)
        assert torch.equal(sure.sequences, plain.sequences), "the temperature changes the text"
        assert sure.raw_scores is not None, "no scores at temperature 1 beside those at another"
        torch.testing.assert_close(sure.raw_scores, plain.scores, msg="the raw scores are not those at temperature 1")
        if "num_beams" in settings:  # what greedy reading finds and then mends may be less probable
            assert sure.scores.mean() > plain.scores.mean(), "a low temperature does not raise the scores"
    with saved(model, processor) as folder:
        again = model_class.from_pretrained(folder)
    assert again.config.temperature == 0.25, f"the temperature is loaded as {again.config.temperature}"


def one_beam_is_greedy(model_class: Any) -> None:
    """The best symbol of every frame, repeats collapsed, id 0 dropped; of a decoder, the best symbol of every step.

    Of a decoder that reads its own text once more: before it does so.
    """
    model = tiny_model(model_class)
    if hasattr(model.config, "num_refinements"):
        model.config.num_refinements = 0
    inputs = tiny_batch(model_class)
    with torch.no_grad():
        output = model(**inputs)
    lengths = most_symbols(model, output).tolist()
    if model.can_generate():
        generated = model.generate(**inputs, max_new_tokens=max(lengths) + 1)[:, 1:].tolist()
        # Behind as many symbols as an image can have, a text ends in any case.
        expected = [
            tuple(itertools.takewhile(bool, row))[:length] for row, length in zip(generated, lengths, strict=True)
        ]
    else:
        best = output.logits.argmax(-1).tolist()
        expected = [_collapsed(row[:length]) for row, length in zip(best, lengths, strict=True)]
    for settings in ({}, {"num_beams": 1}):
        texts = _texts(model.recognize(**inputs, **settings).sequences)
        assert texts == expected, "one beam does not read the best path"


def a_wide_beam_reads_the_most_probable_text(model_class: Any) -> None:
    """Against the enumeration of all paths, or of all texts of a decoder, with few symbols and few frames."""
    model = tiny_model(model_class, vocab_size=FEW)
    config = model.config
    generator = torch.Generator().manual_seed(0)
    pixel_values = torch.rand(96, config.num_channels, config.image_height, 20, generator=generator) * 2 - 1
    widths = torch.tensor([20, 17, 16, 12] * 24)
    with torch.no_grad():
        output = model(pixel_values, widths)
        frames = output.logits.shape[1]
        assert frames <= 6, "too many frames to enumerate their paths"
        probabilities = (_of_texts if model.can_generate() else _of_paths)(model, pixel_values, widths)
    found = model.recognize(pixel_values, widths, num_beams=FEW**frames)
    greedy = _texts(model.recognize(pixel_values, widths).sequences)
    best_paths = 0
    for row, texts in enumerate(probabilities):
        best = max(texts, key=texts.__getitem__)
        assert _texts(found.sequences[row : row + 1])[0] == best, f"row {row}: a wide beam misses the best text"
        assert abs(float(found.scores[row]) - texts[best]) < 1e-5, f"row {row}: the score is no probability of the text"
        best_paths += best == greedy[row]
    assert best_paths < len(widths), "the lines tell nothing: the best path is always the best text"


def most_symbols(model: Any, output: Any) -> torch.Tensor:
    """Of the text of each image: as many as it has frames, or as the model has places for."""
    most = getattr(model.config, "max_label_length", None)
    return output.logit_lengths if most is None else torch.full_like(output.logit_lengths, most)


def _of_paths(model: Any, pixel_values: torch.Tensor, widths: torch.Tensor) -> list[dict[tuple[int, ...], float]]:
    """For each image the probability of every text, the sum over its paths."""
    output = model(pixel_values, widths)
    found = []
    for row, length in enumerate(output.logit_lengths.tolist()):
        probabilities = output.logits[row, :length].double().softmax(-1)
        texts: dict[tuple[int, ...], float] = {}
        for path in itertools.product(range(FEW), repeat=length):
            text = _collapsed(path)
            texts[text] = texts.get(text, 0.0) + float(probabilities[range(length), path].prod())
        found.append(texts)
    return found


def _of_texts(model: Any, pixel_values: torch.Tensor, widths: torch.Tensor) -> list[dict[tuple[int, ...], float]]:
    """For each image the probability of every text that it can have, step by step as in `generate`."""
    lengths = most_symbols(model, model(pixel_values, widths))
    found: list[dict[tuple[int, ...], float]] = [{} for _ in lengths]
    beginnings = {(): torch.ones(len(lengths), dtype=torch.float64)}
    while beginnings:
        longer = {}
        for text, probability in beginnings.items():
            given = torch.tensor([[0, *text]]).expand(len(lengths), -1)
            logits = model(pixel_values, widths, decoder_input_ids=given).logits[:, -1]
            steps = logits.double().softmax(-1) * probability[:, None]
            for row in (lengths >= len(text)).nonzero()[:, 0].tolist():
                found[row][text] = float(steps[row, 0])
            if len(text) < int(lengths.max()):
                longer.update({(*text, symbol): steps[:, symbol] for symbol in range(1, FEW)})
        beginnings = longer
    return found


def autocast_reads_too(model_class: Any) -> None:
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    for settings in ({}, {"num_beams": 3}, {"lexicon": _ids(processor, WORDS)}):
        with torch.autocast("cpu", torch.bfloat16):
            result = model.recognize(**tiny_batch(model_class), **settings)
        assert result.scores.dtype == torch.float32 and result.scores.isfinite().all(), "scores under autocast"


def loss_and_score_agree(model_class: Any) -> None:
    """Of texts of one length: -log P(text | image) is the loss times a factor, whatever mean the family states.

    Of a decoder beside a CTC head: without the head's share in either.
    """
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    if hasattr(model.config, "ctc_weight"):
        model.config.ctc_weight = 0.0
    inputs = {name: tensor[:1] for name, tensor in tiny_batch(model_class).items()}
    words = ["abc", "bb0", "€ é", "hah"]
    ids = _ids(processor, words)
    with torch.no_grad():
        losses = torch.stack([model(**inputs, labels=ids[row : row + 1]).loss for row in range(len(words))])
    scores = torch.cat([model.recognize(**inputs, lexicon=ids[row : row + 1]).scores for row in range(len(words))])
    factors = -scores.log() / losses
    torch.testing.assert_close(
        factors, factors[:1].expand_as(factors), atol=0, rtol=1e-4, msg="the loss is not that of what the score is of"
    )


def nothing_in_is_nothing_out(model_class: Any) -> None:
    model, processor = tiny_model(model_class), tiny_processor(model_class)
    empty = processor(images=[], return_tensors="pt")
    for settings in ({}, {"num_beams": 3}, {"lexicon": _ids(processor, WORDS)}):
        result = model.recognize(**empty, **settings)
        assert len(result.sequences) == len(result.scores) == 0, "no images give readings"
    assert processor.batch_decode(result.sequences) == [], "no ids give texts"
    read = pipeline("image-to-text", model=model, processor=processor, device="cpu", dtype=torch.float32)
    assert read([]) == [], "an empty list gives results"
    assert list(read(iter([]))) == [], "an empty iterator gives results"
    for count in (1, 2):
        found = read(tiny_lines(count))
        shape = [list(result[0]) for result in found]
        assert shape == [["generated_text"]] * count, f"{count} images give {found}"


def _ids(processor: Any, texts: list[str]) -> torch.Tensor:
    labels = processor(text=texts, return_tensors="pt")["labels"]
    return labels.masked_fill(labels == -100, 0)


def _collapsed(path: Any) -> tuple[int, ...]:
    return tuple(symbol for symbol, _ in itertools.groupby(path) if symbol != 0)


def _texts(sequences: torch.Tensor) -> list[tuple[int, ...]]:
    return [tuple(symbol for symbol in row if symbol != 0) for row in sequences.tolist()]


CONTRACTS = (
    encoding_and_decoding_is_the_identity,
    blank_and_padding_never_appear,
    lexicon_and_allowed_ids_restrict,
    characters_multiply_to_the_text,
    temperature_changes_scores_alone,
    one_beam_is_greedy,
    a_wide_beam_reads_the_most_probable_text,
    autocast_reads_too,
    loss_and_score_agree,
    nothing_in_is_nothing_out,
)
