"""The law of τ-leaping in the uniform process, by enumeration on a joint whose scores are known.

Each chi-square bound is one that fresh keys would break less than once in 1e9.
"""

from __future__ import annotations

import itertools
from collections import Counter

import pytest
import torch
from reference import tabular

from diffq.diffusion.discrete import Uniform
from diffq.diffusion.noise import Noise, times
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.samplers.masked import Analytic, Euler

WORDS, LENGTH, ROWS = 3, 2, 6000
NOISE = Noise("geometric", low=1e-2, high=6.0)
DENOISER = tabular.TabularUniform(tabular.joint(WORDS, LENGTH, seed=3), NOISE)
PROCESS = Uniform(WORDS)


def step_law(tokens, position, k, kind, steps):
    """The published formulas on whole rows, clipped and normalised: final denoising is analytic to σ = 0."""
    time = times(steps)
    sigma = torch.cat([NOISE.total(time), torch.zeros(1, dtype=torch.float64)])
    session = DENOISER.open(None)
    row = torch.tensor([*tokens, position, float(NOISE.share(time)[k])], dtype=torch.float64)
    score = session._log_score(row).exp()
    token = torch.tensor(tokens[position])
    if kind is Euler and k < steps:
        step = NOISE.rate(time)[k] * (time[k] - time[k + 1])
        law = torch.nn.functional.one_hot(token, WORDS) + step * PROCESS.reverse_rate(score, token)
    else:
        dsigma = sigma[k] - sigma[k + 1]
        law = PROCESS.staggered_score(score, dsigma) * PROCESS.arrival(token, dsigma)
    law = law.clamp(min=0)
    return law / law.sum()


def sampler_law(kind, steps, final=True):
    law = dict.fromkeys(tabular.states(WORDS, LENGTH), WORDS ** (-LENGTH))
    for k in range(steps + final):
        following = Counter()
        for tokens, weight in law.items():
            rows = [step_law(tokens, i, k, kind, steps) for i in range(LENGTH)]
            for choice in itertools.product(range(WORDS), repeat=LENGTH):
                following[choice] += weight * float(
                    torch.stack([r[c] for r, c in zip(rows, choice, strict=True)]).prod()
                )
        law = following
    return law


@pytest.mark.parametrize("kind", [Analytic, Euler])
@pytest.mark.parametrize("final", [True, False])
def test_the_law_of_a_few_steps(kind, final):
    sampler = kind(steps=3, denoise="draw" if final else "none")
    filled = sampler(DENOISER, tabular.canvas(LENGTH, ROWS, WORDS), Rng(2))
    law = sampler_law(kind, 3, final)
    statistic, freedom = tabular.chi_square(Counter(map(tuple, filled.tokens_BL.tolist())), law, ROWS)
    assert freedom == len(law) - 1
    assert statistic < tabular.bound_1e9(freedom)


def test_more_steps_come_nearer_to_the_joint():
    truth = {s: float(DENOISER.joint[s]) for s in tabular.states(WORDS, LENGTH)}
    apart = []
    for steps in (1, 4, 16):
        law = sampler_law(Analytic, steps)
        apart.append(sum(abs(law[s] - truth[s]) for s in truth) / 2)
    assert apart[0] > apart[1] > apart[2]
    assert apart[2] < 0.02


def test_one_exact_position_is_sampled_exactly_whatever_the_steps():
    """With one position the staggered score is exact, so even one step gives the law at once, but for the prior."""
    one = tabular.TabularUniform(tabular.joint(4, 1, seed=1), Noise("geometric", low=1e-4, high=20.0))
    filled = Analytic(steps=1)(one, tabular.canvas(1, ROWS, 4), Rng(0))
    law = {(v,): float(one.joint[v]) for v in range(4)}
    statistic, freedom = tabular.chi_square(Counter(map(tuple, filled.tokens_BL.tolist())), law, ROWS)
    assert statistic < tabular.bound_1e9(freedom)


def test_guidance_and_nuclei_are_refused():
    canvas = tabular.canvas(LENGTH, 2, WORDS)
    for dials in ({"scale": 2.0}, {"top_p": 0.9}, {"top_k": 2}):
        with pytest.raises(UserError, match="uniform process"):
            Analytic(**dials)(DENOISER, canvas, Rng(0))
