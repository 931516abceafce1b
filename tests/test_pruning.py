"""Fewer units: what a trained CRNN computes is kept as far as the units that stay can tell it."""

import pytest
import torch
from torch import nn

from hf_ocr.low_rank import with_low_rank_kernels
from hf_ocr.models.configuration_crnn import CrnnConfig
from hf_ocr.models.modeling_crnn import CrnnForTextRecognition
from hf_ocr.pruning import with_fewer_units


def trained(**settings) -> CrnnForTextRecognition:
    """A small CRNN with biases that are not those of fresh weights, all of whose units vary."""
    torch.manual_seed(0)
    config = CrnnConfig.small(
        vocab_size=7, image_height=32, conv_channels=[6] * 7 + [10], lstm_hidden_size=8,
        **{"lstm_projection": True, **settings},
    )  # fmt: skip
    model = CrnnForTextRecognition(config)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.normal_(module.bias, std=0.3)
            if isinstance(module, nn.LSTM):
                nn.init.normal_(module.bias_ih_l0, std=0.5)
        for _ in range(20):  # the batch norms see what they will read
            for image in images():
                model(image)
    return model.eval()


def images(count: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(1, 1, 32, 60 + 10 * i, generator=generator) for i in range(count)]


def distance(one: CrnnForTextRecognition, other: CrnnForTextRecognition) -> float:
    """Of what both answer, as a share of what the answer of `other` varies by."""
    with torch.no_grad():
        answers, expected = (torch.cat([model(image).logits[0] for image in images()]) for model in (one, other))
    return float((answers - expected).norm() / (expected - expected.mean(0)).norm())


@pytest.mark.parametrize("lstm_input_size", [None, 5])
def test_all_units_change_nothing(lstm_input_size):
    model = trained(lstm_input_size=lstm_input_size)
    before = {name: part.clone() for name, part in model.state_dict().items()}
    same = with_fewer_units(model, 10, 8, images())
    assert distance(same, model) < 1e-5
    assert all(torch.equal(part, before[name]) for name, part in model.state_dict().items())


def test_units_that_others_tell_are_not_missed():
    """Two channels are copies of others, and two units of each direction do what others do."""
    model = trained()
    with torch.no_grad():
        last = model.crnn.convolutions[-1]
        for part in (last.convolution.weight, last.convolution.bias, *last.norm.state_dict().values()):
            if part.ndim:
                part[[3, 7]] = part[[1, 2]].clone()
        for lstm in model.crnn.lstms:
            for way in (lstm.forward_lstm, lstm.backward_lstm):
                for part in way.parameters():
                    gates = part.view(4, 8, -1)
                    gates[:, [0, 5]] = gates[:, [4, 6]].clone()
        model.crnn.projections[0].weight[6:] = 0  # what the second layer sees has six dimensions
        model.crnn.projections[0].bias[6:] = 0
    smaller = with_fewer_units(model, 8, 6, images())
    assert smaller.config.conv_channels == [6] * 7 + [8] and smaller.config.lstm_hidden_size == 6
    assert smaller.crnn.projections[0].weight.shape == (6, 12)
    assert distance(smaller, model) < 5e-3
    assert distance(with_fewer_units(model, 4, 6, images()), model) > 1e-2
    assert distance(with_fewer_units(model, 8, 4, images()), model) > 1e-2


def test_channels_before_a_linear_layer_that_others_tell_are_not_missed():
    model = trained(lstm_input_size=6)
    with torch.no_grad():
        last = model.crnn.convolutions[-1]
        for part in (last.convolution.weight, last.convolution.bias, *last.norm.state_dict().values()):
            if part.ndim:
                part[[3, 7]] = part[[1, 2]].clone()
    assert distance(with_fewer_units(model, 8, 8, images()), model) < 1e-5
    assert distance(with_fewer_units(model, 3, 8, images()), model) > 1e-4


def test_what_is_kept_makes_up_for_what_is_not():
    """Better than the same units with their own weights alone."""
    model = trained()
    smaller = with_fewer_units(model, 8, 8, images())
    plain = with_fewer_units(model, 8, 8, images())
    kept = [
        next(i for i, kernel in enumerate(model.crnn.convolutions[-1].convolution.weight) if torch.equal(kernel, own))
        for own in smaller.crnn.convolutions[-1].convolution.weight
    ]
    assert kept == sorted(kept) and len(set(kept)) == 8
    with torch.no_grad():
        for way in ("forward_lstm", "backward_lstm"):
            old, new = getattr(model.crnn.lstms[0], way), getattr(plain.crnn.lstms[0], way)
            new.weight_ih_l0.copy_(old.weight_ih_l0[:, kept])
            new.bias_ih_l0.copy_(old.bias_ih_l0)
    assert distance(smaller, model) < distance(plain, model)


def test_layers_keep_their_modes_and_the_result_is_saved(tmp_path):
    model = trained().train()
    frozen = model.crnn.convolutions[0].norm.eval()
    smaller = with_fewer_units(model, 8, 6, images())
    assert model.training and not frozen.training and smaller.training
    smaller.eval().save_pretrained(tmp_path)
    assert distance(CrnnForTextRecognition.from_pretrained(tmp_path), smaller) < 1e-6


@pytest.mark.parametrize(
    ("channels", "hidden_size", "settings", "count", "message"),
    [
        (11, 8, {}, 1, "channels is 11, expected 1 to 10"),
        (10, 0, {}, 1, "hidden_size is 0, expected 1 to 8"),
        (10, 8, {"lstm_projection": False}, 1, "lstm_projection=False"),
        (10, 8, {}, 0, "no images"),
    ],
)
def test_what_cannot_be_made_smaller_is_named(channels, hidden_size, settings, count, message):
    with pytest.raises(ValueError, match=message):
        with_fewer_units(trained(**settings), channels, hidden_size, images(count))


def test_kernels_in_two_stay_in_two():
    model = with_low_rank_kernels(trained(), [None, *[6] * 7], images())
    smaller = with_fewer_units(model, 9, 7, images())
    assert smaller.config.conv_ranks == [None, *[6] * 7]
    assert distance(smaller, model) < 0.5
