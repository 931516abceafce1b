"""A recognizer with a language model: where the image leaves a doubt the likelier text is read, and nowhere else."""

import json

import pytest
import torch
from tiny_training import rendered, untrained
from transformers import AutoModelForTextRecognition

from hf_ocr.alphabet import resize_alphabet
from hf_ocr.character_ngrams import choose_language_model, fit_language_model
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.ctc import prefix_beam_search, sequence_log_probability
from hf_ocr.models.ctc_reading import _Choice
from hf_ocr.models.modeling_outputs import Recognition, TextRecognitionOutput
from hf_ocr.models.modeling_text_recognition import CheckpointError
from hf_ocr.models.reading import read_images

WORDS = ["cat", "hello", "noon", "a longer line", "tree", "label"]


@pytest.fixture
def parts():
    model, processor = untrained(WORDS, [8, 8, 8, 8, 16, 16, 16, 16], 16)
    model.set_language_model(fit_language_model(processor.tokenizer, [(word, 3.0) for word in WORDS]))
    return model.eval(), processor


def saying(model, processor, monkeypatch, *rows):
    """Have the network say these: for each row, frame by frame, characters with their probabilities."""
    vocab = processor.tokenizer.get_vocab()
    logits = torch.full((len(rows), 9, len(vocab)), -12.0)
    for row, frames in zip(logits, rows, strict=True):
        for place, frame in enumerate(frames):
            for character, probability in frame.items():
                row[2 * place, vocab[character]] = torch.tensor(probability).log()
        row[:, 0][(row[:, 1:] == -12).all(1)] = 0.0
    output = TextRecognitionOutput(logits=logits, logit_lengths=torch.full((len(rows),), 9))
    monkeypatch.setattr(model, "forward", lambda *arguments: output)
    return torch.zeros(len(rows), 1, 32, 64)


CLEAR = [{"c": 0.99, "e": 0.01}, {"a": 0.99}, {"o": 0.99, "t": 0.01}]
PLAIN = [{"c": 0.99}, {"a": 0.6, "e": 0.4}, {"o": 0.99, "t": 0.002}]  # which vowel it is, but no "t"
DOUBTFUL = [{"c": 0.52, "e": 0.48}, {"a": 0.97}, {"o": 0.55, "t": 0.45}]


@pytest.mark.parametrize("settings", [{}, {"num_beams": 8}, {"with_characters": False}], ids=["greedy", "beam", "bare"])
@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_it_decides_where_the_image_leaves_a_doubt(parts, monkeypatch, settings, temperature):
    model, processor = parts
    model.config.temperature = temperature
    images = saying(model, processor, monkeypatch, CLEAR, DOUBTFUL, [])
    read = model.recognize(images, **settings)
    assert processor.batch_decode(read.sequences) == ["cao", "cat", ""]
    raw = read.scores if read.raw_scores is None else read.raw_scores
    assert raw.tolist() == pytest.approx([0.97, 0.52 * 0.97 * 0.45 / (0.97 + 3e-5), 1.0], abs=0.02)
    assert (read.character_scores is None) == (settings == {"with_characters": False})
    if read.character_scores is not None:
        assert (read.character_spans[1, :3, 0].diff() > 0).all()
    expected = model.language_model(read.sequences[1:2, :3]) + model.config.language_model_bonus * 4
    torch.testing.assert_close(read.fluency[1:2], model.config.language_model_weight * expected)
    assert read.fluency[0] == read.fluency[2] == 0  # of these it was not asked
    model.set_language_model(None)
    read = model.recognize(images, **settings)
    assert processor.batch_decode(read.sequences) == ["cao", "cao", ""]
    assert read.fluency is None


def test_where_the_image_shows_nothing_it_is_not_asked(parts, monkeypatch):
    """However much more it likes a word."""
    model, processor = parts
    model.config.language_model_bonus = 5.0
    images = saying(model, processor, monkeypatch, [{}, {"a": 0.4}])
    model.forward().logits[0, 2, 0] = torch.tensor(0.6).log()
    read = model.recognize(images)
    assert processor.batch_decode(read.sequences) == [""]
    assert read.scores.tolist() == read.raw_scores.tolist() == [pytest.approx(0.6, abs=0.01)]


@pytest.mark.parametrize(("num_beams", "found"), [(1, 4), (2, 2), (16, 4)])
def test_the_score_is_what_image_and_language_model_make_of_it(parts, monkeypatch, num_beams, found):
    """What the image gives to the texts that were found, shared out as both see them."""
    model, processor = parts
    read = model.recognize(saying(model, processor, monkeypatch, DOUBTFUL, CLEAR), num_beams=num_beams)
    by_image = {f"{a}a{b}": p * q for a, p in (("c", 0.52), ("e", 0.48)) for b, q in (("o", 0.55), ("t", 0.45))}
    texts = sorted(by_image, key=by_image.__getitem__, reverse=True)[:found]
    ids = torch.stack([torch.tensor(processor.tokenizer(text).input_ids) for text in texts])
    fluency = model.config.language_model_weight * model.language_model(ids)  # all are of one length
    image = torch.tensor([by_image[text] for text in texts])
    by_both = (image.log() + fluency).softmax(0) * image.sum()
    chosen = texts[int(by_both.argmax())]
    assert processor.batch_decode(read.sequences)[0] == chosen and (chosen == "cat") == (found == 4)
    assert read.scores[0] == pytest.approx(float(by_both.max()), abs=0.02)
    assert read.raw_scores[0] == pytest.approx(by_image[chosen], abs=0.02)
    assert read.scores[1] == read.raw_scores[1]  # it was not asked
    torch.testing.assert_close((read.character_scores + (read.sequences == 0)).prod(1), read.scores)
    assert (read.character_scores[read.sequences == 0] == 0).all()


@pytest.mark.parametrize("num_beams", [1, 8])
@pytest.mark.parametrize(("seen", "other"), ["t ", " t"])
def test_which_signs_there_are_the_image_says(parts, monkeypatch, num_beams, seen, other):
    """A space is one of them; texts with others are not compared, and are none of those that share the score."""
    model, processor = parts
    model.config.language_model_weight = 2.0
    frames = [{"c": 0.99}, {"a": 0.99}, {seen: 0.45, other: 0.35, "e": 0.2}, {"e": 0.99}]
    read = model.recognize(saying(model, processor, monkeypatch, frames), num_beams=num_beams)
    texts = [f"ca{seen}e"] if seen == " " else ["cate", "caee"]
    assert processor.batch_decode(read.sequences) == texts[:1]
    share = sum({"t": 0.45, " ": 0.45, "e": 0.2}[text[2]] for text in texts)
    assert share - 0.08 < read.scores[0] <= share


def test_behind_a_certain_text_stands_no_score():
    read = Recognition(torch.tensor([[1, 0]]), torch.tensor([0.5]), torch.tensor([[0.5, 0.0]]))
    scored = _Choice(read.sequences, torch.zeros(1), torch.zeros(1)).scored(read)
    assert scored.scores.tolist() == [1.0] and scored.character_scores.tolist() == [[1.0, 0.0]]


def test_what_is_not_allowed_is_not_chosen_and_a_lexicon_decides_alone(parts, monkeypatch):
    model, processor = parts
    vocab = processor.tokenizer.get_vocab()
    images = saying(model, processor, monkeypatch, DOUBTFUL)
    assert processor.batch_decode(model.recognize(images, allowed_ids=[vocab[c] for c in "cao"]).sequences) == ["cao"]
    lexicon = torch.tensor([[vocab[c] for c in "cao"], [vocab[c] for c in "eat"]])
    assert processor.batch_decode(model.recognize(images, lexicon=lexicon).sequences) == ["cao"]


def test_what_the_image_shows_is_read(parts, monkeypatch):
    model, processor = parts
    assert processor.batch_decode(model.recognize(saying(model, processor, monkeypatch, PLAIN)).sequences) == ["cao"]


def test_it_is_asked_of_texts_that_are_less_than_certain(parts, monkeypatch):
    model, processor = parts
    rows = [[{"c": probability, "e": 1 - probability}, {"a": 0.999}] for probability in (0.93, 0.89, 0.75)]
    read = model.recognize(saying(model, processor, monkeypatch, *rows))
    assert (read.fluency != 0).tolist() == [False, True, True]


def test_weight_and_bonus_are_the_configurations(parts, monkeypatch):
    model, processor = parts
    images = saying(model, processor, monkeypatch, DOUBTFUL)
    model.config.language_model_weight = 0.0
    assert processor.batch_decode(model.recognize(images).sequences) == ["cao"]
    model.config.language_model_weight, model.config.language_model_bonus = 0.5, 50.0
    assert len(processor.batch_decode(model.recognize(images).sequences)[0]) > 3


def test_readings_are_chosen_by_both_and_do_not_depend_on_the_batch(parts):
    model, processor = parts
    images = [rendered(word)["image"] for word in WORDS * 3]
    images[4] = images[4].rotate(90, expand=True)
    alone = [read_images(model, processor, [image], batch_size=1)[0] for image in images]
    for batch_size in (2, 7, 64):
        assert read_images(model, processor, images, batch_size=batch_size) == alone
    without = model.language_model
    model.set_language_model(None)
    assert [reading.text for reading in read_images(model, processor, images)] != [reading.text for reading in alone]
    model.set_language_model(without)


def test_the_better_turn_is_that_which_both_find_better(parts, monkeypatch):
    model, processor = parts
    vocab = processor.tokenizer.get_vocab()

    def recognize(pixel_values, widths, **settings):
        """The image shows "cao" upright, which is narrow, a little better than "cat" turned."""
        said = [("cao", 0.85, -0.3) if width == 64 else ("cat", 0.83, 0.3) for width in widths.tolist()]
        return Recognition(
            sequences=torch.tensor([[vocab[c] for c in text] for text, _, _ in said]),
            scores=torch.tensor([score for _, score, _ in said]),
            fluency=torch.tensor([nats for _, _, nats in said]) if model.language_model is not None else None,
        )

    monkeypatch.setattr(model, "recognize", recognize)
    tall = rendered("cat hello")["image"].rotate(90, expand=True)
    assert read_images(model, processor, [tall])[0].text == "cat"
    model.set_language_model(None)
    assert read_images(model, processor, [tall])[0].text == "cao"


def test_it_is_saved_with_the_weights_whatever_their_dtype(parts, tmp_path):
    model, _ = parts
    texts = torch.tensor([[1, 2, 3, 0], [4, 4, 0, 0]])
    expected = model.language_model(texts)
    for dtype in (torch.float32, torch.float16):
        model.to(dtype).save_pretrained(tmp_path / str(dtype))
        for loaded_as in (torch.float32, torch.bfloat16):
            loaded = AutoModelForTextRecognition.from_pretrained(tmp_path / str(dtype), dtype=loaded_as)
            assert loaded.language_model.order == 6
            assert torch.equal(loaded.language_model(texts), expected)


def test_one_of_the_texts_learnt_is_kept_where_it_helps(parts, monkeypatch):
    model, processor = parts
    images = saying(model, processor, monkeypatch, DOUBTFUL)
    for printed, kept in (("cat", True), ("cao", False)):

        def error_rate(model, printed=printed):
            return float(processor.batch_decode(model.recognize(images).sequences) != [printed])

        assert choose_language_model(model, processor.tokenizer, WORDS, error_rate) == kept
        assert (model.language_model is not None) == (model.config.language_model_size is not None) == kept
        assert error_rate(model) == 0


def test_an_alphabet_that_changes_takes_it_away(parts):
    model, processor = parts
    resize_alphabet(model, processor.tokenizer, ["é"])
    assert model.language_model is None and model.config.language_model_size is None


def test_one_of_another_alphabet_is_refused(parts):
    model, _ = parts
    _, other = untrained(["xyz"], [8] * 8, 16)
    with pytest.raises(ValueError, match="has 4 symbols, the recognizer"):
        model.set_language_model(fit_language_model(other.tokenizer, [("xyz", 1.0)]))
    with pytest.raises(ValueError, match="language_model_size"):
        CrnnConfig(language_model_size=0)
    with pytest.raises(ValueError, match="language_model_weight"):
        CrnnConfig(language_model_weight=-1)


def test_tables_that_are_not_what_the_configuration_says_are_refused(parts, tmp_path):
    model, _ = parts
    model.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(settings | {"language_model_order": 3}))
    with pytest.raises(CheckpointError, match="a language model of order 3, the weights have 6"):
        AutoModelForTextRecognition.from_pretrained(tmp_path)
    model.set_language_model(None)
    model.save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="a language model of order 6, the weights have none"):
        AutoModelForTextRecognition.from_pretrained(tmp_path)


def test_one_that_does_not_fit_a_new_head_is_left_out(parts, tmp_path):
    model, _ = parts
    model.save_pretrained(tmp_path)
    load = AutoModelForTextRecognition.from_pretrained
    other = load(tmp_path, vocab_size=50, ignore_mismatched_sizes=True)
    assert other.language_model is None and other.config.language_model_size is None
    loaded, info = load(tmp_path, output_loading_info=True)
    assert loaded.language_model is not None and not info["missing_keys"]


def test_beams_of_improbable_lines_are_chosen_by_both(parts):
    """220 frames of noise: in float32 the probability of every text is 0."""
    model, _ = parts
    logits = 0.3 * torch.randn(1, 220, model.config.vocab_size, generator=torch.Generator().manual_seed(0))
    lengths = torch.tensor([220])
    beams = prefix_beam_search(logits, lengths, 10, num_return_sequences=10, with_characters=False)
    assert not beams.scores.any()
    log_probs = sequence_log_probability(logits.repeat(10, 1, 1), lengths.repeat(10), beams.sequences)
    characters = 1 + (beams.sequences != 0).sum(1)
    added = model.config.language_model_weight * (
        model.language_model(beams.sequences) + model.config.language_model_bonus * characters
    )
    best = int((log_probs + added).argmax())
    assert best > 0
    model.forward = lambda *arguments: TextRecognitionOutput(logits=logits, logit_lengths=lengths)
    read = model.recognize(torch.zeros(1, 1, 32, 880), num_beams=10, with_characters=False)
    text = beams.sequences[best]
    assert read.sequences[0].tolist() == text[text != 0].tolist()


def test_no_weight_is_too_much(parts):
    model, processor = parts
    model.config.language_model_weight, model.config.language_model_bonus = 10.0, 100.0
    assert len(read_images(model, processor, [rendered("noon")["image"]])) == 1


def test_its_precision_is_that_of_float32(parts):
    model, _ = parts
    texts = torch.tensor([[1, 2, 3]])
    expected = model.language_model(texts)
    torch.set_default_dtype(torch.bfloat16)
    try:
        assert torch.equal(model.language_model(texts), expected)
    finally:
        torch.set_default_dtype(torch.float32)
