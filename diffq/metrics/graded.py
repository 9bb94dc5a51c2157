"""Figures of answers that can be checked: pass@k, the vote of the majority, and how many different answers there are.

Verdicts are given (`Answers.verdicts`); this file knows no grader, no program and no mathematics.
"""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import comb
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.intervals import scored
from diffq.registry import METRICS
from diffq.settings import setting

if TYPE_CHECKING:
    from diffq.data.task import Verdict


def pass_at_k(n: int, c: int, k: int) -> float:
    """The probability that one of k answers is right, drawn without putting back from n of which c are: 1 − C(n−c, k) /
    C(n, k), the unbiased estimate of Chen et al. (2021). k ≤ n."""
    return 1 - comb(n - c, k) / comb(n, k)


@dataclass(frozen=True, kw_only=True)
class GradedMetric(Metric):
    """A mean over problems of a function of the verdicts on one problem's samples."""

    def needs(self) -> frozenset[str]:
        return frozenset({"verdicts"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"grader": answers.grader, "agg": "mean"}

    @abstractmethod
    def of_problem(self, verdicts: Sequence[Verdict]) -> float: ...

    def __call__(self, answers: Answers) -> Score:
        return scored(self, answers, np.array([self.of_problem(group) for group in answers.verdicts]))


@METRICS.register("pass_at_k")
@dataclass(frozen=True, kw_only=True)
class PassAtK(GradedMetric):
    """How often one of k answers to a problem is right, estimated without bias from all samples, 0 … 100. The interval
    is bootstrapped over problems."""

    direction: ClassVar[Direction] = "higher"
    quiet: ClassVar[bool] = True

    k: int = setting(1, "answers that are drawn of those that were sampled", low=1)

    @property
    def name(self) -> str:
        return f"pass_at_{self.k}"

    def least_samples(self) -> int:
        return self.k

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"k": self.k, **super().parts(answers)}

    def of_problem(self, verdicts: Sequence[Verdict]) -> float:
        return 100 * pass_at_k(len(verdicts), sum(v.passed for v in verdicts), self.k)


@METRICS.register("pass_at_n")
@dataclass(frozen=True, kw_only=True)
class PassAtN(GradedMetric):
    """The share of problems that any of their samples solves: pass@k for k as large as it can be, 0 … 100. What pass@1
    is held against where one asks how much a sampler explores."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"
    quiet: ClassVar[bool] = True

    def least_samples(self) -> int:
        return 2

    def of_problem(self, verdicts: Sequence[Verdict]) -> float:
        return 100.0 * any(v.passed for v in verdicts)


@METRICS.register("majority")
@dataclass(frozen=True, kw_only=True)
class Majority(GradedMetric):
    """How often the answer that most samples of a problem come to is right, 0 … 100: self-consistency (Wang et al.
    2023).

    Samples without an answer have no vote. Of answers with equally many votes one is drawn: the figure is the expected
    one.
    """

    direction: ClassVar[Direction] = "higher"

    def least_samples(self) -> int:
        return 2

    def of_problem(self, verdicts: Sequence[Verdict]) -> float:
        votes = Counter(v.answer for v in verdicts if v.answer)
        most = max(votes.values(), default=0)
        tied = {answer for answer, count in votes.items() if count == most}
        there = [v for v in verdicts if v.answer in tied]
        return 100 * sum(v.passed for v in there) / len(there) if there else 0.0


@METRICS.register("distinct_solutions")
@dataclass(frozen=True, kw_only=True)
class DistinctSolutions(GradedMetric):
    """How many different right answers a problem's samples hold, averaged over problems. Of programs, those with
    different syntax trees; final answers of mathematics have one right spelling, so there it is the share of problems
    that are solved."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    def of_problem(self, verdicts: Sequence[Verdict]) -> float:
        return len({v.answer for v in verdicts if v.passed})


@METRICS.register("distinct_answers")
@dataclass(frozen=True, kw_only=True)
class DistinctAnswers(GradedMetric):
    """How many different answers a problem's samples come to, right or wrong, averaged over problems."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    def of_problem(self, verdicts: Sequence[Verdict]) -> float:
        return len({v.answer for v in verdicts if v.answer})


@METRICS.register("answer_entropy")
@dataclass(frozen=True, kw_only=True)
class AnswerEntropy(GradedMetric):
    """The entropy of the answers that a problem's samples come to, right or wrong, in nats, averaged over problems.

    Of frequencies among s samples, so it is at most log s and on average too small: compare at equal s.

    Samples without an answer count as one answer more, unlike in `majority` and `distinct_answers`: only so every
    sample has an answer that is a function of its text, and the figure stays under a bound on the entropy of texts. A
    sampler that answers less often may so seem to explore more, by log 2 at most where answers are all the same: look
    at `unanswered` beside it.
    """

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "diversity"

    def least_samples(self) -> int:
        return 2

    def of_problem(self, verdicts: Sequence[Verdict]) -> float:
        shares = np.array(list(Counter(v.answer for v in verdicts).values())) / len(verdicts)
        return float(-(shares * np.log(shares)).sum())


@METRICS.register("unanswered")
@dataclass(frozen=True, kw_only=True)
class Unanswered(GradedMetric):
    """The share of samples that hold no answer: no final answer, no program, 0 … 100."""

    direction: ClassVar[Direction] = "lower"

    def of_problem(self, verdicts: Sequence[Verdict]) -> float:
        return 100 * sum(not v.answer for v in verdicts) / len(verdicts)


@METRICS.register("cut_off")
@dataclass(frozen=True, kw_only=True)
class CutOff(GradedMetric):
    """The share of samples whose checking went over a limit (of time, memory or output) or that were not run, 0 … 100.
    A figure that is not near 0 says that the limits decide, or the machine."""

    direction: ClassVar[Direction] = "lower"

    def of_problem(self, verdicts: Sequence[Verdict]) -> float:
        return 100 * sum(v.outcome not in ("passed", "failed") for v in verdicts) / len(verdicts)
