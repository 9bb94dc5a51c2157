"""`diffq bench samplers`: each of our samplers against its textbook version, same weights, same draws, in one run.

The two take turns, so that whatever else the machine does falls on both. A textbook sampler that does the same work at
every step is timed on some steps spread over its trajectory and multiplied; its row says `extrapolated`, and `--full`
runs it whole. Agreement is counted apart, on fewer sources, over whole trajectories.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch

from diffq.config import Config, Request, compose
from diffq.data.canvases import BATCH_TOKENS, build_canvas, plan_batches
from diffq.data.task import PairCorpus
from diffq.diffusion.contracts import row_id
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.runs.bench import against_textbook, textbook

SOURCES = 512
STEPS = 30
TURNS = 3
TIMED_STEPS = 9  # of the textbook sampler, over all turns
AGREEING_SOURCES = 96

DIALS: dict[str, dict[str, Any]] = {
    "gaussian/cfg": {"sampler": "cfg", "scale": 2.0},
    "gaussian/clamp_before_cfg": {"sampler": "clamp_before_cfg", "scale": 2.0, "temperature": 0.5},
    "gaussian/clamp_before_cfg_nearest": {"sampler": "clamp_before_cfg", "scale": 2.0, "temperature": 0.0},
}


@dataclass(frozen=True)
class Bench:
    """A model with random weights (time does not depend on them) and the sources that it is given."""

    model: Any
    denoiser: Any
    sources: list[list[int]]
    lengths: list[int]
    pad: int
    mask: int


def run(request: Request, names: Sequence[str]) -> list[dict[str, Any]]:
    """The rows: name, ratio (textbook seconds over ours) with low and high over the turns, seconds, agreement."""
    if not names:
        return []
    module = textbook("embedding")
    config, bench = open_bench(request)
    rows = []
    for name in names:
        print(f"diffq: timing {name} …", file=sys.stderr, flush=True)
        rows.append(_row(name, config, bench, module, request.flags.full))
    return rows


def open_bench(request: Request) -> tuple[Config, Bench]:
    """The model and the sources that the command line names: gaussian_small and 512 test sources of QQP, if nothing.

    UserError for a model of another process.
    """
    from diffq.data.tokenizers import build_tokenizer

    words = ["dataset=qqp", "model=gaussian_small", *request.overrides]
    config = compose(words, verb="sample", config_dirs=request.config_dirs)
    if config.model.process != "gaussian":
        raise UserError(
            f"diffq bench samplers times gaussian models here, and model={config.choices.model} is"
            f" {config.model.process}; its rows absorbing/… and uniform/… have models of their own"
        )
    corpus = cast(PairCorpus, config.dataset.open())  # all gaussian models are for pairs
    tokenizer = build_tokenizer(config.dataset.tokenizer, corpus)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        model = config.model.build(tokenizer).eval()
    examples = corpus.split(config.split)[: config.num_sources or SOURCES]
    targets = tokenizer.encode_targets([e.references[0] for e in examples])
    sources = tokenizer.encode_sources([e.source for e in examples])
    lengths = [max(len(t), 1) for t in targets]
    return config, Bench(model, model.denoiser(), sources, lengths, tokenizer.pad, tokenizer.mask)


def open_sampler(name: str) -> tuple[Any, dict[str, Any]]:
    """The sampler of a row, and the dials that its textbook version is to have."""
    dials = dict(DIALS[name])
    return compose([f"sampler={dials.pop('sampler')}", f"steps={STEPS}"]).sampler.replace(**dials), dials


def _row(name: str, config: Config, bench: Bench, module: Any, full: bool) -> dict[str, Any]:
    sampler, dials = open_sampler(name)
    batch_tokens = config.batch_tokens or BATCH_TOKENS
    everything = list(range(len(bench.sources)))
    ours, theirs = [], []
    _ours(bench, sampler.replace(steps=2), everything[:64], batch_tokens)  # warm-up
    for turn in range(TURNS):
        began = time.perf_counter()
        _ours(bench, sampler, everything, batch_tokens)
        ours.append(time.perf_counter() - began)
        steps = range(STEPS) if full else range(turn, STEPS, STEPS * TURNS // TIMED_STEPS)
        theirs.append(_textbook_seconds(bench, module, dials, steps))
    agreement = _agreement(bench, sampler, module, dials, batch_tokens)
    return {"name": name, **against_textbook(ours, theirs, full), **agreement}


def _ours(bench: Bench, sampler: Any, chosen_sources: Sequence[int], batch_tokens: int) -> dict[int, list[int]]:
    """Our samples of some sources, by their number."""
    source_lengths = [len(bench.sources[i]) for i in chosen_sources]
    lengths = [bench.lengths[i] for i in chosen_sources]
    ids = {i: bench.sources[i] for i in chosen_sources}
    made = {}
    for batch in plan_batches([lengths], source_lengths, batch_tokens, list(chosen_sources)):
        canvas = build_canvas(batch.rows, ids, bench.pad, bench.mask)
        filled = sampler(bench.denoiser, canvas, Rng(0))
        for row, tokens in zip(batch.rows, filled.tokens_BL.tolist(), strict=True):
            made[row.source] = tokens[: row.length]
    return made


def _books(bench: Bench, module: Any, dials: dict[str, Any], count: int) -> list[Any]:
    """The textbook sampler's batches, in dataset order."""
    mode = 2 if "temperature" in dials else 0
    out = []
    for first in range(0, count, module.BATCH):
        part = slice(first, min(first + module.BATCH, count))
        ids = [row_id(i, 0) for i in range(part.start, part.stop)]
        out.append(
            module.Textbook(
                bench.model,
                bench.sources[part],
                bench.lengths[part],
                row_ids=ids,
                steps=STEPS,
                clamp_mode=mode,
                **dials,
            )
        )
    return out


def _textbook_seconds(bench: Bench, module: Any, dials: dict[str, Any], steps: Sequence[int]) -> float:
    """Seconds of the whole textbook run: start and end as they are, the timed steps multiplied up to all of them."""
    total = 0.0
    for book in _books(bench, module, dials, len(bench.sources)):
        began = time.perf_counter()
        book.start()
        started = time.perf_counter()
        for i in steps:
            book.step(i)
        stepped = time.perf_counter()
        book.finish()
        total += (started - began) + (stepped - started) * STEPS / len(steps) + (time.perf_counter() - stepped)
    return total


def _agreement(bench: Bench, sampler: Any, module: Any, dials: dict[str, Any], batch_tokens: int) -> dict[str, Any]:
    """Rows that are equal token by token, and single tokens that are not, over whole trajectories."""
    count = min(AGREEING_SOURCES, len(bench.sources))
    theirs = [row for book in _books(bench, module, dials, count) for row in book.run()]
    ours = _ours(bench, sampler, range(count), batch_tokens)
    equal = sum(ours[i] == theirs[i] for i in range(count))
    tokens = sum(a != b for i in range(count) for a, b in zip(ours[i], theirs[i], strict=True))
    return {"equal_rows": f"{equal}/{count}", "unequal_tokens": tokens}
