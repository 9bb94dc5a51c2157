"""What a point cost, from the figures saved beside its samples. None has an interval."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from diffq.errors import UserError
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.registry import METRICS


@dataclass(frozen=True, kw_only=True)
class _Cost(Metric):
    direction: ClassVar[Direction] = "lower"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "cost"
    reads: ClassVar[tuple[str, ...]] = ()  # the entries of Answers.cost
    unit: ClassVar[str] = ""

    def needs(self) -> frozenset[str]:
        return frozenset({"cost"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        return {"unit": self.unit}

    def of(self, cost: Mapping[str, float], answers: Answers) -> float:
        return float(cost[self.reads[0]])

    def __call__(self, answers: Answers) -> Score:
        for entry in self.reads:
            if entry not in answers.cost:
                held = ", ".join(answers.cost) or "nothing"
                raise UserError(
                    f"{self.name} needs the saved cost '{entry}', and the point has: {held}; sample it again"
                )
        return self.score(answers, self.of(answers.cost, answers), len(answers.sources))


@METRICS.register("nfe_calls")
@dataclass(frozen=True, kw_only=True)
class NfeCalls(_Cost):
    """Network calls of the whole point, a batch of any size being one."""

    reads: ClassVar[tuple[str, ...]] = ("nfe_calls",)
    unit: ClassVar[str] = "calls"


@METRICS.register("nfe_rows")
@dataclass(frozen=True, kw_only=True)
class NfeRows(_Cost):
    """Network evaluations a sample: rows that went through the network over the samples that came out. Guidance
    counts twice, MBR's candidates are samples."""

    reads: ClassVar[tuple[str, ...]] = ("nfe_rows",)
    unit: ClassVar[str] = "rows/sample"

    def of(self, cost: Mapping[str, float], answers: Answers) -> float:
        return float(cost["nfe_rows"]) / (len(answers.sources) * answers.samples)


@METRICS.register("seconds")
@dataclass(frozen=True, kw_only=True)
class Seconds(_Cost):
    """Wall-clock seconds of sampling the whole point."""

    reads: ClassVar[tuple[str, ...]] = ("seconds",)
    unit: ClassVar[str] = "s"


@METRICS.register("tokens_per_second")
@dataclass(frozen=True, kw_only=True)
class TokensPerSecond(_Cost):
    """Answer tokens (no source, no padding, nothing after the end) a second of sampling."""

    direction: ClassVar[Direction] = "higher"
    reads: ClassVar[tuple[str, ...]] = ("tokens", "seconds")
    unit: ClassVar[str] = "tokens/s"

    def of(self, cost: Mapping[str, float], answers: Answers) -> float:
        if cost["seconds"] <= 0:
            raise UserError(
                f"{self.name}: the point's sampling took {cost['seconds']} seconds; a rate needs more than 0"
            )
        return float(cost["tokens"]) / float(cost["seconds"])


@METRICS.register("peak_memory")
@dataclass(frozen=True, kw_only=True)
class PeakMemory(_Cost):
    """The most memory that sampling held at once, in MiB."""

    reads: ClassVar[tuple[str, ...]] = ("peak_memory_bytes",)
    unit: ClassVar[str] = "MiB"

    def of(self, cost: Mapping[str, float], answers: Answers) -> float:
        return float(cost["peak_memory_bytes"]) / 2**20
