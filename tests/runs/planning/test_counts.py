"""A dry run counts what the Meter counts: every sampler that has a YAML, on real networks, at several batch sizes."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import yaml
from reference import text_models
from reference.tiny import causal, gaussian, vocabulary

from diffq.config import compose
from diffq.config.files import builtin_dir, group_files
from diffq.data.canvases import Batch, build_canvas, plan_batches
from diffq.diffusion.contracts import Meter
from diffq.diffusion.reductions import LogZ, Top
from diffq.errors import UserError
from diffq.models.causal_lm import CausalLMSettings
from diffq.registry import SAMPLERS as SAMPLER_KINDS
from diffq.rng import Rng
from diffq.runs.planning.amounts import Counts, ending_counts, fixed_counts, text_counts
from diffq.runs.planning.dry import Blank, Trace, Uncounted, trace_canvas, trace_ending, trace_fixed
from diffq.samplers.base import Sampler

SOURCES = {i: [2, *([7] * (3 + i % 4)), 3] for i in range(7)}
LENGTHS = [3 + (5 * i) % 7 for i in range(7)]
SAMPLERS = list(group_files("sampler", [builtin_dir()]))


def compose_processes(name: str) -> Sequence[str]:
    """The processes that the sampler of a YAML serves."""
    file = group_files("sampler", [builtin_dir()])[name]
    return SAMPLER_KINDS[yaml.safe_load(file.read_text(encoding="utf-8"))["kind"]].processes


DIALS: list[dict[str, Any]] = [
    {"steps": 3},
    {"steps": 2, "scale": 1.0},
    {"steps": 3, "scale": 0.0, "temperature": 0.7},
    {"steps": 3, "scale": 2.0, "temperature": 0.5},
    {"steps": 3, "scale": 1.0, "scale_schedule": "lerp"},
    {"steps": 3, "scale": 3.0, "scale_schedule": "alpha", "temperature": 1.0, "normalise": True},
]
ENDING: list[dict[str, Any]] = [{"temperature": 0.0}, {"temperature": 1.0}, {"top_p": 0.8}, {"top_k": 3}]


def batches(batch_tokens: int) -> list[Batch]:
    source_lengths = [len(ids) for ids in SOURCES.values()]
    return plan_batches([LENGTHS, LENGTHS], source_lengths, batch_tokens)


def metered(sampler: Sampler, model: Any, batch: Batch) -> tuple[Counts, list[int]]:
    """What the Meter counts on a real network, and how long each answer is."""
    meter = Meter(model.denoiser())
    filled = sampler(meter, build_canvas(batch.rows, SOURCES, pad=0, mask=4), Rng(3))
    counts = Counts(meter.nfe_calls, meter.nfe_rows, meter.positions_projected)
    return counts, filled.valid_BL.sum(1).tolist()


def same(one: Counts, other: Counts) -> bool:
    return (one.calls, one.rows, one.positions) == (other.calls, other.rows, other.positions)


def settings_of(name: str) -> tuple[Any, Sequence[dict[str, Any]]]:
    sampler = compose([f"sampler={name}"]).sampler
    return sampler, DIALS if sampler.takes_length else ENDING


# What these ask depends on what the network says: equal candidates are run once, sure positions are written together.
BOUNDED = ("imh", "confidence_threshold", "factor", "fast_dllm", "fast_dllm_prefix")
DISCRETE = [name for name in SAMPLERS if "absorbing" in compose_processes(name)]


@pytest.mark.parametrize("name", DISCRETE)
@pytest.mark.parametrize("model", ["mdlm_timed", "sedd", "sedd_uniform"])
def test_a_dry_run_on_the_canvas_counts_what_the_meter_counts(name: str, model: str) -> None:
    """But for the published law, where a learnt z decides what is read when; and for BOUNDED, which ask at most it."""
    sampler = compose([f"sampler={name}", "dataset=tinyshakespeare"]).sampler
    network = text_models.build(model)
    if network.process not in sampler.processes or (model == "sedd" and name.endswith("published")):
        return
    blank = Blank.of(network.settings, text_models.vocabulary())
    canvas = text_models.canvas(5, 14)
    for steps, scale in ((3, 1.0), (40, 1.0), (5, 2.0)):
        dials = {"steps": steps} if "steps" in vars(sampler) else {}
        if scale != 1 and (network.process == "uniform" or name.endswith("published")):
            continue
        made = sampler.replace(scale=scale, **dials)
        if not made.foreseeable:
            with pytest.raises(Uncounted, match="depends on what it says"):
                trace_canvas(made, blank, canvas, 7)
            return
        if getattr(made, "rule", "") == "conf":
            made = made.replace(eta=0.0)  # what it masks again depends on what the network says
        meter = Meter(network.denoiser())
        made(meter, canvas, Rng(7))
        trace = trace_canvas(made, blank, canvas, 7)
        counted = (meter.nfe_calls, meter.nfe_rows, meter.positions_projected)
        assert trace.steered == (getattr(made, "rule", "") == "conf" or name in BOUNDED)
        if name in BOUNDED:
            assert trace.calls >= counted[0]
            assert trace.rows >= counted[1]
            assert trace.projected >= counted[2]
            continue
        assert (trace.calls, trace.rows, trace.projected) == counted, (steps, scale)
        told = text_counts(trace, network.settings.work(text_models.vocabulary()), False)
        assert told.work is not None
        assert told.work.flops > 0
        assert told.work.projection == 2 * 700 * 32 * trace.projected


@pytest.mark.parametrize("given", [0, 5])
@pytest.mark.parametrize("ends", [None, 699])
def test_a_dry_run_of_the_causal_twin_of_text(given: int, ends: int | None) -> None:
    """A prompt is read in one call; rows end at their end tokens, where there is one."""
    words = text_models.vocabulary()
    sizes = {k: v for k, v in text_models.SIZES.items() if k != "conditioning"}
    model = text_models.lively(CausalLMSettings(**sizes).build(words))
    canvas = text_models.canvas(5, 24, given=0.0)
    canvas.free_BL[:, :given] = False
    if ends is not None:
        bias_V = model.net.output_layer.linear.bias
        with torch.no_grad():
            bias_V[ends] += 8 + bias_V.max()
    canvas = canvas.replace(end=ends)
    sampler = compose(["sampler=autoregressive", "dataset=tinyshakespeare"]).sampler
    meter = Meter(model.denoiser())
    lengths = sampler(meter, canvas, Rng(7)).valid_BL.sum(1).tolist()
    assert (min(lengths) < 24) == (ends is not None)
    trace = trace_canvas(sampler, Blank.of(model.settings, words), canvas, 7, lengths)
    assert (trace.calls, trace.rows, trace.projected) == (meter.nfe_calls, meter.nfe_rows, meter.positions_projected)
    told = text_counts(trace, model.settings.work(words), False)
    assert told.work is not None
    assert told.work.projection == 2 * 700 * 32 * trace.projected


def test_guidance_of_a_nucleus_is_counted_as_one() -> None:
    """Both branches are projected, and what is sorted are the scores that they are combined to."""
    network, canvas = text_models.build("mdlm"), text_models.canvas(5, 14)
    work = network.settings.work(text_models.vocabulary())
    sampler = compose(["sampler=first_hitting", "dataset=tinyshakespeare", "top_p=0.9"]).sampler
    blank = Blank.of(network.settings, text_models.vocabulary())
    traces = [trace_canvas(sampler.replace(scale=scale), blank, canvas, 7) for scale in (1.0, 2.0)]
    plain, guided = (text_counts(trace, work, False).work for trace in traces)
    assert plain is not None
    assert guided is not None
    assert guided.projection == 2 * plain.projection
    assert guided.sorted == plain.sorted == 700 * int(canvas.free_BL.sum())
    assert guided.drawn == plain.drawn


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name not in DISCRETE])
def test_a_dry_run_counts_what_the_meter_counts(name: str) -> None:
    sampler, variants = settings_of(name)
    model = gaussian() if "gaussian" in sampler.processes else causal()
    blank = Blank.of(model.settings, vocabulary())
    network = model.settings.work(vocabulary())
    lengths = {i: len(ids) for i, ids in SOURCES.items()}
    for dials in variants:
        made = sampler.replace(**dials)
        for batch_tokens in (24, 4096):
            for batch in batches(batch_tokens)[::3]:
                if made.takes_length:
                    counted, _ = metered(made, model, batch)
                    told = fixed_counts(trace_fixed(made, blank), [batch], lengths, network, False)
                else:
                    batch = dataclasses.replace(
                        batch, rows=tuple(dataclasses.replace(r, length=14) for r in batch.rows)
                    )
                    counted, ends = metered(made, model, batch)
                    trace = trace_ending(made, blank, 14, ends)
                    told = ending_counts(trace, [lengths[row.source] for row in batch.rows], network, False)
                assert same(told, counted), (dials, batch_tokens)
                assert told.work is not None
                assert told.work.flops > 0


def test_rows_of_different_lengths_end_at_different_steps() -> None:
    """Looks at who has ended are every eight steps: a row of 3 tokens is computed for 8 steps, one of 9 for 16."""
    sampler = compose(["sampler=autoregressive"]).sampler
    trace = trace_ending(sampler, Blank.of(causal().settings, None), 40, [3, 9])
    assert (trace.calls, trace.rows) == (16, 8 + 16)


def test_a_sampler_that_does_not_fit_the_model_is_refused_as_in_sampling() -> None:
    blank = Blank.of(gaussian(condition_dropout=0.0).settings, None)
    with pytest.raises(UserError, match="condition dropout"):
        trace_fixed(compose(["sampler=cfg", "scale=2"]).sampler, blank)
    with pytest.raises(UserError, match="steps=100"):
        trace_fixed(compose(["sampler=cfg", "scale=1", "steps=100"]).sampler, blank)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Curious(Sampler):
    """A user's sampler that reads other things than draws.

    uneven  it asks of the first position alone
    greedy  it asks for more than the contract has
    """

    processes = ("gaussian",)
    uneven: bool = False
    greedy: bool = False

    def __call__(self, denoiser: Any, canvas: Any, rng: Rng, on_step: Any = None) -> Any:
        if self.greedy:
            return canvas.replace(tokens_BL=denoiser.model.weights)
        session = denoiser.open(canvas)
        assert canvas.source_BS is not None
        y_BLE = canvas.tokens_BL[..., None].float().expand(*canvas.shape, denoiser.embedding_dim)
        hidden = session.run(y_BLE, canvas.row_B * 0)
        position_N = canvas.free_BL.flatten().nonzero().squeeze(1)
        session.read(hidden, position_N[:1] if self.uneven else position_N, [LogZ(), Top(2)])
        return canvas


def test_a_users_own_sampler_is_counted_too() -> None:
    model = gaussian()
    blank = Blank.of(model.settings, vocabulary())
    trace = trace_fixed(Curious(), blank)
    assert trace == Trace(1, 1, {"weighed": 1}, {"weighed": 1}, ("cond",), steered=True)
    (batch, *_) = batches(60)
    counted, _ = metered(Curious(), model, batch)
    assert same(fixed_counts(trace, [batch], dict.fromkeys(SOURCES, 9), None, False), counted)
    with pytest.raises(Uncounted):
        trace_fixed(Curious(uneven=True), blank)
    with pytest.raises(Uncounted, match="without a network: AttributeError"):
        trace_fixed(Curious(greedy=True), blank)


def test_a_model_whose_settings_tell_nothing_is_built() -> None:
    settings = gaussian().settings

    class Silent(type(settings)):  # type: ignore[misc]
        def blank(self) -> None:
            return None

    told = {f.name: getattr(settings, f.name) for f in dataclasses.fields(settings)}
    blank, known = Blank.of(Silent(**told), vocabulary()), Blank.of(settings, vocabulary())
    assert (blank.guidable, blank.max_length) == (known.guidable, known.max_length)
    assert blank.alpha_bar_T is not None
    assert blank.alpha_bar_T.equal(known.alpha_bar_T)
