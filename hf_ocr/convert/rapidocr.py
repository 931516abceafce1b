"""PP-OCRv6 small out of the `rapidocr` wheel: its ONNX weights as a checkpoint that reads here and can be trained."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from importlib import metadata, util
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import nn

from hf_ocr.bundle import save_bundle
from hf_ocr.convert.conversion import Conversion, ConversionError, can_be_read, named
from hf_ocr.models.configuration_pp_ocr import PpOcrConfig
from hf_ocr.models.image_processing_text_line import TextLineImageProcessor
from hf_ocr.models.modeling_pp_ocr import PpOcrForTextRecognition
from hf_ocr.models.processing_text_recognition import TextRecognitionProcessor
from hf_ocr.models.tokenization_characters import CharacterTokenizer

WEIGHTS = "PP-OCRv6_rec_small.onnx"
CURE = "pip install 'hf_ocr[convert]'"
LICENSES = ("LICENSE", "MODEL_LICENSES.md")
MIN_WIDTH = 16  # px; two frames. Narrower images are widened, all others padded, as the network knows it.

CARD = """\
---
license: apache-2.0
library_name: transformers
pipeline_tag: image-to-text
base_model: PaddlePaddle/PP-OCRv6_small_rec_onnx
tags:
- hf_ocr
- text-recognition
---

# PP-OCRv6 small for hf_ocr

Made by `hf-ocr convert rapidocr` from `{file}` (SHA-256 `{sha256}`) of rapidocr {version}.

The weights are those of PP-OCRv6 small of the PaddleOCR project: copyright Baidu and the PaddleOCR authors, distributed
by the RapidOCR authors, Apache License 2.0{notices}.

Changed here: the graph became the layers of `PpOcrForTextRecognition`; the first convolution takes RGB instead of BGR;
{left_out} left out of the alphabet{which}, because texts are in Unicode normal form C and never hold them.
{symbols} symbols remain, the blank included.
"""


class Layer(NamedTuple):
    """Weights of one layer of the graph; `kind` is the name of torch's class."""

    kind: str
    weight: torch.Tensor
    bias: torch.Tensor | None = None
    mean: torch.Tensor | None = None  # running statistics of a batch norm
    variance: torch.Tensor | None = None


def convert_rapidocr(folder: str | Path, weights_dtype: torch.dtype | None = None) -> Conversion:
    """Write the recognizer of the installed `rapidocr` as a checkpoint: model, processor, card, licences.

    Args:
        folder: made if it does not exist; files of the same names are overwritten.
        weights_dtype: stored type of the weights, as torch.float16 for half the size; float32 when None. The folder
            loads in float32 either way.

    Raises:
        ConversionError: `rapidocr` or `onnx` is not installed, or what the wheel holds is not PP-OCRv6 small.
    """
    source = shipped_weights()
    model, processor, left_out = read_recognizer(source)
    folder = Path(folder)
    save_bundle(model, processor, folder, weights_dtype)
    _write_card(folder, source, left_out, model.config.vocab_size)
    return Conversion(folder, source, "PP-OCRv6 small, Apache-2.0", left_out)


def shipped_weights() -> Path:
    """The ONNX file of the recognizer in the installed `rapidocr`, which is not imported.

    Raises:
        ConversionError: it is not installed, or has no such file.
    """
    found = util.find_spec("rapidocr")
    if found is None or not found.submodule_search_locations:
        raise ConversionError(f"rapidocr is not installed, and its wheel holds the weights. Install it: {CURE}")
    path = Path(found.submodule_search_locations[0], "models", WEIGHTS)
    if not path.is_file():
        raise ConversionError(
            f"{path}: is not there, in rapidocr {metadata.version('rapidocr')}. Expected a wheel that ships PP-OCRv6 "
            f"small, as 3.10 does. Install one: {CURE}"
        )
    return path


def read_recognizer(
    source: str | Path,
) -> tuple[PpOcrForTextRecognition, TextRecognitionProcessor, tuple[str, ...]]:
    """Model in eval mode, processor, and the symbols left out, of an ONNX file of PP-OCRv6 small.

    The network's id 0 is the blank, then come the lines of the file's entry "character", then the space. Texts are in
    normal form C here and an id is one code point: symbols that no such text holds are left out, their rows of the head
    with them, and the ids behind them move up.

    Raises:
        ConversionError: `onnx` is not installed, or the file holds another network.
    """
    layers, characters = read_onnx(source)
    outputs = len(layers[-1].weight) if layers else 0
    symbols = ["", *characters, " "]
    if len(symbols) != outputs:
        raise ConversionError(
            f"{source}: {len(characters)} characters for a head of {outputs} outputs, expected the characters, the "
            f"blank and the space. Convert the recognizer of PP-OCRv6 small, {WEIGHTS}."
        )
    kept = [0, *(index for index, symbol in enumerate(symbols) if can_be_read(symbol))]
    head = layers[-1]
    first = layers[0]._replace(weight=layers[0].weight.flip(1))  # it was taught blue, green, red
    last = head._replace(weight=head.weight[kept], bias=None if head.bias is None else head.bias[kept])

    # The norms are folded into the convolutions: the statistics of batches are not known any more.
    model = PpOcrForTextRecognition(PpOcrConfig(vocab_size=len(kept), freeze_batch_norm=True)).eval()
    load_layers(model, [first, *layers[1:-1], last])
    tokenizer = CharacterTokenizer.from_alphabet([symbols[index] for index in kept[1:]])
    config = model.config
    image_processor = TextLineImageProcessor(
        height=config.image_height, min_width=MIN_WIDTH, num_channels=config.num_channels
    )
    left_out = tuple(symbol for symbol in symbols[1:] if not can_be_read(symbol))
    return model, TextRecognitionProcessor(image_processor, tokenizer), left_out


def read_onnx(source: str | Path) -> tuple[list[Layer], list[str]]:
    """The layers of an ONNX file in the order of its graph, and the characters of its alphabet.

    Raises:
        ConversionError: `onnx` is not installed, or the file is no ONNX model with an alphabet.
    """
    try:
        import onnx
    except ImportError as error:
        raise ConversionError(
            f"onnx is not installed, and reads the file of the weights. Install it: {CURE}"
        ) from error
    try:
        model = onnx.load(str(source))
    except Exception as error:  # of protobuf, whose classes differ between its versions
        raise ConversionError(f"{source}: is no ONNX model ({error}). Install rapidocr again.") from error
    entries = {entry.key: entry.value for entry in model.metadata_props}
    if "character" not in entries:
        raise ConversionError(
            f'{source}: has no alphabet, expected an entry "character" in its metadata. '
            f"Convert the recognizer, {WEIGHTS}."
        )
    weights = {
        tensor.name: torch.from_numpy(onnx.numpy_helper.to_array(tensor).copy()) for tensor in model.graph.initializer
    }
    return list(_layers(model.graph.node, weights)), entries["character"].removesuffix("\n").split("\n")


def _layers(nodes: Sequence[Any], weights: dict[str, torch.Tensor]) -> Iterator[Layer]:
    consumers = defaultdict(list)
    for node in nodes:
        for name in node.input:
            consumers[name].append(node)

    def held(node: Any) -> list[torch.Tensor]:
        """What the node reads of the file, scalars aside."""
        return [weights[name] for name in node.input if name in weights and weights[name].numel() > 1]

    def added(node: Any) -> torch.Tensor | None:
        """The bias: what the next node adds."""
        for consumer in consumers[node.output[0]]:
            if consumer.op_type == "Add" and held(consumer):
                return held(consumer)[0].flatten()
        return None

    for node in nodes:
        tensors = held(node)
        if node.op_type == "Conv" and tensors:
            yield Layer("Conv2d", tensors[0], tensors[1] if len(tensors) > 1 else added(node))
        elif node.op_type == "BatchNormalization" and tensors:
            yield Layer("BatchNorm2d", *tensors)
        elif node.op_type == "MatMul" and tensors:
            yield Layer("Linear", tensors[0].T, added(node))
        elif node.op_type == "Mul" and tensors:  # the end of a layer norm, which is spelt out
            yield Layer("LayerNorm", tensors[0], added(node))


@torch.no_grad()
def load_layers(model: PpOcrForTextRecognition, layers: Iterable[Layer]) -> None:
    """Copy weights into a model, in the order in which it executes its layers.

    Where a batch norm follows in the model and not in the graph, it was folded into the convolution: it then adds the
    bias, and nothing else.

    Raises:
        ConversionError: the layers are not those of the model.
    """
    remaining = iter(layers)
    folded: torch.Tensor | None = None
    for name, module in _in_order_of_execution(model):
        if isinstance(module, nn.BatchNorm2d) and folded is not None:
            module.weight.fill_(1.0)
            module.bias.copy_(folded)
            module.running_mean.zero_()  # type: ignore[union-attr]
            module.running_var.fill_(1.0 - module.eps)  # type: ignore[union-attr]
            folded = None
            continue
        kind, layer = type(module).__name__, next(remaining, None)
        if layer is None or layer.kind != kind or layer.weight.shape != module.weight.shape:
            found = "nothing more" if layer is None else f"{layer.kind} of {tuple(layer.weight.shape)}"
            raise ConversionError(
                f"{name} of the model is {kind} of {tuple(module.weight.shape)}, the file has {found} in its place. "
                f"Convert the recognizer of PP-OCRv6 small, {WEIGHTS}."
            )
        module.weight.copy_(layer.weight)
        if isinstance(module, nn.Conv2d) and module.bias is None:
            folded = layer.bias
        elif layer.bias is None:
            raise ConversionError(f"{name} of the model has a bias, the file none. Convert {WEIGHTS}.")
        else:
            module.bias.copy_(layer.bias)
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.copy_(layer.mean)  # type: ignore[union-attr, arg-type]
            module.running_var.copy_(layer.variance)  # type: ignore[union-attr, arg-type]
    left = sum(1 for _ in remaining)
    if left:
        raise ConversionError(f"the file has {left} layers more than the model. Convert {WEIGHTS}.")


def _in_order_of_execution(model: PpOcrForTextRecognition) -> list[tuple[str, Any]]:
    executed: list[tuple[str, Any]] = []

    def note(name: str, module: nn.Module, inputs: Any, output: Any) -> None:
        executed.append((name, module))

    handles = [
        module.register_forward_hook(partial(note, name))
        for name, module in model.named_modules()
        if isinstance(module, nn.Conv2d | nn.BatchNorm2d | nn.Linear | nn.LayerNorm)
    ]
    try:
        model(torch.zeros(1, model.config.num_channels, model.config.image_height, 64))
    finally:
        for handle in handles:
            handle.remove()
    return executed


def _write_card(folder: Path, source: Path, left_out: tuple[str, ...], symbols: int) -> None:
    """README.md, and the licence with the notices that the wheel carries."""
    notices = []
    for path in metadata.distribution("rapidocr").files or ():
        if path.name in LICENSES and "licenses" in path.parts:
            (folder / path.name).write_text(path.read_text(encoding="utf-8"), encoding="utf-8")
            notices.append(path.name)
    card = CARD.format(
        file=source.name,
        sha256=hashlib.sha256(source.read_bytes()).hexdigest(),
        version=metadata.version("rapidocr"),
        notices=f" (beside this file: {', '.join(sorted(notices))})" if notices else "",
        left_out=f"{len(left_out)} symbols are",
        which=f" ({named(left_out)})" if left_out else "",
        symbols=symbols,
    )
    (folder / "README.md").write_text(card, encoding="utf-8")
