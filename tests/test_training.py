"""The loop: it logs and saves, a stopped run goes on exactly, a crash while saving costs nothing."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw, ImageFont

from hf_ocr.checkpointing import list_checkpoints, save_checkpoint
from hf_ocr.data.batches import LineChunks, Source
from hf_ocr.evaluation import evaluate
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.training import TrainingConfig, train

WORDS = ["cat", "hello", "noon", "label", "1024", "tree", "off", "zone"]


def rendered(text):
    image = Image.new("L", (14 * len(text) + 20, 32), 255)
    ImageDraw.Draw(image).text((8, 4), text, fill=0, font=ImageFont.load_default(22))
    return {"image": image, "text": text}


def shifted(image, generator):
    return Image.fromarray(np.roll(np.asarray(image), int(generator.integers(-3, 4)), axis=1))


def parts():
    processor = TextRecognitionProcessor(
        image_processor=TextLineImageProcessor(height=32),
        tokenizer=CharacterTokenizer.from_alphabet(sorted(set("".join(WORDS)))),
    )
    torch.manual_seed(0)
    config = CrnnConfig.small(
        vocab_size=len(processor.tokenizer), image_height=32, conv_channels=[8, 16, 16, 16, 24, 24, 32, 32],
        lstm_hidden_size=32,
    )  # fmt: skip
    rows = [rendered(word) for word in WORDS]
    chunks = LineChunks([Source(rows, augment=shifted)], processor, lines_per_chunk=16, batches_per_chunk=2)
    return CrnnForTextRecognition(config), processor, chunks, rows


def settings(folder, **kwargs):
    values = {"output_dir": str(folder), "max_steps": 12, "eval_steps": 1000, "save_steps": 4, "average_decay": 0.9}
    return TrainingConfig(**(values | kwargs))


def test_it_logs_what_the_average_reads_and_saves_it(tmp_path):
    model, processor, chunks, rows = parts()
    measured = []

    def validate(average):
        measured.append(evaluate(average, processor, rows))
        return {"words": measured[-1]}

    average = train(model, processor, chunks, settings(tmp_path, eval_steps=6), validate)
    entries = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in entries] == [6, 12]
    assert [entry["words_cer"] for entry in entries] == [round(r.cer_ignoring_case.value, 4) for r in measured]
    assert entries[-1]["lines"] == 12 * 8
    loaded = CrnnForTextRecognition.from_pretrained(tmp_path / "final")
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), average.parameters(), strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


@pytest.mark.parametrize("stop", [4, 8])
def test_a_stopped_run_goes_on_bit_by_bit(tmp_path, stop):
    whole = train(*parts()[:3], settings(tmp_path / "whole"))

    class StopError(Exception):
        pass

    def interrupt(average):
        raise StopError

    with pytest.raises(StopError):
        train(*parts()[:3], settings(tmp_path / "parts", eval_steps=stop), interrupt)
    torch.manual_seed(99)  # another process would have another random state
    resumed = train(*parts()[:3], settings(tmp_path / "parts"))
    for (name, a), (_, b) in zip(whole.state_dict().items(), resumed.state_dict().items(), strict=True):
        assert torch.equal(a, b), name


def test_a_crash_while_saving_leaves_the_older_checkpoint(tmp_path):
    model, processor, chunks, _ = parts()
    train(model, processor, chunks, settings(tmp_path))
    before = [path.name for path in list_checkpoints(tmp_path)]
    assert before == ["checkpoint-8", "checkpoint-12"]

    class Unwritable:
        def state_dict(self):
            raise OSError("No space left on device")

    optimizer = torch.optim.AdamW(model.parameters())
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(tmp_path, 16, model, model, optimizer, Unwritable(), {})
    assert [path.name for path in list_checkpoints(tmp_path)] == before


class OneBadBatch(LineChunks):
    """Batch 1 of chunk 2 holds NaN."""

    def __getitem__(self, chunk):
        batches = super().__getitem__(chunk)
        if chunk == 2:
            batches[1]["pixel_values"][:, :, :, 5] = float("nan")
        return batches


def test_a_bad_batch_reaches_nothing_and_shifts_no_resume(tmp_path):
    def run(folder, **kwargs):
        model, processor, chunks, _ = parts()
        bad = OneBadBatch(chunks.sources, processor, lines_per_chunk=16, batches_per_chunk=2)
        return train(model, processor, bad, settings(folder, **kwargs))

    whole = run(tmp_path / "whole")
    assert all(tensor.isfinite().all() for tensor in whole.state_dict().values())
    run(tmp_path / "parts", save_steps=8)
    shutil.rmtree(tmp_path / "parts" / "checkpoint-12")
    resumed = run(tmp_path / "parts")
    assert all(torch.equal(a, b) for a, b in zip(whole.parameters(), resumed.parameters(), strict=True))


def test_a_loss_that_is_not_finite_stops_the_run(tmp_path):
    model, processor, chunks, _ = parts()
    with torch.no_grad():
        model.classifier.bias.fill_(float("nan"))
    with pytest.raises(ValueError, match="not finite for 10 batches in a row"):
        train(model, processor, chunks, settings(tmp_path))
