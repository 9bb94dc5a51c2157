"""Key-value caches of decoding: exact where they must be, wrong by what is measured elsewhere, the same for a row
whatever stands beside it, refused where they cannot be had, and counted right."""

from __future__ import annotations

import pytest
import torch
from models.test_masked_lms import build, canvas_of, text_of
from reference import text_models
from reference.cycles import cycles, taught
from reference.flops import flops_of

from diffq.cli.main import main
from diffq.diffusion.contracts import Canvas, Meter
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.runs.bench_caches import Beside
from diffq.runs.planning.amounts import text_counts
from diffq.runs.planning.dry import Blank, trace_canvas
from diffq.samplers.decoding_rules import (
    ConfidenceThreshold,
    Factor,
    LeastEntropy,
    LeftToRight,
    LowConfidence,
    Margin,
    RandomOrder,
    RankThenSample,
)
from diffq.samplers.imh import IMH

BLOCK = 4
RULES = [
    RandomOrder(), LeftToRight(), LowConfidence(), RankThenSample(), Margin(), LeastEntropy(),
    ConfidenceThreshold(threshold=0.05), Factor(factor=3.0), IMH(chain=2, alpha=2.0),
]  # fmt: skip
TWICE = [RandomOrder(), LowConfidence(), ConfidenceThreshold(threshold=0.05), IMH(chain=2, alpha=2.0)]


def blocky(**changes):
    return text_models.build("mdlm", words=40, block_causal=BLOCK, max_length=40, **changes)


def prompts(rows=5, words=40, answer=13, mask=40):
    """Prompts of several lengths with their answers right behind them, padding at the end; some have no prompt but its
    first token."""
    lengths = [1, 9, 4, 6, 7][:rows]
    tokens_BL = cycles(rows, max(lengths) + answer, torch.Generator().manual_seed(2)).clamp(max=words - 1)
    column_L, length_B1 = torch.arange(tokens_BL.shape[1]), torch.tensor(lengths)[:, None]
    free_BL = (column_L >= length_B1) & (column_L < length_B1 + answer)
    valid_BL = column_L < length_B1 + answer
    return Canvas(torch.where(free_BL, mask, tokens_BL), free_BL, valid_BL, torch.arange(rows) * 5 + 1)


def infilling(rows, length):
    """Positions given at random, the first among them: where a block sees nothing but masks its positions are all
    alike, and which of them is ranked first is a matter of rounding."""
    canvas = text_models.canvas(rows, length, words=40)
    canvas.free_BL[:, 0] = False
    return canvas


@pytest.mark.parametrize("sampler", RULES, ids=lambda s: s.kind)
@pytest.mark.parametrize("block", [BLOCK, 2 * BLOCK])
def test_the_exact_cache_gives_the_same_tokens_and_probabilities(sampler, block):
    """On prompts of several lengths, so that blocks of decoding and of the model do not begin together."""
    model = taught(blocky(), 40).denoiser()
    made = sampler.replace(block=block)
    for canvas, dials in ((prompts(), {}), (prompts(), {"scale": 1.5}), (infilling(4, 22), {})):
        plain = made.replace(**dials)(model, canvas, Rng(3)).tokens_BL
        beside = Beside(model)
        if not dials:
            kept = made.replace(cache="exact")(beside, canvas, Rng(3)).tokens_BL
            assert float(torch.cat(beside.nats).max()) < 1e-9
            assert beside.largest < 1e-5
        else:
            kept = made.replace(cache="exact", **dials)(model, canvas, Rng(3)).tokens_BL
        assert torch.equal(plain, kept)


def nats_of(model, sampler, canvas):
    """KL of each reading, in the order of rounds."""
    beside = Beside(model)
    tokens_BL = sampler(beside, canvas, Rng(3)).tokens_BL
    return [float(n.max()) for n in beside.nats], tokens_BL


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("name", ["llada", "dream", "mdlm", "mdlm_timed", "sedd"])
def test_the_first_round_of_a_block_is_exact_and_others_are_not(cache, name):
    """Rows of one geometry: every block of four is four rounds, and the first of them computes all."""
    if name in ("llada", "dream"):
        model, canvas = build(name).denoiser(), canvas_of(text_of(6, 6, 6), 12)
    else:
        model, canvas = text_models.build(name).denoiser(), text_models.canvas(3, 18, given=0.0)
        canvas.free_BL[:, :6] = False
    for sampler in (LowConfidence(block=4, cache=cache), RandomOrder(block=4, cache=cache)):
        nats, _ = nats_of(model, sampler, canvas)
        assert len(nats) == 12
        assert max(nats[::4]) < 1e-9
        assert min(nats[1::4] + nats[2::4] + nats[3::4]) > 1e-9
        whole, tokens_BL = nats_of(model, sampler.replace(tokens_per_step=4), canvas)
        assert max(whole) < 1e-9
        plain = sampler.replace(tokens_per_step=4, cache="off")(model, canvas, Rng(3)).tokens_BL
        assert torch.equal(tokens_BL, plain)


@pytest.mark.parametrize("cache", ["prefix", "dual"])
@pytest.mark.parametrize("sampler", TWICE, ids=lambda s: s.kind)
def test_one_block_that_is_all_of_the_canvas_is_exact(cache, sampler):
    """With nothing before it and nothing behind it nothing is left out; behind a prompt it is."""
    model = text_models.build("mdlm").denoiser()
    whole = text_models.canvas(3, 14, given=0.0)
    made = sampler.replace(cache=cache)
    nats, tokens_BL = nats_of(model, made, whole)
    assert max(nats) < 1e-9
    assert torch.equal(tokens_BL, sampler(model, whole, Rng(3)).tokens_BL)
    prompted = whole.replace(free_BL=whole.free_BL & (torch.arange(14) >= 5))
    assert max(nats_of(model, made, prompted)[0]) > 1e-6


def test_no_cache_is_used_unless_it_is_asked_for():
    model, canvas = text_models.build("mdlm").denoiser(), text_models.canvas(3, 18)
    for sampler in RULES:
        assert sampler.cache == "off"
        assert max(nats_of(model, sampler.replace(block=4), canvas)[0]) == 0


@pytest.mark.parametrize("cache", ["prefix", "dual", "exact"])
@pytest.mark.parametrize("sampler", RULES, ids=lambda s: s.kind)
def test_a_row_does_not_depend_on_the_rows_beside_it(cache, sampler):
    """Blocks stand at other columns in every row, rows are in other blocks at the same round, and leave early."""
    name = "mdlm" if cache == "exact" else "mdlm_timed"
    made = sampler.replace(cache=cache, block=BLOCK)
    model = (blocky() if cache == "exact" else text_models.build(name, words=40, max_length=40)).denoiser()
    for canvas, dials in (
        (prompts(), {}),
        (infilling(5, 20), {"scale": 1.5}),
        (prompts().replace(end=11), {}),
    ):
        together = made.replace(**dials)(model, canvas, Rng(0)).cut_at_end()
        for b in range(5):
            alone = made.replace(**dials)(model, canvas.map(lambda x, b=b: x[b : b + 1]), Rng(0)).cut_at_end()
            assert torch.equal(together.valid_BL[b], alone.valid_BL[0])
            assert torch.equal(together.tokens_BL[b][alone.valid_BL[0]], alone.tokens_BL[0][alone.valid_BL[0]])


@pytest.mark.parametrize("name", ["llada", "dream"])
@pytest.mark.parametrize("side", ["left", "right", "middle"])
@pytest.mark.parametrize("cache", ["prefix", "dual"])
def test_neither_does_it_under_the_networks_of_llada_and_dream(name, side, cache):
    model, canvas = build(name).denoiser(), canvas_of(text_of(9, 3, 6), 8, side)
    for sampler in (LowConfidence(temperature=0.0), ConfidenceThreshold(threshold=0.02), IMH(chain=2)):
        made = sampler.replace(cache=cache, block=3)
        together = made(model, canvas, Rng(0)).tokens_BL
        for b in range(3):
            alone = made(model, canvas.map(lambda x, b=b: x[b : b + 1]), Rng(0)).tokens_BL[0]
            assert torch.equal(together[b][canvas.free_BL[b]], alone[canvas.free_BL[b]])


@pytest.mark.parametrize("cache", ["prefix", "dual", "exact"])
@pytest.mark.parametrize("name", ["blocky", "mdlm", "dream", "llada"])
def test_a_plan_counts_what_the_meter_and_torch_count(cache, name):
    """Calls, rows, positions, and FLOPs, of which a cache must save some."""
    if cache == "exact" and name != "blocky":
        return
    if name in ("dream", "llada"):
        model, canvas = build(name), canvas_of(text_of(9, 3, 6), 12, "right")
        words = type("V", (), {"size": 700, "mask": 300, "pad": 5, "end": 6, "ends": (6,)})
    else:
        model = blocky() if name == "blocky" else text_models.build("mdlm", words=40, max_length=40)
        canvas, words = prompts(), text_models.vocabulary(40)
    blank, network = Blank.of(model.settings, words), model.settings.work(words)
    for sampler in (RandomOrder(), LowConfidence(), LowConfidence(scale=1.5, tokens_per_step=2)):
        flops = {}
        for kind in ("off", cache):
            made = sampler.replace(block=BLOCK, cache=kind)
            meter = Meter(model.denoiser())
            counted = flops_of(lambda made=made, meter=meter: made(meter, canvas, Rng(7)))
            trace = trace_canvas(made, blank, canvas, 7)
            assert (trace.calls, trace.rows, trace.projected) == (
                meter.nfe_calls, meter.nfe_rows, meter.positions_projected,
            )  # fmt: skip
            work = text_counts(trace, network, False).work
            assert work is not None
            assert work.flops + work.projection == counted
            flops[kind] = work.flops
            assert trace.kept == (0 if kind == "off" else len(canvas.tokens_BL))
        assert flops[cache] < flops["off"]


def test_what_a_cache_cannot_do_is_refused():
    model = text_models.build("mdlm").denoiser()
    canvas, blank = text_models.canvas(2, 12), Blank.of(text_models.build("mdlm").settings, text_models.vocabulary())
    with pytest.raises(UserError, match="cache=exact needs a model whose tokens see their own block"):
        LowConfidence(cache="exact", block=4)(model, canvas, Rng(0))
    with pytest.raises(UserError, match="cache=exact needs a model whose tokens see their own block"):
        trace_canvas(LowConfidence(cache="exact", block=4), blank, canvas, 0)
    for block in (0, 3, 6):
        with pytest.raises(UserError, match=f"block={block} is no multiple of them; give block=4 or a multiple"):
            LowConfidence(cache="exact", block=block)(blocky().denoiser(), text_models.canvas(2, 12, words=40), Rng(0))
    with pytest.raises(UserError, match="lookahead=canvas looks beyond it; use lookahead=block or cache=off"):
        IMH(cache="dual", lookahead="canvas")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["model=mdlm_tiny", "cache=exact", "block=16"], "cache=exact needs a model whose tokens see"),
        (["model=mdlm_blocks_tiny", "cache=exact", "block=10"], "block=10 is no multiple of them; give block=16"),
        (["model=roberta", "cache=dual", "block=16"], "cannot be kept; use cache=off"),
        (["model=mdlm_tiny", "cache=sometimes"], "off, prefix, dual"),
    ],
)
def test_it_is_refused_before_anything_is_loaded(words, message, capsys, tmp_path):
    said = ["sample", "dataset=tinyshakespeare", "sampler=low_confidence", f"outputs={tmp_path}", *words]
    assert main(said) == 2
    assert message in capsys.readouterr().err


def test_a_fork_keeps_its_keys_to_itself():
    """Forks of IMH's candidates write over what they were given, not over what it was taken from."""
    model, canvas = text_models.build("mdlm").denoiser(), text_models.canvas(3, 12, given=0.0)
    tokens_BL = torch.where(canvas.free_BL, model.mask, canvas.tokens_BL)
    session, at_BK = model.open(canvas), torch.tensor([[4, 5]] * 3)
    session.freeze(None)
    session.run(tokens_BL, torch.ones(3))
    session.freeze([(4, 7)] * 3)
    before = session.run(tokens_BL, torch.ones(3), at_BK)
    forked = session.fork(torch.tensor([1, 1, 2]))
    forked.freeze([(2, 6), (4, 8), (3, 9)])
    written_BL = tokens_BL.clone()
    written_BL[:, 4:9] = 7
    forked.run(written_BL, torch.ones(3), at_BK)
    assert torch.equal(session.run(tokens_BL, torch.ones(3), at_BK), before)
    session.adopt(forked.kept, torch.tensor([0, 1, 2]))
    session.freeze([(9, 10)] * 3)
    last_B1 = torch.full((3, 1), 9)
    assert not torch.equal(session.run(tokens_BL, torch.ones(3), last_B1), before[:, :1])


@pytest.mark.parametrize("name", ["llada_tied", "mdlm"])
def test_the_memory_of_a_cache_is_foretold(name):
    if name == "mdlm":
        model, canvas, words = text_models.build(name), text_models.canvas(2, 12), text_models.vocabulary()
    else:
        model, canvas = build(name), canvas_of(text_of(6, 6), 6)
        words = type("V", (), {"size": 700, "mask": 300, "pad": 5, "end": 6, "ends": (6,)})
    session = model.denoiser().open(canvas)
    session.freeze(None)
    session.run(torch.where(canvas.free_BL, model.mask, canvas.tokens_BL), torch.ones(2))
    numbers = sum(part.numel() for held in session.kept.held for part in held)
    assert model.settings.work(words).kept(2, 12) == numbers


def test_columns_of_rows_are_refused_where_they_are_none():
    model, canvas = text_models.build("mdlm").denoiser(), text_models.canvas(2, 12)
    session = model.open(canvas)
    session.freeze(None)
    session.run(canvas.tokens_BL, torch.ones(2))
    for spans in ([(0, 3)], [(0, 3), (3, 3)], [(0, 3), (4, 13)]):
        with pytest.raises(ValueError, match="are no columns of 2 rows of 12"):
            session.freeze(spans)
    session.freeze([(0, 3), (4, 6)])
    with pytest.raises(ValueError, match="must be told whose states"):
        session.run(canvas.tokens_BL, torch.ones(2))
