import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoImageProcessor, AutoProcessor, AutoTokenizer, PreTrainedConfig

from hf_ocr.models.image_loading import ImageError
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer


class LineConfig(PreTrainedConfig):
    model_type = "line-of-a-test"


AutoTokenizer.register(LineConfig, tokenizer_class=CharacterTokenizer, exist_ok=True)
AutoImageProcessor.register(LineConfig, image_processor_classes={"pil": TextLineImageProcessor}, exist_ok=True)
AutoProcessor.register(LineConfig, TextRecognitionProcessor, exist_ok=True)


@pytest.fixture
def processor() -> TextRecognitionProcessor:
    return TextRecognitionProcessor(
        TextLineImageProcessor(height=24, min_width=40), CharacterTokenizer.from_alphabet(" abc")
    )


def lines(*widths: int) -> list[Image.Image]:
    return [Image.effect_noise((width, 24), 50) for width in widths]


@pytest.mark.parametrize("kind", ["pt", "np", None])
def test_images_and_texts_make_one_batch(processor: TextRecognitionProcessor, kind: str | None) -> None:
    batch = processor(images=lines(90, 50), text=["a", "b ca"], return_tensors=kind)
    assert list(batch) == ["pixel_values", "widths", "labels"] == processor.model_input_names
    assert tuple(batch["pixel_values"].shape) == (2, 1, 24, 90)
    assert batch["widths"].tolist() == [90, 50]
    assert batch["labels"].tolist() == [[2, -100, -100, -100], [3, 1, 4, 2]]
    array = torch.Tensor if kind == "pt" else np.ndarray
    assert all(isinstance(value, array) for value in batch.values())
    assert str(batch["labels"].dtype).endswith("int64")


def test_images_alone_texts_alone_and_single_ones(processor: TextRecognitionProcessor) -> None:
    assert list(processor(lines(60), return_tensors="pt")) == ["pixel_values", "widths"]
    assert list(processor(text=["a"], return_tensors="pt")) == ["labels"]
    single = processor(lines(60)[0], "ab", return_tensors="pt")
    assert single["pixel_values"].shape == (1, 1, 24, 60)
    assert single["labels"].tolist() == [[2, 3]]


def test_empty_texts_and_empty_lists(processor: TextRecognitionProcessor) -> None:
    assert processor(text=["", "a"], return_tensors="pt")["labels"].tolist() == [[-100], [2]]
    assert processor(text="", return_tensors="pt")["labels"].shape == (1, 0)
    nothing = processor(images=[], text=[], return_tensors="pt")
    assert nothing["pixel_values"].shape == (0, 1, 24, 40)
    assert nothing["labels"].shape == (0, 0)


def test_what_does_not_fit_together_is_refused(processor: TextRecognitionProcessor) -> None:
    with pytest.raises(ValueError, match="2 images and 1 texts"):
        processor(lines(50, 60), ["a"])
    with pytest.raises(ValueError, match="neither images nor text"):
        processor()
    with pytest.raises(ValueError, match=r"'z' \(U\+007A\) of the text 'az'"):
        processor(text=["a", "az"])
    with pytest.raises(ImageError, match="image 1 of 2"):
        processor([*lines(50), Image.new("L", (1, 1))])


def test_labels_and_recognized_ids_decode_to_texts(processor: TextRecognitionProcessor) -> None:
    texts = ["aab", "", " c "]
    labels = processor(text=texts, return_tensors="pt")["labels"]
    assert processor.batch_decode(labels) == texts
    assert processor.batch_decode(labels.clamp(min=0)) == texts
    assert processor.batch_decode(labels.tolist()) == texts
    assert processor.batch_decode(labels.numpy()) == texts
    assert [processor.decode(row) for row in labels] == texts
    assert processor.batch_decode(torch.zeros(2, 0, dtype=torch.int64)) == ["", ""]
    assert processor.batch_decode(torch.zeros(0, 3, dtype=torch.int64)) == []


def test_labels_of_a_decoder_end_with_its_end_token() -> None:
    tokenizer = CharacterTokenizer.from_alphabet("ab", bos_token="<s>", eos_token="</s>")
    processor = TextRecognitionProcessor(TextLineImageProcessor(), tokenizer)
    labels = processor(text=["a", "ba"], return_tensors="pt")["labels"]
    assert labels.tolist() == [[3, 2, -100], [4, 3, 2]]
    assert processor.batch_decode(labels) == ["a", "ba"]


@pytest.mark.parametrize("load", [TextRecognitionProcessor.from_pretrained, AutoProcessor.from_pretrained])
def test_saving_and_loading_changes_nothing(
    processor: TextRecognitionProcessor, tmp_path: Path, load: Callable[[Path], TextRecognitionProcessor]
) -> None:
    files = processor.save_pretrained(tmp_path / "one")
    assert {Path(file).name for file in files} == {"processor_config.json", "preprocessor_config.json"}
    loaded = load(tmp_path / "one")
    assert type(loaded) is TextRecognitionProcessor
    loaded.save_pretrained(tmp_path / "two")
    for file in (tmp_path / "one").iterdir():
        assert file.read_text("utf-8") == (tmp_path / "two" / file.name).read_text("utf-8")
    images = lines(50, 70)
    want, got = (each(images, ["a b", "c"], return_tensors="np") for each in (processor, loaded))
    assert all(np.array_equal(got[name], want[name]) for name in want)


def test_the_image_processor_reads_from_its_own_file_too(processor: TextRecognitionProcessor, tmp_path: Path) -> None:
    processor.save_pretrained(tmp_path)
    settings = json.loads((tmp_path / "preprocessor_config.json").read_text())
    assert (settings["image_processor_type"], settings["height"]) == ("TextLineImageProcessor", 24)
    (tmp_path / "processor_config.json").unlink()
    loaded = AutoImageProcessor.from_pretrained(tmp_path)
    assert loaded.to_dict() == processor.image_processor.to_dict()
