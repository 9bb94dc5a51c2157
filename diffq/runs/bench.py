"""`diffq bench`: our samplers and our trainer, timed against plain versions of themselves on this machine.

Each subject is a module of its own; this one reads the words and prints the rows.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from types import ModuleType
from typing import Any

from diffq.config import Request
from diffq.errors import UserError, unknown


def run(request: Request) -> int:
    """Runs the subject that was named, `samplers` where none was. Returns 0."""
    subject = request.flags.subject
    if subject == "train":
        from diffq.runs import bench_train

        return bench_train.run(request)
    if subject == "overhead":
        from diffq.runs import bench_overhead

        rows = bench_overhead.run(request)
    elif subject == "latency":
        from diffq.runs import bench_latency

        rows = bench_latency.run(request)
    else:
        from diffq.runs import bench_caches, bench_decoding, bench_eags, bench_masked, bench_samplers

        tables = (bench_masked, bench_decoding, bench_caches, bench_eags)
        known = [*bench_samplers.DIALS, *(name for table in tables for name in table.ROWS)]
        names = chosen(known, request.flags.names)
        rows = bench_samplers.run(request, [name for name in names if name in bench_samplers.DIALS])
        for table in tables:
            rows += table.run(request, [name for name in names if name in table.ROWS])
    print(json.dumps(rows, indent=1) if request.json else _table(rows))
    return 0


def chosen(known: Sequence[str], asked: Sequence[str]) -> list[str]:
    """The rows whose names were asked for; a prefix such as `gaussian/` asks for all below it. UserError for a name
    that is none."""
    if not asked:
        return list(known)
    for name in asked:
        if not any(k == name or k.startswith(name.rstrip("/") + "/") for k in known):
            raise unknown("bench row", name, known)
    return [k for k in known if any(k == name or k.startswith(name.rstrip("/") + "/") for name in asked)]


def textbook(module: str) -> ModuleType:
    """A module of tests/reference, which only a checkout has. UserError where diffq was installed from a wheel."""
    import importlib
    import sys

    tests = Path(__file__).resolve().parents[2] / "tests"
    if not (tests / "reference").is_dir():
        raise UserError(
            "diffq bench samplers compares with the textbook samplers in tests/reference/, which only a checkout of the"
            " repository has: clone it and run the command there"
        )
    if str(tests) not in sys.path:
        sys.path.insert(0, str(tests))
    return importlib.import_module(f"reference.{module}")


def against_textbook(ours: Sequence[float], theirs: Sequence[float], full: bool) -> dict[str, Any]:
    """What a row says of the seconds of each turn, ours and the textbook's: the median of their ratios (textbook over
    ours) with the least and the greatest, the medians of both, and whether the textbook ran in part only."""
    ratios = [b / a for a, b in zip(ours, theirs, strict=True)]
    return {
        "ratio": median(ratios),
        "low": min(ratios),
        "high": max(ratios),
        "seconds": median(ours),
        "textbook_seconds": median(theirs),
        "extrapolated": not full,
    }


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    """The rows in columns, as plain text."""
    heads = list(dict.fromkeys(key for row in rows for key in row))
    cells = [heads, *([_shown(row.get(head)) for head in heads] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(heads))]
    return "\n".join("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip() for line in cells)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}" if abs(value) < 100 else f"{value:,.0f}"
    return "" if value is None else str(value)
