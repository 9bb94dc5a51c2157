"""Pass@k against k: how much more of what a sampler solves is seen by asking it again.

One panel for each of a few values of the dial that says how many steps there are, and below it one for what that costs
in network rows. Of every sampler two settings at most are drawn in each: the plainest, and where that is another one
the best in Pass@1. Bands are 95 % intervals over questions.
Knows no store; matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any

from diffq.report.plot import DPI, QUIET, colour_of, marker_of, plain, save_figure
from diffq.report.points import ReportPoint, long_dials, varying_dials
from diffq.store.identity import show_value

PANELS = 3
"""The most values of steps that are shown."""

_ALONG = ("steps", "tokens_per_step")
_DASHES: Any = ("-", "--", ":", "-.", (0, (6, 1, 1, 1, 1, 1)), (0, (1, 3)), (0, (8, 3)))
_DEAR = 2  # times the rows of the cheapest curve of a panel: what is dearer sets no budget for the others


def curve_of(point: ReportPoint) -> list[tuple[int, float, float, float]]:
    """(k, Pass@k, low, high) of a point, by k."""
    found = []
    for name, figure in point.figures.items():
        if match := re.fullmatch(r"pass_at_(\d+)", name):
            low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
            found.append((int(match[1]), figure.value, low, high))
    return sorted(found)


@dataclass(frozen=True)
class Panel:
    """A title, and the points whose curves are drawn below it."""

    title: str
    points: tuple[ReportPoint, ...]


def panels(points: Sequence[ReportPoint]) -> list[list[Panel]]:
    """One row of panels at equal steps and, where samplers differ in what a step costs, one at equal network rows;
    nothing where no point has a curve.

    The values of steps are those that most samplers share, the larger ones first; what has no steps, such as exact
    powers, is in all of them. Below each everyone may spend what the dearest curve there does (of those up to twice as
    dear as the cheapest: samplers of whole texts, which make many of them, are left out). The plainest setting takes as
    many steps as that pays for, and the best in Pass@1 is that of all that is no dearer.
    """
    having = [point for point in points if len(curve_of(point)) >= 3]
    along = next((dial for dial in _ALONG if dial in varying_dials(having)), None)
    if along is None:
        return [[Panel("", _shown(having))]] if having else []
    shared = {(point.sampler, int(point.dials[along])) for point in having if point.dials.get(along)}
    counts = Counter(value for _, value in shared)
    values = sorted(sorted(counts, key=lambda value: (-counts[value], -value))[:PANELS], reverse=True)
    above, below = [], []
    for value in values:
        shown = _shown([point for point in having if point.dials.get(along, value) == value])
        above.append(Panel(f"{along} = {show_value(value)}", shown))
        rows = [found for point in shown if (found := point.an_answer("nfe_rows")) is not None]
        most = max((spent for spent in rows if spent <= _DEAR * min(rows)), default=0.0)
        if len(rows) == len(shown) and most > 1.01 * min(rows):
            cheap = [point for point in having if 0 < (point.an_answer("nfe_rows") or 0) <= most]
            below.append(Panel(f"up to {most:.3g} network rows", _shown(_dearest(cheap), cheap)))
    return [above, below] if below else [above]


def _dearest(points: Sequence[ReportPoint]) -> list[ReportPoint]:
    """Of every sampler and setting the point with the most network rows an answer."""
    best: dict[str, ReportPoint] = {}
    for point in sorted(points, key=lambda point: point.an_answer("nfe_rows") or 0):
        best[repr((point.sampler, sorted((k, v) for k, v in point.dials.items() if k not in _ALONG)))] = point
    return list(best.values())


def _shown(points: Sequence[ReportPoint], best_of: Sequence[ReportPoint] = ()) -> tuple[ReportPoint, ...]:
    """The plainest of each sampler's points, and where that is another one the best of these, or of `best_of`."""
    chosen = []
    for sampler in dict.fromkeys(point.sampler for point in points):
        mine, among = ([p for p in of if p.sampler == sampler] for of in (points, best_of or points))
        plain = min(mine, key=lambda point: (len(point.changed), point.key))
        best = max(among, key=lambda point: curve_of(point)[0][1])
        chosen += [plain] if best is plain else [plain, best]
    return tuple(chosen)


def save_curves(points: Sequence[ReportPoint], stem: Path, formats: Sequence[str] = ("png", "svg")) -> tuple[Path, ...]:
    """Writes STEM.png and STEM.svg, or one of them, and returns their paths; none where there is no curve."""
    shown = panels(points)
    if not shown:
        return ()
    return save_figure(lambda: draw_curves(shown), stem, formats)


def draw_curves(shown: Sequence[Sequence[Panel]]) -> Any:
    """The figure, drawn by matplotlib's Agg; rows of panels as `panels` gives them."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

    drawn = [point for row in shown for panel in row for point in panel.points]
    names = [n for n in varying_dials(drawn) if n not in _ALONG]
    styles = _styles(drawn, names)
    entries = -(-(len(styles) + 1) // 2)
    legend, head = 0.155 * entries + 0.1, 0.72
    columns = len(shown[0])
    width, height = 0.75 + 2.6 * columns, 0.5 + 2.4 * len(shown) + legend + head
    figure = Figure(figsize=(max(width, 5.2), height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(len(shown), columns, sharex=True, sharey=True, squeeze=False)
    for row, panels_here in zip(all_axes, shown, strict=True):
        for axes, panel in zip_longest(row, panels_here):
            if panel is None:
                axes.set_visible(False)
            else:
                _panel(axes, panel, styles, names)
        row[0].set_ylabel("Pass@k, % of questions")
    for axes in all_axes[-1]:
        axes.set_xlabel("k")
    first = drawn[0]
    left = 0.6 / figure.get_figwidth()
    figure.text(left, 1 - 0.1 / height, f"{first.dataset} · {first.model}", fontsize=11.5, weight="bold", va="top")
    said = f"{first.sources} questions × {first.samples} samples · bands: 95 % intervals over questions"
    if len(shown) > 1:
        said += " · below: what the same rows pay for"
    figure.text(left, 1 - 0.34 / height, said, fontsize=8.5, color="#444444", va="top")
    handles: dict[str, Any] = {}
    for axes in all_axes.flat:
        for line, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, line)
    if any(line.get_markerfacecolor() == "white" for axes in all_axes.flat for line in axes.lines):
        style: dict[str, Any] = {"color": QUIET, "marker": "o", "markersize": 3.4, "markerfacecolor": "white"}
        handles["hollow: in other steps"] = Line2D([], [], linewidth=1.3, **style)
    figure.legend(
        list(handles.values()), list(handles), loc="lower center", ncols=2, frameon=False, fontsize=7.6,
        handlelength=2.4, columnspacing=1.4, labelspacing=0.3, borderaxespad=0.2,
    )  # fmt: skip
    figure.subplots_adjust(left, (legend + 0.48) / height, 0.985, 1 - head / height, wspace=0.08, hspace=0.22)
    return figure


def _panel(axes: Any, panel: Panel, styles: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
    plain(axes)
    seen: set[str] = set()
    for point in panel.points:
        k, value, low, high = zip(*curve_of(point), strict=True)
        label = _label(point, names)
        style = styles[label]
        hollow = {"markerfacecolor": "white"} if label in seen else {}  # the best, which is cheaper in steps alone
        seen.add(label)
        axes.plot(k, value, linewidth=1.3, markersize=3.4, label=label, **style, **hollow)
        axes.fill_between(k, low, high, color=style["color"], alpha=0.1, linewidth=0)
    ticks = [k for k, *_ in curve_of(panel.points[0])]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_title(panel.title, fontsize=9.5, color=QUIET)


def _styles(drawn: Sequence[ReportPoint], names: Sequence[str]) -> dict[str, dict[str, Any]]:
    """By what curves are called, in all panels alike: a colour and a marker for each sampler, and for each of its
    settings other dashes, of which the first seen, the plainest, has none."""
    samplers = list(dict.fromkeys(point.sampler for point in drawn))
    settings: Counter[str] = Counter()
    found: dict[str, dict[str, Any]] = {}
    for point in drawn:
        label = _label(point, names)
        if label not in found:
            number, dashes = samplers.index(point.sampler), _DASHES[settings[point.sampler] % len(_DASHES)]
            found[label] = {"color": colour_of(number), "marker": marker_of(number), "linestyle": dashes}
            settings[point.sampler] += 1
    return found


def _label(point: ReportPoint, names: Sequence[str]) -> str:
    dials = long_dials(point, [name for name in names if name in point.changed])
    return f"{point.sampler}, {dials}" if dials else point.sampler
