"""Generative perplexity: how likely a causal judge finds what was sampled, in the several meanings that the field has
for it, each by name. Low values say little by themselves: a text of one repeated word has the lowest.
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, NamedTuple

import numpy as np

from diffq.errors import Undefined, UserError
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.intervals import aggregate, scored
from diffq.metrics.judges import Judge, fetch_judge, judge_name, judge_tokens, load_judge, missing_judge, token_losses
from diffq.registry import METRICS
from diffq.settings import setting


class Protocol(NamedTuple):
    """How a project computes it, and the judge that its figures are of."""

    judge: str
    options: Mapping[str, Any]


PROTOCOLS = {
    "": Protocol("gpt2-large", {}),
    # Ours for samples beside a source, whose tokens no judge shares: the answer alone, and the answer behind its source
    "text": Protocol("gpt2-large", {"retokenise": True}),
    "given": Protocol("gpt2-large", {"retokenise": True, "context": "source"}),
    # first_eos + (token != eos) over the text as GPT-2 tokenises it, at most the model's 1,024 tokens
    "mdlm": Protocol(
        "gpt2-large",
        {"retokenise": True, "after_end": "first", "first_token": False, "scored": "all", "max_tokens": 1024},
    ),
    "sedd": Protocol("gpt2-large", {"aggregate": "mean_ppl", "first_token": False, "scored": "all"}),
    "sdtt": Protocol("gpt2-large", {"aggregate": "sample", "first_token": False}),
    # 512 tokens, of which the judge's start token is one
    "gidd": Protocol("gemma-2-9b", {"retokenise": True, "after_end": "remove", "scored": "all", "max_tokens": 511}),
}
_SHORT = {"retokenise": "text", "first_token": "unstarted", "context": "given"}


@aggregate("ppl_token")
def _by_token(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    """exp of the mean over tokens, or over samples, of what was summed."""
    return np.exp(sums[..., 0] / np.maximum(sums[..., 1], 1))


@aggregate("ppl_sample")
def _by_sample(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    return _by_token(sums, n, fields)


@aggregate("ppl_mean")
def _mean_of_perplexities(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    found: np.ndarray = sums[..., 0] / np.maximum(sums[..., 1], 1)
    return found


@METRICS.register("gen_ppl")
@dataclass(frozen=True, kw_only=True)
class GenPpl(Metric):
    """Perplexity of the samples under a causal judge. Lower is likelier text.

    A sample without a token that counts (an empty one) has no perplexity and is left out.
    """

    direction: ClassVar[Direction] = "lower"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "quality"
    costly: ClassVar[bool] = True
    companions: ClassVar[tuple[str, ...]] = ("unigram_entropy",)

    judge: str | None = setting(None, "the judging model: a checkpoint folder, or a name on the hub such as gpt2-large")
    retokenise: bool = setting(
        False, "samples are read as text by the judge's own tokenizer; false: their own tokens, if they are the judge's"
    )
    after_end: Literal["keep", "drop", "first", "remove"] = setting(
        "keep",
        "end-of-text tokens: keep counts them and what follows, drop nothing after the first, first counts the first"
        " one alone and all words, remove takes them out before the judge reads",
    )
    aggregate: Literal["token", "sample", "mean_ppl"] = setting(
        "token", "exp of the mean over tokens | exp of the mean of samples' means | mean of samples' perplexities"
    )
    first_token: bool = setting(True, "the first token is predicted too, from the start token")
    scored: Literal["all", "answer"] = setting(
        "answer", "answer: given tokens are context alone; all: they are counted"
    )
    max_tokens: int | None = setting(None, "the first tokens of each sample alone", low=2)
    context: Literal["none", "source"] = setting(
        "none", "source: each sample is read behind its source, which is context alone; needs retokenise=true"
    )
    between: str = setting("\n", "context=source: what stands between source and sample; blanks at its end are counted")

    def check(self) -> None:
        if self.context == "source" and not self.retokenise:
            raise UserError(
                "gen_ppl.context=source has the judge read the source as text; it needs gen_ppl.retokenise=true too"
            )

    @property
    def protocol(self) -> str | None:
        """The peer whose figure this is, empty for our own, None for another choice of options."""
        for name, known in PROTOCOLS.items():
            if all(
                getattr(self, option) == known.options.get(option, default) for option, default in _DEFAULTS.items()
            ):
                return name
        return None

    @property
    def name(self) -> str:
        """`gen_ppl`, `gen_ppl_PEER`, or with every option that is not ours; `_by_JUDGE` unless it is the published."""
        known = self.protocol
        if known is None:
            changed = {option: getattr(self, option) for option in _DEFAULTS}
            parts = [_said(k, value) for k, value in changed.items() if value != _DEFAULTS[k]]
        else:
            parts = [known] if known else []
        published = PROTOCOLS[known or ""].judge
        named = judge_name(self.judge) if self.judge else published
        return "_".join(["gen_ppl", *parts, *([f"by_{named}"] if named != published else [])])

    def packages(self) -> tuple[str, ...]:
        return ("torch",)

    def needs(self) -> frozenset[str]:
        what = {"source"} if self.context == "source" else set()
        return frozenset(what if self.retokenise else {"ids", *what})

    def unavailable(self) -> str | None:
        if self.judge is None:
            published = PROTOCOLS[self.protocol or ""].judge
            return (
                f"generative perplexity needs {published} or another judge, and none is named:"
                f" metric.{self.name}.judge=FOLDER_OR_NAME"
            )
        return missing_judge(self.judge) or super().unavailable()

    def fetch(self) -> None:
        if self.judge is not None:
            fetch_judge(self.judge)

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        judge = self._loaded()
        return {
            "judge": f"{judge.name}@{judge.digest[:6]}",
            "dtype": judge.dtype,
            "ids": "retokenised" if self.retokenise else "own",
            "end": self.after_end,
            "first": self.first_token,
            "over": self.scored,
            **(
                {"given": "source", "between": json.dumps(self.between).replace("|", "\\u007c")}
                if self.context == "source"
                else {}
            ),
            "max": self.max_tokens or "all",
            "agg": {"token": "ppl_token", "sample": "ppl_sample", "mean_ppl": "ppl_mean"}[self.aggregate],
        }

    def _loaded(self) -> Judge:
        if self.judge is None:
            raise UserError(self.unavailable() or "")
        return load_judge(self.judge)

    def __call__(self, answers: Answers) -> Score:
        judge = self._loaded()
        rows, counted = self._tokens(answers, judge)
        losses = token_losses(judge, rows, self.first_token)
        kept = [loss[mask[len(mask) - len(loss) :]] for loss, mask in zip(losses, counted, strict=True)]
        if not any(map(len, kept)):
            raise Undefined(f"{self.name}: no sample has a token that counts")
        ends = np.cumsum([0, *map(len, answers.candidates)])
        return scored(self, answers, np.array([self._row(kept[a:b]) for a, b in itertools.pairwise(ends)]))

    def _row(self, losses: Sequence[np.ndarray]) -> list[float]:
        """What one source's samples add to the two sums that the value is a function of."""
        if self.aggregate == "token":
            return [float(sum(x.sum() for x in losses)), float(sum(map(len, losses)))]
        means = np.array([x.mean() for x in losses if len(x)])
        return [float((means if self.aggregate == "sample" else np.exp(means)).sum()), float(len(means))]

    def _tokens(self, answers: Answers, judge: Judge) -> tuple[list[list[int]], list[np.ndarray]]:
        """The tokens of every sample that the judge reads, and which of them count."""
        prompted = self.scored == "answer" and bool(answers.given_spans)
        if self.retokenise and prompted:
            raise UserError(
                f"{self.name} reads text, in which given tokens cannot be told from others; take scored=all, or"
                " retokenise=false"
            )
        if not self.retokenise and answers.vocabulary != judge.tokenizer.digest:
            raise UserError(
                f"the tokens of these samples are not those of judge {judge.name};"
                " metric.gen_ppl.retokenise=true has it read their text"
            )
        if self.context == "source" and answers.given_spans:
            raise UserError(
                f"{self.name} is of answers beside a source, and the source of these samples stands in their own text;"
                " take context=none"
            )
        if self.retokenise:
            lead = self._lead if self.context == "source" else ""
            texts = [lead + text if text else "" for group in answers.candidates for text in group]
            rows = [np.array(judge_tokens(judge, text), dtype=int) for text in texts]
        else:
            assert answers.ids is not None
            rows = [np.array(ids, dtype=int) for group in answers.ids for ids in group]
        given = [i for a, b in answers.given_spans for i in range(a, b)] if prompted else []
        read, counted = [], []
        for row in rows:
            mask = np.ones(len(row), dtype=bool)
            mask[[i for i in given if i < len(row)]] = False
            row, mask = self._ended(row, mask, judge.tokenizer.end)
            read.append(row.tolist())
            counted.append(mask)
        return self._behind(answers, judge, read, counted) if self.context == "source" else (read, counted)

    @property
    def _lead(self) -> str:
        """The blanks at the end of `between`: judges such as GPT-2 have them in one token with the word behind them."""
        return self.between[len(self.between.rstrip(" ")) :]

    def _behind(
        self, answers: Answers, judge: Judge, rows: Sequence[list[int]], counted: Sequence[np.ndarray]
    ) -> tuple[list[list[int]], list[np.ndarray]]:
        """The same behind their sources, which are read and do not count."""
        head = self.between.rstrip(" ")
        heads = [judge_tokens(judge, source + head) for source in answers.sources]
        before = [ids for ids, group in zip(heads, answers.candidates, strict=True) for _ in group]
        read = [[*given, *row] for given, row in zip(before, rows, strict=True)]
        none = [np.zeros(len(given), dtype=bool) for given in before]
        return read, [np.concatenate(parts) for parts in zip(none, counted, strict=True)]

    def _ended(self, row: np.ndarray, mask: np.ndarray, end: int) -> tuple[np.ndarray, np.ndarray]:
        """What is left of a sample, and of which of its tokens count, by the rules for its length and its ends."""
        if self.after_end == "remove":
            row, mask = row[row != end], mask[row != end]
        row, mask = row[: self.max_tokens], mask[: self.max_tokens]
        ends = np.flatnonzero(row == end)
        if self.after_end == "drop" and len(ends):
            row, mask = row[: ends[0] + 1], mask[: ends[0] + 1]
        if self.after_end == "first":
            mask = mask.copy()
            mask[ends[1:]] = False
        return row, mask


_DEFAULTS = {f.name: f.default for f in dataclasses.fields(GenPpl) if f.name not in ("judge", "between")}


def _said(option: str, value: Any) -> str:
    """An option of no known protocol, in a name."""
    if option == "max_tokens":
        return f"max{value}"
    return _SHORT.get(option, str(value))
