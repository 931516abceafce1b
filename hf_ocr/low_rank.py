"""A trained CRNN with fewer products, which computes nearly the same before any further training: kernels in two."""

from collections.abc import Iterable, Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from hf_ocr.models.ctc_reading import eval_mode
from hf_ocr.models.modeling_crnn import CrnnBidirectionalLstm, CrnnConvolution, CrnnForTextRecognition

__all__ = ["with_low_rank_kernels"]

PLACES = 5_000  # of an image, at most, that count for a layer
UNSEEN = 1e-6  # share of the greatest variance that what never varies counts with: other images may show it
RIDGE = 1e-4  # share of the mean variance that holds weights where the images say little


def with_low_rank_kernels(
    model: CrnnForTextRecognition,
    ranks: Sequence[int | None],
    images: Iterable[torch.Tensor],
    lstm_input_size: int | None = None,
) -> CrnnForTextRecognition:
    """A new CRNN whose kernels of h x w px are one of h x 1 and one of 1 x w px, with so many channels between them.

    After Jaderberg, Vedaldi, Zisserman, Speeding up Convolutional Neural Networks with Low Rank Expansions
    (arXiv:1405.3866, scheme 2). Layer by layer the first of the two is chosen by singular value decomposition, as that
    which loses least of what the columns of `images` give to the answers; then the second is fitted by least squares to
    what `model` answers, from what the layers before give now (Zhang et al., arXiv:1505.06798, fit answers in this
    way). Between recurrent layers comes the linear projection of `CrnnConfig.lstm_projection`, chosen as the first
    kernels are. Train the result on, with `model` as its teacher.

    Args:
        model: trained, with one kernel a layer or two, with a projection or without; is left as it is.
        ranks: one entry a layer of the trunk; None leaves its kernel whole.
        images: `pixel_values` of some hundred lines, float32 (1, num_channels, image_height, W) each, unpadded. What
            two layers see of all of them is held in memory: with the small trunk, 8 KB for each px of width.
        lstm_input_size: of the model to be made, see `CrnnConfig`.

    Returns:
        A model in float32, in the mode of `model` and on its device.

    Raises:
        ValueError: no images; a model that has residual blocks; ranks that its configuration does not take, or that
            are more than full.
    """
    if any(model.config.residual_blocks or ()):
        raise ValueError(
            f"the model has residual_blocks={model.config.residual_blocks}. Expected a CRNN without residual blocks."
        )
    model = _whole(model)
    config = model.config
    settings = {**config.to_dict(), "conv_ranks": list(ranks), "lstm_projection": True}
    settings["lstm_input_size"] = lstm_input_size
    lighter = CrnnForTextRecognition(type(config).from_dict(settings)).to(model.device).eval()
    own = lighter.state_dict()
    same = {name: part for name, part in model.state_dict().items() if part.shape == own[name].shape}
    lighter.load_state_dict(same, strict=False)
    layers = [
        (cast(CrnnConvolution, layer), cast(CrnnConvolution, light))
        for layer, light in zip(model.crnn.convolutions, lighter.crnn.convolutions, strict=True)
    ]
    for index, ((layer, _), rank) in enumerate(zip(layers, ranks, strict=True)):
        outputs, inputs, height, width = layer.convolution.weight.shape
        most = min(outputs * width, inputs * height)
        if rank is not None and rank > most:
            raise ValueError(
                f"ranks[{index}] is {rank}, expected at most {most}, with which nothing is lost. Give fewer, or None "
                "for one kernel."
            )
    seen = [(image.to(model.device, model.dtype), image.to(model.device).float()) for image in images]
    if not seen:
        raise ValueError("no images. Expected some hundred lines like those that will be read.")
    with torch.no_grad(), eval_mode(model):
        for layer, light in layers:
            if isinstance(light.vertical, nn.Conv2d):
                _fit(layer, light, seen)
            seen = [(answers_of(layer, known), answers_of(light, now)) for known, now in seen]
        _project(model, lighter, [now.squeeze(2).permute(2, 0, 1) for _, now in seen])
    return lighter.train(model.training)


def _whole(model: CrnnForTextRecognition) -> CrnnForTextRecognition:
    """A copy in float32 with one kernel a layer and no projection, which computes the same."""
    settings = {**model.config.to_dict(), "conv_ranks": None, "lstm_projection": False}
    settings["lstm_input_size"] = None
    whole = CrnnForTextRecognition(type(model.config).from_dict(settings)).to(model.device)
    own = whole.state_dict()
    same = {name: part for name, part in model.state_dict().items() if name in own and part.shape == own[name].shape}
    whole.load_state_dict(same, strict=False)
    with torch.no_grad():
        for layer, one in zip(model.crnn.convolutions, whole.crnn.convolutions, strict=True):
            cast(CrnnConvolution, one).convolution.weight.copy_(cast(CrnnConvolution, layer).whole_kernel())
        for index, projection in enumerate([model.crnn.first_projection, *model.crnn.projections]):
            if isinstance(projection, nn.Linear):
                for way in ("forward_lstm", "backward_lstm"):
                    lstm, one = (getattr(each.crnn.lstms[index], way) for each in (model, whole))
                    weight = lstm.weight_ih_l0.float()
                    one.weight_ih_l0.copy_(weight @ projection.weight.float())
                    one.bias_ih_l0.add_(weight @ projection.bias.float())
    return whole.train(model.training)


def answers_of(layer: CrnnConvolution, hidden: torch.Tensor) -> torch.Tensor:
    width = hidden.shape[-1]
    return layer(hidden, torch.tensor([width], device=hidden.device), width)[0]


def _fit(layer: CrnnConvolution, light: CrnnConvolution, seen: list[tuple[torch.Tensor, torch.Tensor]]) -> None:
    """Set both kernels of `light`, which sees the second of each pair, to answer as `layer` does of the first."""
    weight = layer.convolution.weight
    outputs, inputs, height, width = weight.shape
    (above, padding), (down, stride) = (
        cast(tuple[int, int], pair) for pair in (layer.convolution.padding, layer.convolution.stride)
    )
    vertical = cast(nn.Conv2d, light.vertical)
    rank = vertical.out_channels

    def columns(hidden: torch.Tensor) -> torch.Tensor:
        """(1, C, H, W) -> (places, C * height): what the first kernel sees."""
        windows = F.pad(hidden, (0, 0, above, above)).unfold(2, height, down)
        return windows.permute(2, 3, 0, 1, 4).reshape(-1, inputs * height)

    taps = weight.permute(0, 3, 1, 2).reshape(outputs * width, inputs * height)
    after, before = in_two(taps, second_moments(columns(now) for _, now in seen), rank)
    vertical.weight.copy_(before.view(rank, inputs, height, 1))
    light.convolution.weight.copy_(after.view(outputs, width, rank).transpose(1, 2).unsqueeze(2))

    variance = missing = torch.zeros((), device=weight.device)
    for known, now in seen:
        lack = (layer.convolution(known).float() - light.convolution(vertical(now))).flatten(2)[0].T
        windows = F.pad(vertical(now), (padding, padding)).unfold(3, width, stride)  # (1, rank, rows, W, width)
        places = windows.permute(2, 3, 0, 1, 4).reshape(-1, rank * width)
        if light.convolution.bias is not None:
            places = F.pad(places, (0, 1), value=1.0)
        step = 1 + len(places) // PLACES
        places, lack = places[::step].double(), lack[::step].double()
        variance, missing = variance + places.T @ places, missing + places.T @ lack
    variance.diagonal().add_(RIDGE * variance.diagonal().mean() + torch.finfo(torch.float32).tiny)
    change = torch.linalg.solve(variance, missing).float().T  # (outputs, rank * width + 1)
    light.convolution.weight += change[:, : rank * width].view(outputs, rank, 1, width)
    if light.convolution.bias is not None:
        light.convolution.bias += change[:, -1]


def _project(model: CrnnForTextRecognition, lighter: CrnnForTextRecognition, frames: list[torch.Tensor]) -> None:
    """Set the projections of `lighter` and the weights behind them; `frames` (T, 1, C) is what the first LSTM sees."""
    for index, layers in enumerate(zip(model.crnn.lstms, lighter.crnn.lstms, strict=True)):
        layer, light = (cast(CrnnBidirectionalLstm, lstm) for lstm in layers)
        projection = lighter.crnn.projections[index - 1] if index else lighter.crnn.first_projection
        if isinstance(projection, nn.Linear):
            weights, own_weights = (
                [cast(torch.Tensor, way.weight_ih_l0) for way in (both.forward_lstm, both.backward_lstm)]
                for both in (layer, light)
            )
            moments = second_moments(now.flatten(0, 1) for now in frames)
            after, before = in_two(torch.cat(weights), moments, projection.out_features)
            for own, part in zip(own_weights, after.chunk(2), strict=True):
                own.copy_(part)
            projection.weight.copy_(before)
            nn.init.zeros_(projection.bias)
            frames = [projection(now) for now in frames]
        reversals = [torch.arange(len(now), device=now.device).flip(0)[:, None] for now in frames]
        frames = [light(now, reversal) for now, reversal in zip(frames, reversals, strict=True)]


def second_moments(parts: Iterable[torch.Tensor]) -> torch.Tensor:
    """Second moments, float64 (n, n), of vectors: (any, n) of each image, which all count alike."""
    total = torch.zeros(())
    for vectors in parts:
        vectors = vectors[:: 1 + len(vectors) // PLACES].double()
        total = total + vectors.T @ vectors / len(vectors)
    return total


def in_two(weight: torch.Tensor, moments: torch.Tensor, rank: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(m, n), the second moments of its inputs (n, n) -> (m, rank), (rank, n) whose product answers nearly the same."""
    values, vectors = torch.linalg.eigh(moments)
    values = values.clamp_min(UNSEEN * values[-1].clamp_min(1e-12))
    answers = weight.double() @ (vectors * values.sqrt())
    after = torch.linalg.svd(answers, full_matrices=False).U[:, :rank]
    return after.float(), (after.T @ weight.double()).float()
