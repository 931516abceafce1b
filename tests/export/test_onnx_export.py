"""What an export writes, and its network in int8."""

from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_recognizer import lines, tiny_recognizer
from transformers import AutoModelForTextRecognition, AutoProcessor

from hf_ocr.data.lines import read_lines
from hf_ocr.export.onnx_export import ExportError, export_onnx
from hf_ocr.export.onnx_reader import OnnxReader
from hf_ocr.metrics import character_error_rate
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.registration import default_checkpoint

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")

SAMPLES = Path(__file__).resolve().parent.parent / "samples"
CODE = {"onnx_reader.py", "onnx_language_model.py", "image_loading.py", "line_preparation.py"}
FILES = CODE | {"model.onnx", "preprocessor_config.json"}


def test_the_folder_is_whole_and_the_model_as_it_was(tmp_path):
    model, processor = tiny_recognizer()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    model.train()
    folder = export_onnx(model, processor, tmp_path / "new" / "folder")
    assert {path.name for path in folder.iterdir()} >= FILES | {"vocab.json", "tokenizer_config.json"}
    assert model.training and all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    kinds = [node.op_type for node in onnx.load(folder / "model.onnx").graph.node]
    assert "BatchNormalization" not in kinds and kinds.count("LSTM") == model.config.num_lstm_layers


def test_int8_reads_the_samples_and_is_a_quarter_of_the_size(tmp_path):
    model = AutoModelForTextRecognition.from_pretrained(default_checkpoint())
    processor = AutoProcessor.from_pretrained(default_checkpoint())
    rows = list(read_lines(SAMPLES))
    images, texts = [row["image"] for row in rows], [row["text"] for row in rows]
    whole = export_onnx(model, processor, tmp_path / "float32")
    small = export_onnx(model, processor, tmp_path / "int8", images)
    sizes = [(folder / "model.onnx").stat().st_size for folder in (small, whole)]
    assert sizes[0] < 0.3 * sizes[1]
    read = [reading.text for reading in OnnxReader(small).read_many(images)]
    assert character_error_rate(read, texts) < 0.05, list(zip(texts, read, strict=True))


def test_in_int8_padding_stays_without_influence(tmp_path):
    """Alone in its batch, as the ranges of the LSTMs are those of the whole batch."""
    model, processor = tiny_recognizer()
    reader = OnnxReader(export_onnx(model, processor, tmp_path, lines(8)))
    for image in lines(4, seed=3):
        line = reader._prepare(image)[None]
        padded = np.pad(line, ((0, 0), (0, 0), (0, 0), (0, 90)), constant_values=1.0)
        widths = np.array([line.shape[-1]])
        logits, frames = reader._session.run(None, {"pixel_values": line, "widths": widths})
        among, _ = reader._session.run(None, {"pixel_values": padded, "widths": widths})
        np.testing.assert_array_equal(among[:, : frames[0]], logits[:, : frames[0]])


def test_int8_weights_have_seven_bits(tmp_path):
    """With eight the sums of two products saturate where the CPU has no VNNI: every third line was misread there."""
    network = onnx.load(export_onnx(*tiny_recognizer(), tmp_path, lines(8)) / "model.onnx")
    weights = [onnx.numpy_helper.to_array(part) for part in network.graph.initializer if part.data_type == 3]
    weights = [part for part in weights if part.ndim > 1]
    assert {part.ndim for part in weights} == {2, 3, 4}  # of a matrix product, an LSTM, a convolution
    assert max(int(np.abs(part.astype(int)).max()) for part in weights) == 64


def test_without_calibration_lines_there_is_no_int8(tmp_path):
    with pytest.raises(ValueError, match="no calibration images"):
        export_onnx(*tiny_recognizer(), tmp_path, [])


def test_another_family_is_refused(tmp_path):
    with pytest.raises(ExportError, match="Linear: cannot be exported"):
        export_onnx(torch.nn.Linear(1, 1), tiny_recognizer()[1], tmp_path / "folder")
    settings = CrnnConfig.small(residual_blocks=[0, 0, 1, 0, 0, 0, 0, 0])
    with pytest.raises(ExportError, match="residual_blocks"):
        export_onnx(CrnnForTextRecognition(settings), tiny_recognizer()[1], tmp_path / "folder")
    assert not (tmp_path / "folder").exists()
