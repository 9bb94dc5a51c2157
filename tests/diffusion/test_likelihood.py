"""Likelihood bounds by enumeration: exact where posteriors are, unbiased, and narrow enough to be of use.

Each bound on a Monte-Carlo mean is 6.2 standard errors: fresh keys would break it less than once in 1e9.
"""

from __future__ import annotations

import math

import pytest
import torch
from reference import tabular, text_models

from diffq.diffusion.discrete import Uniform
from diffq.diffusion.likelihood import bound
from diffq.diffusion.noise import Noise
from diffq.diffusion.score_entropy import uniform_entropy, uniform_prior_divergence
from diffq.rng import Rng

WORDS, LENGTH, ROWS = 3, 3, 1500
JOINT = tabular.joint(WORDS, LENGTH, seed=5)


def canvas_of(text, given=(), rows=ROWS):
    canvas = tabular.canvas(LENGTH, rows, WORDS, {i: text[i] for i in given})
    return canvas.replace(tokens_BL=torch.tensor(text).expand(rows, -1).clone())


def near(values, expected):
    error = float(values.std()) / math.sqrt(len(values))
    assert abs(float(values.mean()) - expected) < 6.2 * error + 1e-9, (float(values.mean()), expected, error)


@pytest.mark.parametrize("text", [(0, 1, 2), (2, 2, 0)])
@pytest.mark.parametrize("given", [(), (1,)])
def test_with_exact_posteriors_the_absorbing_bound_is_the_likelihood_itself(text, given):
    """Whatever the order in which positions are read, the chain rule gives log p: so does their mean."""
    index = tuple(text[i] if i in given else slice(None) for i in range(LENGTH))
    expected = -math.log(float(JOINT[text] / JOINT[index].sum()))
    near(bound(tabular.TabularMasks(JOINT), canvas_of(text, given), Rng(0), draws=4), expected)


def test_a_learnt_z_adds_what_it_must():
    text, z = (0, 1, 2), 1.6
    denoiser = tabular.TabularMasks(JOINT, z=lambda *_: z)
    # Σ over masks of (1/k)·k = one for each of the positions: the gap is z − 1 − log z a token.
    expected = -math.log(float(JOINT[text])) + LENGTH * (z - 1 - math.log(z))
    near(bound(denoiser, canvas_of(text), Rng(0), draws=4), expected)


def test_the_noise_level_that_the_network_is_told_has_the_law_of_the_mask():
    """z is a function of m: the exact integral is Σ over masks and quadrature over m."""
    text = (1, 0, 2)
    denoiser = tabular.TabularMasks(JOINT, z=lambda tokens, position, m: 0.5 + m * (1 + position))
    m = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    expected = 0.0
    for mask in range(1, 1 << LENGTH):
        hidden = [i for i in range(LENGTH) if mask >> i & 1]
        tokens = tuple(WORDS if i in hidden else t for i, t in enumerate(text))
        weight = m ** (len(hidden) - 1) * (1 - m) ** (LENGTH - len(hidden))
        for i in hidden:
            log_p = float(denoiser.log_weights(tokens, i, 0.5).log_softmax(0)[text[i]])
            z = 0.5 + m * (1 + i)
            expected += float((weight * (z - 1 - z.log() - log_p)).mean())
    near(bound(denoiser, canvas_of(text), Rng(0), draws=4), expected)


def exact_uniform_bound(denoiser, text, grid=300):
    """The bound by quadrature over log σ and enumeration over what the text is destroyed to."""
    noise, process = denoiser.noise, Uniform(denoiser.vocab_size)
    edges = torch.linspace(0, 1, grid + 1, dtype=torch.float64)
    middle = (edges[1:] + edges[:-1]) / 2
    total = 0.0
    for t in middle:
        sigma, share = noise.total(t), float(noise.share(t))
        moves = process.transition(torch.tensor(text), sigma.expand(len(text)))
        marginal = denoiser.marginal(share)
        for tokens in tabular.states(denoiser.vocab_size, len(text)):
            weight = math.prod(float(moves[i, v]) for i, v in enumerate(tokens))
            for i, token in enumerate(tokens):
                row = marginal[(*tokens[:i], slice(None), *tokens[i + 1 :])]
                score = row / row[token]
                others = torch.arange(denoiser.vocab_size) != token
                entropy = uniform_entropy(
                    score[others].sum(), score[others].log().sum(), score[text[i]].log(),
                    torch.tensor(token == text[i]), sigma, denoiser.vocab_size,
                )  # fmt: skip
                total += float(noise.rate(t)) / grid * weight * float(entropy)
    prior = uniform_prior_divergence(torch.tensor(noise.highest, dtype=torch.float64), denoiser.vocab_size)
    return total + len(text) * float(prior)


def test_with_exact_scores_the_uniform_bound_is_the_entropy_on_average_and_its_estimate_is_unbiased():
    """The mean over the joint is the entropy, but for the mismatch of the prior, which is nothing at σ = 12."""
    joint = tabular.joint(2, 2, seed=1)
    denoiser = tabular.TabularUniform(joint, Noise("geometric", low=1e-5, high=12.0))
    bounds = {text: exact_uniform_bound(denoiser, text) for text in tabular.states(2, 2)}
    mean = sum(float(joint[text]) * value for text, value in bounds.items())
    assert mean == pytest.approx(-float((joint * joint.log()).sum()), abs=1e-3)
    canvas = tabular.canvas(2, 300, 2).replace(tokens_BL=torch.tensor([[0, 1]]).expand(300, -1).clone())
    near(bound(denoiser, canvas, Rng(1), draws=4), bounds[0, 1])


def test_more_draws_and_replicates_narrow_the_estimate_and_stratified_ones_more():
    text, denoiser = (0, 1, 2), tabular.TabularMasks(JOINT)
    canvas = canvas_of(text)
    one = bound(denoiser, canvas, Rng(0), draws=1)
    six = bound(denoiser, canvas, Rng(0), draws=6)
    assert float(six.var()) < float(one.var()) / 6 / 1.2
    two = (one + bound(denoiser, canvas, Rng(0), draws=1, replicate=1)) / 2
    assert float(two.var()) == pytest.approx(float(one.var()) / 2, rel=0.25)


def test_rows_of_one_id_share_their_noise():
    """Two texts that differ in a given token alone are masked alike: their difference has less variance than they."""
    model = text_models.build("mdlm").denoiser()
    canvas = text_models.canvas(40, 12, given=0.0)
    free = torch.ones_like(canvas.free_BL)
    free[:, 0] = False
    one = canvas.replace(free_BL=free)
    other = one.replace(tokens_BL=one.tokens_BL.clone())
    other.tokens_BL[:, 0] = (other.tokens_BL[:, 0] + 1) % 700
    a, b = (bound(model, c, Rng(0), draws=2) for c in (one, other))
    apart = bound(model, other.replace(row_B=other.row_B + 1000), Rng(0), draws=2)
    assert float((a - b).var()) < 0.5 * float((a - apart).var())
