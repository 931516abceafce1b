"""Contract: the package's own training teaches the family, and goes on exactly after an interruption."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from contracts.tiny_configs import tiny_config, tiny_processor
from PIL import Image, ImageDraw, ImageFont

from hf_ocr.data.batches import LineChunks, Source
from hf_ocr.models.reading import read_images
from hf_ocr.training import TrainingConfig, train

WORDS = ["noon", "tee", "10 24", "net", "zoé", "Ten", "41", "0 o"]
STEPS = 600


def eight_words_are_learnt(model_class: Any) -> None:
    """To CER 0, and still in bfloat16."""
    with TemporaryDirectory() as folder:
        average, processor = _trained(model_class, folder, STEPS, STEPS)
    for dtype in (torch.float32, torch.bfloat16):
        texts = [reading.text for reading in read_images(average.to(dtype), processor, _images())]
        assert texts == WORDS, f"after {STEPS} steps the words read as {texts} in {dtype}"


def a_resumed_run_ends_bit_for_bit_the_same(model_class: Any) -> None:
    with TemporaryDirectory() as name:
        whole, parts = Path(name, "whole"), Path(name, "parts")
        expected = _trained(model_class, whole, 9, 5)[0].state_dict()
        shutil.copytree(whole / "checkpoint-5", parts / "checkpoint-5")
        found = _trained(model_class, parts, 9, 5)[0].state_dict()
    different = [name for name, tensor in expected.items() if not torch.equal(found[name], tensor)]
    assert not different, f"resumed, {len(different)} tensors end differently: {', '.join(different[:3])}"


def _trained(model_class: Any, folder: str | Path, steps: int, save_steps: int) -> tuple[torch.nn.Module, Any]:
    processor = tiny_processor(model_class, "".join(sorted(set("".join(WORDS)))))
    rows = [{"image": image, "text": word} for image, word in zip(_images(), WORDS, strict=True)]
    chunks = LineChunks([Source(rows)], processor, lines_per_chunk=len(rows), batches_per_chunk=1)
    config = TrainingConfig(
        str(folder),
        max_steps=steps,
        save_steps=save_steps,
        learning_rate=2e-2,
        weight_decay=0.0,
        average_decay=0.8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = model_class(tiny_config(model_class, len(processor.tokenizer)))
        return train(model, processor, chunks, config), processor


def _images() -> list[Image.Image]:
    font = ImageFont.load_default(24)
    images = []
    for word in WORDS:
        images.append(Image.new("L", (round(font.getlength(word)) + 16, 26), 255))
        ImageDraw.Draw(images[-1]).text((8, -3), word, fill=0, font=font)
    return images


CONTRACTS = (eight_words_are_learnt, a_resumed_run_ends_bit_for_bit_the_same)
