"""ReMDM by enumeration: marginals kept by cap, rescale and loop, whole laws on a joint, and what conf prefers.

Each chi-square and binomial bound is one that fresh keys would break less than once in 1e9.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from reference import tabular, text_models

from diffq.diffusion.contracts import Meter
from diffq.diffusion.noise import Noise
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.samplers.masked import Ancestral
from diffq.samplers.remasking import ReMDM

WORDS, LENGTH, ROWS = 2, 3, 6000
DENOISER = tabular.TabularMasks(tabular.joint(WORDS, LENGTH, seed=2))


def law_of(sampler):
    """The law of the whole canvas, masks and rewritten tokens and all, pushed through every step."""
    share, sigma = sampler.shares(DENOISER.noise)
    kept, mask = 1 - share, DENOISER.mask
    law = {(mask,) * LENGTH: 1.0}
    for k in range(sampler.steps + 1):
        final = k == sampler.steps
        write = 1.0 if final else float((kept[k + 1] - (1 - sigma[k]) * kept[k]) / share[k])
        again = 0.0 if final else float(sigma[k])
        following = Counter()
        for tokens, weight in law.items():
            options = []
            for position, token in enumerate(tokens):
                if token == mask:
                    p = DENOISER.log_weights(tokens, position, 0.5).exp()
                    options.append([(mask, 1 - write), *((v, write * float(p[v])) for v in range(WORDS))])
                else:
                    options.append([(mask, again), (token, 1 - again)])
            for choice in itertools.product(*options):
                probability = weight
                for _, q in choice:
                    probability *= q
                if probability:
                    following[tuple(t for t, _ in choice)] += probability
        law = following
        if not final:
            masked = sum(p * sum(t == mask for t in s) / LENGTH for s, p in law.items())
            assert masked == pytest.approx(float(share[k + 1]), abs=1e-12), "the marginal at s is α_s"
    return law


RULES = [
    {"rule": "cap", "eta": 0.3},
    {"rule": "rescale", "eta": 0.5},
    {"rule": "rescale", "eta": 1.0},
    {"rule": "loop", "eta": 0.4, "alpha_on": 0.6, "steps": 8},
]


@pytest.mark.parametrize("dials", RULES, ids=lambda d: f"{d['rule']}{d['eta']}")
def test_marginals_are_kept_and_the_law_is_the_one_of_enumeration(dials):
    sampler = ReMDM(**({"steps": 4} | dials))
    law = law_of(sampler)
    filled = sampler(DENOISER, tabular.canvas(LENGTH, ROWS, WORDS), Rng(3)).tokens_BL
    statistic, freedom = tabular.chi_square(Counter(map(tuple, filled.tolist())), law, ROWS)
    assert statistic < tabular.bound_1e9(freedom)


def test_without_remasking_it_is_ancestral_in_law():
    law = tabular.masked_law(
        DENOISER, LENGTH, lambda k, z: 1 - share[k + 1] / share[k], share := ReMDM(steps=3).shares(Noise())[0]
    )
    found = law_of(ReMDM(steps=3, eta=0.0))
    assert set(found) == set(law)
    assert all(found[s] == pytest.approx(p, abs=1e-12) for s, p in law.items())
    assert torch.allclose(Ancestral(steps=3).written_in_step(Noise()), 1 - share[1:] / share[:-1])


def test_kept_masks_are_a_share_of_the_schedule():
    noise = Noise("geometric", low=0.4, high=6.0)
    denoiser = tabular.TabularMasks(tabular.joint(WORDS, LENGTH), noise)
    sampler = ReMDM(steps=5, rule="rescale", eta=0.8, denoise="none")
    filled = sampler(denoiser, tabular.canvas(LENGTH, ROWS, WORDS), Rng(0)).tokens_BL
    share = float(sampler.shares(noise)[0][-1])
    assert share > 0.2
    found = float((filled == denoiser.mask).double().mean())
    assert abs(found - share) < 6.2 * (share * (1 - share) / (ROWS * LENGTH)) ** 0.5


def test_a_position_is_drawn_anew_when_it_is_masked_again_and_rows_do_not_mix():
    denoiser = text_models.build("mdlm").denoiser()
    canvas = text_models.canvas(5, 16)
    for dials in ({"rule": "rescale", "eta": 1.0}, {"rule": "loop", "eta": 0.5}, {"rule": "conf", "eta": 1.0}):
        sampler = ReMDM(steps=12, **dials)
        meter = Meter(denoiser)
        together = sampler(meter, canvas, Rng(0)).tokens_BL
        assert meter.positions_projected > int(canvas.free_BL.sum()), "some were written twice"
        alone = sampler(denoiser, canvas.map(lambda x: x[2:3]), Rng(0)).tokens_BL
        assert torch.equal(together[2:3], alone)


def test_conf_masks_the_unlikely_first():
    """Two positions written with probabilities 1 and about 0.01: of all that is masked again most is the second."""
    joint = torch.full((100, 100), 1e-12, dtype=torch.float64)
    joint[0] = 1 / 100  # position 0 is certain, position 1 uniform
    denoiser = tabular.TabularMasks(joint / joint.sum(), Noise("log_linear", eps=0.5))
    sampler = ReMDM(steps=6, rule="conf", eta=1.0, denoise="none")
    remasked = torch.zeros(2)
    before = []

    def look(step):
        now = step.draft() == 100
        if before:
            remasked.add_((now & ~before[-1].any(1, keepdim=True)).sum(0))  # of rows in which both were written
        before.append(now)

    sampler(denoiser, tabular.canvas(2, 2000, 100), Rng(0), look)
    total, share = float(remasked.sum()), 1 / (1 + math.exp(-0.99))
    assert total > 100
    assert abs(float(remasked[1]) / total - share) < 6.2 * (share * (1 - share) / total) ** 0.5


def test_times_in_the_wrong_order_are_refused():
    with pytest.raises(UserError, match=r"t_off=0\.6 must be below t_on=0\.5"):
        ReMDM(rule="loop", t_on=0.5, t_off=0.6)
