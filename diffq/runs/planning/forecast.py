"""What each point of a grid is and what is left of it: its place in the store, its batches, its counts.

Checkpoints are described, not loaded; one that has yet to be trained is taken as its settings say. Nothing is written.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from diffq.config import Config
from diffq.data.canvases import Batch, Row
from diffq.data.tokenizers import build_tokenizer
from diffq.models.checkpoints import Described, describe
from diffq.models.work import Seq2SeqWork, TextWork
from diffq.runs.planning.amounts import Counts, ending_counts, fixed_counts, text_counts
from diffq.runs.planning.dry import Blank, Trace, trace_canvas, trace_ending, trace_fixed
from diffq.runs.planning.memory import held_by_text, held_bytes, row_bytes
from diffq.runs.workbench import Workbench, make_workbench, pick_device
from diffq.settings import as_mapping

_MOST_DRY = 32  # batches that are run dry, of a point each of whose batches is run; the others are like them
_MOST_STEERED = 6  # of them, where what is asked hangs on the network: it is a bound or a guess then, however many

Lengths = Mapping[tuple[int, int], int]
"""Tokens of an answer by (source, sample)."""


@dataclass(frozen=True)
class Forecast:
    """What sampling some batches asks for.

    counts   of each batch, in their order
    exact    whether calls and rows are certain, or hang on lengths that are only expected
    held     bytes of tensors at the widest batch; None where nobody has counted the network's work
    disk     bytes of samples.jsonl
    """

    batches: tuple[Batch, ...]
    counts: tuple[Counts, ...]
    exact: bool
    held: int | None
    disk: int

    def left(self, done: int) -> Counts:
        """The counts of all but the first `done` batches."""
        start = Counts() if all(c.work is not None for c in self.counts) else Counts(work=None)
        return sum(self.counts[done:], start=start)

    def batches_done(self, rows: int) -> int:
        """How many batches are whole where so many rows are on disk."""
        return sum(batch.first + len(batch.rows) <= rows for batch in self.batches)


@dataclass
class Benches:
    """The workbenches of a plan, without weights. What was read is kept, since a grid asks for it again and again."""

    _described: dict[str, Described] = field(default_factory=dict)
    _tokenizers: dict[str, Any] = field(default_factory=dict)
    _made: dict[str, Workbench] = field(default_factory=dict)
    _traces: dict[str, Trace] = field(default_factory=dict)
    _plans: dict[str, tuple[list[Batch], int]] = field(default_factory=dict)
    _forecasts: dict[str, Forecast] = field(default_factory=dict)

    def __call__(self, config: Config) -> Workbench:
        """The workbench of a point; where `config.checkpoint` is None, that of a training that is still to come."""
        device = self.device(config)
        described = self._describe(config)
        key = json.dumps(
            [str(config.checkpoint), as_mapping(config.model), as_mapping(config.dataset), config.split,
             config.num_sources, str(device)]
        )  # fmt: skip
        if key not in self._made:
            blank = Blank.of(described.settings, described.tokenizer)
            self._made[key] = make_workbench(config, described, blank, device)
        bench = self._made[key]
        bench.sources  # noqa: B018 - a source that is too long is refused, as the sweep would
        return bench

    def _describe(self, config: Config) -> Described:
        if config.checkpoint is not None:
            key = str(config.checkpoint)
            if key not in self._described:
                self._described[key] = describe(config.checkpoint)
            return self._described[key]
        data = json.dumps(as_mapping(config.dataset))
        if data not in self._tokenizers:
            self._tokenizers[data] = build_tokenizer(config.dataset.tokenizer, config.dataset.open())
        tokenizer = self._tokenizers[data]
        return Described(config.model, tokenizer, {}, None, "", config.model.work(tokenizer))

    @staticmethod
    def device(config: Config) -> torch.device:
        """Where a point would be sampled. A GPU is only asked for its name."""
        return pick_device(config.device)

    def network(self, bench: Workbench) -> Any:
        """How much work the network of a workbench does, where it has been counted."""
        assert isinstance(bench.loaded, Described)
        return bench.loaded.work

    def forecast(
        self, config: Config, bench: Workbench, batch_tokens: int, expected: Lengths, whole: bool = False
    ) -> Forecast:
        """The forecast of a point.

        expected  how long the answers of a model that ends by itself are thought to be; others are not looked at
        whole     every batch is run dry, however many there are
        UserError where the sampler does not fit the model; Uncounted where its law cannot be told.
        """
        pairs = config.dataset.task == "pairs" and not config.laid_out
        sure = config.sampler.takes_length
        if pairs and sure and config.length.startswith("normal") and bench.loaded.lengths is None:
            config, sure = dataclasses.replace(config, length="oracle"), False  # the fit comes with the training
        planned = json.dumps([id(bench), config.length, config.seed, config.num_samples, batch_tokens,
                              config.sampler.takes_length])  # fmt: skip
        if planned not in self._plans:
            made = bench.plan(config, batch_tokens)
            self._plans[planned] = made, _disk(bench, made, expected)
        batches, disk = self._plans[planned]
        if not pairs:
            return self._of_text(config, bench, batches, planned, expected, whole, disk)
        if not config.sampler.takes_length:
            trace, counts = self._ending_counts(config, bench, batches, expected, whole)
            return self._made_of(config, bench, batches, trace, counts, sure, disk)
        trace = self._fixed_trace(config, bench)
        key = f"{planned} {config.dtype} {trace}"  # many points of a grid ask for the same
        if key not in self._forecasts:
            lengths = {index: len(ids) for index, ids in bench.sources.items()}
            network, gpu = self.network(bench), bench.device.type == "cuda"
            counts = [fixed_counts(trace, [batch], lengths, network, gpu) for batch in batches]
            self._forecasts[key] = self._made_of(config, bench, batches, trace, counts, sure, disk)
        return self._forecasts[key]

    def _made_of(
        self,
        config: Config,
        bench: Workbench,
        batches: Sequence[Batch],
        trace: Trace,
        counts: Sequence[Counts],
        sure: bool,
        disk: int,
    ) -> Forecast:
        lengths = {index: len(ids) for index, ids in bench.sources.items()}
        network: Seq2SeqWork | None = self.network(bench)
        gpu = bench.device.type == "cuda"
        held = held_bytes(trace, batches, lengths, network, config.dtype, gpu) if network else None
        return Forecast(tuple(batches), tuple(counts), sure, held, disk)

    def _fixed_trace(self, config: Config, bench: Workbench) -> Trace:
        sampler, key = _alike(config.sampler), f"{id(bench.denoiser)}"
        key += json.dumps([type(sampler).__qualname__, as_mapping(sampler)])
        if key not in self._traces:
            self._traces[key] = trace_fixed(sampler, bench.denoiser)
        return self._traces[key]

    def _of_text(
        self,
        config: Config,
        bench: Workbench,
        batches: Sequence[Batch],
        planned: str,
        expected: Lengths,
        whole: bool,
        disk: int,
    ) -> Forecast:
        """The forecast of running text; of many batches, some are run dry and stand for those behind them."""
        network: TextWork | None = self.network(bench)
        gpu, sampler = bench.device.type == "cuda", _alike(config.sampler)
        named = json.dumps([type(sampler).__qualname__, as_mapping(sampler)])

        def dry(at: int) -> Trace:
            batch = batches[at]
            ends = [_end(config, bench, row, expected) for row in (*batch.rows, *batch.beyond)]
            key = json.dumps([planned, at, named, ends])
            if key not in self._traces:
                canvas = bench.canvas(batch).map(lambda x: x.cpu())
                self._traces[key] = trace_canvas(sampler, bench.denoiser, canvas, config.seed, ends)
            return self._traces[key]

        every = 1
        if batches and not whole:
            every = -(-len(batches) // (_MOST_STEERED if dry(0).steered else _MOST_DRY))
        traces = [dry(at) for at in range(0, len(batches), every)]
        counts = [text_counts(trace, network, gpu) for trace in traces]
        sure = every == 1 and not any(trace.steered for trace in traces) and not ends_by_itself(config)
        held = None
        if network is not None:
            widest = max(range(len(batches)), key=lambda at: batches[at].rows[-1].length)  # prompts differ
            held = held_by_text(dry(widest), batches[widest].rows[-1].length, network, config.dtype, gpu)
        of_all = [
            _scaled(counts[at // every], len(batch.rows) / len(batches[at - at % every].rows))
            for at, batch in enumerate(batches)
        ]
        return Forecast(tuple(batches), tuple(of_all), sure, held, disk)

    def _ending_counts(
        self, config: Config, bench: Workbench, batches: Sequence[Batch], expected: Lengths, whole: bool
    ) -> tuple[Trace, list[Counts]]:
        """The counts of batches whose rows end by themselves, and a trace that stands for them all."""
        network: Seq2SeqWork | None = self.network(bench)
        gpu, sampler = bench.device.type == "cuda", _alike(config.sampler)
        named = json.dumps([type(sampler).__qualname__, as_mapping(sampler)])
        every = 1 if whole else -(-len(batches) // _MOST_DRY)
        counts: list[Counts] = []
        trace = Trace()
        for at, batch in enumerate(batches):
            if at % every:
                counts.append(_scaled(counts[-(at % every)], len(batch.rows) / len(batches[at - at % every].rows)))
                continue
            room = batch.rows[0].length
            ends = [expected.get((row.source, row.sample), room) for row in batch.rows]
            key = json.dumps([named, room, ends])
            if key not in self._traces:
                self._traces[key] = trace_ending(sampler, bench.denoiser, room, ends)
            trace = self._traces[key]
            sources = [len(bench.sources[row.source]) for row in batch.rows]
            counts.append(ending_counts(trace, sources, network, gpu))
        return trace, counts


def _end(config: Config, bench: Workbench, row: Row, expected: Lengths) -> int:
    """The position at which a row is thought to end: behind its prompt stands an answer."""
    behind = config.dataset.task == "answers" or config.laid_out
    prompt = len(bench.sources[row.source]) if behind else 0
    answer = expected.get((row.source, row.sample))
    return row.length if answer is None else min(row.length, prompt + answer)


def _scaled(counts: Counts, share: float) -> Counts:
    """The counts of a batch with `share` times the rows: as many calls."""
    rows, positions = round(counts.rows * share), round(counts.positions * share)
    return Counts(counts.calls, rows, positions, None if counts.work is None else counts.work * share)


def _alike(sampler: Any) -> Any:
    """The sampler at temperature 1 where it has one above 0: what it asks of a network is the same."""
    return sampler.replace(temperature=1.0) if getattr(sampler, "temperature", 0) > 0 else sampler


def ends_by_itself(config: Config) -> bool:
    """Whether the model decides how long an answer is: running text is full where no end token ends it."""
    return not config.sampler.takes_length and getattr(config.dataset, "ends", True)


def reference_lengths(config: Config, bench: Workbench) -> Lengths:
    """Answers as long as the references: what one expects of a model that has not been sampled yet."""
    tokens = {e.index: length for e, length in zip(bench.examples, bench.target_lengths, strict=True)}
    return {(source, k): length for source, length in tokens.items() for k in range(config.num_samples)}


def _disk(bench: Workbench, batches: Sequence[Batch], expected: Lengths) -> int:
    """Bytes of the rows, with answers as long in characters as the references."""
    texts = {e.index: e.references[0] if e.references else e.source for e in bench.examples}
    mean = sum(expected.values()) / len(expected) if expected else 0
    total = 0
    for batch in batches:
        for row in batch.rows:
            tokens = expected.get((row.source, row.sample), round(mean)) if expected else row.length
            total += row_bytes(bench.sources[row.source], texts[row.source], tokens)
    return total
