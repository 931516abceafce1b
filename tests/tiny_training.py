"""A tiny run of training: eight rendered words, a small CRNN, settings for a few steps."""

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

from hf_ocr.data.batches import LineChunks, Source
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer
from hf_ocr.training import TrainingConfig

WORDS = ["cat", "hello", "noon", "label", "1024", "tree", "off", "zone"]


def rendered(text):
    image = Image.new("L", (14 * len(text) + 20, 32), 255)
    ImageDraw.Draw(image).text((8, 4), text, fill=0, font=ImageFont.load_default(22))
    return {"image": image, "text": text}


def shifted(image, generator):
    return Image.fromarray(np.roll(np.asarray(image), int(generator.integers(-3, 4)), axis=1))


def untrained(words, conv_channels, lstm_hidden_size):
    """A CRNN with fixed random weights and its processor, for the characters of these words."""
    processor = TextRecognitionProcessor(
        image_processor=TextLineImageProcessor(height=32),
        tokenizer=CharacterTokenizer.from_alphabet(sorted(set("".join(words)))),
    )
    torch.manual_seed(0)
    config = CrnnConfig.small(
        vocab_size=len(processor.tokenizer), image_height=32, conv_channels=conv_channels,
        lstm_hidden_size=lstm_hidden_size,
    )  # fmt: skip
    return CrnnForTextRecognition(config), processor


def parts():
    model, processor = untrained(WORDS, [8, 16, 16, 16, 24, 24, 32, 32], 32)
    rows = [rendered(word) for word in WORDS]
    chunks = LineChunks([Source(rows, augment=shifted)], processor, lines_per_chunk=16, batches_per_chunk=2)
    return model, processor, chunks, rows


def settings(folder, **kwargs):
    values = {"output_dir": str(folder), "max_steps": 12, "eval_steps": 1000, "save_steps": 4, "average_decay": 0.9}
    return TrainingConfig(**(values | kwargs))
