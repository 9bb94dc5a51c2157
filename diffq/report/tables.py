"""The frontier as a table: rich, JSON, CSV, Markdown, LaTeX. Knows no file and computes no figure."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffq.report.frontier import AtLevel, Frontier, Scaling, Volume
from diffq.report.points import ReportPoint, long_dials, said_dials
from diffq.store.identity import show_value

Rows = Sequence[Mapping[str, Any]]
_PIPE_WIDTH = 1000  # nothing is folded where the output is no terminal


@dataclass(frozen=True)
class ReportTable:
    """A table of a report, ready to be shown anywhere, with what one should know about it.

    data   the same as plain data, an entry a row, with numbers in full
    """

    title: str
    heads: Sequence[str]
    cells: Sequence[Sequence[str]]
    notes: tuple[str, ...] = ()
    data: tuple[Mapping[str, Any], ...] = ()


def frontier_rows(frontier: Frontier) -> list[dict[str, Any]]:
    """One flat mapping a point, null lines last: what frontier.csv holds.

    `training` where any has a name, `dial_…` for every dial that any sampler here has, `dataset_…` for what was not
    asked of all alike, `METRIC`, `METRIC_low`, `METRIC_high` for every figure (and `METRIC_sd_of_seeds`,
    `METRIC_least_seed`, `METRIC_greatest_seed`, where points are means over several), `record_…` for what samplers
    said of themselves, then nfe_calls, nfe_rows and seconds of the whole run, rows it sampled, key and folder. None
    where there is nothing.
    """
    everything = [*frontier.points, *frontier.nulls]
    dials = list(dict.fromkeys(name for point in everything for name in point.dials))
    asked = list(dict.fromkeys(name for point in everything for name in point.asked))
    metrics = list(dict.fromkeys(name for point in everything for name in point.figures))
    records = list(dict.fromkeys(name for point in everything for name in point.records))
    spread = {name for point in everything for name, f in point.figures.items() if f.between is not None}
    named = any(point.training for point in everything)
    rows = []
    for point in everything:
        row: dict[str, Any] = {
            "kind": point.kind, "sampler": point.sampler, "model": point.model,
            **({"training": point.training} if named else {}), "length": point.length,
            "seed": " ".join(map(str, point.seeds)), "seeds": len(point.seeds), "s": point.samples, "n": point.sources,
            "on_front": point.key in frontier.front,
        }  # fmt: skip
        row |= {f"dial_{name}": point.dials.get(name) for name in dials}
        row |= {f"dataset_{name}": point.asked.get(name) for name in asked}
        for name in metrics:
            figure = point.figures.get(name)
            row[name] = figure.value if figure else None
            row[f"{name}_low"] = figure.low if figure else None
            row[f"{name}_high"] = figure.high if figure else None
            if name in spread:
                low, high = seed_range(point, name) or (None, None)
                row |= {
                    f"{name}_sd_of_seeds": figure.between if figure else None,
                    f"{name}_least_seed": low,
                    f"{name}_greatest_seed": high,
                }
        row |= {f"record_{name}": point.records.get(name) for name in records}
        row |= {name: point.costs.get(name) for name in ("nfe_calls", "nfe_rows", "seconds", "rows")}
        rows.append(row | {"key": point.key, "folder": point.folder})
    return rows


def to_csv(rows: Rows) -> str:
    """Rows as CSV: numbers in full, nothing for None, true and false."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    out = io.StringIO()
    writer = csv.DictWriter(out, columns, lineterminator="\n")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return out.getvalue()


def _cell(value: Any) -> Any:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, float):
        return repr(float(value))
    return value if isinstance(value, int) and not isinstance(value, bool) else show_value(value)


def table(frontier: Frontier, metrics: Sequence[str] = (), brief: bool = False) -> tuple[list[str], list[list[str]]]:
    """Headings and cells for a person: a star for the front, sampler, its dials, y and x with their intervals, length
    model, s, n, the named metrics, network rows an answer, seconds.

    brief: without null lines, and intervals for x and y alone, so that a terminal is wide enough.
    """
    axes = [name for name in (frontier.y, frontier.x) if name]
    names = [*axes, *(m for m in metrics if m not in axes)]
    about = ["length", "s", "n"]
    several = any(p.parts for p in frontier.points)
    if several:
        about += ["seeds", *(f"{name} between seeds" for name in names[:2])]
    heads = ["", "sampler", "dials", *axes, *about, *names[len(axes) :], "NFE", "seconds"]
    cells = []
    for line in frontier.lines:
        if brief and line.kind == "null":
            continue
        for point in line.points:
            dials = long_dials(point, said_dials(point, line.varying))
            cells.append(
                ["*" if point.key in frontier.front else "", line.label, dials]
                + [show_figure(point, name) for name in axes]
                + [point.length or "–", str(point.samples), str(point.sources)]
                + ([str(len(point.seeds)), *(show_seeds(point, name) for name in names[:2])] if several else [])
                + [show_figure(point, name, bare=brief) for name in names[len(axes) :]]
                + [_number(point.an_answer("nfe_rows")), _number(point.costs.get("seconds"))]
            )
    return heads, cells


def seed_range(point: ReportPoint, name: str) -> tuple[float, float] | None:
    """The least and the greatest value of a point's seeds; None where it is of one seed."""
    values = [part.figures[name].value for part in point.parts if name in part.figures]
    return (min(values), max(values)) if values and name in point.figures else None


def show_seeds(point: ReportPoint, name: str) -> str:
    """`sd 0.41, 20.9 to 21.8`, or a dash for a point of one seed."""
    ends = seed_range(point, name)
    if ends is None:
        return "–"
    low, high = map(show_interval, ends)
    return f"sd {_number(point.figures[name].between)}, {low} to {high}"


def show_figure(point: ReportPoint, name: str, bare: bool = False) -> str:
    """`21.4 [20.6, 22.3]`, without the interval where `bare`, or a dash."""
    figure = point.figures.get(name)
    if figure is None or bare:
        return show_interval(figure.value if figure else None)
    return show_interval(figure.value, figure.low, figure.high)


def show_interval(
    value: float | None, low: float | None = None, high: float | None = None, signed: bool = False
) -> str:
    """`21.4 [20.6, 22.3]`; three digits, or one after the point from 100 on."""
    if value is None:
        return "–"
    mark = "+" if signed else ""
    digits = 1 if abs(value) >= 10 else 2
    shown = f"{value:{mark}.{digits}f}"
    return shown if low is None or high is None else f"{shown} [{low:{mark}.{digits}f}, {high:{mark}.{digits}f}]"


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g}" if value < 100 else f"{value:.0f}"


def volume_table(volumes: Sequence[Volume]) -> tuple[list[str], list[list[str]]]:
    """Hypervolumes in percent of the rectangle: with the optimism of choosing points taken out, and as measured."""

    def percent(value: float | None) -> float | None:
        return None if value is None else 100 * value

    rows = [
        [v.label, show_interval(percent(v.value), percent(v.low), percent(v.high)), show_interval(percent(v.measured))]
        for v in volumes
    ]
    return ["", "hypervolume, %", "as measured"], rows


def level_table(frontier: Frontier, rows: Sequence[AtLevel], against: str) -> tuple[list[str], list[list[str]]]:
    """Quality at equal diversity: a row a line, a column a level; below the value the gain over `against`."""
    levels = list(dict.fromkeys(row.level for row in rows))
    labels = list(dict.fromkeys(row.label for row in rows))
    held = {(row.label, row.level): row for row in rows}
    heads = [f"{frontier.y} at {frontier.x} =", *(f"{level:.4g}" for level in levels)]
    cells = []
    for label in labels:
        line = [label]
        for level in levels:
            row = held[label, level]
            text = show_interval(row.value, row.low, row.high)
            if row.gain is not None:
                text += f"\n{show_interval(row.gain, row.gain_low, row.gain_high, signed=True)}"
            line.append(text)
        cells.append(line)
    cells.append([f"second line: gain over {against}", *("" for _ in levels)])
    return heads, cells


def to_rich(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> Any:
    """A rich table. Columns of numbers are right-aligned."""
    from rich import box
    from rich.table import Table
    from rich.text import Text

    made = Table(header_style="bold", box=box.SIMPLE_HEAD, padding=(0, 1))
    for column, head in enumerate(heads):
        numeric = bool(cells) and all(_is_number(row[column]) for row in cells)
        made.add_column(head, justify="right" if numeric else "left", overflow="fold")
    for row in cells:
        made.add_row(*(Text(cell) for cell in row))
    return made


def print_table(title: str, heads: Sequence[str], cells: Sequence[Sequence[str]], least: int = 1) -> None:
    """Prints a table; where rich is missing, in Markdown. In a terminal that is too narrow columns of numbers are left
    out from the right, all but the `least` first, and named below."""
    try:
        from rich.console import Console
    except ImportError:
        print(f"{title}\n\n{to_markdown(heads, cells)}" if title else to_markdown(heads, cells))
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_PIPE_WIDTH)
    if title:
        console.print(title, style="bold", highlight=False, markup=False, soft_wrap=True)
    shown = fitting(heads, cells, console.width, least) if console.is_terminal else list(range(len(heads)))
    narrow = [[row[at] for at in shown] for row in cells]
    console.print(to_rich([heads[at] for at in shown], narrow), soft_wrap=not console.is_terminal)
    if len(shown) < len(heads):
        hidden = ", ".join(head for at, head in enumerate(heads) if at not in shown)
        console.print(f"too narrow for: {hidden} (--json has all)", style="dim", highlight=False, markup=False)


def fitting(heads: Sequence[str], cells: Sequence[Sequence[str]], width: int, least: int = 1) -> list[int]:
    """The columns that fit into so many characters: of those that hold numbers, the last are left out first; the
    `least` first of them and all text stay, and text folds."""
    from rich.cells import cell_len

    def wide(column: int) -> int:  # with the air around it; between columns and at both ends stands one blank more
        texts = [heads[column], *(row[column] for row in cells)]
        return 2 + max(cell_len(line) for text in texts for line in (text.split("\n") or [""]))

    kept = list(range(len(heads)))
    numbers = [at for at in kept if cells and all(_is_number(row[at]) for row in cells)]
    while sum(map(wide, kept)) + len(kept) + 1 > width and len(numbers) > least:
        kept.remove(numbers.pop())
    return kept


def _is_number(text: str) -> bool:
    return text[:1].isdigit() or text[:1] in "+-–−"


def to_markdown(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""

    def line(row: Sequence[str]) -> str:
        return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", "<br>") for cell in row) + " |"

    return "\n".join([line(heads), "|" + "---|" * len(heads), *map(line, cells)]) + "\n"


_LATEX = str.maketrans({
    "&": r"\&", "%": r"\%", "_": r"\_", "#": r"\#", "$": r"\$", "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}", "\\": r"\textbackslash{}", "τ": r"$\tau$", "–": "--", "−": "$-$", "·": r"$\cdot$",
    "≥": r"$\geq$", "≤": r"$\leq$", "×": r"$\times$",
})  # fmt: skip


def to_latex(heads: Sequence[str], cells: Sequence[Sequence[str]]) -> str:
    """A LaTeX tabular with booktabs rules."""

    def line(row: Sequence[str]) -> str:
        return " & ".join(cell.replace("\n", "; ").translate(_LATEX) for cell in row) + r" \\"

    body = [r"\begin{tabular}{" + "l" * len(heads) + "}", r"\toprule", line(heads), r"\midrule", *map(line, cells)]
    return "\n".join([*body, r"\bottomrule", r"\end{tabular}"]) + "\n"


def to_json(
    frontier: Frontier, volumes: Sequence[Volume], box: Scaling, levels: Sequence[AtLevel], against: str
) -> dict[str, Any]:
    """Everything that a report says, as plain data."""
    plain: Callable[[Any], dict[str, Any]] = lambda item: {k: _plain(v) for k, v in vars(item).items()}  # noqa: E731
    return {
        "x": frontier.x,
        "y": frontier.y,
        "signatures": {name: frontier.figure(name).signature for name in (frontier.x, frontier.y)},
        "directions": {name: frontier.figure(name).direction for name in (frontier.x, frontier.y)},
        "points": plain_rows(frontier),
        "front": sorted(frontier.front),
        "hypervolume": {"rectangle": box.describe(frontier.x, frontier.y), "lines": [plain(v) for v in volumes]},
        "equal_diversity": {"against": against, "levels": [plain(row) for row in levels]},
        "notes": list(frontier.notes),
    }


def plain_rows(frontier: Frontier) -> list[dict[str, Any]]:
    """The rows of `frontier_rows` as JSON can hold them."""
    return [{k: _plain(v) for k, v in row.items()} for row in frontier_rows(frontier)]


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return None if math.isnan(value) else float(value)
    return list(value) if isinstance(value, tuple) else value
