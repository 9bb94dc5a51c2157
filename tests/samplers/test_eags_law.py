"""EAGS against its textbook version token by token, by enumeration on small joints, and as a chain whose stationary law
is the joint.

Each chi-square bound is one that fresh keys would break less than once in 1e9.
"""

from __future__ import annotations

import math
from collections import Counter

import pytest
import torch
from reference import decoding, eags, tabular, text_models

from diffq.diffusion.contracts import Meter
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.samplers.decoding_rules import LeastEntropy, RandomOrder
from diffq.samplers.eags import EAGS
from diffq.samplers.rounds import Ended

WORDS, LENGTH, ROWS = 2, 4, 2000
DENOISER = tabular.TabularMasks(tabular.joint(WORDS, LENGTH, seed=5))
START = (DENOISER.mask,) * LENGTH
STATES = tabular.states(WORDS, LENGTH)
FREE = list(range(LENGTH))
MERITS = {"high_entropy": eags.shannon, "low_entropy": lambda p: -eags.shannon(p), "random": None}
FILLING = {"high_entropy": "high_entropy", "low_entropy": "entropy", "random": "random"}


def check(sampler, law, canvas=None):
    canvas = tabular.canvas(LENGTH, ROWS, WORDS) if canvas is None else canvas
    tabular.check(sampler, DENOISER, canvas, law)


def filling(steps, order="high_entropy", temperature=1.0, start=START, free=LENGTH):
    rule = decoding.rule_moves(DENOISER, FILLING.get(order, order), math.ceil(free / steps), temperature)
    return decoding.push(start, rule, DENOISER.mask)


@pytest.mark.parametrize("order", MERITS)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 9])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_law_of_each_order(order, steps, temperature):
    """3 steps of 4 positions write 2 and 2."""
    check(EAGS(steps=steps, order=order, temperature=temperature), filling(steps, order, temperature))


def test_the_law_of_renyis_entropy():
    """On three words, where the two entropies do not always rank alike."""
    denoiser = tabular.TabularMasks(tabular.joint(3, 3, seed=11))
    laws = [decoding.push((3,) * 3, decoding.rule_moves(denoiser, r, 2), 3) for r in ("high_entropy", "high_renyi_2")]
    for law, dials in zip(laws, ({}, {"entropy": "renyi", "renyi_order": 2.0}), strict=True):
        filled = EAGS(steps=2, **dials)(denoiser, tabular.canvas(3, ROWS, 3), Rng(3)).tokens_BL
        statistic, freedom = tabular.chi_square(Counter(map(tuple, filled.tolist())), law, ROWS)
        assert statistic < tabular.bound_1e9(freedom)


def test_as_many_steps_as_positions_sample_the_joint():
    joint = dict(zip(STATES, DENOISER.joint.flatten().tolist(), strict=True))
    for order in MERITS:
        law = filling(LENGTH, order)
        assert all(math.isclose(law[s], p, abs_tol=1e-12) for s, p in joint.items()), order
    check(EAGS(steps=LENGTH, order="random"), joint)
    assert sum(abs(filling(2)[s] - p) for s, p in joint.items()) > 0.05, "fewer steps do not"


def test_given_positions_count_for_nothing():
    canvas = tabular.canvas(LENGTH, ROWS, WORDS, given={1: 1})
    start = (DENOISER.mask, 1, DENOISER.mask, DENOISER.mask)
    law = filling(2, start=start, free=3)
    check(EAGS(steps=2), law, canvas)
    free = [0, 2, 3]
    moves = {s: eags.sweep(DENOISER, s, free, 2, eags.shannon, "exact") for s in law}
    after = Counter()
    for state, p in law.items():
        for end, q in moves[state].items():
            after[end] += p * q
    check(EAGS(steps=2, update="all"), after, canvas)


def sweeps_of(denoiser, words, length, steps, order, within):
    states = tabular.states(words, length)
    free = list(range(length))
    return eags.matrix(states, lambda s: eags.sweep(denoiser, s, free, steps, MERITS[order], within))


@pytest.mark.parametrize("order", MERITS)
@pytest.mark.parametrize("within", ["exact", "independent"])
@pytest.mark.parametrize(("steps", "sweeps"), [(2, 1), (1, 1), (4, 2)])
def test_the_law_after_sweeps_is_that_of_the_transition_matrix(order, within, steps, sweeps):
    start = filling(steps, order)
    law_S = torch.tensor([start.get(s, 0.0) for s in STATES], dtype=torch.float64)
    move_SS = sweeps_of(DENOISER, WORDS, LENGTH, steps, order, within)
    for _ in range(sweeps):
        law_S = law_S @ move_SS
    law = dict(zip(STATES, law_S.tolist(), strict=True))
    check(EAGS(steps=steps, order=order, within=within, update="all", sweeps=sweeps), law)


def boltzmann(denoiser, words, length):
    """exp(−E)/Z of the D-cMRF, E the sum over positions."""
    states, free = tabular.states(words, length), list(range(length))
    return torch.tensor([-length * eags.energy(denoiser, s, free) for s in states], dtype=torch.float64).softmax(0)


@pytest.mark.parametrize(("words", "length"), [(2, 4), (3, 3)])
def test_the_stationary_law_of_sweeps_is_the_joint_and_not_that_of_the_energy(words, length):
    apart = []
    for seed in range(4):
        denoiser = tabular.TabularMasks(tabular.joint(words, length, seed=seed))
        joint_S = denoiser.joint.flatten()
        for order in MERITS:
            for steps in (1, 2, length):
                move_SS = sweeps_of(denoiser, words, length, steps, order, "exact")
                assert eags.variation(joint_S @ move_SS, joint_S) < 1e-13
                assert eags.variation(eags.stationary(move_SS), joint_S) < 1e-10, "and it is the only one"
                assert bool((move_SS > 0).all())
        apart.append(eags.variation(boltzmann(denoiser, words, length), joint_S))
    assert min(apart) > 0.05
    assert sum(apart) / len(apart) > 0.15


class SeesAround(tabular.TabularMasks):
    """One that says of a written position what it would say were that masked, as a masked language model should."""

    def log_weights(self, tokens, position, m):
        return super().log_weights((*tokens[:position], self.mask, *tokens[position + 1 :]), position, m)


@pytest.mark.parametrize("order", MERITS)
@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_the_law_where_steps_choose_among_all_positions(order, steps):
    denoiser = SeesAround(tabular.joint(WORDS, LENGTH, seed=5))
    law = eags.anywhere(denoiser, START, FREE, steps, MERITS[order])
    canvas = tabular.canvas(LENGTH, ROWS, WORDS)
    tabular.check(EAGS(update="any", steps=steps, order=order), denoiser, canvas, law)


def test_what_does_not_keep_the_joint():
    """Positions drawn together; and a position that is chosen by what is drawn later."""
    joint_S = DENOISER.joint.flatten()
    together_SS = sweeps_of(DENOISER, WORDS, LENGTH, 2, "high_entropy", "independent")
    assert eags.variation(eags.stationary(together_SS), joint_S) > 0.02

    def most_uncertain(state):
        given_all_else = {}
        for i in FREE:
            hidden = tuple(DENOISER.mask if k == i else t for k, t in enumerate(state))
            given_all_else[i] = eags.shannon(decoding.conditionals(DENOISER, hidden)[i])
        return eags.redraw(DENOISER, state, (max(FREE, key=given_all_else.__getitem__),), "exact")

    assert eags.variation(joint_S @ eags.matrix(STATES, most_uncertain), joint_S) > 0.02


DIALS = [
    {},
    {"steps": 3, "temperature": 0.7, "top_p": 0.8},
    {"temperature": 0.0, "order": "low_entropy"},
    {"order": "random", "top_k": 9},
    {"steps": 40},
    {"renyi_order": 0.5},
    {"update": "all"},
    {"update": "all", "steps": 3, "within": "independent", "sweeps": 2, "order": "random"},
    {"update": "all", "steps": 2, "order": "low_entropy", "temperature": 0.6, "renyi_order": 2.0},
    {"update": "any"},
    {"update": "any", "steps": 3, "order": "random", "temperature": 0.7, "top_p": 0.8},
    {"update": "any", "steps": 20, "order": "low_entropy", "renyi_order": 2.0},
]


@pytest.mark.parametrize(
    ("name", "dials"), [*(("mdlm_timed", dials) for dials in DIALS), *(("sedd", DIALS[i]) for i in (0, 6, 9))]
)
def test_it_is_the_textbooks_token_by_token(name, dials):
    """Drafts and samples, in rows of different numbers of free positions."""
    model, canvas = text_models.build(name), text_models.canvas(4, 14)
    book = eags.EAGS(model, canvas.tokens_BL, canvas.free_BL, canvas.row_B, seed=4, **dials)
    theirs, ours = book.run(), {k: v for k, v in dials.items() if k != "renyi_order"}
    if "renyi_order" in dials:
        ours |= {"entropy": "renyi", "renyi_order": dials["renyi_order"]}
    seen = []
    filled = EAGS(**ours)(model.denoiser(), canvas, Rng(4), lambda step: seen.append((step.index, step.filled())))
    assert torch.equal(filled.tokens_BL, theirs)
    assert torch.equal(EAGS(**ours)(model.denoiser(), canvas, Rng(4)).tokens_BL, theirs), "nobody listening"
    passes, rounds = len(book.drafts[0]), len(seen)
    assert rounds == max(map(len, book.drafts))
    b = max(range(4), key=lambda b: len(book.drafts[b]))
    for (index, draft_BL), expected_L in zip(seen, book.drafts[b], strict=True):
        assert torch.equal(draft_BL[b], expected_L), (index, passes)


def test_drafts_have_no_masks_and_keep_what_is_written():
    model, canvas = text_models.build("mdlm").denoiser(), text_models.canvas(6, 20)
    for sampler in (EAGS(block=4, steps=8), RandomOrder(steps=5), LeastEntropy(block=3, steps=9)):

        def look(step):
            draft_BL, filled_BL = step.draft(), step.filled()
            written_BL = draft_BL != model.mask
            assert torch.equal(draft_BL[written_BL], filled_BL[written_BL])
            assert int(filled_BL.max()) < model.mask

        sampler(model, canvas, Rng(0), look)


def test_a_row_does_not_depend_on_the_rows_beside_it():
    model, canvas = text_models.build("mdlm_timed").denoiser(), text_models.canvas(6, 20)
    for dials in ({}, {"scale": 1.5, "temperature": 0.8}, {"update": "all", "steps": 3}, {"block": 4, "steps": 8},
                  {"update": "any", "steps": 3}):  # fmt: skip
        made = EAGS(**dials)
        together = made(model, canvas, Rng(0)).tokens_BL
        for b in (0, 2, 5):
            alone = made(model, canvas.map(lambda x, b=b: x[b : b + 1]), Rng(0)).tokens_BL
            assert torch.equal(together[b : b + 1], alone), dials


def test_where_rows_that_have_ended_leave_changes_no_text(monkeypatch):
    """On a GPU it is looked for now and then; sweeps draw given all that stands, behind an end token, too."""
    model, canvas = text_models.build("mdlm", words=12).denoiser(), text_models.canvas(8, 20, words=12).replace(end=0)
    for dials in ({}, {"update": "all"}, {"update": "all", "order": "random"}, {"order": "low_entropy"}):
        made = EAGS(**dials)
        often = made(model, canvas, Rng(0)).cut_at_end()
        with monkeypatch.context() as seldom:
            seldom.setattr(Ended, "due", lambda self, e: False)
            rarely = made(model, canvas, Rng(0)).cut_at_end()
        assert torch.equal(often.valid_BL, rarely.valid_BL), dials
        assert torch.equal(often.tokens_BL * often.valid_BL, rarely.tokens_BL * rarely.valid_BL), dials


@pytest.mark.parametrize("model", ["mdlm", "sedd"])
def test_a_canvas_of_masks_alone_has_an_order_of_its_own(model):
    """Without absolute places every position is as uncertain as every other but for rounding."""
    denoiser, canvas = text_models.build(model).denoiser(), text_models.canvas(8, 20, given=0.0)
    made = EAGS(steps=10)
    together = made(denoiser, canvas, Rng(0)).tokens_BL
    alone = [made(denoiser, canvas.map(lambda x, b=b: x[b : b + 1]), Rng(0)).tokens_BL for b in range(8)]
    assert torch.equal(together, torch.cat(alone))


def test_what_it_costs():
    """Five calls for 64 positions; what is read falls by 13 a step; a sweep asks for an order, and once a position."""
    canvas = tabular.canvas(64, 3, WORDS)
    model = text_models.build("mdlm", max_length=64)
    for dials, calls, read in (
        ({}, 5, 64 + 51 + 38 + 25 + 12),
        ({"order": "random"}, 5, 64),
        ({"update": "all"}, 5 + 5 + 64, 2 * (64 + 51 + 38 + 25 + 12) + 64),
        ({"update": "all", "within": "independent", "order": "random"}, 10, 128),
        ({"update": "any"}, 5, 5 * 64),
    ):
        meter = Meter(model.denoiser())
        EAGS(**dials)(meter, canvas, Rng(0))
        assert (meter.nfe_calls, meter.nfe_rows, meter.positions_projected) == (calls, 3 * calls, 3 * read), dials
        assert meter.row_nfe_B.tolist() == [calls] * 3


def test_end_tokens_wait_or_stay_away_and_ended_rows_leave():
    model, plain = text_models.build("mdlm").denoiser(), text_models.canvas(6, 20, given=0.0)
    end = int(EAGS()(model, plain, Rng(0)).tokens_BL.mode().values[0])
    canvas = plain.replace(end=end)
    for update in ("masked_only", "all", "any"):
        filled = EAGS(ending="never", update=update)(model, canvas, Rng(0)).tokens_BL
        assert not bool((filled == end).any())
    early = {}
    for ending in ("free", "last"):
        seen = []
        EAGS(ending=ending, steps=10)(model, canvas, Rng(0), lambda s, seen=seen: seen.append(s.draft() == end))
        early[ending] = sum(int(found.sum()) for found in seen[:5])
    assert early["last"] < early["free"]
    whole, stops = Meter(model), Meter(model)
    full = EAGS(block=4, steps=10)(whole, plain, Rng(0)).replace(end=end).cut_at_end()
    ended = EAGS(block=4, steps=10)(stops, canvas, Rng(0)).cut_at_end()
    assert torch.equal(full.valid_BL, ended.valid_BL)
    assert torch.equal(full.tokens_BL[full.valid_BL], ended.tokens_BL[ended.valid_BL])
    assert stops.nfe_rows < whole.nfe_rows


@pytest.mark.parametrize("update", ["masked_only", "all", "any"])
def test_a_row_of_which_all_is_given_stands_beside_others(update):
    """The network is told the masked share: it is a number where nothing is free, too."""
    canvas = text_models.canvas(3, 8)
    canvas = canvas.replace(free_BL=canvas.free_BL & (torch.arange(3) != 1)[:, None])
    meter, times = Meter(text_models.build("mdlm_timed").denoiser()), []
    filled = EAGS(update=update)(meter, canvas, Rng(0), lambda s: times.append(s.time_B)).tokens_BL
    assert bool(meter.finite)
    assert bool(torch.stack(times).isfinite().all())
    assert torch.equal(filled[1], canvas.tokens_BL[1])
    others = torch.tensor([0, 2])
    alone = EAGS(update=update)(meter, canvas.map(lambda x: x[others]), Rng(0)).tokens_BL
    assert torch.equal(filled[others], alone)


def test_bad_dials_are_refused():
    for order in (math.inf, 1.0001, 0.995):
        with pytest.raises(UserError, match="leaves float32 no digits; give 1"):
            EAGS(entropy="renyi", renyi_order=order)
    for update in ("all", "any"):
        with pytest.raises(UserError, match=f"update={update} draws anew all over the canvas, so block=4 must be 0"):
            EAGS(update=update, block=4)


def test_what_says_nothing_makes_no_other_sampler():
    plain = EAGS()
    for other in (EAGS(sweeps=3), EAGS(within="independent"), EAGS(renyi_order=0.5), EAGS(update="all", sweeps=0),
                  EAGS(entropy="renyi", renyi_order=1.0)):  # fmt: skip
        assert other.canonical() == plain
    random = EAGS(order="random", entropy="renyi", renyi_order=0.5, confidence="sharpened")
    assert random.canonical() == EAGS(order="random")
    assert EAGS(update="any", sweeps=3, within="independent").canonical() == EAGS(update="any")
    for own in (
        EAGS(update="all"),
        EAGS(update="any"),
        EAGS(update="all", sweeps=3, within="independent"),
        EAGS(entropy="renyi"),
        plain,
    ):
        assert own.canonical() == own
    canvas = tabular.canvas(LENGTH, 50, WORDS)
    for one in (EAGS(update="all", sweeps=0), random, EAGS(entropy="renyi", renyi_order=1.0)):
        same = [sampler(DENOISER, canvas, Rng(1)).tokens_BL for sampler in (one, one.canonical())]
        assert torch.equal(*same)
