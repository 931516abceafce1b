"""A trained CRNN with fewer products, which computes nearly the same before any further training: fewer units."""

import copy
from collections.abc import Iterable
from typing import cast

import torch
from torch import nn

from hf_ocr.low_rank import answers_of, in_two, second_moments
from hf_ocr.models.ctc_reading import eval_mode
from hf_ocr.models.modeling_crnn import CrnnBidirectionalLstm, CrnnConvolution, CrnnForTextRecognition

__all__ = ["with_fewer_units"]

RIDGE = 1e-6  # share of the mean moment that holds weights where the images say little
WAYS = ("forward_lstm", "backward_lstm")


def with_fewer_units(
    model: CrnnForTextRecognition, channels: int, hidden_size: int, images: Iterable[torch.Tensor]
) -> CrnnForTextRecognition:
    """A new CRNN with fewer channels behind its trunk and fewer units in its recurrent layers.

    One unit after the other is left out, that whose part in what the next layers compute the others can tell best, and
    the weights of those kept take its part over, by least squares over the frames of `images` (after He, Zhang, Sun,
    Channel Pruning for Accelerating Very Deep Neural Networks, arXiv:1707.06168, section 3). Train the result on, with
    `model` as its teacher.

    Args:
        model: trained, with projections between its recurrent layers (`CrnnConfig.lstm_projection`); is left as it is.
        channels: of the last layer of the trunk, at most as many as it has.
        hidden_size: units of each direction of each recurrent layer, at most as many as it has.
        images: `pixel_values` of some hundred lines, float32 (1, num_channels, image_height, W) each, unpadded.

    Returns:
        A model in float32, in the mode of `model` and on its device.

    Raises:
        ValueError: no images; more units than there are, or fewer than one; a model without projections.
    """
    config = model.config
    for name, fewer, all_of_them in (
        ("channels", channels, config.conv_channels[-1]),
        ("hidden_size", hidden_size, config.lstm_hidden_size),
    ):
        if not 1 <= fewer <= all_of_them:
            raise ValueError(f"{name} is {fewer}, expected 1 to {all_of_them}, which the model has.")
    if not config.lstm_projection:
        raise ValueError("the model has lstm_projection=False. Put its kernels in two first (with_low_rank_kernels).")
    wide = copy.deepcopy(model).float().eval()
    with torch.no_grad(), eval_mode(wide):
        frames = [_frames(wide, image.to(wide.device).float()) for image in images]
        if not frames:
            raise ValueError("no images. Expected some hundred lines like those that will be read.")
        frames = _prune_trunk(wide, channels, frames)
        for index in range(len(wide.crnn.lstms)):
            frames = _prune_lstm(wide, index, hidden_size, frames)
    settings = {
        **config.to_dict(),
        "conv_channels": [*config.conv_channels[:-1], channels],
        "lstm_hidden_size": hidden_size,
    }
    smaller = CrnnForTextRecognition(type(config).from_dict(settings)).to(model.device)
    smaller.load_state_dict(wide.state_dict())
    return smaller.train(model.training)


def _frames(model: CrnnForTextRecognition, hidden: torch.Tensor) -> torch.Tensor:
    """(1, C, H, W) -> (T, 1, channels), what the first recurrent layer sees."""
    for layer in model.crnn.convolutions:
        hidden = answers_of(cast(CrnnConvolution, layer), hidden)
    return hidden.squeeze(2).permute(2, 0, 1)


class _Fewer:
    """Which units are kept, and the parts of the others as sums of theirs and a constant."""

    def __init__(self, units: Iterable[torch.Tensor], answers: torch.Tensor, count: int) -> None:
        """Of units (T, n) of each image, as many as `count`, for the answers (m, n) that the next layers make."""
        moments = second_moments(torch.cat([part, torch.ones_like(part[:, :1])], dim=1) for part in units)
        constant = len(moments) - 1
        shares = (answers**2).sum(0)
        self.kept = list(range(constant))
        while len(self.kept) > count:
            inverse = torch.linalg.inv(_held(moments[[*self.kept, constant]][:, [*self.kept, constant]], 1e-8))
            alone = 1 / inverse.diagonal()[:-1]  # the variance of each that the others do not tell
            self.kept.pop(int((alone * shares[self.kept]).argmin()))
        self.dropped = sorted(set(range(constant)) - set(self.kept))
        known = [*self.kept, constant]
        self.parts = torch.linalg.solve(_held(moments[known][:, known], RIDGE), moments[known][:, self.dropped])

    def fold(self, weight: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(m, n) -> (m, kept) and what is added to the bias (m,)."""
        weight = weight.double()
        lost = weight[:, self.dropped]
        return (weight[:, self.kept] + lost @ self.parts[:-1].T).float(), (lost @ self.parts[-1]).float()


def _held(moments: torch.Tensor, share: float) -> torch.Tensor:
    return moments + share * moments.diagonal().mean() * torch.eye(len(moments), dtype=moments.dtype)


def _prune_trunk(model: CrnnForTextRecognition, count: int, frames: list[torch.Tensor]) -> list[torch.Tensor]:
    """What the first recurrent layer sees then."""
    projection, lstm = model.crnn.first_projection, cast(CrnnBidirectionalLstm, model.crnn.lstms[0])
    if count < frames[0].shape[-1]:
        units = [now.flatten(0, 1) for now in frames]
        if isinstance(projection, nn.Linear):
            fewer = _Fewer(units, projection.weight.double(), count)
            weight, bias = fewer.fold(projection.weight)
            model.crnn.first_projection = _linear(weight, projection.bias + bias)
        else:
            answers = torch.cat([getattr(lstm, way).weight_ih_l0 for way in WAYS]).double()
            fewer = _Fewer(units, answers, count)
            for way in WAYS:
                old = getattr(lstm, way)
                weight, bias = fewer.fold(old.weight_ih_l0)
                setattr(lstm, way, _lstm(weight, old.weight_hh_l0, old.bias_ih_l0 + bias, old.bias_hh_l0))
        _keep_channels(cast(CrnnConvolution, model.crnn.convolutions[-1]), fewer.kept)
        frames = [now[..., fewer.kept] for now in frames]
    return [model.crnn.first_projection(now) for now in frames]


def _keep_channels(layer: CrnnConvolution, kept: list[int]) -> None:
    for module in (layer.convolution, layer.norm):
        for name, part in module.state_dict().items():
            if part.ndim:  # one entry or kernel a channel
                own = part[kept].clone()
                setattr(module, name, nn.Parameter(own) if name in module._parameters else own)


def _prune_lstm(
    model: CrnnForTextRecognition, index: int, count: int, frames: list[torch.Tensor]
) -> list[torch.Tensor]:
    """What the next recurrent layer sees then."""
    lstm = cast(CrnnBidirectionalLstm, model.crnn.lstms[index])
    last = index == len(model.crnn.lstms) - 1
    behind = cast(nn.Linear, model.classifier if last else model.crnn.projections[index])
    size = lstm.forward_lstm.hidden_size
    units = _both_ways(lstm, frames)
    folded, bias = [], behind.bias.clone()
    for way, own in zip(WAYS, (slice(0, size), slice(size, 2 * size)), strict=True):
        old = getattr(lstm, way)
        parts = [now.flatten(0, 1)[:, own] for now in units]
        moments = second_moments(parts)
        # What the units give to themselves and to the next layer counts alike.
        answers = [weight.double() for weight in (old.weight_hh_l0, behind.weight[:, own])]
        answers = [weight / (weight @ moments @ weight.T).trace().sqrt() for weight in answers]
        fewer = _Fewer(parts, torch.cat(answers), count)
        rows = [gate * size + unit for gate in range(4) for unit in fewer.kept]
        recurrent, constant = fewer.fold(old.weight_hh_l0)
        setattr(
            lstm,
            way,
            _lstm(old.weight_ih_l0[rows], recurrent[rows], old.bias_ih_l0[rows], old.bias_hh_l0[rows] + constant[rows]),
        )
        weight, constant = fewer.fold(behind.weight[:, own])
        folded.append(weight)
        bias += constant
    units = _both_ways(lstm, frames)
    if last:
        model.classifier = _linear(torch.cat(folded, dim=1), bias)
        return units
    projection, between = _linear(torch.cat(folded, dim=1), bias), model.config.lstm_input_size or count
    following = cast(CrnnBidirectionalLstm, model.crnn.lstms[index + 1])
    inputs = torch.cat([getattr(following, way).weight_ih_l0 for way in WAYS])
    after, before = in_two(inputs, second_moments(projection(now).flatten(0, 1) for now in units), between)
    for way, weight in zip(WAYS, after.chunk(2), strict=True):
        old = getattr(following, way)
        setattr(following, way, _lstm(weight, old.weight_hh_l0, old.bias_ih_l0, old.bias_hh_l0))
    projection = _linear(before @ projection.weight, before @ projection.bias)
    model.crnn.projections[index] = projection
    return [projection(now) for now in units]


def _both_ways(lstm: CrnnBidirectionalLstm, frames: list[torch.Tensor]) -> list[torch.Tensor]:
    return [lstm(now, torch.arange(len(now), device=now.device).flip(0)[:, None]) for now in frames]


def _lstm(input_weight: torch.Tensor, weight: torch.Tensor, input_bias: torch.Tensor, bias: torch.Tensor) -> nn.LSTM:
    lstm = nn.LSTM(input_weight.shape[1], weight.shape[1]).to(weight.device)
    parts = {"weight_ih_l0": input_weight, "weight_hh_l0": weight, "bias_ih_l0": input_bias, "bias_hh_l0": bias}
    lstm.load_state_dict(parts)
    return lstm


def _linear(weight: torch.Tensor, bias: torch.Tensor) -> nn.Linear:
    linear = nn.Linear(weight.shape[1], weight.shape[0]).to(weight.device)
    linear.load_state_dict({"weight": weight, "bias": bias})
    return linear
