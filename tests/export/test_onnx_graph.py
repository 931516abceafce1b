"""The graphs give PyTorch's logits, at every batch size, width and padding."""

import numpy as np
import pytest
import torch
from contracts.tiny_configs import tiny_model
from tiny_recognizer import ALPHABET

from hf_ocr.export.onnx_graph import INPUTS, OUTPUTS, crnn_graph, pp_ocr_graph
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.line_preparation import bucket_width
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.models.modeling_pp_ocr import PpOcrForTextRecognition

onnxruntime = pytest.importorskip("onnxruntime")
onnx = pytest.importorskip("onnx")


def paper_crnn() -> CrnnForTextRecognition:
    """Pools, a projection, layers without batch norm and a last kernel of two columns, as the paper has them."""
    config = CrnnConfig(vocab_size=len(ALPHABET) + 1, conv_channels=[4, 4, 6, 6, 8, 8, 8], lstm_hidden_size=8)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = CrnnForTextRecognition(config)
        for norm in model.modules():
            if isinstance(norm, torch.nn.BatchNorm2d):
                norm.running_mean.uniform_(-1, 1)
                norm.running_var.uniform_(0.5, 2)
    return model.eval()


def bare_crnn() -> CrnnForTextRecognition:
    """Convolutions with neither bias nor batch norm."""
    model = tiny_model(CrnnForTextRecognition)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        settings = {**model.config.to_dict(), "conv_batch_norm": [False] * 8, "conv_bias": False}
        return CrnnForTextRecognition(CrnnConfig(**settings)).eval()


def low_rank_crnn() -> CrnnForTextRecognition:
    """Kernels in two, as `with_low_rank_kernels` makes them."""
    settings = {**tiny_model(CrnnForTextRecognition).config.to_dict(), "lstm_projection": True, "lstm_input_size": 5}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return CrnnForTextRecognition(CrnnConfig(**settings | {"conv_ranks": [None, *range(2, 9)]})).eval()


MODELS = {
    "small": lambda: tiny_model(CrnnForTextRecognition),
    "bare": bare_crnn,
    "paper": paper_crnn,
    "low rank": low_rank_crnn,
    "pp_ocr": lambda: tiny_model(PpOcrForTextRecognition),
}


@pytest.fixture(scope="module", params=MODELS)
def model(request):
    return MODELS[request.param]().reading_copy(torch.float32)


@pytest.fixture(scope="module")
def session(model, tmp_path_factory):
    path = str(tmp_path_factory.mktemp("graph") / "model.onnx")
    if isinstance(model, PpOcrForTextRecognition):
        pp_ocr_graph(model, path)
    else:
        onnx.save(crnn_graph(model), path)
    onnx.checker.check_model(path, full_check=True)
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


def batch(model, widths, behind=0):
    """Images of these widths in one array; what lies behind them is not zero, and must not matter."""
    generator = np.random.default_rng(0)
    padded = bucket_width(max(widths)) + behind
    shape = (len(widths), model.config.num_channels, model.config.image_height, padded)
    return generator.uniform(-1, 1, shape).astype(np.float32), np.array(widths)


def valid_logits(session, pixel_values, widths):
    logits, lengths = session.run(list(OUTPUTS), dict(zip(INPUTS, (pixel_values, widths), strict=True)))
    return [row[:length] for row, length in zip(logits, lengths, strict=True)]


@pytest.mark.parametrize("widths", [[96], [70, 91, 77, 96, 65], [300, 311, 289], [640] * 2])
def test_the_logits_are_those_of_torch(model, session, widths):
    pixel_values, widths = batch(model, widths)
    with torch.inference_mode():
        output = model(torch.from_numpy(pixel_values), torch.from_numpy(widths))
    got = valid_logits(session, pixel_values, widths)
    assert [len(row) for row in got] == output.logit_lengths.tolist()
    for row, want, length in zip(got, output.logits, output.logit_lengths, strict=True):
        np.testing.assert_allclose(row, want[:length].numpy(), atol=1e-4)


def test_neighbours_change_nothing(model, session):
    pixel_values, widths = batch(model, [65, 96, 80])
    together = valid_logits(session, pixel_values, widths)
    for row, want in enumerate(together):
        (alone,) = valid_logits(session, pixel_values[row : row + 1], widths[row : row + 1])
        np.testing.assert_allclose(alone, want, atol=1e-4)


def test_padding_changes_nothing(model, session):
    if isinstance(model, PpOcrForTextRecognition):
        pytest.skip("PP-OCR sees the whole width: it takes images padded to the width of their bucket")
    pixel_values, widths = batch(model, [65, 96, 80], behind=77)
    cut = valid_logits(session, pixel_values[..., :96], widths)
    for row, want in zip(valid_logits(session, pixel_values, widths), cut, strict=True):
        np.testing.assert_allclose(row, want, atol=1e-4)


def test_batch_and_width_have_names(model, session):
    assert {node.name: node.shape[0] for node in session.get_inputs()} == dict.fromkeys(INPUTS, "batch")
    assert session.get_inputs()[0].shape[3] == "width"
    assert [node.name for node in session.get_outputs()] == list(OUTPUTS)
