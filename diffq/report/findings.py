"""What a report says in tables beside its frontier: which sampler is above which, what a step along a dial does, what
pairing is worth, and how many sources would tell two points apart."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from diffq.report.compare import Beats, Difference, beats, difference, differences, neighbours, pairing, to_tell
from diffq.report.frontier import Frontier
from diffq.report.points import Line, ReportPoint, long_dials
from diffq.report.power import Needed
from diffq.report.tables import ReportTable, show_interval

MOST = 28
"""Pairs of lines that are compared; of more lines, each with the one that all are compared with."""

FAR = 100
"""Times the sources there are, beyond which a number of sources says only that a difference is nearly nothing."""


@dataclass(frozen=True)
class Findings:
    """The tables, and those of them that a terminal shows."""

    tables: tuple[ReportTable, ...]
    headlines: tuple[ReportTable, ...]

    def after(self, first: Sequence[ReportTable]) -> Findings:
        """These behind others, which a terminal shows too."""
        return Findings((*first, *self.tables), (*first, *self.headlines))


def findings(frontier: Frontier, against: Line, start: ReportPoint, metrics: Sequence[str]) -> Findings:
    """Everything that can be said about these points.

    against: the line that others are compared with; start: the baseline point; metrics: those of the suite.
    """
    if len(frontier.points) == 2:
        two = pair_table(*frontier.points, metrics, _names(frontier))
        return Findings((two,), (two,))
    above = above_table(frontier, against)
    worth = pairing_table(frontier)
    tables = [above, worth, dial_table(frontier), baseline_table(frontier, start)]
    return Findings(tuple(t for t in tables if t.cells), tuple(t for t in (above, worth) if t.cells))


def _names(frontier: Frontier) -> tuple[str, ...]:
    """What its points are called: by their samplers and dials, or by their lines where these are alike."""
    names = tuple(named(point) for point in frontier.points)
    lines = {point.key: line.label for line in frontier.lines for point in line.points}
    if len(set(names)) == len(names):
        return names
    return tuple(lines.get(point.key, name) for name, point in zip(names, frontier.points, strict=True))


def pair_table(a: ReportPoint, b: ReportPoint, metrics: Sequence[str], called: Sequence[str] = ()) -> ReportTable:
    """Two points in every metric that both have. called: their names, where those by samplers and dials do not do."""
    names = list(dict.fromkeys([*metrics, *a.figures]))
    rows, found = [], differences(a, b, names)
    for d in found:
        one, two = (show_interval(p.figures[d.metric].value) for p in (a, b))
        better = a.figures[d.metric].direction.replace("none", "neither")
        likely = "–" if better == "neither" else chance(d)
        rows.append([f"{d.metric} ({better} is better)", one, two, shown(d), likely, _times(d.narrower)])
    one, two = called or (named(a), named(b))
    heads = ["metric", f"a: {one}", f"b: {two}", "b − a", "P(b is better)", "narrower by pairing"]
    notes = ["Paired over sources: both answered the same ones, and are resampled alike."]
    if a.seeds != b.seeds:
        notes.append("Their seeds differ, so they share no noise; intervals of points with equal seeds are narrower.")
    bare = [d.metric for d in found if d.low is None]
    if bare:
        notes.append(
            f"No interval for {', '.join(bare)}: no statistics a source are saved. Where it was scored before they were"
            " kept, diffq score RUN adds them."
        )
    return ReportTable("The difference of two points", heads, rows, tuple(notes), tuple(map(asdict, found)))


def above_table(frontier: Frontier, against: Line) -> ReportTable:
    """Pairs of lines: the mean gap in quality over the diversity that both reach, and the probability of its sign."""
    lines = [line for line in frontier.lines if line.kind == "point"]
    pairs = list(itertools.combinations(lines, 2))
    if len(pairs) > MOST:
        pairs = [(line, against) for line in lines if line is not against]
    found = [beats(frontier, one, two) for one, two in pairs]
    heads = [
        "sampler",
        "and",
        f"{frontier.x} of both",
        f"mean gap in {frontier.y}",
        "P(the first is above)",
        "optimism",
        "hypervolume, %",
        "P(the first's is larger)",
    ]
    note = (
        "Points are chosen on one half of the sources and judged on the other; optimism is how much more the gap would"
        " be if the same sources did both. Where two samplers share no diversity there is no gap; their hypervolumes"
        " can still be compared, which reward reach."
    )
    return ReportTable(
        "Is one sampler's front above another's?",
        heads,
        list(map(_above_row, found)),
        (note,),
        tuple(map(asdict, found)),
    )


def _above_row(found: Beats) -> list[str]:
    span = "none" if found.span is None else f"{found.span[0]:.4g} to {found.span[1]:.4g}"
    gap = found.gap
    cells = ["–", "–", "–"] if gap is None else [shown(gap), chance(gap), f"{found.optimism:+.2f}"]
    return [found.line, found.other, span, *cells, shown(found.volume), chance(found.volume)]


def pairing_table(frontier: Frontier) -> ReportTable:
    """How much narrower the intervals of neighbours' differences are."""
    rows, data = [], []
    for metric in (frontier.y, frontier.x):
        found = pairing(frontier, metric)
        data.append(asdict(found))
        for what, ratios in (
            ("equal sources", found.sources),
            ("equal noise (common random numbers)", found.numbers),
        ):
            if ratios:
                low, middle, high = np.quantile(ratios, [0, 0.5, 1])
                rows.append([metric, what, f"{middle:.2f}×", f"{low:.2f}× to {high:.2f}×", str(len(ratios))])
    note = (
        "The width of the interval of a difference between two neighbours along a dial: on different sources over equal"
        " ones, and of different seeds over equal ones (both on equal sources)."
    )
    notes = [note]
    if rows and not any("noise" in row[1] for row in rows):
        notes.append("What equal noise is worth shows where a sweep has several seeds: seed=0,1,2.")
    heads = ["metric", "through", "narrower, median", "range", "pairs"]
    return ReportTable(
        "How much narrower pairing makes the intervals of differences", heads, rows, tuple(notes), tuple(data)
    )


def dial_table(frontier: Frontier) -> ReportTable:
    """Each step along a dial, and how many sources it would take to be sure of it."""
    rows, data = [], []
    for line, a, b in neighbours(frontier):
        up, across = (difference(a.figures[name], b.figures[name]) for name in (frontier.y, frontier.x))
        need = to_tell(a, b, frontier.y)
        data.append(
            {"sampler": line.label, "a": a.key, "b": b.key, "differences": [asdict(up), asdict(across)]}
            | {"needed": None if need is None else asdict(need)}
        )
        rows.append(
            [
                line.label,
                f"{long_dials(a, line.varying)} → {long_dials(b, line.varying)}",
                shown(up),
                shown(across),
                "clear" if up.clear else _sources(need, FAR * a.sources),
            ]
        )
    heads = ["sampler", "step", f"{frontier.y}", f"{frontier.x}", f"to be sure of {frontier.y}"]
    note = (
        "To be sure: sources, with as many samples a source as now, for which the 95 % interval of a true difference of"
        " this size excludes zero with a probability of 80 %; fewer with more samples a source, where several seeds"
        " tell how noisy the draws are."
    )
    return ReportTable("What a step along a dial does", heads, rows, (note,), tuple(data))


def _sources(need: Needed | None, most: int) -> str:
    if need is None:
        return "–"
    if need.sources > most:
        return f"more than {most:,} sources"
    text = f"{need.sources:,} sources"
    if need.with_samples:
        samples, sources = need.with_samples[-1]
        text += f", {sources:,} with {samples} samples"
    return text


def baseline_table(frontier: Frontier, start: ReportPoint) -> ReportTable:
    """Every point's difference from the baseline."""
    base = next((p for p in frontier.points if start.key in (p.key, *(part.key for part in p.parts))), None)
    rows, data = [], []
    for line in frontier.lines:
        for point in line.points if base is not None and line.kind == "point" else ():
            if base is None or point.key == base.key:
                continue
            up, across = (difference(base.figures[n], point.figures[n]) for n in (frontier.y, frontier.x))
            rows.append([line.label, long_dials(point, line.varying), shown(up), shown(across), chance(up)])
            data.append({"a": base.key, "b": point.key, "differences": [asdict(up), asdict(across)]})
    title = f"Differences from the baseline ({named(base)})" if base is not None else "Differences from the baseline"
    heads = ["sampler", "dials", frontier.y, frontier.x, f"P(better {frontier.y})"]
    return ReportTable(title, heads, rows, data=tuple(data))


def named(point: ReportPoint) -> str:
    """`cfg scale 2, steps 20`."""
    dials = long_dials(point, point.changed)
    seeds = f"seeds {', '.join(map(str, point.seeds))}" if point.parts else f"seed {point.seed}"
    return " ".join(filter(None, [point.sampler, dials, f"({seeds})" if point.parts or point.seed else ""]))


def shown(found: Difference) -> str:
    """`+1.20 [0.80, 1.60]`."""
    return show_interval(found.value, found.low, found.high, signed=True)


def chance(found: Difference) -> str:
    """A probability out of a thousand resamples: never quite 0 or 1."""
    if found.probability is None:
        return "–"
    return (
        "> 0.999"
        if found.probability > 0.999
        else "< 0.001"
        if found.probability < 0.001
        else f"{found.probability:.3f}"
    )


def _times(ratio: float | None) -> str:
    return "–" if ratio is None else f"{ratio:.2f}×"
