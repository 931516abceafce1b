"""The reader of an exported network reads what the pipeline reads, and needs neither torch nor the package."""

import json
import os
import shlex
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from subprocess import run

import numpy as np
import pytest
import torch
from contracts.tiny_configs import tiny_model, tiny_processor
from PIL import Image
from tiny_recognizer import lines, tiny_recognizer
from transformers import pipeline

from hf_ocr.character_ngrams import fit_language_model
from hf_ocr.data.lines import read_lines
from hf_ocr.export.onnx_export import export_onnx
from hf_ocr.export.onnx_language_model import LanguageModel
from hf_ocr.export.onnx_reader import LANGUAGE_MODEL, OnnxReader
from hf_ocr.models.ctc import greedy_search, likely_texts
from hf_ocr.models.ctc_reading import CERTAIN, _by_language_model
from hf_ocr.models.image_loading import ImageError
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.line_preparation import grey_values, text_part
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.modeling_pp_ocr import PpOcrForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.reading import read_images
from hf_ocr.models.tokenization_characters import CharacterTokenizer

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SAMPLES = Path(__file__).resolve().parent.parent / "samples"


def tiny_with_language_model():
    model, processor = tiny_recognizer()
    texts = [(text, 1.0) for text in ("da", "bead", "dice 12", "face 350")]
    model.set_language_model(fit_language_model(processor.tokenizer, texts, order=4))
    return model, processor


def tiny_pp_ocr():
    return tiny_model(PpOcrForTextRecognition), tiny_processor(PpOcrForTextRecognition)


@pytest.fixture(scope="module", params=[tiny_recognizer, tiny_with_language_model, tiny_pp_ocr])
def exported(request, tmp_path_factory):
    """Model and processor, and the reader of the folder they were exported to."""
    model, processor = request.param()
    model.config.temperature = 1.5
    folder = export_onnx(model, processor, tmp_path_factory.mktemp("exported"))
    return model, processor, OnnxReader(folder, threads=2)


@pytest.fixture(scope="module")
def shipped(tmp_path_factory):
    """The pipeline with the shipped checkpoint in float32, and the folder it was exported to."""
    read = pipeline("text-recognition", dtype=torch.float32)
    return read, export_onnx(read.model, read.processor, tmp_path_factory.mktemp("shipped"))


def test_it_reads_as_the_pipeline_does(exported):
    """Wide, tall and loose lines, in grey and in colour; a network of random weights doubts them all."""
    model, processor, reader = exported
    images = [*lines(8), *(image.rotate(90, expand=True) for image in lines(4, seed=2)), lines(1)[0].convert("RGB")]
    loose = Image.new("L", (300, 120), 255)
    loose.paste(lines(1)[0].point(lambda value: 0 if value < 128 else 255), (40, 50))
    assert text_part(grey_values(loose)) != (0, 0, 300, 120)
    images.append(loose)
    images += [image.rotate(angle, expand=True, fillcolor=255) for image in lines(4, seed=3) for angle in (-3, 2)]
    want = read_images(model.reading_copy(torch.float32), processor, images)
    got = list(reader.read_many(images))
    assert [reading.text for reading in got] == [reading.text for reading in want]
    assert len({reading.text for reading in got}) > 4
    np.testing.assert_allclose([r.score for r in got], [r.score for r in want], rtol=1e-2, atol=1e-6)
    assert [reader.read(image).text for image in images] == [reading.text for reading in want]
    assert repr(got[0]) == f"Reading(text={got[0].text!r}, error=None)"


def test_padded_lines_and_other_scales_and_filters_are_prepared_as_in_the_pipeline(tmp_path):
    model, processor = tiny_recognizer()
    height = processor.image_processor.height
    image_processor = TextLineImageProcessor(
        height=height, min_width=160, narrow="pad", resample=3, mean=[0.4], std=[0.3]
    )
    processor = TextRecognitionProcessor(image_processor, processor.tokenizer)
    reader = OnnxReader(export_onnx(model, processor, tmp_path), threads=1)
    images = [image.crop((0, 0, min(image.width, 2 * image.height), image.height)) for image in lines(6)]
    want = read_images(model.reading_copy(torch.float32), processor, images)
    got = list(reader.read_many(images))
    assert [reading.text for reading in got] == [reading.text for reading in want]
    np.testing.assert_allclose([r.score for r in got], [r.score for r in want], rtol=1e-2, atol=1e-6)


def test_outer_spaces_are_dropped_as_in_the_pipeline(tmp_path):
    model, processor = tiny_recognizer()
    images = lines(6)
    (first, *_) = read_images(model, processor, images)
    alphabet = "".join(processor.tokenizer.alphabet)
    swapped = alphabet.translate(str.maketrans({first.text[0]: " ", " ": first.text[0]}))
    processor = TextRecognitionProcessor(processor.image_processor, CharacterTokenizer.from_alphabet(swapped))
    want = read_images(model.reading_copy(torch.float32), processor, images)
    assert want[0].text == want[0].text.strip() != ""
    got = list(OnnxReader(export_onnx(model, processor, tmp_path), threads=1).read_many(images))
    assert [reading.text for reading in got] == [reading.text for reading in want]


def test_it_reads_the_samples_as_the_pipeline_does(shipped):
    read, folder = shipped
    images = [row["image"] for row in read_lines(SAMPLES)]
    want = [result[0] for result in read(images, return_scores=True)]
    got = list(OnnxReader(folder).read_many(images))
    assert [reading.text for reading in got] == [result["generated_text"] for result in want]
    np.testing.assert_allclose([reading.score for reading in got], [result["score"] for result in want], atol=1e-4)


def test_only_of_a_doubtful_line_the_tilt_is_looked_for(shipped, monkeypatch):
    looked_at = []
    monkeypatch.setattr("hf_ocr.export.onnx_reader.level_line", looked_at.append)
    reader, image = OnnxReader(shipped[1]), Image.open(SAMPLES / "web-library.png").convert("L")
    reader.read(image)
    assert not looked_at
    reader.read(image.rotate(6, expand=True, fillcolor=255))
    assert len(looked_at) == 1


def test_a_text_that_the_language_model_chose_is_as_doubtful_as_itself_not_as_the_best_path(shipped):
    reader = OnnxReader(shipped[1])
    characters = reader._characters
    logits = np.full((4, len(characters)), -20.0, np.float32)
    for frame, (best, other) in enumerate(("tt", "\0\0", "jh", "ee")):
        logits[frame, 0 if best == "\0" else characters.index(best)] = 0
        if other != best:
            logits[frame, characters.index(other)] = -1.5
    reading = reader._decode(logits)
    assert reading.text == "the" and reading._fluency
    probability = np.exp(-1.5) / (1 + np.exp(-1.5))
    assert reading._quality == pytest.approx(probability ** (1 / 3), abs=1e-3)
    assert reading._is_doubtful(0.7) and not reading._is_doubtful(0.4)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sroie_lines/validation", "iiit5k/train"])
def test_it_reads_a_thousand_real_lines_as_the_pipeline_does(shipped, name):
    file = SAMPLES.parent.parent / "shared" / "data" / f"{name}.parquet"
    if not file.is_file():
        pytest.skip(f"no {file.name} of {file.parent.name} below shared/data")
    read, folder = shipped
    images = [row["image"] for row in read_lines(file).select(range(1000))]
    want = [result[0]["generated_text"] for result in read(images)]
    assert [reading.text for reading in OnnxReader(folder).read_many(images)] == want


def test_the_folder_reads_without_torch(shipped, tmp_path):
    """Moved elsewhere, in a process of its own; as a module and as a command."""
    folder = Path(shutil.copytree(shipped[1], tmp_path / "moved"))
    sample = str(SAMPLES / "web-menu.png")
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    code = f"""
import sys
from onnx_reader import OnnxReader
print(OnnxReader(".").read({sample!r}).text)
assert not {{"torch", "transformers", "hf_ocr"}} & set(sys.modules), sys.modules
"""
    (folder / "try.py").write_text(code, encoding="utf-8")
    want = shipped[0](sample)[0]["generated_text"]
    done = run([sys.executable, "try.py"], cwd=folder, env=environment, capture_output=True, encoding="utf-8")
    assert (done.stdout, done.stderr) == (f"{want}\n", "")
    command = [sys.executable, str(folder / "onnx_reader.py"), sample, "nowhere.png", sample]
    done = run(command, cwd=tmp_path, env=environment, capture_output=True, encoding="utf-8")
    assert done.stdout == f"{sample}\t{want}\n" * 2
    assert "nowhere.png" in done.stderr and "Traceback" not in done.stderr and done.returncode == 1
    assert not want.isascii()
    ascii_only = environment | {"PYTHONIOENCODING": "ascii"}
    done = run([*command[:2], sample], cwd=tmp_path, env=ascii_only, capture_output=True, encoding="utf-8")
    assert (done.stdout, done.stderr) == (f"{sample}\t{want}\n", "")
    done = run([*command[:2], "--threads", "0", sample], env=environment, capture_output=True, encoding="utf-8")
    assert "threads is 0" in done.stderr and "Traceback" not in done.stderr
    piped = f"{shlex.join([*command[:2], *[sample] * 3])} | true"
    done = run(["bash", "-c", piped], env=environment, capture_output=True, encoding="utf-8")
    assert done.stderr == ""


@pytest.mark.parametrize("frames", [1, 2, 7, 300])
def test_text_and_score_are_those_of_the_search_in_torch(exported, monkeypatch, frames):
    reader = exported[2]
    monkeypatch.setattr(reader, "_language_model", None)
    logits = 3 * torch.randn(20, frames, len(reader._characters), generator=torch.Generator().manual_seed(frames))
    logits[::2, ..., 0] += 8  # mostly blank, and the empty text
    logits[1::4, :, 2] += 5  # runs of one character
    want = greedy_search(logits, torch.full((20,), frames), with_characters=False, temperature=1.5)
    for row, sequence, score in zip(logits.numpy(), want.sequences.tolist(), want.scores.tolist(), strict=True):
        reading = reader._decode(row)
        assert reading.text == "".join(reader._characters[symbol] for symbol in sequence).strip()
        assert reading.score == pytest.approx(score, rel=1e-3, abs=1e-30)


@pytest.mark.parametrize("frames", [1, 2, 7, 40])
def test_texts_to_choose_from_and_their_fluency_are_those_of_torch(tmp_path, frames):
    model, processor = tiny_with_language_model()
    ours = LanguageModel.load(export_onnx(model, processor, tmp_path) / LANGUAGE_MODEL)
    logits = 2 * torch.randn(6, frames, model.config.vocab_size, generator=torch.Generator().manual_seed(frames))
    logits[::2, ..., 0] += 4  # mostly blank
    texts, log_probs = likely_texts(logits, torch.full((6,), frames), 5)
    fluency = model.language_model(texts).view(6, 5)
    for row, want, found, scores in zip(logits, texts.view(6, 5, -1), log_probs.view(6, 5), fluency, strict=True):
        got, costs = ours.likely_texts((row - row.max(1, keepdim=True).values).numpy())
        there = found.isfinite()
        assert got[:5] == [tuple(text[text != 0].tolist()) for text in want[there]]
        np.testing.assert_allclose(costs[:5] - costs[0], (found - found[0])[there].numpy(), atol=1e-4)
        np.testing.assert_allclose(ours.score(got[:5]), scores[there].numpy(), atol=1e-3)


@pytest.mark.parametrize("frames", [1, 2, 7, 40])
def test_of_texts_with_the_same_signs_it_chooses_that_of_torch(tmp_path, frames):
    model, processor = tiny_with_language_model()
    ours = LanguageModel.load(export_onnx(model, processor, tmp_path) / LANGUAGE_MODEL)
    logits = 2 * torch.randn(12, frames, model.config.vocab_size, generator=torch.Generator().manual_seed(frames))
    logits[..., processor.tokenizer.get_vocab()[" "]] += 5  # the one sign of this alphabet
    logits[::2, ..., 0] += 6  # mostly blank
    choice = _by_language_model(model, logits, torch.full((12,), frames), 1, None)
    for row, text, fluency, power in zip(logits, choice.texts, choice.fluency, choice.powers, strict=True):
        found = ours.choose(
            (row - row.max(1, keepdim=True).values).numpy(), float(row.log_softmax(1).max(1).values.sum())
        )
        assert found.symbols.tolist() == text[text != 0].tolist()
        assert [found.fluency, found.power] == pytest.approx([float(fluency), float(power)], rel=1e-3, abs=1e-3)


def test_a_certain_text_is_left_to_the_image(tmp_path):
    """P("a") is 0.9, that of its best path half of that."""
    reader = OnnxReader(export_onnx(*tiny_with_language_model(), tmp_path))
    probabilities = np.full((2, len(reader._characters)), 1e-9, np.float32)
    a, d = (reader._characters.index(letter) for letter in "ad")
    probabilities[0, [a, d]] = 0.9, 0.1
    probabilities[1, [0, a]] = 0.5
    chooses = replace(reader._language_model, weight=100.0)
    texts = []
    for certain in (0.7, 0.95):
        reader._language_model = replace(chooses, certain=certain)
        texts.append(reader._decode(np.log(probabilities)).text)
    assert texts[0] == "a" != texts[1]
    assert chooses.certain == CERTAIN


def test_where_the_image_shows_nothing_neither_language_model_nor_another_look_is_asked(tmp_path, monkeypatch):
    reader = OnnxReader(export_onnx(*tiny_with_language_model(), tmp_path))
    probabilities = np.full((1, len(reader._characters)), 1e-9, np.float32)
    probabilities[0, [0, reader._characters.index("a")]] = 0.6, 0.4
    reader._language_model = replace(reader._language_model, weight=1.0, bonus=100.0)
    nothing = reader._decode(np.log(probabilities))
    assert (nothing.text, nothing.score) == ("", pytest.approx(0.6, abs=0.01))
    looks = []
    monkeypatch.setattr(reader, "_recognize", lambda line: looks.append(line) or nothing)
    assert reader.read(lines(1)[0].convert("L")).text == "" and len(looks) == 1


def test_an_export_over_another_leaves_no_language_model_of_that(tmp_path):
    export_onnx(*tiny_with_language_model(), tmp_path)
    assert OnnxReader(tmp_path)._language_model
    export_onnx(*tiny_recognizer(), tmp_path)
    assert not OnnxReader(tmp_path)._language_model and not (tmp_path / LANGUAGE_MODEL).exists()


def test_a_broken_image_stands_in_its_place(exported):
    reader, (good,) = exported[2], lines(1)
    readings = list(reader.read_many([good, b"no image", good, Image.new("L", (2, 2))], on_error="skip"))
    assert readings[0].text == readings[2].text == reader.read(good).text
    assert "bytes object" in readings[1].error and "too small" in readings[3].error and readings[1].score == 0
    with pytest.raises(ImageError, match="bytes object"):
        list(reader.read_many([good, b"no image"]))


def test_what_an_iterator_changes_for_the_next_image_is_read_as_it_was(exported):
    images = lines(4)
    buffer = np.empty((max(image.height for image in images), max(image.width for image in images)), np.uint8)

    def camera():
        for image in images:
            buffer[:] = 255
            buffer[: image.height, : image.width] = np.asarray(image)
            yield buffer

    want = [exported[2].read(pixels.copy()).text for pixels in camera()]
    assert [reading.text for reading in exported[2].read_many(camera())] == want and len(set(want)) == 4


def test_images_are_taken_lazily(exported):
    taken = []

    def source():
        for index, image in enumerate(lines(60)):
            taken.append(index)
            yield image

    readings = exported[2].read_many(source())
    next(readings)
    assert len(taken) < 20
    assert sum(1 for _ in readings) == 59


def test_characters_added_later_are_read(tmp_path):
    processor = tiny_recognizer()[1]
    processor.tokenizer.add_tokens(["€"])
    model = tiny_model(CrnnForTextRecognition, vocab_size=len(processor.tokenizer))
    reader = OnnxReader(export_onnx(model, processor, tmp_path), threads=1)
    assert reader._characters == ["", *processor.tokenizer.alphabet] and reader._characters[-1] == "€"


def test_what_does_not_belong_together_is_refused(shipped, tmp_path):
    with pytest.raises(FileNotFoundError, match="hf-ocr export"):
        OnnxReader(tmp_path)
    with pytest.raises(ValueError, match="threads is 0"):
        OnnxReader(shipped[1], threads=0)
    folder = Path(shutil.copytree(shipped[1], tmp_path / "other"))
    (folder / "vocab.json").write_text(json.dumps({"<pad>": 0, "a": 1}))
    with pytest.raises(ValueError, match=r"2 symbols in vocab.json, 341 outputs"):
        OnnxReader(folder)
