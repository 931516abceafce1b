"""One tiny configuration per family, and the model, processor and lines that the contracts take.

A new family adds one entry to `TINY_CONFIGS`: below 50,000 parameters, with dropout, and otherwise as in real use.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from PIL import Image
from tiny_recognizer import lines
from torch import nn

from hf_ocr.models.configuration_attention_ocr import AttentionOcrConfig
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.configuration_parseq import ParseqConfig
from hf_ocr.models.configuration_pp_ocr import PpOcrConfig
from hf_ocr.models.configuration_vision_text import VisionTextConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer

ALPHABET = "abcdefgh 01é€"
FEW = 3  # symbols of an alphabet whose texts can be enumerated


def _crnn(vocab_size: int) -> CrnnConfig:
    return CrnnConfig.small(
        vocab_size=vocab_size,
        image_height=32,
        conv_channels=[8, 8, 16, 16, 24, 24, 24, 24],
        lstm_hidden_size=24,
        dropout=0.02,
    )


def _pp_ocr(vocab_size: int) -> PpOcrConfig:
    return PpOcrConfig(
        vocab_size=vocab_size,
        stem_channels=[8, 16],
        stages=[
            [[3, 16, 16, 1, True]],
            [[3, 16, 16, 1, False]],
            [[3, 16, 24, [2, 1], False], [3, 24, 24, 1, True]],
            [[3, 24, 32, [2, 1], False]],
        ],
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        dropout=0.02,
    )


def _attention_ocr(vocab_size: int) -> AttentionOcrConfig:
    return AttentionOcrConfig.small(
        vocab_size=vocab_size,
        image_height=32,
        conv_channels=[8, 8, 16, 16, 24, 24, 24, 24],
        lstm_hidden_size=16,
        decoder_hidden_size=24,
        attention_size=16,
        num_attention_heads=2,
        location_kernel=5,
        location_channels=4,
        dropout=0.02,
    )


def _vision_text(vocab_size: int) -> VisionTextConfig:
    return VisionTextConfig.small(
        vocab_size=vocab_size,
        image_height=32,
        stem_channels=[8, 8, 16, 16, 24, 24, 24],
        hidden_size=24,
        num_attention_heads=2,
        intermediate_size=32,
        encoder_layers=1,
        decoder_layers=1,
        dropout=0.02,
    )


def _parseq(vocab_size: int) -> ParseqConfig:
    return ParseqConfig.tiny(
        vocab_size=vocab_size,
        hidden_size=32,
        encoder_layers=1,
        num_attention_heads=2,
        decoder_attention_heads=2,
        mlp_ratio=2,
        initializer_range=0.2,
        max_label_length=12 if vocab_size > FEW else 5,
        dropout=0.02,
    )


TINY_CONFIGS: dict[str, Callable[[int], Any]] = {
    "CrnnForTextRecognition": _crnn,
    "PpOcrForTextRecognition": _pp_ocr,
    "AttentionOcrForTextRecognition": _attention_ocr,
    "VisionTextForTextRecognition": _vision_text,
    "ParseqForTextRecognition": _parseq,
}


def tiny_config(model_class: Any, vocab_size: int = len(ALPHABET) + 1) -> Any:
    name = model_class.__name__
    if name not in TINY_CONFIGS:
        raise KeyError(f"{name}: no entry in TINY_CONFIGS of {__file__}. Add one, below 50,000 parameters.")
    return TINY_CONFIGS[name](vocab_size)


def tiny_processor(model_class: Any, alphabet: str = ALPHABET) -> TextRecognitionProcessor:
    config = tiny_config(model_class)
    image_processor = TextLineImageProcessor(height=config.image_height, num_channels=config.num_channels)
    return TextRecognitionProcessor(image_processor, CharacterTokenizer.from_alphabet(alphabet))


def tiny_model(model_class: Any, vocab_size: int = len(ALPHABET) + 1) -> Any:
    """A new model in eval mode, the same at every call: random weights under which every line has its own text."""
    model = model_class(tiny_config(model_class, vocab_size))
    model.load_state_dict(_tiny_state(model_class, vocab_size))
    return model.eval()


def tiny_lines(count: int = 6) -> list[Image.Image]:
    """Short lines of several widths, 64 to about 200 px once they are scaled."""
    return [line.resize((max(40, line.width // 4), 32)) for line in lines(count, seed=1)]


def tiny_batch(model_class: Any, count: int = 6) -> dict[str, torch.Tensor]:
    """pixel_values and widths of `tiny_lines`."""
    return dict(tiny_processor(model_class)(images=tiny_lines(count), return_tensors="pt"))


@lru_cache
def _tiny_state(model_class: Any, vocab_size: int) -> dict[str, torch.Tensor]:
    """Fresh weights give every frame nearly the same logits: they are spread, and the head is standardised, so that
    each symbol wins somewhere. Batch norms have seen the lines."""
    inputs = tiny_batch(model_class, count=12)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(0)
        model = model_class(tiny_config(model_class, vocab_size))
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(2.0)
        model.train()
        for _ in range(20):
            model(**inputs)
        output = model.eval()(**inputs, labels=torch.randint(1, vocab_size, (12, 4)))
        valid = torch.arange(output.logits.shape[1]) < output.logit_lengths[:, None]
        heads = [layer for layer in model.vocabulary_layers() if isinstance(layer, nn.Linear)]
        # The last is that of a decoder. Were its end as likely as a symbol, the best text would be the shortest.
        parts = [(output.logits[valid], 0.5, 0.0), (output.get("decoder_logits"), 1.0, 2.0)]
        if model.can_generate() and len(heads) == 1:
            parts = [(output.logits[valid], 1.0, 1.0)]
        for head, (logits, deviation, lowered) in zip(heads, parts, strict=False):
            logits = logits.flatten(0, -2)
            # Small enough for float32: what the features err by, 1e-7, is multiplied by this gain.
            gain = deviation / logits.std(0)
            head.weight.mul_(gain[:, None])
            head.bias.copy_((head.bias - logits.mean(0)) * gain)
            head.bias[0] -= lowered
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}
