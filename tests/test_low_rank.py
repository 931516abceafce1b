"""Kernels in two: what a trained CRNN computes is kept as far as the ranks allow."""

import copy

import pytest
import torch
from torch import nn

from hf_ocr.low_rank import with_low_rank_kernels
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition


def trained(**settings) -> CrnnForTextRecognition:
    """A small CRNN with statistics and biases that are not those of fresh weights."""
    torch.manual_seed(0)
    config = CrnnConfig.small(vocab_size=7, image_height=32, conv_channels=[6] * 8, lstm_hidden_size=6, **settings)
    model = CrnnForTextRecognition(config).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.bias, std=0.3)
    return model


def images(count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 1, 32, 60 + 10 * i, generator=generator) for i in range(count)]


def trunk(model: CrnnForTextRecognition, hidden: torch.Tensor) -> torch.Tensor:
    widths, least = torch.tensor([hidden.shape[-1]]), hidden.shape[-1]
    for layer in model.crnn.convolutions:
        hidden, widths, least = layer(hidden, widths, least)
    return hidden


def distance(one: CrnnForTextRecognition, other: CrnnForTextRecognition) -> float:
    """Of what the trunks answer, as a share of the answer."""
    with torch.no_grad():
        answers = [torch.cat([trunk(model, image) for image in images()], dim=-1) for model in (one, other)]
    return float((answers[0] - answers[1]).norm() / answers[1].norm())


def test_full_ranks_change_nothing():
    model = trained()
    before = {name: part.clone() for name, part in model.state_dict().items()}
    lighter = with_low_rank_kernels(model, [None, *[18] * 6, 12], images())
    assert lighter.config.conv_ranks == [None, *[18] * 6, 12] and lighter.config.lstm_projection
    assert not lighter.training
    assert distance(lighter, model) < 1e-5
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())


def test_a_model_with_kernels_in_two_can_have_others():
    model = with_low_rank_kernels(trained(), [None, *[6] * 7], images(), lstm_input_size=4)
    for projection in (model.crnn.first_projection, model.crnn.projections[0]):
        nn.init.normal_(projection.bias, std=0.3)  # as after some training
    same = with_low_rank_kernels(model, [None, *[6] * 7], images(), lstm_input_size=4)
    whole = with_low_rank_kernels(model, [None] * 8, images(), lstm_input_size=6)
    fewer = with_low_rank_kernels(model, [None, *[3] * 7], images())
    with torch.no_grad():
        for other in (same, whole):
            for image in images():
                torch.testing.assert_close(other(image).logits, model(image).logits, atol=1e-4, rtol=0)
    assert 1e-3 < distance(fewer, model) < 1
    assert fewer.config.conv_ranks == [None, *[3] * 7] and whole.config.conv_ranks == [None] * 8


def test_more_channels_between_the_kernels_answer_more_alike():
    model = trained()
    distances = [distance(with_low_rank_kernels(model, [None, *[rank] * 7], images()), model) for rank in (2, 6, 12)]
    assert distances[0] > 1.2 * distances[1] > 2 * distances[2]


def test_what_is_seen_decides_what_is_kept():
    """The channels of the first layer are made equal: then three rows are all that the second sees of them."""
    model = trained()
    with torch.no_grad():
        first = model.crnn.convolutions[0]
        for part in (first.convolution.weight, first.convolution.bias, first.norm.running_mean, first.norm.running_var,
                     first.norm.weight, first.norm.bias):  # fmt: skip
            part[1:] = part[:1].clone()
    ranks = {rank: with_low_rank_kernels(model, [None, rank, *[None] * 6], images()) for rank in (2, 3)}
    assert distance(ranks[3], model) < 1e-4
    assert distance(ranks[2], model) > 1e-2


def test_what_is_not_seen_is_not_lost_where_there_is_room():
    model = trained()
    flat = [torch.full((1, 1, 32, 64), 0.5)]
    assert distance(with_low_rank_kernels(model, [None, *[18] * 6, 12], flat), model) < 1e-3


def test_layers_keep_their_modes():
    model = trained().train()
    frozen = model.crnn.convolutions[0].norm.eval()
    with_low_rank_kernels(model, [None] * 8, images())
    assert model.training and not frozen.training


@pytest.mark.parametrize("lstm_input_size", [None, 6])
def test_the_projection_between_recurrent_layers_keeps_what_varies(lstm_input_size):
    model = trained()
    with torch.no_grad():  # half of the first layer's cells are silent: what is left fits into the projection
        for lstm in (model.crnn.lstms[0].forward_lstm, model.crnn.lstms[0].backward_lstm):
            for part in lstm.parameters():
                part.view(4, 6, -1)[:, 3:] = 0
    lighter = with_low_rank_kernels(model, [None] * 8, images(), lstm_input_size)
    assert isinstance(lighter.crnn.first_projection, nn.Linear) == (lstm_input_size is not None)
    with torch.no_grad():
        for image in images():
            torch.testing.assert_close(lighter(image).logits, model(image).logits, atol=1e-6, rtol=0)


@pytest.mark.parametrize(
    ("settings", "ranks", "count", "message"),
    [
        ({}, [None] * 8, 0, "no images"),
        ({}, [None] * 7, 1, "one entry a layer"),
        ({}, [None, *[18] * 7], 1, r"ranks\[7\] is 18, expected at most 12"),
        ({"residual_blocks": [1, *[0] * 7]}, [None] * 8, 1, "residual_blocks="),
    ],
)
def test_what_cannot_be_put_in_two_is_named(settings, ranks, count, message):
    with pytest.raises(ValueError, match=message):
        with_low_rank_kernels(trained(**settings), ranks, images(count))


def test_the_second_kernel_makes_up_for_what_the_first_loses():
    """Better than the product of both that is next to the whole kernel: the error behind the trunk shrinks."""
    model = trained()
    fitted = with_low_rank_kernels(model, [None, *[4] * 7], images(12))
    plain = copy.deepcopy(fitted)
    with torch.no_grad():
        for layer, light in zip(model.crnn.convolutions, plain.crnn.convolutions, strict=True):
            if isinstance(light.vertical, nn.Conv2d):
                whole = layer.convolution.weight
                first = light.vertical.weight[:, :, :, 0].flatten(1)  # (rank, inputs * height), orthonormal or nearly
                taps = whole.permute(0, 3, 1, 2).flatten(2).flatten(0, 1)
                second = taps @ torch.linalg.pinv(first)
                light.convolution.weight.copy_(second.view(len(whole), 3, -1).transpose(1, 2).unsqueeze(2))
                light.convolution.bias.copy_(layer.convolution.bias)
    assert distance(fitted, model) < 0.9 * distance(plain, model)


def test_convolutions_without_bias():
    model = trained(conv_bias=False)
    assert distance(with_low_rank_kernels(model, [None, *[18] * 6, 12], images()), model) < 1e-4
