"""Likelihood bounds by enumeration: exact where posteriors are, unbiased, and narrow enough to be of use.

Each bound on a Monte-Carlo mean is 6.2 standard errors: fresh keys would break it less than once in 1e9.
"""

from __future__ import annotations

import math

import pytest
import torch
from reference import tabular, text_models

from diffq.diffusion.contracts import Canvas
from diffq.diffusion.discrete import Uniform
from diffq.diffusion.draws import Draw
from diffq.diffusion.likelihood import bound, by_row, exact, teacher_forced
from diffq.diffusion.noise import Noise
from diffq.diffusion.reductions import LogProb
from diffq.diffusion.score_entropy import uniform_entropy, uniform_prior_divergence
from diffq.models.causal_lm import CausalLMSettings
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


def causal():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        sizes = {"width": 32, "heads": 2, "layers": 2, "max_length": LENGTH, "dropout": 0.0}
        made = text_models.lively(CausalLMSettings(**sizes).build(text_models.vocabulary(WORDS)))
    return made.denoiser()


def everything(free):
    """A canvas of all texts, with these places free."""
    tokens = torch.tensor(tabular.states(WORDS, LENGTH))
    free_BL = torch.zeros_like(tokens, dtype=torch.bool)
    free_BL[:, free] = True
    return Canvas(tokens, free_BL, torch.ones_like(free_BL), torch.arange(len(tokens)))


@pytest.mark.parametrize("free", [[0, 1, 2], [1, 2], [2], []])
def test_the_exact_likelihoods_of_all_continuations_add_up_to_one(free):
    denoiser, canvas = causal(), everything(free)
    given = WORDS ** (LENGTH - len(free))
    found = exact(denoiser, canvas)
    assert found.dtype == torch.float64
    assert float((-found).exp().sum()) == pytest.approx(given, rel=1e-6)


@pytest.mark.parametrize("from_start", [True, False])
def test_one_pass_says_of_each_token_what_reading_them_one_by_one_says(from_start):
    denoiser = causal()
    canvas = everything([0, 1, 2] if from_start else [1, 2])
    position_N, log_p_N, best_N = teacher_forced(denoiser, canvas, Draw(None, 0.0), from_start=from_start)
    session, all_B = denoiser.open(canvas), torch.arange(len(canvas.tokens_BL))
    read = torch.full_like(canvas.tokens_BL[:, :1], denoiser.start) if from_start else canvas.tokens_BL[:, :1]
    for place in range(0 if from_start else 1, LENGTH):
        expected, best = session.read(session.run(read), all_B, [LogProb(canvas.tokens_BL[:, place]), Draw(None, 0.0)])
        here = position_N % LENGTH == place
        assert position_N[here].tolist() == (all_B * LENGTH + place).tolist()
        assert log_p_N[here].tolist() == pytest.approx(expected.tolist(), rel=1e-5)
        assert best_N[here].tolist() == best.tolist()
        read = canvas.tokens_BL[:, place : place + 1]


def test_nothing_predicts_a_first_token_without_the_start():
    with pytest.raises(ValueError, match="nothing stands before it"):
        teacher_forced(causal(), everything([0, 1]), from_start=False)


def test_terms_are_added_up_by_row():
    canvas = everything([0, 2])
    position_N = canvas.free_BL.flatten().nonzero().squeeze(1)
    assert by_row(canvas.tokens_BL.flatten()[position_N], position_N, canvas).tolist() == [
        a + c for a, _, c in tabular.states(WORDS, LENGTH)
    ]
