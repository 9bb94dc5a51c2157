"""Energies along the steps of a point as a picture and a table: a band over samples, and the change from first to last.

Knows no store and no network; matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.report.plot import DPI, WIDTH, colour_of, plain, save_figure
from diffq.report.tables import ReportTable

_WIDEST = 40  # letters of a line above a panel
MOST = 12
"""Points that are drawn in one picture: of more, the first of those with more than one step."""


def unit_of(potential: str) -> str:
    """What energies of a potential are counted in."""
    return "nats a token" if potential == "log_probability" else "logits a token"


@dataclass(frozen=True)
class Course:
    """The energy of one point along its steps.

    band    median, low_50, high_50, low_95, high_95 over rows, a number a step each
    change  value, low, high (None: undecided for want of rows) and rows, of last − first
    said    the change in words
    line    the number of its line in the frontier, whose colour it has
    """

    label: str
    potential: str
    steps: tuple[int, ...]
    band: Mapping[str, Sequence[float]]
    change: Mapping[str, Any]
    said: str
    line: int = 0


def table_of(courses: Sequence[Course]) -> ReportTable:
    """A row a point: its median energy at the first and the last step, and the paired change of the mean."""
    cells = []
    for course in courses:
        first, last = course.band["median"][0], course.band["median"][-1]
        change = course.change
        shown = [_shown(change), verdict(change), str(change["rows"])]
        cells.append([course.label, f"{first:.3g}", f"{last:.3g}", *shown])
    heads = ["point", "median, first draft", "median, last", "change of the mean [95 %]", "energy", "rows"]
    note = (
        "Minus the pseudo-log-likelihood a token of each step's full draft, under the model without guidance; where"
        " energy_potential=logit, of raw scores. Intervals are over rows, each a source or a text of its own."
    )
    data = tuple({"point": c.label, "potential": c.potential, "said": c.said} | dict(c.change) for c in courses)
    return ReportTable("Energy from the first draft to the last", heads, cells, (note,), data)


def save_courses(courses: Sequence[Course], stem: Path, formats: Sequence[str] = ("png", "svg")) -> tuple[Path, ...]:
    """Writes STEM.png and STEM.svg, or one of them, and returns their paths: the same bytes for the same courses."""
    return save_figure(lambda: draw_courses(courses), stem, formats)


def draw_courses(courses: Sequence[Course]) -> Any:
    """A panel a point, energy upwards on one scale for all of one potential, steps to the right."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    several = [course for course in courses if len(course.steps) > 1] or list(courses)
    shown = several[:MOST]
    common, names = _apart([course.label for course in shown])
    columns = min(len(shown), 3)
    rows = math.ceil(len(shown) / columns)
    figure = Figure(figsize=(WIDTH, 0.75 + 2.3 * rows), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    one_scale = len({course.potential for course in shown}) == 1
    panels = figure.subplots(rows, columns, sharey=one_scale, squeeze=False).flatten()
    for axes, course, name in zip(panels, shown, names, strict=False):
        _panel(axes, course, name, colour_of(course.line))
    for axes in panels[len(shown) :]:
        axes.set_visible(False)
    kinds = " and ".join(dict.fromkeys(c.potential.replace("_", "-") for c in shown))
    units = dict.fromkeys(unit_of(course.potential) for course in shown)
    figure.supylabel(f"energy, {' or '.join(units)}", fontsize=8.5)
    why = " of more than one step" if len(several) < len(courses) else ""
    left = f"; {len(shown)} of {len(several)} points{why}" if why or len(several) > len(shown) else ""
    head = f"{common}Energy of each step's full draft, {kinds} potentials{left}"
    counts = sorted({course.change["rows"] for course in shown})
    rows_said = f"{counts[0]} rows" if len(counts) == 1 else f"{counts[0]} to {counts[-1]} rows"
    figure.suptitle(
        f"{head}, {rows_said} a point\nmedian, middle 50 % and 95 % of samples; last − first draft [95 %]", fontsize=8
    )
    return figure


def _apart(labels: Sequence[str]) -> tuple[str, list[str]]:
    """What all labels begin with, `eags · eags_tiny: `, and what is left of each; of one label nothing is common."""
    parts = [label.split(" · ") for label in labels]
    same = 0
    while len(parts) > 1 and min(map(len, parts)) > same + 1 and len({tuple(p[: same + 1]) for p in parts}) == 1:
        same += 1
    return "".join([" · ".join(parts[0][:same]), ": " if same else ""]), [" · ".join(p[same:]) for p in parts]


def _panel(axes: Any, course: Course, name: str, colour: str) -> None:
    from matplotlib.ticker import MaxNLocator

    band, steps = course.band, [step + 1 for step in course.steps]
    for share, alpha in (("95", 0.16), ("50", 0.3)):
        axes.fill_between(steps, band[f"low_{share}"], band[f"high_{share}"], color=colour, alpha=alpha, linewidth=0)
    marker = "o" if len(steps) <= 30 else ""
    axes.plot(steps, band["median"], color=colour, linewidth=1.4, marker=marker, markersize=3)
    plain(axes)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=6))
    axes.tick_params(labelsize=7.5)
    axes.set_xlabel("round", fontsize=8)
    title = "\n".join([*textwrap.wrap(name, _WIDEST), f"{verdict(course.change)}: {_shown(course.change)}"])
    axes.set_title(title, fontsize=6.8, loc="left")


def verdict(change: Mapping[str, Any]) -> str:
    """falls, rises, or undecided, by the interval."""
    low, high = change["low"], change["high"]
    return "falls" if high is not None and high < 0 else "rises" if low is not None and low > 0 else "undecided"


def _shown(change: Mapping[str, Any]) -> str:
    """`-4.59 [-5.04, -4.14]`, without the interval where there is none."""
    value, low, high = (change[name] for name in ("value", "low", "high"))
    return f"{value:+.3g}" + ("" if low is None else f" [{low:+.3g}, {high:+.3g}]")
