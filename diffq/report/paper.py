"""A paper's claims beside what was measured: differences over the baseline, and directional claims with a verdict.

What the paper says stands in conf/paper/NAME.yaml. Intervals are paired bootstraps over sources. Where the best of
several points is taken, it is chosen on one half of the sources and judged on the other (`crossfit`). A published
figure is shown only where that file gives one. Knows no store and no metric.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from diffq.report.compare import Difference, as_difference, beats, paired
from diffq.report.crossfit import REACHED, best_gap, crossfit
from diffq.report.frontier import Frontier, cloud_of_figures
from diffq.report.points import Figure, ReportPoint, one_line
from diffq.report.tables import show_interval
from diffq.resamples import interval
from diffq.store.identity import show_value

UNPUBLISHED = "not published here"
"""What stands where a paper's figure is not known."""

Verdict = Literal["held", "did not hold", "undecided"]


@dataclass(frozen=True)
class Gap:
    """A difference, in the direction in which positive is what was claimed, with its 95 % interval."""

    value: float
    low: float | None = None
    high: float | None = None

    @property
    def verdict(self) -> Verdict:
        if self.low is None or self.high is None:
            return "undecided"
        return "held" if self.low > 0 else "did not hold" if self.high < 0 else "undecided"

    @classmethod
    def of(cls, value: float, draws: np.ndarray | None) -> Gap:
        """The interval of the draws; without one where too many of them are no number, or infinite."""
        if draws is None or np.isfinite(draws).mean() < REACHED:
            return cls(value)
        return cls(value, *interval(draws[np.isfinite(draws)]))

    @classmethod
    def cautious(cls, found: Difference, optimism: float) -> Gap:
        """What was found, with an interval that also holds without the optimism taken out. Where hardly a question
        tells two sides apart, all resamples agree, and what was taken out, an estimate itself, would decide alone."""
        if found.low is None or found.high is None:
            return cls(found.value)
        return cls(found.value, found.low + min(0.0, optimism), found.high + max(0.0, optimism))


@dataclass(frozen=True)
class Delta:
    """One cell of the table of differences; `cell` says what is missing where nothing can be compared."""

    metric: str
    group: str
    published: float | None
    gap: Gap | None
    cell: str
    point: str = ""
    baseline: str = ""


@dataclass(frozen=True)
class Claim:
    """One directional claim, its verdict, and the differences that it rests on."""

    name: str
    text: str
    published: str
    verdict: Verdict
    evidence: tuple[str, ...]


@dataclass(frozen=True)
class PaperTable:
    """All that is printed for one paper."""

    title: str
    paper: str
    deltas: tuple[Delta, ...]
    claims: tuple[Claim, ...]
    footnotes: tuple[str, ...] = field(default=())


def difference(a: Figure, b: Figure) -> Gap:
    """a − b, positive where a is better, with a paired interval where both have resampled values of one signature."""
    draws = paired(a, b)
    return Gap.of(a.sign * (a.value - b.value), None if draws is None else a.sign * draws)


def compare_with_paper(frontier: Frontier, spec: Mapping[str, Any]) -> PaperTable:
    """The paper's table for the points of a frontier."""
    groups = {name: _members(frontier.points, names) for name, names in spec["groups"].items()}
    deltas = tuple(
        _delta(frontier.points, groups[group], group, row) for row in spec["deltas"] for group in spec["contenders"]
    )
    claims = []
    for claim in spec["claims"]:
        parts = _TESTS[claim["test"]](frontier, groups, claim, spec)
        evidence = tuple(part.said() for part in parts)
        published = str(claim.get("published", UNPUBLISHED))
        claims.append(Claim(claim["name"], claim["text"], published, together(parts), evidence))
    return PaperTable(spec["title"], str(spec["paper"]), deltas, tuple(claims), tuple(spec.get("footnotes", ())))


@dataclass(frozen=True)
class Part:
    """One difference that a claim rests on; `counts` is False where it cannot be compared with the paper at all."""

    what: str
    gap: Gap | None
    counts: bool = True

    def said(self) -> str:
        if self.gap is None:
            return f"{self.what}: not measured" if self.counts else self.what
        return f"{self.what}: {show_interval(self.gap.value, self.gap.low, self.gap.high, signed=True)}"


def together(parts: Iterable[Part]) -> Verdict:
    """Held where every part held, not where any part did not, else undecided. A part without data is undecided."""
    verdicts = [part.gap.verdict if part.gap else "undecided" for part in parts if part.counts]
    if "did not hold" in verdicts:
        return "did not hold"
    return "held" if verdicts and all(v == "held" for v in verdicts) else "undecided"


def _members(points: Sequence[ReportPoint], names: Sequence[str]) -> list[ReportPoint]:
    """Points that were asked for, or are stored, under one of these names, each once."""
    found = [p for p in points if p.process != "causal" and (p.sampler in names or p.canonical in names)]
    return list({point.key: point for point in found}.values())


def _baseline(points: Sequence[ReportPoint], contender: ReportPoint) -> ReportPoint | None:
    """The plain point that shares the contender's model, question, length model, seed and steps."""

    def same(point: ReportPoint) -> bool:
        return _alike(point) == _alike(contender) and point.dials.get("steps") == contender.dials.get("steps")

    return next((point for point in points if point.plain and same(point)), None)


def _alike(point: ReportPoint) -> tuple[Any, ...]:
    """What two points share whose samplers alone are compared."""
    return (point.model, point.question, point.length, point.seed)


Pair = tuple[ReportPoint, ReportPoint]
"""A point and that which it is held against."""


def _delta(points: Sequence[ReportPoint], group: Sequence[ReportPoint], name: str, row: Mapping[str, Any]) -> Delta:
    """The best point of a group over its baseline. The best is chosen on the measured metric itself; named is the one
    that all sources choose, the difference is that of points chosen on one half of them and judged on the other."""
    metric, published, needs = row["label"], row.get("published"), row.get("needs", "")
    found = [(point, base) for point in group if (base := _baseline(points, point)) and base.key != point.key]
    pairs = _scored(found, row["metric"])
    if not pairs:
        missing = "no scored point with a plain baseline of equal steps"
        return Delta(metric, name, published, None, f"needs {needs}" if needs else missing)
    fitting = [(point, base) for point, base in pairs if needs in point.figures[row["metric"]].signature]
    gap = _best_gap([fitting], row["metric"])
    if gap is None:
        encoder = _encoder(pairs[0][0].figures[row["metric"]].signature)
        return Delta(metric, name, published, None, f"needs {needs}; computed with {encoder}")
    best, base = max(fitting, key=lambda p: p[0].figures[row["metric"]].sign * p[0].figures[row["metric"]].value)
    shown = show_interval(gap.value, gap.low, gap.high, signed=True)
    return Delta(metric, name, published, gap, shown, _name(best), _name(base))


def _scored(pairs: Iterable[Pair], metric: str) -> list[Pair]:
    """Those of which both have the metric, measured in one way."""
    scored = [pair for pair in pairs if all(metric in point.figures for point in pair)]
    return [(a, b) for a, b in scored if a.figures[metric].signature == b.figures[metric].signature]


def _best_gap(groups: Sequence[Sequence[Pair]], metric: str) -> Gap | None:
    """The first of a pair over the second, where the first is best in each group; mean over groups. None where nothing
    was scored. Where there is a choice it is made on one half of the sources and judged on the other."""
    scored = [_scored(group, metric) for group in groups]
    figures = [(a.figures[metric], b.figures[metric]) for group in scored for a, b in group]
    if not figures:
        return None
    numbers = np.repeat(np.arange(len(scored)), [len(group) for group in scored])
    cloud = cloud_of_figures(figures).times(figures[0][0].sign, figures[0][0].sign)
    chosen = any(len(group) > 1 for group in scored)
    found = crossfit(best_gap(numbers), cloud if chosen else replace(cloud, halves=None), apart=chosen)
    return None if found is None else Gap.cautious(as_difference(metric, found), found.optimism)


def _encoder(signature: str) -> str:
    return next((part[6:] for part in signature.split("|") if part.startswith("model:")), "another model")


def _name(point: ReportPoint) -> str:
    dials = " ".join(f"{d}={show_value(point.dials[d])}" for d in ("scale", "temperature", "steps") if d in point.dials)
    return f"{point.sampler} {dials}"


def _strands(points: Sequence[ReportPoint], dial: str) -> list[list[ReportPoint]]:
    """Points that differ in one dial alone, ordered along it; two or more in each."""
    held: dict[tuple[Any, ...], list[ReportPoint]] = {}
    for point in points:
        if isinstance(point.dials.get(dial), int | float):
            others = tuple((k, show_value(v)) for k, v in sorted(point.dials.items()) if k != dial)
            held.setdefault((point.canonical, _alike(point), others), []).append(point)
    return [sorted(strand, key=lambda p: p.dials[dial]) for strand in held.values() if len(strand) > 1]


def _mean_gap(pairs: Sequence[Pair], metric: str) -> Gap | None:
    """The mean over pairs of first − second, resampled together; None where nothing was scored."""
    scored = [(a.figures[metric], b.figures[metric]) for a, b in _scored(pairs, metric)]
    if not scored:
        return None
    value = float(np.mean([a.value - b.value for a, b in scored]))
    drawn = [draws for a, b in scored if (draws := paired(a, b)) is not None]
    return Gap.of(value, np.mean(drawn, axis=0) if len(drawn) == len(scored) else None)


def _rises(frontier: Frontier, groups: Mapping[str, Any], claim: Mapping[str, Any], _: Any) -> list[Part]:
    """Along the dial from 1 on: the best quality beyond the first point over the first, the diversity figure's rise."""
    found: list[Part] = []
    strands = [[p for p in s if p.dials[claim["dial"]] >= 1] for s in _strands(groups[claim["group"]], claim["dial"])]
    strands = [s for s in strands if len(s) > 1]
    for metric in claim["quality"]:
        scored = [s for s in strands if all(metric in p.figures for p in s)]
        if scored:
            later = [[(point, s[0]) for point in s[1:]] for s in scored]
            found.append(Part(f"{metric}, best {claim['dial']} over the smallest", _best_gap(later, metric)))
    ends = [(s[-1], s[0]) for s in strands]
    found.append(Part(f"{frontier.x}, largest {claim['dial']} over the smallest", _mean_gap(ends, frontier.x)))
    return found


def _falls(frontier: Frontier, groups: Mapping[str, Any], claim: Mapping[str, Any], _: Any) -> list[Part]:
    """The fall of each figure from the lowest to the highest value of the dial, mean over strands."""
    ends = [(s[0], s[-1]) for s in _strands(groups[claim["group"]], claim["dial"])]
    names = [frontier.x, *claim["quality"]]
    return [Part(f"{name}, fall from lowest to highest {claim['dial']}", _mean_gap(ends, name)) for name in names]


def _order(frontier: Frontier, groups: Mapping[str, Any], claim: Mapping[str, Any], _: Any) -> list[Part]:
    """Quality of one group minus that of the next at equal diversity, mean over what both reach."""
    found: list[Part] = []
    for names in zip(claim["groups"][:-1], claim["groups"][1:], strict=True):
        gap = None
        if all(groups[name] for name in names):
            compared = beats(frontier, *(one_line(name, groups[name]) for name in names))
            gap = None if compared.gap is None else Gap.cautious(compared.gap, compared.optimism)
        found.append(Part(f"{names[0]} − {names[1]} at equal {frontier.x}", gap))
    return found


def _beats(frontier: Frontier, groups: Mapping[str, Any], _: Any, spec: Mapping[str, Any]) -> list[Part]:
    """The best point of all contenders over its baseline in each metric; a metric that cannot be compared does not
    count."""
    contenders = list({point.key: point for name in spec["contenders"] for point in groups[name]}.values())
    found: list[Part] = []
    for row in spec["deltas"]:
        delta = _delta(frontier.points, contenders, "", row)
        if delta.gap is None:
            found.append(Part(f"{delta.metric}: {delta.cell}", None, counts="needs" not in delta.cell))
        else:
            found.append(Part(f"{delta.metric}, {delta.point} over {delta.baseline}", delta.gap))
    return found


_TESTS = {"rises": _rises, "falls": _falls, "order": _order, "beats": _beats}


def delta_table(table: PaperTable) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: metric, published, then a column a contender."""
    groups = list(dict.fromkeys(delta.group for delta in table.deltas))
    rows = []
    for metric in dict.fromkeys(delta.metric for delta in table.deltas):
        mine = {delta.group: delta for delta in table.deltas if delta.metric == metric}
        published = next(iter(mine.values())).published
        cells = [f"{mine[g].cell}\n{mine[g].point}".strip() for g in groups]
        rows.append([metric, UNPUBLISHED if published is None else f"+{published:g}", *cells])
    return ["over the plain baseline", "published", *(f"best {group}" for group in groups)], rows


def claim_table(table: PaperTable) -> tuple[list[str], list[list[str]]]:
    """Headings and cells: claim, what is published of it, verdict, evidence."""
    rows = [[f"({c.name}) {c.text}", c.published, c.verdict, "\n".join(c.evidence)] for c in table.claims]
    return ["claim", "published", "verdict", "measured"], rows
