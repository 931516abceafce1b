"""PARSeq checkpoints of baudm/parseq: the released state dicts, and Lightning checkpoints of its trainer.

They are the layers of `ParseqForTextRecognition` under other names. Three things cannot be told by the weights, and are
those of the published networks: 64 units a head in the encoder and 32 in the decoder, images of 128 x 32 px in patches
of 8 x 4 (or of 224 x 224 px in patches of 16 x 16), and one refinement. Images are resized by cubic interpolation, as
there.

The ids there are those of the end, the characters, the start and padding. Here the end is id 0 as an output, and so is
the start as an input: the head keeps its rows, and the embedding has the start's row in the place of the end's, which
is never an input.
"""

from pathlib import Path

import torch
from PIL import Image

from hf_ocr.convert.conversion import (
    PRINTABLE,
    Conversion,
    ConversionError,
    alphabet_of,
    readable_alphabet,
    write_checkpoint,
)
from hf_ocr.convert.torch_weights import SourceWeights, read_tensors
from hf_ocr.models.configuration_parseq import ParseqConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_parseq import ParseqForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor

NETWORK = "PARSeq of baudm/parseq"
HEAD_SIZES = (64, 32)  # units of a head in the encoder, in the decoder
# (height, width) of the published images, by patch (rows, columns) and number of patches.
IMAGES = {(4, 8, 128): (32, 128), (16, 16, 196): (224, 224)}
ENCODER_LAYER = {
    "attention_norm": "norm1",
    "query_key_value": "attn.qkv",
    "output": "attn.proj",
    "feed_forward_norm": "norm2",
    "feed_forward.0": "mlp.fc1",
    "feed_forward.3": "mlp.fc2",
}
DECODER_LAYER = {
    "query_norm": "norm_q",
    "character_norm": "norm_c",
    "self_attention.output": "self_attn.out_proj",
    "cross_attention_norm": "norm1",
    "cross_attention.output": "cross_attn.out_proj",
    "feed_forward_norm": "norm2",
    "feed_forward.0": "linear1",
    "feed_forward.3": "linear2",
}


def convert_parseq(
    source: str | Path,
    folder: str | Path,
    alphabet: str | None = None,
    weights_dtype: torch.dtype | None = None,
) -> Conversion:
    """Write a PARSeq of its authors' code as a checkpoint: model, processor, card.

    Args:
        source: the file of its weights: a state dict or a Lightning checkpoint as `torch.save` writes it, or
            safetensors.
        folder: made if it does not exist; files of the same names are overwritten.
        alphabet: its characters in the order of their ids there; when None, that of as many characters with which the
            published networks were trained.
        weights_dtype: stored type of the weights, as torch.float16 for half the size; float32 when None. The folder
            loads in float32 either way.

    Raises:
        ConversionError: a file that is not this network, or an alphabet of another size.
    """
    source, folder = Path(source), Path(folder)
    model, processor, left_out = read_parseq(source, alphabet)
    return write_checkpoint(model, processor, source, folder, "parseq", NETWORK, left_out, weights_dtype)


def read_parseq(
    source: str | Path, alphabet: str | None = None
) -> tuple[ParseqForTextRecognition, TextRecognitionProcessor, tuple[str, ...]]:
    """Model in eval mode, processor, and the symbols left out; arguments and errors as for `convert_parseq`."""
    source = Path(source)
    weights = SourceWeights(source, read_tensors(source))
    config = _settings(weights)
    characters = alphabet_of(source, NETWORK, (PRINTABLE[:36], PRINTABLE[:62], PRINTABLE), config.vocab_size, alphabet)
    state = _encoder(weights, config) | _decoder(weights, config)
    weights.check_empty()

    kept, left_out, tokenizer = readable_alphabet(source, characters)
    rows = [0, *(index + 1 for index in kept)]
    for name in ("classifier.weight", "classifier.bias", "embedding.weight"):
        state[f"decoder.{name}"] = state[f"decoder.{name}"][rows]
    config.vocab_size = len(rows)
    model = ParseqForTextRecognition(config).eval()
    model.load_state_dict(state)
    image_processor = TextLineImageProcessor(
        height=config.image_height,
        min_width=config.image_width,
        max_width=config.image_width,
        num_channels=config.num_channels,
        resample=Image.Resampling.BICUBIC.value,
    )
    return model, TextRecognitionProcessor(image_processor, tokenizer), left_out


def _settings(weights: SourceWeights) -> ParseqConfig:
    """What the shapes say of the network."""
    size = weights.size("encoder.norm.weight", 0)
    patch = weights.size("encoder.patch_embed.proj.weight", 2), weights.size("encoder.patch_embed.proj.weight", 3)
    patches = weights.size("encoder.pos_embed", 1)
    if size % max(HEAD_SIZES) or (*patch, patches) not in IMAGES:
        known = "; ".join(f"{count} of {rows} x {columns}" for rows, columns, count in IMAGES)
        raise ConversionError(
            f"{weights.source}: vectors of {size} units for {patches} patches of {' x '.join(map(str, patch))} px, "
            f"expected a multiple of {max(HEAD_SIZES)}, and one of {known} px. Convert one of the published networks."
        )
    height, width = IMAGES[(*patch, patches)]
    layers = 0
    while weights.has(f"encoder.blocks.{layers}.norm1.weight"):
        layers += 1
    try:
        return ParseqConfig(
            vocab_size=weights.size("head.weight", 0),
            num_channels=weights.size("encoder.patch_embed.proj.weight", 1),
            image_height=height,
            image_width=width,
            patch_size=list(patch),
            hidden_size=size,
            encoder_layers=layers,
            num_attention_heads=size // HEAD_SIZES[0],
            decoder_attention_heads=size // HEAD_SIZES[1],
            mlp_ratio=weights.size("decoder.layers.0.linear1.weight", 0) // size,
            max_label_length=weights.size("pos_queries", 1) - 1,
        )
    except ValueError as error:
        raise ConversionError(f"{weights.source}: {error}") from error


def _encoder(weights: SourceWeights, config: ParseqConfig) -> dict[str, torch.Tensor]:
    size = config.hidden_size
    kernel = (size, config.num_channels, *config.patch_size)
    state = {
        "parseq.positions": weights.take("encoder.pos_embed", (1, None, size))[0],
        "parseq.patches.weight": weights.take("encoder.patch_embed.proj.weight", kernel),
        "parseq.patches.bias": weights.take("encoder.patch_embed.proj.bias", (size,)),
    }
    _take_layer(weights, state, "parseq.norm", "encoder.norm", (size,))
    for index in range(config.encoder_layers):
        for ours, theirs in ENCODER_LAYER.items():
            names = f"parseq.layers.{index}.{ours}", f"encoder.blocks.{index}.{theirs}"
            _take_layer(weights, state, *names, _shape(ours, config))
    return state


def _decoder(weights: SourceWeights, config: ParseqConfig) -> dict[str, torch.Tensor]:
    size, symbols = config.hidden_size, config.vocab_size
    embedding = weights.take("text_embed.embedding.weight", (symbols + 2, size))
    state = {
        "decoder.positions": weights.take("pos_queries", (1, None, size))[0],
        "decoder.embedding.weight": torch.cat([embedding[symbols : symbols + 1], embedding[1:symbols]]),
    }
    for ours, theirs in DECODER_LAYER.items():
        _take_layer(weights, state, f"decoder.{ours}", f"decoder.layers.0.{theirs}", _shape(ours, config))
    for ours, theirs in (("self_attention", "self_attn"), ("cross_attention", "cross_attn")):
        for part, shape in (("weight", (3 * size, size)), ("bias", (3 * size,))):
            joined = weights.take(f"decoder.layers.0.{theirs}.in_proj_{part}", shape)
            state[f"decoder.{ours}.query.{part}"] = joined[:size]
            state[f"decoder.{ours}.key_value.{part}"] = joined[size:]
    _take_layer(weights, state, "decoder.norm", "decoder.norm", (size,))
    _take_layer(weights, state, "decoder.classifier", "head", (symbols, size))
    return state


def _shape(layer: str, config: ParseqConfig) -> tuple[int, ...]:
    """Of the weight of a layer by its name here."""
    size, wide = config.hidden_size, config.mlp_ratio * config.hidden_size
    shapes = {"query_key_value": (3 * size, size), "feed_forward.0": (wide, size), "feed_forward.3": (size, wide)}
    return (size,) if layer.endswith("norm") else shapes.get(layer, (size, size))


def _take_layer(
    weights: SourceWeights, state: dict[str, torch.Tensor], ours: str, theirs: str, shape: tuple[int, ...]
) -> None:
    state[f"{ours}.weight"] = weights.take(f"{theirs}.weight", shape)
    state[f"{ours}.bias"] = weights.take(f"{theirs}.bias", shape[:1])
