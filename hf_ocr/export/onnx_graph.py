"""The networks of the CTC families as ONNX graphs of dynamic batch and width.

Every graph takes `pixel_values` float32 (B, C, H, W) and `widths` int64 (B,), the valid columns of each image, and
gives `logits` float32 (B, T, V) and `logit_lengths` int64 (B,). What stands behind the valid columns changes nothing.
"""

import warnings
from collections.abc import Iterable
from typing import Any, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from hf_ocr.models.configuration_pp_ocr import POOL
from hf_ocr.models.modeling_crnn import CrnnBidirectionalLstm, CrnnConvolution, CrnnForTextRecognition
from hf_ocr.models.modeling_pp_ocr import PpOcrForTextRecognition

OPSET = 17  # layer norm is one node from here on
IR_VERSION = 8  # of the same time, for old runtimes
INPUTS, OUTPUTS = ("pixel_values", "widths"), ("logits", "logit_lengths")


def crnn_graph(model: CrnnForTextRecognition) -> Any:
    """A CRNN as an `onnx.ModelProto`.

    Built node by node, so that each bidirectional layer is one LSTM node with the lengths of its rows: equal to the
    reversal within the valid lengths that the module computes, whose time axis a traced graph would freeze.

    Args:
        model: a `reading_copy` in float32: batch norms are expected to be folded into the convolutions.
    """
    graph = _Graph()
    hidden, widths = "pixel_values", "widths"
    for layer in cast(Iterable[CrnnConvolution], model.crnn.convolutions):
        hidden = graph.mask(hidden, widths)
        if isinstance(layer.vertical, nn.Conv2d):
            hidden = graph.convolution(hidden, layer.vertical)
        hidden = graph.node("Relu", graph.convolution(hidden, layer.convolution))
        widths = graph.output_length(widths, layer.convolution)
        if layer.pool is not None:  # behind a ReLU the zeros of the mask equal the pool's own padding
            hidden = graph.node("MaxPool", graph.mask(hidden, widths), **_window(layer.pool))
            widths = graph.output_length(widths, layer.pool)
    hidden = graph.node("Squeeze", hidden, graph.integers(2))
    hidden = graph.node("Transpose", hidden, perm=[2, 0, 1])  # (T, B, C)
    lengths = graph.node("Cast", widths, to="INT32")
    for index, lstm in enumerate(cast(Iterable[CrnnBidirectionalLstm], model.crnn.lstms)):
        projection = model.crnn.projections[index - 1] if index else model.crnn.first_projection
        if isinstance(projection, nn.Linear):
            hidden = graph.linear(hidden, projection)
        hidden = graph.lstm(hidden, lengths, lstm)
    logits = graph.linear(hidden, model.classifier)
    graph.node("Transpose", logits, perm=[1, 0, 2], output="logits")
    graph.node("Identity", widths, output="logit_lengths")
    config = model.config
    return graph.model(config.num_channels, config.image_height, config.vocab_size)


def pp_ocr_graph(model: PpOcrForTextRecognition, path: str) -> None:
    """Write a PP-OCR as an ONNX file, traced from its modules.

    The network sees the whole width that it is given, so what it reads depends on how far an image is padded: give it
    images of one `bucket_width` together, padded to that width.

    Args:
        model: a `reading_copy` in float32.
        path: the file.
    """
    inputs = (torch.zeros(2, model.config.num_channels, model.config.image_height, 64), torch.tensor([64, 50]))
    with warnings.catch_warnings():
        # It says that it is the old exporter. The new one wants one more package for the same graph.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            _PpOcrOfOneBucket(model).eval(),
            inputs,
            path,
            dynamo=False,
            input_names=list(INPUTS),
            output_names=list(OUTPUTS),
            dynamic_axes={
                "pixel_values": {0: "batch", 3: "width"},
                "widths": {0: "batch"},
                "logits": {0: "batch", 1: "frames"},
                "logit_lengths": {0: "batch"},
            },
            opset_version=OPSET,
        )


class _PpOcrOfOneBucket(nn.Module):
    """What `PpOcrModel` computes of images that share a bucket and are padded to its width."""

    def __init__(self, model: PpOcrForTextRecognition) -> None:
        super().__init__()
        self.base, self.classifier = model.pp_ocr, model.classifier

    def forward(self, pixel_values: torch.Tensor, widths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        columns = torch.arange(pixel_values.shape[-1])
        valid = (columns < widths[:, None])[:, None, None].to(pixel_values.dtype)
        hidden = self.base.backbone(pixel_values * valid).feature_maps[-1]
        features = self.base.encoder(F.avg_pool2d(hidden, POOL)).last_hidden_state
        return self.classifier(features), self.base.frame_count(widths)


class _Graph:
    """Nodes and weights in the order in which they are added; methods give the names of their results."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.masks: dict[str, str] = {}

    def node(self, kind: str, *inputs: str, output: str | None = None, **attributes: Any) -> str:
        from onnx import TensorProto, helper

        if "to" in attributes:
            attributes["to"] = getattr(TensorProto, attributes["to"])
        name = output or f"{kind}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, list(inputs), [name], name=name, **attributes))
        return name

    def weight(self, values: np.ndarray) -> str:
        from onnx import numpy_helper

        name = f"weight_{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def integers(self, *values: int) -> str:
        return self.weight(np.array(values, dtype=np.int64))

    def integer(self, value: int) -> str:
        return self.weight(np.array(value, dtype=np.int64))

    def mask(self, hidden: str, widths: str) -> str:
        """(B, C, H, W) with the columns behind the valid widths set to 0."""
        if widths not in self.masks:  # layers that leave the width as it is share one
            width = self.node("Squeeze", self.node("Shape", hidden, start=3), self.integers(0))
            columns = self.node("Range", self.integer(0), width, self.integer(1))
            valid = self.node("Less", columns, self.node("Unsqueeze", widths, self.integers(1, 2, 3)))
            self.masks[widths] = self.node("Cast", valid, to="FLOAT")
        return self.node("Mul", hidden, self.masks[widths])

    def output_length(self, lengths: str, layer: nn.Conv2d | nn.MaxPool2d) -> str:
        window = _window(layer)
        kernel, stride, padding = window["kernel_shape"][1], window["strides"][1], window["pads"][1]
        if more := 2 * padding - kernel + stride:
            lengths = self.node("Add", lengths, self.integer(more))
        return lengths if stride == 1 else self.node("Div", lengths, self.integer(stride))

    def convolution(self, hidden: str, layer: nn.Conv2d) -> str:
        weights = [self.weight(_array(part)) for part in (layer.weight, layer.bias) if part is not None]
        return self.node("Conv", hidden, *weights, **_window(layer))

    def linear(self, hidden: str, layer: nn.Linear) -> str:
        product = self.node("MatMul", hidden, self.weight(_array(layer.weight).T))
        return self.node("Add", product, self.weight(_array(layer.bias)))

    def lstm(self, hidden: str, lengths: str, layer: CrnnBidirectionalLstm) -> str:
        """(T, B, C) -> (T, B, 2 * hidden size); the backward direction starts at the last valid frame of a row."""
        directions = (layer.forward_lstm, layer.backward_lstm)

        def of_both(name: str) -> np.ndarray:
            return np.stack([_gates(_array(getattr(lstm, f"{name}_l0"))) for lstm in directions])

        biases = np.concatenate([of_both("bias_ih"), of_both("bias_hh")], axis=1)
        weights = [self.weight(values) for values in (of_both("weight_ih"), of_both("weight_hh"), biases)]
        both = self.node(
            "LSTM", hidden, *weights, lengths, direction="bidirectional", hidden_size=layer.forward_lstm.hidden_size
        )
        return self.node("Reshape", self.node("Transpose", both, perm=[0, 2, 1, 3]), self.integers(0, 0, -1))

    def model(self, num_channels: int, image_height: int, vocab_size: int) -> Any:
        from onnx import TensorProto, helper

        images: list[str | int | None] = ["batch", num_channels, image_height, "width"]
        inputs = [
            helper.make_tensor_value_info(INPUTS[0], TensorProto.FLOAT, images),
            helper.make_tensor_value_info(INPUTS[1], TensorProto.INT64, ["batch"]),
        ]
        outputs = [
            helper.make_tensor_value_info(OUTPUTS[0], TensorProto.FLOAT, ["batch", "frames", vocab_size]),
            helper.make_tensor_value_info(OUTPUTS[1], TensorProto.INT64, ["batch"]),
        ]
        graph = helper.make_graph(self.nodes, "crnn", inputs, outputs, self.weights)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _window(layer: Any) -> dict[str, Any]:
    return {
        "kernel_shape": list(layer.kernel_size),
        "strides": list(layer.stride),
        "pads": [*layer.padding, *layer.padding],
    }


def _array(weight: torch.Tensor) -> np.ndarray:
    return weight.detach().float().contiguous().numpy()


def _gates(weight: np.ndarray) -> np.ndarray:
    """torch has the gates as input, forget, cell, output; ONNX as input, output, forget, cell."""
    gate_in, forget, cell, out = np.split(weight, 4)
    return np.concatenate([gate_in, out, forget, cell])
