"""Whole sequences by enumeration: their laws on a joint, and the probabilities of their paths.

Each chi-square bound is one that fresh keys would break less than once in 1e9.
"""

from __future__ import annotations

import itertools

import pytest
import torch
from reference import decoding, eags, tabular, text_models

from diffq.diffusion.contracts import Meter
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.samplers import sequences
from diffq.samplers.decoding_rules import RandomOrder
from diffq.samplers.sequences import BestOf, Power, SequenceIMH

WORDS, LENGTH, ROWS = 2, 3, 3000
DENOISER = tabular.TabularMasks(tabular.joint(WORDS, LENGTH, seed=5))
STATES = tabular.states(WORDS, LENGTH)
JOINT = DENOISER.joint.flatten()


def check(sampler, law):
    by_state = dict(zip(STATES, law.tolist(), strict=True))
    tabular.check(sampler, DENOISER, tabular.canvas(LENGTH, ROWS, WORDS), by_state)


def proposal_of(alpha, order, count=1, denoiser=DENOISER):
    """q(x) of sharpened tokens along an order, `count` of them a round as if they were independent."""
    states = tabular.states(denoiser.joint.shape[0], denoiser.joint.dim())
    found = torch.zeros(len(states), dtype=torch.float64)
    for n, state in enumerate(states):
        now, q = (denoiser.mask,) * len(state), 1.0
        for first in range(0, len(order), count):
            together = order[first : first + count]
            for i in together:
                p = denoiser.log_weights(now, i, 0.5).exp() ** alpha
                q *= float(p[state[i]] / p.sum())
            now = tuple(state[k] if k in together else t for k, t in enumerate(now))
        found[n] = q
    return found


def normed(weights):
    return weights / weights.sum()


def mean_over_orders(law, length=LENGTH):
    laws = [law(order) for order in itertools.permutations(range(length))]
    return torch.stack(laws).mean(0)


@pytest.mark.parametrize("chain", [0, 1, 5])
def test_the_law_of_a_chain_over_texts(chain):
    for alpha in (0.5, 3.0):
        g = proposal_of(alpha, range(LENGTH))
        law = decoding.after_chain(g, alpha * JOINT.log() - g.log(), chain)
        check(SequenceIMH(alpha=alpha, chain=chain, positions="left_to_right"), law)
        law = decoding.after_chain(JOINT, (alpha - 1) * JOINT.log(), chain)
        check(SequenceIMH(alpha=alpha, chain=chain, proposal="plain"), law)


@pytest.mark.parametrize(("chain", "dials"), [(1, {"tokens_per_step": 2}), (5, {"steps": 2})])
def test_the_law_where_rounds_write_two_tokens(chain, dials):
    """It is that of a chain whose target is the power of the law of writing in parallel, along each order."""

    def law(order):
        path, g = proposal_of(1.0, order, 2), proposal_of(alpha, order, 2)
        return decoding.after_chain(g, alpha * path.log() - g.log(), chain)

    for alpha in (0.5, 3.0):
        left = SequenceIMH(alpha=alpha, chain=chain, positions="left_to_right", **dials)
        check(left, law(range(LENGTH)))
        check(SequenceIMH(alpha=alpha, chain=chain, **dials), mean_over_orders(law))
        path = proposal_of(1.0, range(LENGTH), 2)
        from_path = decoding.after_chain(path, (alpha - 1) * path.log(), chain)
        check(SequenceIMH(alpha=alpha, chain=chain, positions="left_to_right", proposal="plain", **dials), from_path)


def test_a_long_chain_samples_the_power_of_the_law_of_writing_in_parallel():
    path = proposal_of(1.0, range(LENGTH), 2)
    assert float(path.sum()) == pytest.approx(1)
    for alpha in (0.5, 1.5):
        target = normed(path**alpha)
        assert eags.variation(target, normed(JOINT**alpha)) > 0.14, "which is another law than p^α"
        check(SequenceIMH(alpha=alpha, chain=24, positions="left_to_right", tokens_per_step=2), target)


@pytest.mark.parametrize(
    ("count", "alpha", "mean", "most"), [(1, 2, 0, 0), (2, 2, 0.24, 0.32), (4, 2, 0.64, 0.79), (2, 4, 0.19, 0.37)]
)
def test_how_far_the_target_is_from_the_power_of_the_joint(count, alpha, mean, most):
    """The figures of docs/samplers.md."""
    apart = []
    for seed in range(20):
        denoiser = tabular.TabularMasks(tabular.joint(3, 4, seed=seed))

        def target(order, of=denoiser):
            return normed(proposal_of(1.0, order, count, of) ** alpha)

        law = mean_over_orders(target, 4)
        apart.append(eags.variation(law, normed(denoiser.joint.flatten() ** alpha)))
    assert sum(apart) / len(apart) == pytest.approx(mean, abs=0.005)
    assert max(apart) == pytest.approx(most, abs=0.005)


def test_a_long_chain_and_the_enumeration_sample_the_tempered_joint():
    for alpha in (0.5, 4.0):
        law = JOINT**alpha / (JOINT**alpha).sum()
        check(Power(alpha=alpha, floor=1e-12), law)
        check(SequenceIMH(alpha=alpha, chain=24, positions="left_to_right"), law)


@pytest.mark.parametrize("count", [1, 2])
def test_the_best_of_several_has_the_law_of_a_maximum(count):
    def law(order):
        path = proposal_of(1.0, order, count)
        rising = path.argsort()
        above = path[rising].cumsum(0)
        best = torch.zeros_like(path)
        best[rising] = above**3 - torch.cat([above.new_zeros(1), above[:-1]]) ** 3
        return best

    check(BestOf(candidates=3, tokens_per_step=count), mean_over_orders(law))


def test_one_text_is_that_of_the_random_order():
    model, canvas = text_models.build("mdlm").denoiser(), text_models.canvas(5, 14)
    for dials in ({}, {"block": 4, "tokens_per_step": 2}):
        plain = RandomOrder(temperature=0.25, **dials)(model, canvas, Rng(1)).tokens_BL
        assert torch.equal(plain, SequenceIMH(alpha=4.0, chain=0, **dials)(model, canvas, Rng(1)).tokens_BL)
        assert torch.equal(plain, BestOf(candidates=1, temperature=0.25, **dials)(model, canvas, Rng(1)).tokens_BL)


def test_of_one_text_nothing_is_accepted_or_turned_down():
    for chain, told in ((0, set()), (2, {"acceptance", "ess", "spread"})):
        stats = []
        sampler = SequenceIMH(chain=chain)
        sampler(DENOISER, tabular.canvas(LENGTH, 5, WORDS), Rng(0), lambda s, to=stats: to.append(s.stats))
        assert set().union(*stats) == told


@pytest.mark.parametrize("sampler", [BestOf(candidates=2), SequenceIMH(chain=1), Power(floor=1e-4)])
def test_a_row_of_which_all_is_given_is_done_from_the_beginning(sampler):
    canvas, times = tabular.canvas(LENGTH, 3, WORDS), []
    free_BL = canvas.free_BL & (torch.arange(3) != 1)[:, None]
    canvas = canvas.replace(free_BL=free_BL, tokens_BL=canvas.tokens_BL.where(free_BL, 1))
    filled = sampler(DENOISER, canvas, Rng(0), lambda s: times.append(s.time_B)).tokens_BL
    assert filled[1].tolist() == [1] * LENGTH
    assert bool((filled < WORDS).all())
    assert bool(torch.stack(times).isfinite().all())


def test_rows_are_counted_for_the_row_that_asked():
    meter, canvas = Meter(text_models.build("mdlm").denoiser()), text_models.canvas(5, 14)
    BestOf(candidates=3)(meter, canvas, Rng(0))
    assert torch.equal(meter.row_nfe_B, 3 * canvas.free_BL.sum(1))


def test_enumeration_says_what_it_left_out_and_what_it_cannot_do():
    lost = []
    Power(floor=0.05)(DENOISER, tabular.canvas(LENGTH, 4, WORDS), Rng(0), lambda s: lost.append(s.stats["lost"]))
    kept = float(JOINT[JOINT >= 0.05].sum())
    assert float(lost[-1][0]) == pytest.approx(1 - kept, abs=1e-9)
    with pytest.raises(UserError, match="beginnings have a probability"):
        Power(floor=1e-9, limit=5)(text_models.build("mdlm").denoiser(), text_models.canvas(2, 14), Rng(0))


@pytest.mark.parametrize("words", [3000, 70])
def test_enumeration_follows_every_word_of_a_place_or_is_refused(words, monkeypatch):
    """However many there are, and however few are read at a time."""
    denoiser, lost = tabular.TabularMasks(torch.full((words,), 1 / words, dtype=torch.float64)), []
    canvas = tabular.canvas(1, 4, words)
    Power(alpha=0.5)(denoiser, canvas, Rng(0), lambda s: lost.append(s.stats["lost"]))
    assert torch.cat(lost).abs().max() < 1e-9
    with pytest.raises(UserError, match=f"after 1 of 1 tokens {words - 1} or more beginnings"):
        Power(limit=words - 2)(denoiser, canvas, Rng(0))
    plain, canvas = Power(floor=1e-4), tabular.canvas(LENGTH, 50, WORDS)
    filled = plain(DENOISER, canvas, Rng(0)).tokens_BL
    monkeypatch.setattr(sequences, "_SCORES", 2)
    assert torch.equal(plain(DENOISER, canvas, Rng(0)).tokens_BL, filled)


def test_enumeration_is_refused_at_once_where_it_is_hopeless():
    class Wide:
        """Of ten words, and never run."""

        mask, words = 10, 10

        def open(self, canvas, branches):
            return self

    with pytest.raises(UserError, match=r"120 free tokens of 10 are 10\^120 of them, more than 10\^100; ask for fewer"):
        Power()(Wide(), text_models.canvas(1, 120, given=0), Rng(0))
