"""Noise schedules against the check values of the paper's code, and the forward process."""

from __future__ import annotations

import math

import pytest
import torch

from diffq.diffusion.gaussian import alpha_bars, betas, diffuse


def test_the_sqrt_schedule_has_the_published_check_values():
    beta, alpha_bar = betas("sqrt", 1000), alpha_bars("sqrt", 1000)
    for i, value in {0: 0.0234, 1: 0.01309, 998: 0.5264, 999: 0.999}.items():
        assert abs(float(beta[i]) - value) < 0.5 * 10 ** -(len(str(value)) - 2)
    products = {0: 0.9766, 1: 0.9638, 9: 0.9086, 99: 0.6905, 249: 0.5049, 499: 0.2958, 749: 0.1353, 899: 0.0518}
    for i, value in (products | {998: 0.0005}).items():
        assert abs(float(alpha_bar[i]) - value) <= 0.5e-4
    i = torch.arange(1, 999, dtype=torch.float64)
    assert (alpha_bar[:998] - (1 - torch.sqrt(i / 1000 + 1e-4)) / 0.99).abs().max() < 1e-12


@pytest.mark.parametrize("timesteps", [2, 50, 1000, 2000])
def test_cosine_and_linear_have_their_formulas(timesteps):
    f = lambda u: math.cos((u + 0.008) / 1.008 * math.pi / 2) ** 2  # noqa: E731
    cosine = [min(1 - f((i + 1) / timesteps) / f(i / timesteps), 0.999) for i in range(timesteps)]
    assert (betas("cosine", timesteps) - torch.tensor(cosine, dtype=torch.float64)).abs().max() < 1e-14
    linear = [min(1000 / timesteps * (1e-4 + (0.02 - 1e-4) * i / (timesteps - 1)), 0.999) for i in range(timesteps)]
    assert (betas("linear", timesteps) - torch.tensor(linear, dtype=torch.float64)).abs().max() < 1e-14


@pytest.mark.parametrize("schedule", ["sqrt", "cosine", "linear"])
@pytest.mark.parametrize("timesteps", [2, 3, 200, 1000])
def test_signal_falls_and_stays_positive(schedule, timesteps):
    beta, alpha_bar = betas(schedule, timesteps), alpha_bars(schedule, timesteps)
    assert beta.dtype == alpha_bar.dtype == torch.float64
    assert len(beta) == timesteps
    assert 0 < beta.min() <= beta.max() <= 0.999
    assert alpha_bar[-1] > 0
    assert (alpha_bar[1:] < alpha_bar[:-1]).all()
    products = [math.prod((1 - beta[: i + 1]).tolist()) for i in range(timesteps)]
    assert (alpha_bar - torch.tensor(products, dtype=torch.float64)).abs().max() < 1e-12


def test_the_forward_process_mixes_row_by_row():
    x0, noise = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    share = torch.tensor([1.0, 0.25, 0.0])
    y = diffuse(x0, noise, share)
    assert torch.equal(y[0], x0[0])
    assert torch.allclose(y[1], 0.5 * x0[1] + math.sqrt(0.75) * noise[1])
    assert torch.equal(y[2], noise[2])
    assert diffuse(x0, noise, 0.25).dtype == torch.float32
    assert torch.allclose(diffuse(x0, noise, 0.25)[1], y[1])
