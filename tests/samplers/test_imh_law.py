"""Independent Metropolis–Hastings by enumeration: the law of finite chains, what it is in the limit, what it costs.

Each chi-square bound is one that fresh keys would break less than once in 1e9.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
import torch
from reference import decoding, tabular, text_models

from diffq.diffusion.contracts import Meter
from diffq.rng import Rng
from diffq.samplers.decoding_rules import RandomOrder
from diffq.samplers.imh import IMH, first_alike

WORDS, LENGTH, ROWS = 2, 4, 4000
DENOISER = tabular.TabularMasks(tabular.joint(WORDS, LENGTH, seed=5))
START = (DENOISER.mask,) * LENGTH


def law_of(**how):
    return decoding.push(START, decoding.imh_moves(DENOISER, **how), DENOISER.mask)


def tempered(alpha):
    table = DENOISER.joint**alpha
    return dict(zip(tabular.states(WORDS, LENGTH), (table / table.sum()).flatten().tolist(), strict=True))


def distance(one, other):
    return sum(abs(one.get(s, 0.0) - p) for s, p in other.items()) / 2


def check(sampler, law):
    tabular.check(sampler, DENOISER, tabular.canvas(LENGTH, ROWS, WORDS), law)


@dataclass(frozen=True, kw_only=True)
class Exact(IMH):
    """IMH whose look-ahead is exact: log Z stands in a row's first slot, the others add nothing."""

    kind = "exact"

    def log_future(self, session, hidden, slots, tokens_ML):
        found = torch.zeros(len(slots), dtype=torch.float64)
        row_N = slots // hidden.shape[1]
        for m, state in enumerate(tokens_ML.tolist()):
            found[int((row_N == m).nonzero()[0])] = decoding.power_mass(DENOISER, tuple(state), self.alpha)
        return found


DIALS = [
    {"alpha": 4.0, "chain": 1},
    {"alpha": 4.0, "chain": 4},
    {"alpha": 2.0, "chain": 3, "proposal": "plain"},
    {"alpha": 4.0, "chain": 12, "proposal": "plain"},
    {"alpha": 3.0, "chain": 2, "count": 2},
    {"alpha": 3.0, "chain": 3, "count": 2, "within": "exact"},
    {"alpha": 3.0, "chain": 2, "count": 4, "within": "exact"},
    {"alpha": 2.0, "chain": 2, "count": 2, "within": "exact", "proposal": "plain"},
    {"alpha": 4.0, "chain": 2, "select": "resample"},
    {"alpha": 0.5, "chain": 2},
]


@pytest.mark.parametrize("dials", DIALS, ids=str)
def test_the_law_of_finite_chains(dials):
    named = {"tokens_per_step" if name == "count" else name: value for name, value in dials.items()}
    check(IMH(**named), law_of(**dials))


@pytest.mark.parametrize("within", ["independent", "exact"])
@pytest.mark.parametrize("count", [1, 2])
def test_the_law_with_an_exact_look_ahead(count, within):
    check(
        Exact(alpha=4.0, chain=4, tokens_per_step=count, within=within),
        law_of(alpha=4.0, chain=4, count=count, within=within, exact=True),
    )


@pytest.mark.parametrize("proposal", ["tempered", "plain"])
@pytest.mark.parametrize("alpha", [0.5, 2.0, 4.0])
def test_in_the_limit_it_is_the_tempered_joint_where_the_look_ahead_is_exact(alpha, proposal):
    """One position a step; several only with the exact weight within them (papers on 2604.00375, §2.4)."""
    target, how = tempered(alpha), {"alpha": alpha, "proposal": proposal, "exact": True}
    assert distance(law_of(**how, chain=math.inf), target) < 1e-12
    assert distance(law_of(**how, chain=math.inf, count=2, within="exact"), target) < 1e-12
    assert distance(law_of(**how, chain=math.inf, count=2), target) > 0.01
    assert distance(law_of(**how, chain=200), target) < 1e-3


@pytest.mark.parametrize("alpha", [2.0, 4.0])
def test_the_mean_field_comes_nearer_than_sharpening(alpha):
    target = tempered(alpha)
    sharpened, looking = law_of(alpha=alpha, chain=0), law_of(alpha=alpha, chain=math.inf)
    assert distance(looking, target) < 0.7 * distance(sharpened, target)


@pytest.mark.parametrize("positions", ["random", "confidence"])
@pytest.mark.parametrize("dials", [{}, {"proposal": "plain"}, {"within": "exact", "tokens_per_step": 2}], ids=str)
def test_without_ends_it_is_the_chain_of_a_network_that_has_none(positions, dials):
    canvas, model = text_models.canvas(5, 16), text_models.build("mdlm")
    free = IMH(positions=positions, **dials)(model.denoiser(), canvas, Rng(1)).tokens_BL
    ends = [int(token) for token in free[canvas.free_BL].unique()[:2]]
    ended = canvas.replace(end=ends[0], also_end=(ends[1],))
    ours = IMH(positions=positions, ending="never", **dials)(model.denoiser(), ended, Rng(1)).tokens_BL
    model.never = (*model.never, *ends)
    theirs = IMH(positions=positions, **dials)(model.denoiser(), canvas, Rng(1)).tokens_BL
    assert torch.equal(ours, theirs)
    assert not torch.equal(ours, free)


def test_no_chain_is_sharpening_token_by_token():
    model = text_models.build("mdlm").denoiser()
    canvas = text_models.canvas(5, 16)
    for alpha, dials in ((4.0, {}), (2.0, {"tokens_per_step": 3, "block": 5})):
        plain = RandomOrder(temperature=1 / alpha, **dials)(model, canvas, Rng(1)).tokens_BL
        assert torch.equal(plain, IMH(alpha=alpha, chain=0, **dials)(model, canvas, Rng(1)).tokens_BL)


def test_at_alpha_one_every_proposal_is_accepted_and_looking_ahead_is_left_out():
    stats = []
    sampler = IMH(alpha=1.0, chain=3, within="exact")  # with the exact weight it does look
    sampler(DENOISER, tabular.canvas(LENGTH, 50, WORDS), Rng(0), lambda s: stats.append(s.stats))
    accepted = [s["acceptance"] for s in stats if s]
    assert len(accepted) == LENGTH - 1
    assert all(bool((a == 1).all()) for a in accepted)
    meter = Meter(DENOISER)
    IMH(alpha=1.0, chain=3)(meter, tabular.canvas(LENGTH, 50, WORDS), Rng(0))
    assert meter.nfe_rows == 50 * LENGTH


@pytest.mark.parametrize(
    ("dials", "said"),
    [
        ({"alpha": 1.0, "chain": 7, "proposal": "plain", "lookahead": "canvas"}, {"alpha": 1.0}),
        ({"alpha": 1.0, "chain": 0, "within": "exact"}, {"alpha": 1.0}),
        ({"alpha": 3.0, "chain": 0, "within": "exact", "select": "resample"}, {"alpha": 3.0, "chain": 0}),
        ({"alpha": 3.0, "chain": 0, "proposal": "plain"}, {"chain": 0, "proposal": "plain"}),
        ({"alpha": 1.0, "chain": 2, "within": "exact"}, None),
        ({"alpha": 3.0, "chain": 2, "lookahead": "canvas"}, None),
    ],
    ids=str,
)
def test_dials_that_say_nothing_are_stored_as_their_defaults_and_change_nothing(dials, said):
    sampler = IMH(tokens_per_step=2, **dials)
    stored = sampler.canonical()
    assert stored == (sampler if said is None else IMH(tokens_per_step=2, **said))
    assert stored.canonical() == stored
    canvas = tabular.canvas(LENGTH, 60, WORDS)
    assert torch.equal(sampler(DENOISER, canvas, Rng(3)).tokens_BL, stored(DENOISER, canvas, Rng(3)).tokens_BL)


def test_rows_are_at_most_those_of_the_bound_and_equal_candidates_are_run_once():
    canvas = tabular.canvas(LENGTH, 1, WORDS)
    for chain in (1, 4, 30):
        meter, seen = Meter(DENOISER), []
        IMH(chain=chain)(meter, canvas, Rng(0), lambda s, seen=seen: seen.append(s.stats))
        distinct = [int(s["distinct"]) for s in seen if s]
        assert meter.nfe_rows == 1 + sum(distinct)
        assert max(distinct) <= min(chain + 1, WORDS)
        assert meter.nfe_rows <= 1 + (chain + 1) * (LENGTH - 1)
    meter = Meter(DENOISER)
    IMH(chain=4, block=2)(meter, canvas, Rng(0))
    assert meter.nfe_rows <= 2 * (1 + 2), "each block begins with a call of its own: its last step looked at nothing"
    meter = Meter(DENOISER)
    IMH(chain=4, block=2, lookahead="canvas")(meter, canvas, Rng(0))
    assert meter.nfe_calls == LENGTH


def test_candidates_that_are_alike_are_run_as_the_first_of_them():
    token_RCQ = torch.tensor([[[1, 2], [3, 2], [1, 2], [3, 2]], [[0, 0], [0, 0], [0, 1], [0, 0]]])
    assert first_alike(token_RCQ).tolist() == [[0, 1, 0, 1], [0, 0, 2, 0]]


@pytest.mark.parametrize("name", ["mdlm", "mdlm_timed", "sedd"])
def test_reusing_the_chosen_candidates_call_changes_nothing(name, monkeypatch):
    """Against the same sampler made to call the network anew for every step."""
    model, canvas = text_models.build(name).denoiser(), text_models.canvas(6, 14)
    from diffq.samplers import imh

    for dials in (
        {}, {"tokens_per_step": 2, "within": "exact"}, {"block": 4}, {"block": 4, "lookahead": "canvas"},
        {"positions": "confidence"}, {"positions": "left_to_right", "scale": 1.5},
        {"positions": "confidence", "block": 5, "lookahead": "canvas", "scale": 0.7},
    ):  # fmt: skip
        reused = IMH(chain=3, **dials)(model, canvas, Rng(2)).tokens_BL
        with monkeypatch.context() as patched:
            patched.setattr(imh._Step, "_hidden", lambda s, _, at: s.session.run(s.tokens_RL, s.now.noise_R, at))
            assert torch.equal(IMH(chain=3, **dials)(model, canvas, Rng(2)).tokens_BL, reused), dials


def test_a_row_does_not_depend_on_the_rows_beside_it():
    model, canvas = text_models.build("mdlm_timed").denoiser(), text_models.canvas(6, 14)
    for sampler in (IMH(), IMH(block=3, tokens_per_step=2, within="exact"), IMH(positions="confidence", block=4)):
        together = sampler(model, canvas, Rng(0)).tokens_BL
        for b in (0, 3):
            alone = sampler(model, canvas.map(lambda x, b=b: x[b : b + 1]), Rng(0)).tokens_BL
            assert torch.equal(together[b : b + 1], alone)
