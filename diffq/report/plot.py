"""The picture of a frontier, as PNG and SVG: the same bytes for the same points.

Up and to the right is better: an axis on which less is better runs backwards, and says so.
Knows no store; matplotlib is imported when a picture is drawn.
"""

from __future__ import annotations

import io
import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from diffq.report.frontier import Frontier
from diffq.report.labels import Placed, Placer
from diffq.report.points import RUNNING, SHORT, Line, ReportPoint, said_dials, short_dials
from diffq.report.scales import is_logarithmic
from diffq.store.files import write_atomic

# Okabe & Ito (2008), told apart by people with any colour blindness, in an order of falling contrast with white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8A7A00")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DPI = 200
WIDTH = 6.4
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "diffq",
    "font.family": ["DejaVu Sans", "sans-serif"],
    "font.size": 9.5,
    "axes.linewidth": 0.8,
    "path.simplify": False,
}
QUIET = "#777777"


def colour_of(number: int) -> str:
    """The colour of a picture's lines, the first of which is 0."""
    return COLOURS[number % len(COLOURS)]


def marker_of(number: int) -> str:
    """Their markers. Where the colours begin anew the markers are moved on by one: 64 lines can be told apart."""
    return MARKERS[(number + number // len(COLOURS)) % len(MARKERS)]


def dashes_of(number: int) -> str:
    """What their lines are drawn with: where the colours begin anew, dashes."""
    return ("-", "--", ":", "-.")[number // len(COLOURS) % 4]


_LABEL, _LEGEND = 7.4, 8.5  # points
_LONG = 24  # characters at a point


@dataclass
class Drawn:
    """What a picture shows: the figure, and where each label stands in pixels."""

    figure: Any
    labels: dict[str, Placed] = field(default_factory=dict)
    omitted: tuple[str, ...] = ()
    blocked: tuple[tuple[float, float, float, float], ...] = ()


_METADATA: dict[str, Any] = {"png": {"Software": None}, "svg": {"Date": None, "Creator": None}}


def save_plot(frontier: Frontier, stem: Path, formats: Sequence[str] = ("png", "svg")) -> tuple[Path, ...]:
    """Writes STEM.png (1280 pixels wide) and STEM.svg (text as text), or one of them, and returns their paths."""
    return save_figure(lambda: draw(frontier).figure, stem, formats)


def save_figure(drawn: Callable[[], Any], stem: Path, formats: Sequence[str]) -> tuple[Path, ...]:
    """Writes a figure, drawn in the style of all pictures, as STEM.png, STEM.svg or both, and returns their paths: the
    same bytes for the same figure."""
    import matplotlib

    with matplotlib.rc_context(STYLE):
        figure = drawn()
        paths = tuple(stem.with_name(f"{stem.name}.{kind}") for kind in formats)
        for path, kind in zip(paths, formats, strict=True):
            buffer = io.BytesIO()
            figure.savefig(buffer, format=kind, dpi=DPI, metadata=_METADATA[kind])
            write_atomic(path, buffer.getvalue(), sync=False)
    return paths


def plain(axes: Any) -> None:
    """Axes without a frame, over a quiet grid."""
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    axes.grid(True, color="#E8E8E8", linewidth=0.6)
    axes.set_axisbelow(True)


def draw(frontier: Frontier) -> Drawn:
    """The picture, drawn by matplotlib's Agg, with every label placed."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    columns = _columns([line.label for line in frontier.lines])
    rows = math.ceil((len(frontier.lines) + 1) / columns)
    legend, head = 0.185 * rows + 0.16, 0.62
    height = 4.3 + legend + head
    figure = Figure(figsize=(WIDTH, height), dpi=DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    bottom = (legend + 0.55) / height
    axes = figure.add_axes((0.105, bottom, 0.87, 1 - head / height - bottom))
    _frame(frontier, figure, axes, height)
    taken: Any = axes.yaxis.get_tightbbox(canvas.get_renderer())
    if (over := 3 - float(taken.x0)) > 0:  # long figures at the ticks, in pixels
        left = 0.105 + over / (DPI * WIDTH)
        axes.set_position((left, bottom, 0.975 - left, 1 - head / height - bottom))
    handles = [_draw_line(frontier, axes, line, at) for at, line in enumerate(frontier.lines)]
    handles.append(_draw_front(frontier, axes))
    figure.legend(
        handles=handles, loc="lower center", ncols=columns, frameon=False, fontsize=_LEGEND,
        handlelength=2.2, handletextpad=0.8, columnspacing=1.4, labelspacing=0.35, bbox_to_anchor=(0.5, 0.0),
        borderaxespad=0.1,
    )  # fmt: skip
    figure.text(0.5, (legend + 0.03) / height, _key(frontier), ha="center", va="bottom", fontsize=7, color=QUIET)
    canvas.draw()
    return _label(frontier, figure, axes)


def _columns(labels: Sequence[str]) -> int:
    """Of how many columns a legend of these lines and the front is, for it to fit into the picture: 3 at most."""
    column = max(_width(label, _LEGEND) for label in [*labels, "Pareto front"]) + (2.2 + 0.8) * _LEGEND
    fit = int((72 * WIDTH + 1.4 * _LEGEND) / (column + 1.4 * _LEGEND))
    return max(1, min(3, fit, len(labels) + 1))


def _width(text: str, size: float) -> float:
    """In points."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextPath

    font = FontProperties(family=STYLE["font.family"], size=size)
    return float(TextPath((0, 0), text, prop=font).get_extents().width)


def _frame(frontier: Frontier, figure: Any, axes: Any, height: float) -> None:
    """Limits, axes, title, and the corner that is better."""
    plain(axes)
    for column, side in enumerate("xy"):
        name, less = (frontier.x, frontier.y)[column], frontier.signs[column] < 0
        low, high, logarithmic = _limits(frontier, name)
        if logarithmic:
            _logarithmic(axes, side)
        axes.set(**{f"{side}lim": (high, low) if less else (low, high)})
        if not logarithmic:
            _ticks(getattr(axes, f"{side}axis"), low, high, frontier.is_share(column))
        kind = (", log axis" if logarithmic else ", axis" if less else "") + (" reversed" if less else "")
        said = f"{('diversity', 'quality')[column]}; {'lower' if less else 'higher'} is better{kind}"
        text = f"{readable(name)}  ({said})"
        room = (axes.get_position().width * WIDTH, axes.get_position().height * height)[column]
        axes.set(**{f"{side}label": text})
        getattr(axes, f"{side}axis").label.set_size(min(9.5, 9.5 * 72 * room / _width(text, 9.5)))
    first = frontier.points[0]
    models = ", ".join(dict.fromkeys(point.model for point in frontier.points))
    figure.text(0.105, 1 - 0.12 / height, f"{first.dataset} · {models}", fontsize=11.5, weight="bold", va="top")
    figure.text(0.105, 1 - 0.36 / height, subtitle(frontier), fontsize=8.5, color="#444444", va="top")
    style = {"arrowstyle": "-|>", "color": QUIET, "lw": 1.0}
    axes.annotate("", (0.985, 0.985), (0.945, 0.925), xycoords="axes fraction", arrowprops=style)
    axes.text(0.94, 0.915, "better", transform=axes.transAxes, ha="right", va="top", fontsize=8.5, color=QUIET)


def subtitle(frontier: Frontier) -> str:
    """`300 sources × 3 samples · length: oracle · 95 % intervals`."""
    first = frontier.points[0]
    lengths = [length for length in dict.fromkeys(p.length for p in frontier.points) if length != "free"]
    unprompted = first.sources == 1  # running text: its samples are what figures are averaged over
    parts = [f"{first.samples} samples" if unprompted else f"{first.sources} sources × {first.samples} samples"]
    if first.given is not None:
        parts.append(f"{first.given} tokens given" if not unprompted else f"{first.given.block} tokens")
    elif lengths:
        parts.append(f"length: {', '.join(lengths)}")
    return " · ".join([*parts, f"bars: 95 % intervals over {'samples' if unprompted else 'sources'}"])


def readable(name: str) -> str:
    """A metric's name as it is written on an axis."""
    known = {"bleu": "BLEU-4", "self_bleu": "self-BLEU", "rouge_l": "ROUGE-L", "ibleu": "iBLEU", "div_4": "div-4"}
    return known.get(name, name.replace("_", " "))


def _logarithmic(axes: Any, side: str) -> None:
    """Makes an axis logarithmic, with its figures written out at 1, 2 and 5 times powers of ten."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

    axes.set(**{f"{side}scale": "log"})
    axis = getattr(axes, f"{side}axis")
    axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.10g}"))


def _ticks(axis: Any, low: float, high: float, share: bool) -> None:
    """Ticks that leave room for their figures at either end, and none where no share of 100 can be."""
    edge = 0.02 * (high - low)
    least, most = (max(low + edge, 0.0), min(high - edge, 100.0)) if share else (low + edge, high - edge)
    found = axis.get_major_locator().tick_values(low, high)
    axis.set_ticks([tick for tick in found if least <= tick <= most])


def _limits(frontier: Frontier, name: str) -> tuple[float, float, bool]:
    """The ends of an axis, a little beyond its figures and their intervals, and whether it is logarithmic."""
    lows, highs = [], []
    for point in frontier.points:
        figure = point.figures[name]
        lows.append(figure.value if figure.low is None else figure.low)
        highs.append(figure.value if figure.high is None else figure.high)
    low, high = min(lows), max(highs)
    if is_logarithmic(name, low, high):
        margin = (high / low) ** 0.09
        return low / margin, high * margin, True
    margin = 0.09 * (high - low) or 0.05 * abs(high) or 1.0  # all alike: room around them
    return low - margin, high + margin, False


def _draw_line(frontier: Frontier, axes: Any, line: Line, at: int) -> Any:
    """The strands, intervals and markers of one line; returns what stands for it in the legend."""
    from matplotlib.lines import Line2D

    if line.kind == "null":
        dashes = (0, (4, 2)) if at % 2 == len(frontier.lines) % 2 else (0, (1, 1.5))
        for strand in line.strands:
            values = frontier.values(strand.points)
            axes.plot(values[:, 0], values[:, 1], color=QUIET, linestyle=dashes, linewidth=1.1, zorder=1.5)
        return Line2D([], [], color=QUIET, linestyle=dashes, linewidth=1.1, label=f"{line.label} (null line)")
    colour, marker = colour_of(at), marker_of(at)
    style: dict[str, Any] = {"color": colour, "linestyle": dashes_of(at)}
    many = len(line.strands) > 1
    for strand in line.strands:
        values = frontier.values(strand.points)
        axes.plot(values[:, 0], values[:, 1], linewidth=0.8 if many else 1.3, alpha=0.55, zorder=2, **style)
        for point, (x, y) in zip(strand.points, values, strict=True):
            _draw_bars(frontier, axes, point, x, y, colour)
            for across, up in frontier.values(point.parts):  # faintly, the seeds that the point is the mean of
                axes.plot([across], [up], marker=".", markersize=2.6, color=colour, alpha=0.45, linestyle="none")
            best = point.key in frontier.front
            axes.plot(
                [x], [y], marker=marker, markersize=6.2 if best else 5.0, color=colour, zorder=4 if best else 3,
                markeredgecolor="black" if best else "white", markeredgewidth=0.9 if best else 0.5, linestyle="none",
            )  # fmt: skip
    return Line2D([], [], marker=marker, markersize=5.5, linewidth=1.3, label=line.label, **style)


def _draw_bars(frontier: Frontier, axes: Any, point: ReportPoint, x: float, y: float, colour: str) -> None:
    across, up = point.figures[frontier.x], point.figures[frontier.y]
    style = {"color": colour, "alpha": 0.22, "linewidth": 1.8, "solid_capstyle": "butt", "zorder": 1.8}
    if across.low is not None:
        axes.plot([across.low, across.high], [y, y], **style)
    if up.low is not None:
        axes.plot([x, x], [up.low, up.high], **style)


def _staircase(frontier: Frontier) -> np.ndarray:
    """The corners of the border of what the front dominates, in data coordinates."""
    best = [point for point in frontier.points if point.key in frontier.front]
    values = frontier.values(best) * frontier.signs
    values = values[np.argsort(values[:, 0], kind="stable")]
    corners = [values[0]]
    for here, there in itertools.pairwise(values):
        corners += [np.array([here[0], there[1]]), there]
    return np.array(corners) * frontier.signs


def _draw_front(frontier: Frontier, axes: Any) -> Any:
    from matplotlib.lines import Line2D

    corners = _staircase(frontier)
    style: dict[str, Any] = {"color": "black", "linewidth": 0.9, "alpha": 0.65}
    axes.plot(corners[:, 0], corners[:, 1], zorder=2.5, **style)
    return Line2D([], [], label="Pareto front", marker="o", markerfacecolor="white", markeredgecolor="black", **style)


def _key(frontier: Frontier) -> str:
    """What the short names of dials mean: `s scale · τ temperature`, for the dials that have one."""
    lines = [line for line in frontier.lines if line.kind == "point"]
    named = {name for line in lines for name in said_dials(line.points[0], line.varying)}
    return " · ".join(
        f"{SHORT[name].strip()} {name}" for name in RUNNING if name in named and SHORT.get(name, "").strip()
    )


def _label(frontier: Frontier, figure: Any, axes: Any) -> Drawn:
    """Writes the dials at the points: those on the front first, then the ends of strands, then the others. Of each the
    lines have one in turn, so that none takes all the room."""
    renderer = figure.canvas.get_renderer()
    window = axes.get_window_extent()
    pixel = figure.dpi / 72
    place = Placer(area=(window.x0, window.y0, window.x1, window.y1), gap=2.0 * pixel, reach=_reach(pixel))
    jobs: list[tuple[int, int, int, str, str, str, float, float]] = []
    for at, line in enumerate(frontier.lines):
        had = [0, 0, 0]  # of its points, by their rank
        for strand in line.strands:
            pixels = axes.transData.transform(frontier.values(strand.points))
            place.lines += [(*a, *b) for a, b in itertools.pairwise(pixels)]
            if line.kind == "null":
                continue
            for n, (point, (x, y)) in enumerate(zip(strand.points, pixels, strict=True)):
                place.blocked += _boxes(frontier, axes, point, x, y, pixel)
                rank = 0 if point.key in frontier.front else 1 if n in (0, len(strand.points) - 1) else 2
                text = _said(point, line)
                jobs.append((rank, had[rank], at, point.key, text, colour_of(at), x, y))
                had[rank] += 1
    corners = axes.transData.transform(_staircase(frontier))
    place.lines += [(*a, *b) for a, b in itertools.pairwise(corners)]
    better = axes.transAxes.transform([(0.84, 0.86), (1, 1)])
    place.blocked.append((*better[0], *better[1]))
    drawn = Drawn(figure, blocked=tuple(place.blocked))
    omitted = []
    for rank, _, _, key, text, colour, x, y in sorted(jobs):
        width, height = _text_size(renderer, text, bold=rank == 0)
        if key in drawn.labels:  # a point that two samplers share
            continue
        placed = place.place(x, y, width, height, 2.8 * pixel) if text else None
        if placed is None:
            omitted.append(key)
            continue
        drawn.labels[key] = placed
        _write(axes, text, placed, colour, bold=rank == 0)
    drawn.omitted = tuple(omitted)
    return drawn


def _said(point: ReportPoint, line: Line) -> str:
    """What is written at a point. Where many dials vary, those that are not turned there would leave no room."""
    names = said_dials(point, line.varying)
    text = short_dials(point, names)
    return text if len(text) <= _LONG else short_dials(point, [name for name in names if name in point.changed])


def _reach(pixel: float) -> tuple[float, ...]:
    return (0.0, 5 * pixel, 11 * pixel, 19 * pixel, 30 * pixel)


def _boxes(
    frontier: Frontier, axes: Any, point: ReportPoint, x: float, y: float, pixel: float
) -> list[tuple[float, float, float, float]]:
    """The marker and the two bars of a point, in pixels."""
    r, thin = 3.2 * pixel, 0.9 * pixel
    boxes = [(x - r, y - r, x + r, y + r)]
    across, up = point.figures[frontier.x], point.figures[frontier.y]
    if across.low is not None and across.high is not None:
        ends = axes.transData.transform([(across.low, up.value), (across.high, up.value)])[:, 0]
        boxes.append((float(ends.min()), y - thin, float(ends.max()), y + thin))
    if up.low is not None and up.high is not None:
        ends = axes.transData.transform([(across.value, up.low), (across.value, up.high)])[:, 1]
        boxes.append((x - thin, float(ends.min()), x + thin, float(ends.max())))
    return boxes


def _text_size(renderer: Any, text: str, bold: bool) -> tuple[float, float]:
    """Width and height in pixels, with a little air: a viewer of the SVG may use another font."""
    from matplotlib.font_manager import FontProperties

    font = FontProperties(family=STYLE["font.family"], size=_LABEL, weight="bold" if bold else "normal")
    width, height, _ = renderer.get_text_width_height_descent(text, font, ismath=False)
    return width * 1.06, height * 1.3


def _write(axes: Any, text: str, placed: Placed, colour: str, bold: bool) -> None:
    to_data = axes.transData.inverted()
    x, y = to_data.transform(((placed.box[0] + placed.box[2]) / 2, (placed.box[1] + placed.box[3]) / 2))
    style = {"fontsize": _LABEL, "weight": "bold" if bold else "normal", "color": darker(colour)}
    axes.text(x, y, text, ha="center", va="center", zorder=5, **style)
    if placed.leader:
        ends = to_data.transform([placed.leader[:2], placed.leader[2:]])
        axes.plot(ends[:, 0], ends[:, 1], color=colour, linewidth=0.6, alpha=0.8, zorder=2.2)


def darker(colour: str, share: float = 0.7) -> str:
    """A colour mixed with black, so that thin letters are as easy to see as a thick marker."""
    return "#" + "".join(f"{round(int(colour[at : at + 2], 16) * share):02X}" for at in (1, 3, 5))
