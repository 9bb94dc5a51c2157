"""The laws of the masked samplers, by enumeration on a joint whose clean-token distributions are known.

Draws are fixed by their keys; each chi-square bound is one that fresh keys would break less than once in 1e9.
"""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from reference import tabular

from diffq.diffusion.noise import Noise, times
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.samplers.masked import Analytic, Ancestral, Euler, FirstHitting

WORDS, LENGTH, ROWS = 3, 3, 6000
JOINT = tabular.joint(WORDS, LENGTH)
NOISES = {"log_linear": Noise(), "geometric": Noise("geometric", low=1e-3, high=5.0), "cosine": Noise("cosine")}


def uneven(tokens, position, m):
    """A z that depends on everything it may."""
    return 0.4 + 0.5 * position + 0.3 * sum(t != WORDS for t in tokens) + 0.5 * m


def outcomes(sampler, denoiser, given=None, rows=ROWS):
    filled = sampler(denoiser, tabular.canvas(LENGTH, rows, WORDS, given), Rng(1))
    return Counter(map(tuple, filled.tokens_BL.tolist()))


def agrees(found, law):
    statistic, freedom = tabular.chi_square(found, law, sum(found.values()))
    assert freedom >= 5
    assert statistic < tabular.bound_1e9(freedom), (statistic, freedom)


def exact(given=None):
    table = JOINT
    law = {s: float(table[s]) for s in tabular.states(WORDS, LENGTH)}
    if given:
        law = {s: p for s, p in law.items() if all(s[i] == t for i, t in given.items())}
        total = sum(law.values())
        law = {s: p / total for s, p in law.items()}
    return law


@pytest.mark.parametrize("given", [None, {0: 2}, {1: 0}])
def test_first_hitting_samples_the_joint_itself(given):
    agrees(outcomes(FirstHitting(), tabular.TabularMasks(JOINT), given), exact(given))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", [Ancestral, Euler])
def test_the_law_of_a_few_steps(kind, noise):
    sampler = kind(steps=3)
    denoiser = tabular.TabularMasks(JOINT, NOISES[noise])
    time = times(3)
    share = denoiser.noise.share(time)
    if kind is Euler:
        rate = denoiser.noise.rate(time[:-1]) * (time[:-1] - time[1:])
        chance = (rate * (1 - share[:-1]) / share[:-1]).clamp(max=1)
    else:
        chance = 1 - share[1:] / share[:-1]
    law = tabular.masked_law(denoiser, LENGTH, lambda k, z: chance[k], share)
    agrees(outcomes(sampler, denoiser), law)


@pytest.mark.parametrize("kind", [Analytic, Euler])
@pytest.mark.parametrize("noise", ["log_linear", "geometric"])
def test_the_published_law_writes_with_probability_min_1_of_z_times_the_step(kind, noise):
    denoiser = tabular.TabularMasks(JOINT, NOISES[noise], uneven)
    sampler = kind(steps=3, normalise=False)
    share = denoiser.noise.share(times(3))
    chance = sampler.written_in_step(denoiser.noise)
    law = tabular.masked_law(denoiser, LENGTH, lambda k, z: min(1.0, float(chance[k]) * z), share)
    agrees(outcomes(sampler, denoiser), law)
    canvas = tabular.canvas(LENGTH, 500, WORDS)
    other = kind(steps=3)(denoiser, canvas, Rng(1)).tokens_BL
    assert not torch.equal(sampler(denoiser, canvas, Rng(1)).tokens_BL, other)


def test_on_log_linear_noise_euler_analytic_and_ancestral_draw_the_same_tokens():
    denoiser = tabular.TabularMasks(JOINT, Noise(), uneven)
    canvas = tabular.canvas(LENGTH, 500, WORDS)
    found = [
        sampler(denoiser, canvas, Rng(0)).tokens_BL
        for sampler in (Ancestral(steps=7), Analytic(steps=7), Euler(steps=7))
    ]
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_on_geometric_noise_euler_and_analytic_differ():
    denoiser = tabular.TabularMasks(JOINT, NOISES["geometric"])
    canvas = tabular.canvas(LENGTH, 500, WORDS)
    a, b = (sampler(denoiser, canvas, Rng(0)).tokens_BL for sampler in (Analytic(steps=4), Euler(steps=4)))
    assert not torch.equal(a, b)


def test_many_steps_come_near_to_first_hitting_with_the_same_draws():
    denoiser = tabular.TabularMasks(JOINT)
    canvas = tabular.canvas(LENGTH, 2000, WORDS)
    limit = FirstHitting()(denoiser, canvas, Rng(0)).tokens_BL
    equal = [
        float((Ancestral(steps=n)(denoiser, canvas, Rng(0)).tokens_BL == limit).all(1).double().mean())
        for n in (4, 32, 1024)
    ]
    assert equal[0] < equal[1] < equal[2]
    assert equal[2] > 0.99


def test_dreams_origin_writes_by_its_own_grid_and_leaves_nothing():
    """The law of `origin` of Dream's diffusion_generate: of what is masked at t each is written with probability
    1 − s/t, t in linspace(1, 1e-3), and in the last step with probability 1."""
    denoiser = tabular.TabularMasks(JOINT)
    time = torch.linspace(1, 1e-3, 3, dtype=torch.float64)
    chance = [1 - float(time[1] / time[0]), 1.0]
    law = tabular.masked_law(denoiser, LENGTH, lambda k, z: chance[k], denoiser.noise.share(time), final="none")
    agrees(outcomes(Ancestral(steps=2, pace="dream"), denoiser), law)
    assert Ancestral(steps=2, pace="dream", denoise="argmax").canonical() == Ancestral(steps=2, pace="dream")


def test_leftover_masks_are_drawn_taken_or_kept():
    noise = Noise("geometric", low=0.5, high=5.0)  # a third of the masks is left at the end
    denoiser = tabular.TabularMasks(JOINT, noise)
    share = noise.share(times(2))
    chance = 1 - share[1:] / share[:-1]
    for final in ("draw", "argmax", "none"):
        law = tabular.masked_law(denoiser, LENGTH, lambda k, z: chance[k], share, final=final)
        agrees(outcomes(Ancestral(steps=2, denoise=final), denoiser), law)


def test_guidance_tempers_between_the_two_branches():
    """One free position: the guided law is p_u·(p_c/p_u)^s, normalised."""
    denoiser = tabular.TabularMasks(JOINT)
    given = {0: 1, 2: 0}
    cond = denoiser.log_weights((1, WORDS, 0), 1, 0.5)
    uncond = denoiser.log_weights((WORDS,) * 3, 1, 0.5)
    for scale in (0.0, 0.5, 3.0):
        p = (uncond + scale * (cond - uncond)).softmax(0)
        found = outcomes(FirstHitting(scale=scale), denoiser, given)
        law = {(1, v, 0): float(p[v]) for v in range(WORDS)}
        statistic, freedom = tabular.chi_square(found, law, ROWS)
        assert statistic < tabular.bound_1e9(freedom)


def test_given_positions_are_never_written_and_a_full_canvas_is_refused():
    denoiser = tabular.TabularMasks(JOINT)
    assert {o[1] for o in outcomes(Ancestral(steps=4), denoiser, {1: 2}, rows=200)} == {2}
    with pytest.raises(UserError, match="nothing on this canvas is free"):
        outcomes(FirstHitting(), denoiser, {0: 0, 1: 1, 2: 2}, rows=2)
