"""`diffq sample`: one point, or answers to sources of one's own.

A point goes into the store; answers to one's own sources are printed and kept nowhere. Knows no metric.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from diffq.config import Config, Request, compose
from diffq.errors import UserError
from diffq.interrupts import reaching

_SHOWN = 5


def run(request: Request) -> int:
    """Samples what the command line asks for and shows it. Returns 0."""
    config = composed(request)
    sources = list(request.flags.source or [])
    template = (request.flags.template or [None])[-1]
    if template is not None and len(sources) != 1:
        raise UserError("--template holds words of one answer, so it goes with one --source")
    if template is not None and getattr(config.dataset, "keywords", False):
        raise UserError("--template and keywords both put words into an answer; give one of them")
    from diffq.runs.workbench import Workbenches, with_checkpoint

    config = with_checkpoint(config)
    bench = Workbenches()(config)
    if sources:
        rows = _own_sources(config, bench, sources, template, request.flags.watch)
        _show(rows, request.json)
        return 0
    texts = {e.index: e.source for e in bench.examples}
    with _watching(request.flags.watch, bench.loaded.tokenizer, texts) as on_step:
        rows, folder = _point(config, bench, on_step, quiet=request.json)
    _show(rows, request.json, folder)
    return 0


def composed(request: Request) -> Config:
    """The configuration of the command, with the words of --keywords as a setting of the dataset."""
    words = list(request.overrides)
    if given := request.flags.keywords:
        from diffq.runs.grid import written

        if twice := [word for word in words if word.partition("=")[0] in ("keywords", "dataset.keywords")]:
            raise UserError(f"--keywords {given[-1]} and {twice[0]} say one thing twice; give one of them")
        words.append(written("dataset.keywords", [word.strip() for word in given[-1].split(",")]))
    return _traced(compose(words, verb="sample", config_dirs=request.config_dirs), request)


def _traced(config: Config, request: Request) -> Config:
    """The configuration with traces where `--trace` asks for them. UserError beside --source, which leaves no point."""
    if not request.flags.trace:
        return config
    if request.flags.source:
        raise UserError("--trace records into a point's folder, and --source leaves none; watch it with --watch")
    from diffq.runs.trace import FLAG_ROWS

    return dataclasses.replace(config, trace=config.trace or FLAG_ROWS)


def _point(config: Config, bench: Any, on_step: Any, quiet: bool) -> tuple[list[dict[str, Any]], Path]:
    """The first rows of the sampled point beside their sources, and its folder."""
    from diffq.runs.progress import point_progress
    from diffq.runs.sampling import Progress, sample_point

    reached = [f"0 of {config.num_samples * len(bench.examples)} rows are on disk"]
    with point_progress("sampling", quiet or on_step is not None) as show, reaching(lambda: reached[-1]):

        def on_progress(progress: Progress) -> None:
            reached.append(f"{progress.rows} of {progress.total} rows are on disk")
            if show is not None:
                show(progress)

        point = sample_point(config, bench, wait=True, on_progress=on_progress, on_step=on_step)
    texts = {e.index: e for e in bench.examples}
    rows = []
    for row in point.rows(config.num_samples * len(bench.examples)):
        example = texts[row["source"]]
        if row["source"] in [e.index for e in bench.examples[:_SHOWN]]:
            rows.append({"source": example.source, "sample": row["sample"], "text": row["text"]})
    order = {e.source: i for i, e in enumerate(bench.examples)}
    return sorted(rows, key=lambda r: (order[r["source"]], r["sample"])), point.folder


def _own_sources(
    config: Config, bench: Any, sources: Sequence[str], template: str | None, watch: bool
) -> list[dict[str, Any]]:
    """Samples of the given sources. Their length is the template's, or drawn by the length model; there is no
    reference that `oracle` could look at, so it stands for `normal` here. Of running text the source is the beginning,
    and what stands behind the template's gap the end, of a canvas of dataset.block tokens."""
    from diffq.data.canvases import build_canvas, plan_batches
    from diffq.diffusion.contracts import Meter
    from diffq.rng import Rng
    from diffq.runs.sampling import require_numbers

    tokenizer = bench.loaded.tokenizer
    if config.length == "oracle":
        config = dataclasses.replace(config, length="normal")
    asked = _asked(config, bench, sources, template)
    keep: dict[int, int] = {}
    length: int | None = None
    if config.dataset.task == "pairs" and template is not None and not config.laid_out:
        keep, length = _template(template, tokenizer)
    bench = dataclasses.replace(bench, asked=asked)
    batches = bench.plan(config, bench.batch_tokens(config))
    if length is not None:
        source_lengths = [len(bench.sources[i]) for i in range(len(sources))]
        batches = plan_batches(
            [[length] * len(sources)] * config.num_samples, source_lengths, bench.batch_tokens(config)
        )
    rows = []
    with _watching(watch, tokenizer, dict(enumerate(sources))) as on_step:
        for batch in batches:
            canvas = bench.canvas(batch)
            if keep:
                canvas = build_canvas(
                    batch.rows, bench.sources, tokenizer.pad, tokenizer.mask, {0: keep}, device=bench.device
                )
            meter = Meter(bench.denoiser)
            filled = config.sampler(meter, canvas, Rng(config.seed), on_step).cut_at_end()
            require_numbers(meter, config)
            ids = [t[v].tolist() for t, v in zip(filled.tokens_BL.cpu(), filled.valid_BL.cpu(), strict=True)]
            ids = ids[: len(batch.rows)]  # behind them stand rows of samples that nobody has asked for
            for row, answer in zip(batch.rows, asked.written(batch.rows, ids, True), strict=True):
                rows.append({"source": sources[row.source], "sample": row.sample, "text": answer.text})
    return rows


def _asked(config: Config, bench: Any, sources: Sequence[str], template: str | None) -> Any:
    """The questions that one's own sources are. UserError for what cannot be asked."""
    from diffq.data.canvases import check_sources
    from diffq.data.task import Example
    from diffq.runs.questions import prompted

    if config.dataset.task == "text":
        if len(sources) > 1:
            raise UserError("--source is the beginning of one text here; give it once, and num_samples for more of it")
        return prompted(bench.asked.asked, sources[0], template, bench.device)
    if config.dataset.task == "answers":
        if template is not None:
            raise UserError("--template holds words of an answer, and an answer behind a prompt has none; leave it out")
        asked = dataclasses.replace(bench.asked, examples=[bench.asked.corpus.own(i, q) for i, q in enumerate(sources)])
        asked.source_ids  # noqa: B018 - a question that is too long is refused before anything is sampled
        return asked
    if config.dataset.task == "forms":
        if template is not None:
            raise UserError("--template holds words of an answer, and a form has its givens in --source; leave it out")
        own = [bench.asked.corpus.own(i, text) for i, text in enumerate(sources)]
        asked = dataclasses.replace(bench.asked, examples=own)
        asked.source_ids  # noqa: B018 - what the checkpoint does not know is refused before anything is sampled
        return asked
    asked = dataclasses.replace(bench.asked, examples=[Example(i, text, ()) for i, text in enumerate(sources)])
    if not config.laid_out:
        check_sources(asked.source_ids, bench.denoiser.max_length)
        return asked
    asked.source_ids  # noqa: B018 - likewise
    if template is None:
        return asked
    keep, length = _template(template, bench.loaded.tokenizer)
    ends = dict.fromkeys(range(length, asked.room), bench.loaded.tokenizer.end)
    return dataclasses.replace(asked, keep={0: keep | ends})


def _template(template: str, tokenizer: Any) -> tuple[dict[int, int], int]:
    """The known tokens of `how _ _ _ cook ?` by position, and the length: every `_` is one free token."""
    from diffq.data.keywords import inside

    keep: dict[int, int] = {}
    position = 0
    for word in template.split():
        if word == "_":
            position += 1
            continue
        for token in inside(word, tokenizer) if position else tokenizer.encode_target(word):
            keep[position] = token
            position += 1
    if not position:
        raise UserError("--template is empty; write known words and one _ for each token to be filled in")
    return keep, position


@contextlib.contextmanager
def _watching(watch: bool, tokenizer: Any, sources: Mapping[int, str]) -> Iterator[Any]:
    if not watch:
        yield None
        return
    try:
        from rich.console import Console
    except ImportError as error:
        raise UserError("--watch draws with the package rich, which is not installed: pip install rich") from error

    from diffq.runs.watch import Watch

    with Watch(tokenizer, sources, Console(stderr=not sys.stdout.isatty())) as watching:
        yield watching.on_step


def _show(rows: Sequence[dict[str, Any]], as_json: bool, folder: Path | None = None) -> None:
    if as_json:
        print(json.dumps({"folder": str(folder) if folder else None, "samples": list(rows)}))
        return
    last = None
    for row in rows:
        if row["source"] != last:
            print(row["source"])
            last = row["source"]
        print(textwrap.indent(row["text"], "    "))  # an answer may be a grid
    if folder is not None:
        print(f"{folder}/samples.jsonl")
