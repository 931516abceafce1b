"""The checkpoints inside the package: what they promise, tried as a user does."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont
from transformers import AutoModelForTextRecognition, AutoProcessor, pipeline

import hf_ocr
from hf_ocr.data.lines import read_lines
from hf_ocr.metrics import character_error_rate
from hf_ocr.models.ctc import greedy_search
from hf_ocr.models.ctc_reading import CERTAIN
from hf_ocr.models.line_preparation import grey_values, text_part
from hf_ocr.record import RunRecord, fingerprint
from hf_ocr.registration import default_checkpoint, shipped_checkpoints
from hf_ocr.text import LATIN_ALPHABET

ROOT = Path(__file__).resolve().parent.parent
SAMPLES = ROOT / "tests" / "samples"


@pytest.fixture(scope="module")
def read():
    return pipeline("image-to-text")


each = pytest.mark.parametrize("folder", shipped_checkpoints(), ids=lambda folder: folder.name)


@each
def test_it_is_small_and_in_float16_on_disk_and_float32_in_memory(folder):
    assert sum(file.stat().st_size for file in folder.iterdir()) <= (
        8_000_000 if folder == default_checkpoint() else 16_000_000
    )
    assert not list(folder.glob("*.py"))
    model = AutoModelForTextRecognition.from_pretrained(folder)
    assert model.dtype == torch.float32
    assert sum(parameter.numel() for parameter in model.parameters()) < (
        4_000_000 if folder == default_checkpoint() else 8_000_000
    )


def test_its_alphabet_has_what_european_print_needs(read):
    alphabet = set(read.tokenizer.alphabet)
    assert alphabet == set(LATIN_ALPHABET)
    assert alphabet.issuperset(chr(code) for code in range(0x20, 0x7F))
    letters = (chr(code) for code in range(0xC0, 0x180) if chr(code) not in "×÷")
    assert alphabet.issuperset(letters) and alphabet.issuperset("€“”‘’„‚–—")


@each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_it_reads_the_samples(folder, dtype):
    rows = read_lines(SAMPLES)
    read = pipeline("text-recognition", model=str(folder), dtype=dtype)
    texts = [result[0]["generated_text"] for result in read([row["image"] for row in rows])]
    references = [row["text"] for row in rows]
    assert character_error_rate(texts, references) < 0.05, list(zip(references, texts, strict=True))


@each
@pytest.mark.parametrize("degrees", [-4, 2])
def test_it_reads_the_samples_when_they_are_tilted(folder, degrees):
    rows = read_lines(SAMPLES)
    images = [row["image"].convert("L") for row in rows]
    tilted = [
        image.rotate(degrees, Image.Resampling.BICUBIC, expand=True, fillcolor=int(np.median(np.asarray(image))))
        for image in images
    ]
    texts = [result[0]["generated_text"] for result in pipeline("text-recognition", model=str(folder))(tilted)]
    assert character_error_rate(texts, [row["text"] for row in rows]) < 0.02


def blank(kind: str, seed: int = 0, rows: int = 12) -> Image.Image:
    if kind == "paper":
        grain = np.random.default_rng(seed).normal(225, 5, (rows, 5 * rows))
        return Image.fromarray(grain.clip(0, 255).astype(np.uint8)).resize((300, 40), Image.Resampling.BICUBIC)
    image = Image.new("L", (300, 40), 0 if kind == "black" else 255)
    if kind == "ruled":
        ImageDraw.Draw(image).line((0, 36, 300, 36), fill=120)
    return image


@pytest.mark.parametrize("name", ["attention-ocr-small-latin", "vision-text-small-latin"])
def test_a_decoder_would_change_nothing_of_which_ctc_is_certain(name, monkeypatch):
    read = pipeline("text-recognition", model=hf_ocr.checkpoint(name))
    images = [row["image"] for row in read_lines(SAMPLES)]
    by_ctc: list[bool] = []

    def search(*arguments, **options):
        decoding = greedy_search(*arguments, **options)
        by_ctc.extend((decoding.raw_scores >= CERTAIN).tolist())
        return decoding

    with monkeypatch.context() as patch:
        patch.setattr("hf_ocr.models.ctc_reading.greedy_search", search)
        texts = [result[0]["generated_text"] for result in read(images)]
    assert any(by_ctc) and not all(by_ctc)
    monkeypatch.setattr("hf_ocr.models.ctc_reading.CERTAIN", 2.0)
    assert [result[0]["generated_text"] for result in read(images)] == texts


@each
def test_a_blank_image_reads_as_nothing(folder):
    read = pipeline("text-recognition", model=str(folder))
    for kind in ("white", "black", "paper", "ruled"):
        result = read(blank(kind), return_scores=True)[0]
        assert result["generated_text"] == "", kind
        assert 0 < result["score"] <= 1


@pytest.mark.parametrize("rows", [4, 8, 12, 20])  # blotches of 10, 5, 3 and 2 px
def test_paper_reads_as_nothing_whatever_its_blotches(read, rows):
    texts = [result[0]["generated_text"] for result in read([blank("paper", seed, rows) for seed in range(25)])]
    assert texts.count("") >= 24, texts


@each
@pytest.mark.parametrize("text", ["Train 17 leaves at 09:45", "Invoice"])
def test_empty_ground_before_and_behind_adds_nothing(folder, text):
    """Of a line as high as its image, which the image processor does not cut."""
    font = ImageFont.load_default(28)
    width = round(font.getlength(text))
    images = []
    for left, right in ((5, 5), (40, 5), (5, 40), (120, 5), (5, 120), (200, 200)):
        image = Image.new("L", (left + width + right, 32), 235)
        ImageDraw.Draw(image).text((left, 0), text, fill=30, font=font)
        grain = np.random.default_rng(0).normal(0, 4, (32, image.width))
        images.append(Image.fromarray((np.asarray(image) + grain).clip(0, 255).astype(np.uint8)))
        assert text_part(grey_values(images[-1])) == (0, 0, *image.size)
    read = pipeline("text-recognition", model=str(folder))
    assert [result[0]["generated_text"] for result in read(images)] == [text] * len(images)


def test_a_text_that_is_cut_ends_with_no_space_and_keeps_its_score(read):
    image = SAMPLES / "receipt-2.png"
    (whole,), (cut,) = (
        read(image, max_new_tokens=longest, return_scores=True, return_boxes="char") for longest in (None, 4)
    )
    assert whole["generated_text"].startswith("GST ")
    assert cut["generated_text"] == "".join(character["text"] for character in cut["characters"]) == "GST"
    assert cut["score"] == whole["score"]


def test_the_text_of_an_image_does_not_depend_on_its_batch(read):
    images = [row["image"] for row in read_lines(SAMPLES)]
    alone = [read(image, return_scores=True)[0] for image in images]
    together = [result[0] for result in read(images[::-1], batch_size=5, return_scores=True)][::-1]
    assert [r["generated_text"] for r in alone] == [r["generated_text"] for r in together]
    assert [r["score"] for r in alone] == pytest.approx([r["score"] for r in together], abs=1e-5)


def test_generate_reads_a_whole_line_at_any_temperature(tmp_path):
    folder = hf_ocr.checkpoint("attention-ocr-small-latin")
    model = AutoModelForTextRecognition.from_pretrained(folder, dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(folder)
    inputs = processor(images=hf_ocr.load_image(SAMPLES / "pdf-hours.png"), return_tensors="pt")
    model.config.temperature = 1.7
    model.save_pretrained(tmp_path)
    for loaded in (model, AutoModelForTextRecognition.from_pretrained(tmp_path)):
        assert loaded.generation_config.temperature is None
        (text,) = processor.batch_decode(loaded.generate(**inputs)[:, 1:])
        assert text == processor.batch_decode(loaded.recognize(**inputs).sequences)[0]
        assert len(text) > 40


def test_words_have_boxes_in_the_order_of_reading(read):
    result = read(SAMPLES / "web-library.png", return_boxes="word")[0]
    assert [word["text"] for word in result["words"]] == result["generated_text"].split()
    width, _ = Image.open(SAMPLES / "web-library.png").size
    edges = [edge for word in result["words"] for edge in (word["box"][0], word["box"][2])]
    assert edges == sorted(edges) and edges[0] >= 0 and edges[-1] <= width


@each
def test_record_and_card_belong_to_these_weights(folder):
    record = RunRecord.load(ROOT / "model_cards" / f"{folder.name}.json")
    assert record.weights == (fingerprint(folder / "model.safetensors"),)
    card = (ROOT / "model_cards" / f"{folder.name}.md").read_text(encoding="utf-8")
    for result in record.results:
        assert f"{100 * result.report['figures']['exact']['value']:.2f}" in card


def test_the_readmes_python_runs(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(encoding="utf-8"), flags=re.S)
    assert len(blocks) >= 2
    names: dict[str, object] = {}
    for block in blocks:
        if "openai-community/gpt2" in block:  # from the Hub: test_encoder_decoder.py joins a small one as it does
            continue
        exec(compile(block, "README.md", "exec"), names)
    texts = {row["file_name"]: row["text"] for row in map(json.loads, (SAMPLES / "metadata.jsonl").open())}
    assert names["texts"] == [texts["receipt-2.png"]]
