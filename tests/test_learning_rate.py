"""The sweep finds where a loss falls and where it runs away, and leaves the model alone."""

import copy

import pytest
import torch

from hf_ocr.learning_rate import sweep_learning_rates


class Parabola(torch.nn.Module):
    """Mean of (w - 1 - noise)^2 over 50 weights: a step of AdamW moves each weight by about the rate."""

    def __init__(self):
        super().__init__()
        self.weights = torch.nn.Parameter(torch.zeros(50))

    def forward(self, noise):
        output = torch.nn.Module()
        output.loss = (self.weights - 1 - noise).square().mean()
        return output


def batches():
    generator = torch.Generator().manual_seed(0)
    return [{"noise": 0.3 * torch.randn(50, generator=generator)} for _ in range(100)]


def test_it_suggests_a_rate_below_where_the_loss_is_least():
    model = Parabola()
    before = copy.deepcopy(model.state_dict())
    sweep = sweep_learning_rates(model, batches(), lowest=1e-4, highest=100.0)
    assert list(sweep.rates) == sorted(sweep.rates)
    assert sweep.rates[0] == pytest.approx(1e-4)
    least = sweep.rates[sweep.losses.index(min(sweep.losses))]
    assert sweep.suggestion == pytest.approx(least / 10)
    assert 0.005 < sweep.suggestion < 0.5
    assert len(sweep.rates) < 100  # it ran away and was stopped
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_too_few_batches_and_a_loss_that_is_not_finite():
    with pytest.raises(ValueError, match="there were 3 batches, expected at least 100"):
        sweep_learning_rates(Parabola(), batches()[:3])
    with pytest.raises(ValueError, match="not finite before the first step"):
        sweep_learning_rates(Parabola(), [{"noise": torch.full((50,), float("nan"))}] * 100)
