"""The operators of both discrete processes, against matrix exponentials and exact ratios on a joint; score entropy."""

from __future__ import annotations

import math

import pytest
import torch
from reference import tabular

from diffq.diffusion.discrete import Absorbing, Uniform
from diffq.diffusion.noise import LAST_TIME, Noise, times
from diffq.diffusion.score_entropy import absorbing_entropy, uniform_entropy, uniform_prior_divergence

V = 5
PROCESSES = [Absorbing(V), Uniform(V)]
NOISES = [Noise(), Noise("geometric", low=1e-3, high=7.0), Noise("cosine")]


def rate_matrix(process):
    """Q[x, y]: from x to y a unit of σ."""
    n = process.states
    if isinstance(process, Uniform):
        return torch.full((n, n), 1 / n, dtype=torch.float64) - torch.eye(n, dtype=torch.float64)
    matrix = -torch.eye(n, dtype=torch.float64)
    matrix[:, -1] += 1
    return matrix


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_transition_and_arrival_are_rows_and_columns_of_the_matrix_exponential(process):
    tokens = torch.arange(process.states)
    for sigma in (0.0, 0.3, 4.0):
        exact = torch.linalg.matrix_exp(sigma * rate_matrix(process))
        sigmas = torch.full(tokens.shape, sigma)
        assert torch.allclose(process.transition(tokens, sigmas), exact, atol=1e-12)
        assert torch.allclose(process.arrival(tokens, sigmas), exact.T, atol=1e-12)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_score_of_a_marginal_staggers_to_earlier_marginals_and_reverses_the_chain(process):
    """One position: p_σ is known, so its ratios are the score; the reverse of a small step is Bayes' rule."""
    n = process.states
    p0 = torch.rand(n, dtype=torch.float64)
    if isinstance(process, Absorbing):
        p0[-1] = 0
    p0 /= p0.sum()
    matrix = rate_matrix(process)
    sigma, step = 1.3, 0.4
    later, earlier = (p0 @ torch.linalg.matrix_exp(s * matrix) for s in (sigma, sigma - step))
    x = torch.arange(n)
    score = later[None, :] / later[:, None]
    staggered = process.staggered_score(score, torch.full((n,), step))
    assert torch.allclose(staggered, earlier[None, :] / later[:, None], atol=1e-12)
    reverse = staggered * process.arrival(x, torch.full((n,), step))
    exact = earlier[:, None] * torch.linalg.matrix_exp(step * matrix) / later[None, :]
    assert torch.allclose(reverse, exact.T, atol=1e-12)
    tiny = 1e-6
    before = p0 @ torch.linalg.matrix_exp((sigma - tiny) * matrix)
    bayes = (before[:, None] * torch.linalg.matrix_exp(tiny * matrix) / later[None, :]).T
    rate = process.reverse_rate(score, x)
    assert torch.allclose(rate.sum(-1), torch.zeros(n, dtype=torch.float64), atol=1e-9)
    assert torch.allclose((bayes - torch.eye(n)) / tiny, rate, atol=1e-4)


@pytest.mark.parametrize("process", PROCESSES, ids=lambda p: type(p).__name__)
def test_the_posterior_is_that_of_the_chain(process):
    matrix = rate_matrix(process)
    clean, sigma, earlier = torch.tensor(2), 1.5, 0.6
    first = torch.linalg.matrix_exp(earlier * matrix)
    second = torch.linalg.matrix_exp((sigma - earlier) * matrix)
    for token in (2, process.states - 1):
        exact = first[clean] * second[:, token]
        found = process.posterior(torch.tensor(token), clean, torch.tensor(sigma), torch.tensor(earlier))
        assert torch.allclose(found, exact / exact.sum(), atol=1e-12)


def test_what_is_destroyed_and_priors():
    u = torch.tensor([0.1, 0.5, 0.9])
    tokens, share = torch.tensor([1, 2, 3]), torch.tensor(0.6)
    assert Absorbing(V).destroy(tokens, share, u).tolist() == [V, V, 3]
    assert Uniform(V).destroy(tokens, share, u, torch.tensor([0.0, 0.99, 0.5])).tolist() == [0, 4, 3]
    assert Absorbing(V).prior(u).tolist() == [V] * 3
    assert Uniform(V).prior(u).tolist() == [0, 2, 4]


@pytest.mark.parametrize("noise", NOISES, ids=lambda n: n.name)
def test_schedules_rise_and_their_rates_are_their_slopes(noise):
    t = torch.linspace(0.01, 0.99, 50, dtype=torch.float64)
    sigma, h = noise.total(t), 1e-6
    assert bool((sigma.diff() > 0).all())
    slope = (noise.total(t + h) - noise.total(t - h)) / (2 * h)
    assert torch.allclose(noise.rate(t), slope, rtol=1e-6)
    assert torch.allclose(noise.share(t), 1 - torch.exp(-sigma), atol=1e-12)
    assert torch.allclose(noise.sigma_of(noise.share(t)), sigma, rtol=1e-6)
    assert float(noise.sigma_of(torch.ones(()))) == pytest.approx(noise.highest)


def test_times_begin_at_one_and_end_just_before_zero():
    assert times(4)[0] == 1
    assert float(times(4)[-1]) == pytest.approx(LAST_TIME)


def test_score_entropy_of_masks_is_r_times_cross_entropy_and_what_z_adds():
    """papers: r·(−log p(x0) + z − 1 − log z), against the published sum, with s = r·z·p."""
    sigma, clean = 0.8, 3
    r = 1 / math.expm1(sigma)
    for z in (0.5, 1.0, 1.7):
        p = torch.rand(V, dtype=torch.float64)
        p /= p.sum()
        s = r * z * p
        ratio = torch.zeros(V, dtype=torch.float64)
        ratio[clean] = r
        published = s.sum() - (ratio * s.log()).sum() + r * (math.log(r) - 1)
        found = r * absorbing_entropy(torch.tensor(z, dtype=torch.float64).log(), p[clean].log())
        assert float(found) == pytest.approx(float(published), abs=1e-12)
        assert float(found) >= r * float(-p[clean].log()) - 1e-12


@pytest.mark.parametrize("token", [1, 3])
def test_score_entropy_of_random_tokens_is_the_published_sum(token):
    clean, sigma, process = 3, 0.7, Uniform(V)
    at = process.transition(torch.tensor(clean), torch.tensor(sigma, dtype=torch.float64))
    ratio = at / at[token]
    s = torch.rand(V, dtype=torch.float64) + 0.1
    others = torch.arange(V) != token
    published = (s - ratio * s.log() + ratio * (ratio.log() - 1))[others].sum() / V
    same, at_sigma = torch.tensor(token == clean), torch.tensor(sigma, dtype=torch.float64)
    found = uniform_entropy(s[others].sum(), s[others].log().sum(), s[clean].log(), same, at_sigma, V)
    assert float(found) == pytest.approx(float(published), rel=1e-12)
    exact = uniform_entropy(ratio[others].sum(), ratio[others].log().sum(), ratio[clean].log(), same, at_sigma, V)
    assert float(exact) == pytest.approx(0, abs=1e-12), "it is least, and 0, at the true ratios"


def test_the_priors_divergence():
    sigma = torch.tensor(1.1).double()
    at = Uniform(V).transition(torch.tensor(0), sigma)
    assert float(uniform_prior_divergence(sigma, V)) == pytest.approx(float((at * (at * V).log()).sum()), rel=1e-12)


def test_the_tabular_scores_are_the_true_ones():
    """The double that laws of samplers are tested with: its scores are ratios of the noised joint."""
    joint = tabular.joint(3, 2)
    denoiser = tabular.TabularUniform(joint, NOISES[1])
    marginal = denoiser.marginal(0.4)
    assert float(marginal.sum()) == pytest.approx(1)
    row = torch.tensor([2.0, 1.0, 0.0, 0.4], dtype=torch.float64)
    assert torch.allclose(denoiser.open(None)._log_score(row).exp(), marginal[:, 1] / marginal[2, 1])
