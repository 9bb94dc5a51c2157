"""What a point's samples are judged by: sources, references and truth, in the spelling of the model's tokenizer.

Predictions and references both are decode(ids) (papers: Buzzard 2025, evaluation), so that neither is punished for
its spelling. Knows no metric.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffq.config import Config, from_mapping
from diffq.data.task import Graded
from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.runs.verdicts import graded
from diffq.settings import as_mapping
from diffq.store import Point, Store
from diffq.store.identity import digest, digest_sources, show_value

if TYPE_CHECKING:
    from diffq.data.task import Example
    from diffq.data.tokenizers import Tokenizer

COSTS = ("nfe_calls", "nfe_rows", "seconds", "tokens", "peak_memory_bytes")


class Judges:
    """Builds the Answers of points. Datasets, tokenizers and spelled references are kept from point to point."""

    def __init__(self, store: Store, config_dirs: Sequence[Path] = ()):
        self.store = store
        self.config_dirs = tuple(config_dirs)
        self._corpora: dict[str, Any] = {}
        self._tokenizers: dict[Path, Tokenizer] = {}
        self._spelled: dict[tuple[str, str], dict[str, str]] = {}
        self._judged: dict[tuple[Any, ...], tuple[Any, Any, Any, Any]] = {}
        self._grading: dict[str, dict[str, Any]] = {}

    def settle(self, config: Config) -> None:
        """Answers of this dataset are graded as the words of a command say, whatever they were sampled with: what was
        given of the settings that decide about verdicts alone (`dataset.judging`)."""
        given = {key.split(".")[1] for key in config.choices.given if key.startswith("dataset.")}
        chosen = {name: getattr(config.dataset, name) for name in config.dataset.judging if name in given}
        self._grading.setdefault(config.choices.dataset, {}).update(chosen)

    def config(self, point: Point) -> Config:
        """The configuration that the point was sampled with.

        UserError where its file is broken, or says something else than what the samples were made with.
        """
        held, run = point.config(), point.run()
        mended = f"put it back, or delete {point.folder / 'run.json'} and the point is sampled again"
        try:
            config = from_mapping(held, config_dirs=self.config_dirs)
        except UserError as error:
            raise UserError(f"{point.folder / 'config.yaml'}: {error}; {mended}") from error
        for name, said, made in _contradictions(config, run):
            raise UserError(
                f"{point.folder / 'config.yaml'} says {name}={said}, and the samples were made with {made}; {mended}"
            )
        if chosen := self._grading.get(config.choices.dataset):
            config = dataclasses.replace(config, dataset=config.dataset.replace(**chosen))
        return config

    def answers(self, point: Point, samples: int = 0) -> Answers:
        """The first `samples` samples of every source of a finished point (0: all), beside what they are judged by.

        UserError where rows are missing, and where the checkpoint whose tokenizer spells the references is gone.
        """
        config = self.config(point)
        run = point.run()
        rows = _rows(point, samples or int(run.get("samples") or 0))
        examples, sources, references, truth = self._judge(config, tuple(rows), str(run.get("sources_digest", "")))
        paid = _paid(run, len(next(iter(rows.values()))), len(rows))
        cost = {name: float(paid[name]) for name in COSTS if paid.get(name) is not None}
        candidates = tuple(tuple(row["text"] for row in group) for group in rows.values())
        checked: dict[str, Any] = {}
        if isinstance(corpus := self._corpus(config), Graded):
            checked = {"grading": partial(graded, point.folder, corpus, examples, candidates), "grader": corpus.grader}
        if all("keywords" in row for group in rows.values() for row in group):
            checked["keywords"] = tuple(tuple(tuple(row["keywords"]) for row in group) for group in rows.values())
        ids = tuple(tuple(tuple(row["ids"]) for row in group) for group in rows.values())
        real = tuple(text for group in references for text in group) if config.dataset.task in ("text", "pairs") else ()
        if config.dataset.task != "text":
            about: dict[str, Any] = {"ids": ids, "vocabulary": self._tokenizer(self._checkpoint(config)).digest}
            return Answers(sources, references, candidates, truth, cost, real=real, **about, **checked)
        spans = tuple((a, b) for a, b in next(iter(rows.values()))[0]["prompt_at"])
        if not spans:  # every sample is a source by itself
            sources, references = ("",) * len(ids[0]), ((),) * len(ids[0])
            candidates, ids = tuple((text,) for text in candidates[0]), tuple((row,) for row in ids[0])
        vocabulary = self._tokenizer(self._checkpoint(config)).digest
        return Answers(sources, references, candidates, None, cost, not spans, real, ids, spans, vocabulary)

    def _corpus(self, config: Config) -> Any:
        key = digest(as_mapping(config.dataset))
        if key not in self._corpora:
            self._corpora[key] = config.dataset.open()
        return self._corpora[key]

    def _judge(self, config: Config, indices: tuple[int, ...], stamp: str) -> tuple[Any, Any, Any, Any]:
        """The examples, and the sources, references and truths that their answers are held against.

        stamp: the digest of the sources and references that were sampled; UserError where they are others now.
        """
        key = digest(as_mapping(config.dataset))
        folder = self._checkpoint(config)
        held = self._judged.get((key, config.split, indices, folder, stamp))
        if held is not None:
            return held
        corpus, tokenizer = self._corpus(config), self._tokenizer(folder)
        texts = config.dataset.task == "text"
        if texts:
            from diffq.data.windows import text_questions
        asked = text_questions(corpus, config.split, tokenizer, self.store.cache).examples if texts else None
        examples = {example.index: example for example in (asked or corpus.split(config.split))}
        missing = [index for index in indices if index not in examples]
        if missing:
            raise UserError(
                f"the split {config.split} of {config.choices.dataset or config.dataset.name} has no source"
                f" {missing[0]} any more; score with the data that was sampled"
            )
        chosen = [examples[index] for index in indices]
        if stamp and digest_sources((e.index, e.source, e.references) for e in chosen) != stamp:
            raise UserError(
                f"the split {config.split} of {config.choices.dataset or config.dataset.name} has other sources or"
                " references than when it was sampled; score with the data that was sampled"
            )
        made: tuple[Any, Any, Any]
        if config.dataset.task != "pairs":  # windows are in the tokenizer's spelling already; code keeps its own
            truth = tuple(corpus.truth(e.source) for e in chosen) if config.dataset.all_known else None
            made = tuple(e.source for e in chosen), tuple(e.references for e in chosen), truth
        else:
            made = self._spelled_pairs(chosen, corpus, tokenizer, self._spelled.setdefault((key, tokenizer.digest), {}))
        self._judged[(key, config.split, indices, folder, stamp)] = chosen, *made
        return self._judged[(key, config.split, indices, folder, stamp)]

    @staticmethod
    def _spelled_pairs(
        chosen: Sequence[Example], corpus: Any, tokenizer: Tokenizer, spelled: dict[str, str]
    ) -> tuple[Any, Any, Any]:
        """Sources, references and truth in the tokenizer's spelling."""
        truths = [corpus.truth(example.source) for example in chosen]
        known = [truth for truth in truths if truth is not None]
        texts = [t for e in chosen for t in (e.source, *e.references)] + [t for truth in known for t in truth]
        _spell(tokenizer, spelled, texts)
        return (
            tuple(spelled[e.source] for e in chosen),
            tuple(tuple(spelled[text] for text in e.references) for e in chosen),
            tuple(_merge(truth, spelled) for truth in known) if len(known) == len(chosen) else None,
        )

    def _checkpoint(self, config: Config) -> Path:
        named = config.checkpoint
        if not named:
            raise UserError("the point's config.yaml names no checkpoint, so its references cannot be spelled")
        if (path := self.store.checkpoint(named)) is not None:
            return path
        raise UserError(
            f"the checkpoint {named} is gone, and with it the tokenizer that spells the references; put it back under"
            f" {self.store.train}"
        )

    def _tokenizer(self, folder: Path) -> Tokenizer:
        if folder not in self._tokenizers:
            if (folder / "tokenizer").is_dir():
                from diffq.data.tokenizers import Tokenizer

                self._tokenizers[folder] = Tokenizer.load(folder / "tokenizer")
            else:
                from diffq.models.checkpoints import load

                self._tokenizers[folder] = load(folder).tokenizer
        return self._tokenizers[folder]


def _paid(run: Mapping[str, Any], samples: int, sources: int) -> Mapping[str, Any]:
    """Where the cost of the first `samples` samples of every source stands in a run; empty where it was not kept."""
    if run.get("status") == "done" and run.get("rows", samples * sources) == samples * sources:
        return run
    mark: Mapping[str, Any] = run.get("by_samples", {}).get(str(samples), {})
    return mark


def _contradictions(config: Config, run: Mapping[str, Any]) -> Iterator[tuple[str, str, str]]:
    """What determines samples and is another in config.yaml than run.json has recorded: name, the one, the other."""
    dials = as_mapping(config.sampler.canonical())
    said: dict[str, Any] = {"sampler": dials.pop("kind", ""), "seed": config.seed, "dtype": config.dtype}
    said |= {"dataset": config.choices.dataset or run.get("dataset")}
    made = {name: run[name] for name in said if name in run} | dict(run.get("dials", {}))
    for name, value in (said | dials).items():
        if name in made and show_value(value) != show_value(made[name]):
            yield name, show_value(value), show_value(made[name])


def _spell(tokenizer: Tokenizer, held: dict[str, str], texts: Sequence[str]) -> None:
    """Adds decode(encode(text)) for every text that is not there yet."""
    new = [text for text in dict.fromkeys(texts) if text not in held]
    held.update(zip(new, tokenizer.decode_batch(tokenizer.encode_targets(new)), strict=True))


def _merge(truth: Mapping[str, float], spelled: Mapping[str, str]) -> dict[str, float]:
    """Probabilities by spelling; answers that the tokenizer cannot tell apart are one."""
    merged: dict[str, float] = {}
    for text, probability in truth.items():
        merged[spelled[text]] = merged.get(spelled[text], 0.0) + probability
    return merged


def _rows(point: Point, samples: int) -> dict[int, list[dict[str, Any]]]:
    """The rows of each source in the order of its samples, sources by index. UserError where one is missing."""
    found: dict[int, dict[int, dict[str, Any]]] = {}
    for row in point.rows():
        if not samples or row["sample"] < samples:
            found.setdefault(row["source"], {})[row["sample"]] = row
    if not found:
        raise UserError(f"{point.folder} has no samples to score; sample it first")
    count = samples or max(map(len, found.values()))
    for source, rows in found.items():
        if sorted(rows) != list(range(count)):
            raise UserError(
                f"{point.folder} has {len(rows)} of {count} samples of source {source}; diffq sample finishes it"
            )
    return {source: [found[source][n] for n in range(count)] for source in sorted(found)}
