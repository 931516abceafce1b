"""A recognizer small enough for tests: random weights, scaled so that different pixels give different texts."""

import random

import torch
from PIL import Image, ImageDraw

from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer

ALPHABET = "abcdefghij 0123456789"


def tiny_recognizer(seed: int = 0) -> tuple[CrnnForTextRecognition, TextRecognitionProcessor]:
    tokenizer = CharacterTokenizer.from_alphabet(ALPHABET)
    processor = TextRecognitionProcessor(TextLineImageProcessor(height=32), tokenizer)
    config = CrnnConfig.small(
        image_height=32,
        vocab_size=len(tokenizer),
        conv_channels=[4, 4, 8, 8, 8, 8, 16, 16],
        lstm_hidden_size=8,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = CrnnForTextRecognition(config)
        with torch.no_grad():
            model.classifier.weight.normal_(std=20.0)
            for lstm in model.crnn.lstms:
                lstm.forward_lstm.weight_ih_l0.mul_(4.0)
                lstm.backward_lstm.weight_ih_l0.mul_(4.0)
            model.train()  # the batch norms see what they will read
            for _ in range(20):
                model(**processor(images=lines(8, seed=1), return_tensors="pt"))
    return model.eval(), processor


def lines(count: int = 9, seed: int = 0) -> list[Image.Image]:
    """Grey images of many widths and heights with dark strokes in them."""
    draw = random.Random(seed)
    images = []
    for _ in range(count):
        height = draw.randint(16, 60)
        width = draw.randint(height, 14 * height)
        image = Image.new("L", (width, height), 255)
        pen = ImageDraw.Draw(image)
        for _ in range(width // 8):
            x, y = draw.randrange(width), draw.randrange(height)
            pen.line((x, y, x + draw.randint(-9, 9), y + draw.randint(-20, 20)), draw.randrange(120), 3)
        images.append(image)
    return images
