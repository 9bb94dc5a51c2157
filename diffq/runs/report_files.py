"""The files of a report: which ones are asked for, and those that hold the frontier as text and as a picture.

report.html is made in `diffq.runs.report_page`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffq.errors import UserError, unknown
from diffq.report.frontier import Frontier
from diffq.report.paper import PaperTable, claim_table, delta_table
from diffq.report.tables import ReportTable, frontier_rows, table, to_csv, to_latex, to_markdown
from diffq.runs.flags import whole_number
from diffq.runs.report_page import SOURCES
from diffq.store.files import write_atomic

FORMATS = ("html", "png", "svg", "csv", "latex", "markdown")


@dataclass(frozen=True)
class Wanted:
    """What a report is asked for beyond its points.

    x, y     metrics for the axes; empty: those of the suite
    formats  the files to write
    sources  of how many sources the samples are shown in report.html
    """

    x: str = ""
    y: str = ""
    formats: tuple[str, ...] = FORMATS
    sources: int = SOURCES
    open: bool = False

    @classmethod
    def of(cls, flags: argparse.Namespace) -> Wanted:
        """What the flags of `diffq report` say. UserError where they contradict each other."""
        x, y = ((getattr(flags, name, None) or [""])[-1] for name in ("x", "y"))
        words = [word for text in getattr(flags, "format", ()) for word in text.split(",")]
        for word in words:
            if word not in FORMATS:
                raise unknown("format", word, FORMATS)
        formats = tuple(f for f in FORMATS if f in words) or FORMATS
        opens = bool(getattr(flags, "open", False))
        if opens and "html" not in formats:
            raise UserError(f"--open shows report.html, which --format {','.join(words)} leaves out; add html to it")
        return cls(x, y, formats, whole_number(flags, "page_sources", SOURCES, least=0), opens)


def write_files(
    folder: Path,
    formats: Sequence[str],
    frontier: Frontier,
    metrics: Sequence[str],
    paper: PaperTable | None,
    tables: Sequence[ReportTable],
) -> tuple[list[Path], list[str]]:
    """Writes the texts and pictures among the formats; returns their paths, and why a picture is missing.

    csv, markdown and latex are the frontier's table; markdown also comparisons.md and the paper's table. Where answers
    are graded, pass_at_k is a second picture.
    """
    heads, cells = table(frontier, metrics)
    texts = {}
    if "csv" in formats:
        texts["frontier.csv"] = to_csv(frontier_rows(frontier))
    if "markdown" in formats:
        texts["frontier.md"] = to_markdown(heads, cells)
        if tables:
            texts["comparisons.md"] = "\n".join(map(comparison_markdown, tables))
        if paper:
            texts[f"paper-{paper.paper}.md"] = paper_markdown(paper)
    if "latex" in formats:
        texts["frontier.tex"] = to_latex(heads, cells)
    for name, text in texts.items():
        write_atomic(folder / name, text.encode(), sync=False)
    files = [folder / name for name in texts]
    pictures = [name for name in ("png", "svg") if name in formats]
    if not pictures:
        return files, []
    try:
        from diffq.report.curves import save_curves
        from diffq.report.plot import save_plot

        files += save_plot(frontier, folder / "frontier", pictures)
        return files + list(save_curves(frontier.points, folder / "pass_at_k", pictures)), []
    except ImportError as error:
        return files, [f"no picture: the package {error.name} is not installed"]


def comparison_markdown(found: ReportTable) -> str:
    """One table with its title and its notes."""
    notes = "".join(f"\n{note}\n" for note in found.notes)
    return f"## {found.title}\n\n{to_markdown(found.heads, found.cells)}{notes}"


def paper_markdown(paper: PaperTable) -> str:
    """The paper's table with its footnotes."""
    notes = "".join(f"- {note}\n" for note in paper.footnotes)
    parts = [f"# {paper.title} (arXiv {paper.paper})\n", to_markdown(*delta_table(paper))]
    return "\n".join([*parts, to_markdown(*claim_table(paper)), notes])


def show(page: Path) -> str:
    """Opens the page in a browser; returns what is to be said where there is none."""
    import webbrowser

    try:
        opened = webbrowser.open(page.resolve().as_uri())
    except webbrowser.Error:
        opened = False
    return "" if opened else f"no browser was found here; open {page} in one"
