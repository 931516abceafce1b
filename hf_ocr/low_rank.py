"""Kernels in two: a trained CRNN with fewer products, which computes nearly the same before any further training."""

from collections.abc import Iterable, Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

from hf_ocr.models.ctc_reading import eval_mode
from hf_ocr.models.modeling_crnn import CrnnConvolution, CrnnForTextRecognition

__all__ = ["with_low_rank_kernels"]

COLUMNS = 20_000  # of an image, at most, that count for a layer
UNSEEN = 1e-6  # share of the greatest variance that what never varies counts with: other images may show it


def with_low_rank_kernels(
    model: CrnnForTextRecognition, ranks: Sequence[int | None], images: Iterable[torch.Tensor]
) -> CrnnForTextRecognition:
    """A new CRNN whose kernels of h x w px are one of h x 1 and one of 1 x w px, with so many channels between them.

    After Jaderberg, Vedaldi, Zisserman, Speeding up Convolutional Neural Networks with Low Rank Expansions
    (arXiv:1405.3866, scheme 2). The two are those that change least of what the columns of `images` give to the answers
    of a layer, by singular value decomposition; that answers and not weights are kept is after Zhang et al.
    (arXiv:1505.06798). Between recurrent layers comes the linear projection of `CrnnConfig.lstm_projection`, in the
    same way. Train the result on, with `model` as its teacher.

    Args:
        model: trained, with one kernel a layer and no projection; is left as it is.
        ranks: one entry a layer of the trunk; None leaves its kernel whole.
        images: `pixel_values` of some hundred lines, float32 (1, num_channels, image_height, W) each, unpadded.

    Returns:
        A model in float32, in the mode of `model` and on its device.

    Raises:
        ValueError: no images; a model that has ranks, a projection or residual blocks; ranks that its configuration
            does not take, or that are more than full.
    """
    config = model.config
    if any((*(config.conv_ranks or ()), config.lstm_projection, *(config.residual_blocks or ()))):
        raise ValueError(
            f"the model has conv_ranks={config.conv_ranks}, lstm_projection={config.lstm_projection}, residual_blocks="
            f"{config.residual_blocks}. Expected a CRNN with one kernel a layer, no projection and no residual blocks."
        )
    settings = {**config.to_dict(), "conv_ranks": list(ranks), "lstm_projection": True}
    lighter = CrnnForTextRecognition(type(config).from_dict(settings)).to(model.device).train(model.training)
    for index, (layer, rank) in enumerate(zip(model.crnn.convolutions, ranks, strict=True)):
        outputs, inputs, height, width = cast(CrnnConvolution, layer).whole_kernel().shape
        most = min(outputs * width, inputs * height)
        if rank is not None and rank > most:
            raise ValueError(
                f"ranks[{index}] is {rank}, expected at most {most}, with which nothing is lost. Give fewer, or None "
                "for one kernel."
            )
    seen = _second_moments(model, images)
    if not seen:
        raise ValueError("no images. Expected some hundred lines like those that will be read.")
    state = model.state_dict()
    with torch.no_grad():
        for index, (layer, rank) in enumerate(zip(model.crnn.convolutions, ranks, strict=True)):
            if rank is not None:
                weight = state[f"crnn.convolutions.{index}.convolution.weight"]
                outputs, inputs, height, width = weight.shape
                taps = weight.permute(0, 3, 1, 2).reshape(outputs * width, inputs * height)
                after, before = _in_two(taps, seen[layer], rank)
                name = f"crnn.convolutions.{index}"
                state[f"{name}.vertical.weight"] = before.view(-1, inputs, height, 1)
                state[f"{name}.convolution.weight"] = after.view(outputs, width, -1).transpose(1, 2).unsqueeze(2)
        for index, lstm in enumerate(list(model.crnn.lstms)[1:]):
            directions = [f"crnn.lstms.{index + 1}.{way}_lstm.weight_ih_l0" for way in ("forward", "backward")]
            weight = torch.cat([state[name] for name in directions])
            after, before = _in_two(weight, seen[lstm], config.lstm_hidden_size)
            state.update(zip(directions, after.chunk(2), strict=True))
            state[f"crnn.projections.{index}.weight"] = before
            state[f"crnn.projections.{index}.bias"] = torch.zeros_like(before[:, 0])
    lighter.load_state_dict(state)
    return lighter


def _second_moments(model: CrnnForTextRecognition, images: Iterable[torch.Tensor]) -> dict[nn.Module, torch.Tensor]:
    """Of what each layer sees, float64 (n, n): n is the input channels times the rows of a kernel."""
    seen: dict[nn.Module, torch.Tensor] = {}

    def look(layer: nn.Module, given: tuple[Any, ...]) -> None:
        hidden = given[0]
        if isinstance(layer, CrnnConvolution):
            (height, _), (stride, _), (padding, _) = (
                getattr(layer.convolution, name) for name in ("kernel_size", "stride", "padding")
            )
            columns = F.pad(hidden, (0, 0, padding, padding)).unfold(2, height, stride)  # (1, C, rows, W, height)
            columns = columns.permute(2, 3, 0, 1, 4).flatten(3).flatten(0, 2)
        else:
            columns = hidden.flatten(0, 1)
        columns = columns[:: 1 + len(columns) // COLUMNS].double()
        seen[layer] = seen.get(layer, 0) + columns.T @ columns / len(columns)

    layers = [*model.crnn.convolutions, *list(model.crnn.lstms)[1:]]
    hooks = [layer.register_forward_pre_hook(look) for layer in layers]
    try:
        with torch.inference_mode(), eval_mode(model):
            for image in images:
                model(image.to(model.device))
    finally:
        for hook in hooks:
            hook.remove()
    return seen


def _in_two(weight: torch.Tensor, moments: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, n), the second moments of its inputs (n, n) -> (m, rank), (rank, n) whose product answers nearly the same."""
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp_min(UNSEEN * values[-1].clamp_min(1e-12))
    answers = weight.double() @ (vectors * values.sqrt())
    after = torch.linalg.svd(answers, full_matrices=False).U[:, :rank]
    return after.float(), (after.T @ weight.double()).float()
