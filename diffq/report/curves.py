"""Pass@k against k: how much more of what a sampler solves is seen by asking it again.

One panel for each of a few values of the dial that says how many steps there are. Of every sampler two settings at
most are drawn in it: the plainest, and where that is another one the best in Pass@1. Bands are 95 % intervals over
questions.
Knows no store; matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from diffq.report.plot import COLOURS, DPI, QUIET, plain, save_figure
from diffq.report.points import ReportPoint, long_dials, varying_dials
from diffq.store.identity import show_value

PANELS = 3
"""The most values of steps that are shown."""

_ALONG = ("steps", "tokens_per_step")


def curve_of(point: ReportPoint) -> list[tuple[int, float, float, float]]:
    """(k, Pass@k, low, high) of a point, by k."""
    found = []
    for name, figure in point.figures.items():
        if match := re.fullmatch(r"pass_at_(\d+)", name):
            low, high = (figure.value if end is None else end for end in (figure.low, figure.high))
            found.append((int(match[1]), figure.value, low, high))
    return sorted(found)


def panels(points: Sequence[ReportPoint]) -> list[tuple[str, list[ReportPoint]]]:
    """Titles, and the points whose curves are drawn below them; nothing where no point has a curve.

    The values of steps are those that most samplers share, the larger ones first.
    """
    having = [point for point in points if len(curve_of(point)) >= 3]
    along = next((dial for dial in _ALONG if dial in varying_dials(having)), None)
    if along is None:
        return [("", _shown(having))] if having else []
    shared = {(point.sampler, int(point.dials[along])) for point in having if point.dials.get(along)}
    counts = Counter(value for _, value in shared)
    values = sorted(sorted(counts, key=lambda value: (-counts[value], -value))[:PANELS], reverse=True)
    return [
        (f"{along} = {show_value(value)}", _shown([point for point in having if point.dials.get(along) == value]))
        for value in values
    ]


def _shown(points: Sequence[ReportPoint]) -> list[ReportPoint]:
    chosen = []
    for sampler in dict.fromkeys(point.sampler for point in points):
        mine = [point for point in points if point.sampler == sampler]
        plain = min(mine, key=lambda point: (len(point.changed), point.key))
        best = max(mine, key=lambda point: curve_of(point)[0][1])
        chosen += [plain] if best is plain else [plain, best]
    return chosen


def save_curves(points: Sequence[ReportPoint], stem: Path, formats: Sequence[str] = ("png", "svg")) -> tuple[Path, ...]:
    """Writes STEM.png and STEM.svg, or one of them, and returns their paths; none where there is no curve."""
    shown = panels(points)
    if not shown:
        return ()
    return save_figure(lambda: draw_curves(shown), stem, formats)


def draw_curves(shown: Sequence[tuple[str, Sequence[ReportPoint]]]) -> Any:
    """The figure, drawn by matplotlib's Agg."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    drawn = [point for _, points in shown for point in points]
    samplers = list(dict.fromkeys(point.sampler for point in drawn))
    names = [n for n in varying_dials(drawn) if n not in _ALONG]
    rows = -(-len({_label(point, names) for point in drawn}) // 2)
    legend, head = 0.17 * rows + 0.1, 0.72
    width, height = 0.75 + 2.6 * len(shown), 2.9 + legend + head
    figure = Figure(figsize=(max(width, 5.2), height), dpi=DPI, facecolor="white")
    FigureCanvasAgg(figure)
    all_axes = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (title, points) in zip(all_axes, shown, strict=True):
        _panel(axes, title, points, samplers, names)
    all_axes[0].set_ylabel("Pass@k, % of questions")
    first = drawn[0]
    left = 0.6 / figure.get_figwidth()
    figure.text(left, 1 - 0.1 / height, f"{first.dataset} · {first.model}", fontsize=11.5, weight="bold", va="top")
    said = f"{first.sources} questions × {first.samples} samples · bands: 95 % intervals over questions"
    figure.text(left, 1 - 0.34 / height, said, fontsize=8.5, color="#444444", va="top")
    handles = {label: line for axes in all_axes for line, label in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(
        list(handles.values()), list(handles), loc="lower center", ncols=2, frameon=False, fontsize=7.6,
        handlelength=2.4, columnspacing=1.4, labelspacing=0.3, borderaxespad=0.2,
    )  # fmt: skip
    figure.subplots_adjust(left, (legend + 0.48) / height, 0.985, 1 - head / height, wspace=0.08)
    return figure


def _panel(axes: Any, title: str, points: Sequence[ReportPoint], samplers: Sequence[str], names: Sequence[str]) -> None:
    plain(axes)
    seen: Counter[str] = Counter()
    for point in points:
        k, value, low, high = zip(*curve_of(point), strict=True)
        colour = COLOURS[samplers.index(point.sampler) % len(COLOURS)]
        dashed = seen[point.sampler] > 0
        seen[point.sampler] += 1
        style = {"color": colour, "linestyle": "--" if dashed else "-", "marker": "o", "markersize": 2.6}
        axes.plot(k, value, linewidth=1.3, label=_label(point, names), **style)
        axes.fill_between(k, low, high, color=colour, alpha=0.1, linewidth=0)
    ticks = [k for k, *_ in curve_of(points[0])]
    axes.set_xscale("log", base=2)
    axes.set_xticks(ticks, [str(k) for k in ticks])
    axes.minorticks_off()
    axes.set_xlabel("k")
    axes.set_title(title, fontsize=9.5, color=QUIET)


def _label(point: ReportPoint, names: Sequence[str]) -> str:
    dials = long_dials(point, [name for name in names if name in point.changed])
    return f"{point.sampler}, {dials}" if dials else point.sampler
