"""A recognizer as a folder for ONNX Runtime: the network, the processor's files, and code that reads with them."""

import logging
import re
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hf_ocr.export import onnx_language_model, onnx_reader
from hf_ocr.export.onnx_graph import INPUTS, crnn_graph, pp_ocr_graph
from hf_ocr.export.onnx_language_model import LanguageModel
from hf_ocr.export.onnx_reader import LANGUAGE_MODEL, MODEL, PADDING, TEMPERATURE
from hf_ocr.models import image_loading, line_preparation
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.ctc_paths import CHOICES, FRAMES, PATHS
from hf_ocr.models.ctc_reading import CERTAIN, CHOSEN_FROM
from hf_ocr.models.language_model import KEY_BITS, NATS, CharacterLanguageModel
from hf_ocr.models.line_preparation import bucket_width
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.modeling_pp_ocr import PpOcrForTextRecognition

# In the package and in the bundle; in the folder the files lie beside each other.
SIBLING = re.compile(r"^from (?:hf_ocr\.(?:models|export))?\.(\w+) import", re.MULTILINE)
CURE = "pip install 'hf_ocr[onnx]'"


class ExportError(Exception):
    """What cannot be exported: names the thing, what was found, what was expected and the cure."""


def export_onnx(
    model: Any, processor: Any, folder: str | Path, calibration_images: Iterable[Any] | None = None
) -> Path:
    """Write a recognizer of a CTC family for ONNX Runtime.

    The folder holds `model.onnx` (its inputs and outputs: `hf_ocr.export.onnx_graph`), the model's language model if it
    has one, the processor's files, and `onnx_reader.py`, which reads with onnxruntime, NumPy and Pillow alone.

    Args:
        model: a `CrnnForTextRecognition` or `PpOcrForTextRecognition`; it is left as it was.
        processor: its processor.
        folder: made if it does not exist; files of the same names are overwritten.
        calibration_images: lines like those that will be read, a hundred or so, as the processor takes them. With them
            the network computes in int8 (see `quantize`).

    Returns:
        The folder.

    Raises:
        ExportError: a model of another family or with residual blocks, or `onnx` or `onnxruntime` is not installed.
        ValueError: no calibration image, or one that is no text line.
    """
    try:
        import onnx
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ExportError(f"{error.name} is not installed. Install what an export needs: {CURE}") from error
    if not isinstance(model, CrnnForTextRecognition | PpOcrForTextRecognition):
        raise ExportError(
            f"{type(model).__name__}: cannot be exported to ONNX. Expected a recognizer with CTC: "
            f"{CrnnForTextRecognition.__name__} or {PpOcrForTextRecognition.__name__}."
        )
    if any(getattr(model.config, "residual_blocks", None) or ()):
        raise ExportError("a CRNN with residual_blocks cannot be exported to ONNX. Expected plain convolutions.")
    copy = model.reading_copy(torch.float32).cpu()
    padded = isinstance(copy, PpOcrForTextRecognition)
    with tempfile.TemporaryDirectory() as scratch:
        path = str(Path(scratch, MODEL))
        if isinstance(copy, PpOcrForTextRecognition):
            pp_ocr_graph(copy, path)
        else:
            onnx.save(crnn_graph(copy), path)
        if calibration_images is not None:
            path = quantize(path, [_inputs(processor, image, padded) for image in calibration_images])
        network = onnx.load(path)
    entries = {PADDING: "bucket" if padded else "none", TEMPERATURE: repr(float(copy.config.temperature))}
    onnx.helper.set_model_props(network, entries)
    onnx.checker.check_model(network, full_check=calibration_images is None)
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    onnx.save(network, str(folder / MODEL))
    (folder / LANGUAGE_MODEL).unlink(missing_ok=True)  # of another network, exported here before
    if isinstance(copy, CrnnForTextRecognition) and copy.language_model is not None:
        np.savez(folder / LANGUAGE_MODEL, **vars(_with_settings(copy.language_model, copy.config)))
    processor.save_pretrained(folder)
    for module in (onnx_reader, onnx_language_model, image_loading, line_preparation):
        source = Path(str(module.__file__))
        code = SIBLING.sub(r"from \1 import", source.read_text(encoding="utf-8"))
        (folder / source.name).write_text(code, encoding="utf-8")
    return folder


def _with_settings(tables: CharacterLanguageModel, config: CrnnConfig) -> LanguageModel:
    return LanguageModel(
        **{name: table.numpy() for name, table in tables.named_buffers()},
        order=tables.order,
        key_bits=KEY_BITS,
        unit=1 / NATS,
        weight=config.language_model_weight,
        bonus=config.language_model_bonus,
        certain=CERTAIN,
        frames=FRAMES,
        choices=CHOICES,
        paths=PATHS,
        texts=CHOSEN_FROM,
    )


def quantize(path: str, inputs: list[dict[str, Any]]) -> str:
    """Write a copy of an ONNX file that computes in int8, beside it.

    Convolutions: static, a scale for each channel of the weights and one for each activation, from the range that it
    takes over `inputs`. LSTMs and matrix products: dynamic, activations by the range of each call. A row of a batch
    then depends on the others in its last digits: read images one at a time, as `OnnxReader` does. Weights have seven
    bits: with eight, the sums of two products saturate on CPUs without VNNI, and the text is another.

    Args:
        path: of the file in float32.
        inputs: what the network is given in calibration, at least one.

    Returns:
        The path of the copy.

    Raises:
        ValueError: no inputs.
    """
    from onnxruntime.quantization import CalibrationDataReader, QuantType, quantize_dynamic, quantize_static

    if not inputs:
        raise ValueError("no calibration images. Expected a hundred lines or so like those that will be read.")
    remaining = iter(inputs)

    class Inputs(CalibrationDataReader):
        def get_next(self) -> dict[str, Any] | None:
            return next(remaining, None)

    static, quantized = f"{path}.static", f"{path}.int8"
    disabled = logging.root.manager.disable
    logging.disable(logging.WARNING)  # both advise to fold what is folded already
    try:
        quantize_static(
            path,
            static,
            Inputs(),
            op_types_to_quantize=["Conv", "Relu", "MaxPool", "Mul"],  # the masks, Mul, would go to float32 and back
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
        quantize_dynamic(
            static,
            quantized,
            op_types_to_quantize=["LSTM", "MatMul"],
            weight_type=QuantType.QInt8,
            reduce_range=True,
        )
    finally:
        logging.disable(disabled)
    return quantized


def _inputs(processor: Any, image: Any, padded: bool) -> dict[str, np.ndarray]:
    features = processor(images=[image], return_tensors="np")
    pixel_values, widths = (features[name] for name in INPUTS)
    if padded:
        behind = bucket_width(int(widths[0])) - pixel_values.shape[-1]
        pixel_values = np.pad(pixel_values, ((0, 0), (0, 0), (0, 0), (0, behind)))
    return dict(zip(INPUTS, (pixel_values, widths), strict=True))
