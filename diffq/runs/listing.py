"""`diffq ls runs`: which runs there are, and which of them a condition means; also what `diffq export` shares with it.

Loads neither Hydra nor torch: ten thousand runs are listed in a second.
"""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diffq.config import Request
from diffq.errors import UserError
from diffq.runs.flags import whole_number
from diffq.runs.selection import outputs_of
from diffq.store import Store, SweepFolder
from diffq.store.columns import COLUMNS
from diffq.store.identity import show_value
from diffq.store.query import Answer, Question, ask

_LISTED = ("kind", "folder", "key", "status", "dataset", "model", "process", "sampler", "seed", "sources", "samples")
_NARROW = 12  # a column is folded to no less than this
_TOLD = 3


def run(request: Request) -> int:
    """Prints the runs that were asked for. Returns 0."""
    store = Store(outputs_of(request))
    columns = columns_of(request)
    wanted = columns if columns is not None else (*_LISTED, "shown_dials", "shown_metrics")
    answer = ask(store, question_of(request), wanted, folders_of(request, store))
    tell_broken(answer)
    rows = _named(answer) if columns is not None else _described(answer)
    if request.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not answer.columns:
        print("no runs yet")
    elif not rows:
        print("no run is so")
    elif columns is not None:
        print_columns([{k: "" if v is None else _number(v) for k, v in row.items()} for row in rows])
    else:
        print_columns([_line(row) for row in rows])
    return 0


def question_of(request: Request, kinds: tuple[str, ...] = ()) -> Question:
    """What --where, --sort and --limit ask. UserError for words that these verbs do not take."""
    for word in request.overrides:
        key, _, value = word.partition("=")
        if key != "outputs":
            said = f'; which runs are meant is said with --where "{key}={_literal(value)}"' if key in COLUMNS else ""
            raise UserError(f"{word}: of all settings only outputs= can be given here{said}")
    flags = request.flags
    wheres = list(flags.where or ())
    where = " AND ".join(f"({w}\n)" for w in wheres) if len(wheres) > 1 else wheres[0] if wheres else None
    sort = tuple(name.strip() for words in flags.sort or () for name in words.split(",") if name.strip())
    return Question(where, sort, whole_number(flags, "limit", None, least=0), kinds)


def _literal(value: str) -> str:
    return value if value.replace(".", "", 1).isdigit() else f"'{value}'"


def columns_of(request: Request) -> tuple[str, ...] | None:
    """The columns that --columns names, or None."""
    given = [name.strip() for words in request.flags.columns or () for name in words.split(",")]
    if request.flags.columns and not all(given):
        raise UserError("--columns needs names with commas between them, such as folder,scale,bleu")
    return tuple(dict.fromkeys(given)) or None


def folders_of(request: Request, store: Store) -> list[Path] | None:
    """The folders of the runs that were named, each once: those of a sweep's plan, or below a folder; None where none
    was named."""
    if not request.runs:
        return None
    found: list[Path] = []
    for named in request.runs:
        if (named / "plan.jsonl").exists():
            home = Store(named.parent.parent) if named.parent.name == "sweeps" else store
            planned = [home.outputs / row.folder for row in SweepFolder(named).read()]
            found += [folder for folder in planned if (folder / "run.json").exists()]
        else:
            found += sorted(path.parent for path in named.rglob("run.json"))
    return list(dict.fromkeys(found))


def tell_broken(answer: Answer) -> None:
    """Says on stderr which files of the store could not be read; their runs have the status `broken`."""
    for text in answer.broken[:_TOLD]:
        print(f"diffq: {text}", file=sys.stderr)
    if len(answer.broken) > _TOLD:
        print(f"diffq: and {len(answer.broken) - _TOLD} more files like that", file=sys.stderr)


def plain(value: Any) -> Any:
    """A value as JSON and CSV can hold it: times as ISO text, in UTC."""
    return value.replace(tzinfo=UTC).isoformat() if isinstance(value, datetime) else value


def _named(answer: Answer) -> list[dict[str, Any]]:
    names = [answer.names.written[name] for name in answer.columns]
    return [dict(zip(names, map(plain, row), strict=True)) for row in answer.rows]


def _described(answer: Answer) -> list[dict[str, Any]]:
    """Each run with its dials that were changed and its metrics, as mappings."""
    # One parse of one long text is several times faster than ten thousand parses of short ones.
    dials, metrics = (json.loads("[" + ",".join(row[at] for row in answer.rows) + "]") for at in (-2, -1))
    rows = []
    for values, changed, scores in zip(answer.rows, dials, metrics, strict=True):
        row = dict(zip(_LISTED, values[:-2], strict=True))
        row = {"kind": row.pop("kind"), "run": row.pop("folder")} | row
        rows.append(row | {"dials": changed, "metrics": scores})
    return rows


def _line(row: Mapping[str, Any]) -> dict[str, str]:
    count = f"{row['sources']}×{row['samples']}" if row["samples"] is not None else ""
    return {
        "run": row["run"],
        "status": row["status"],
        "samples": count,
        "dials": "  ".join(f"{k}={_number(v)}" for k, v in row["dials"].items()),
        "metrics": "  ".join(f"{k}={_number(v)}" for k, v in row["metrics"].items()),
    }


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else show_value(value)


def print_columns(rows: Sequence[Mapping[str, str]]) -> None:
    """Rows of one shape as a table: on a terminal folded to its width, elsewhere a line each, however long."""
    columns = {name: [name, *(row[name].replace("\n", " ") for row in rows)] for name in rows[0]}
    widths = {name: max(map(len, cells)) for name, cells in columns.items()}
    if sys.stdout.isatty():
        room = shutil.get_terminal_size().columns
        _narrow(widths, room)
        lines = [line for cells in zip(*columns.values(), strict=True) for line in _folded(cells, widths)]
    else:
        lines = list(zip(*columns.values(), strict=True))
    last = next(reversed(widths))
    pads = [0 if name == last else width for name, width in widths.items()]
    print("\n".join("  ".join(map(str.ljust, line, pads)).rstrip() for line in lines))


def _narrow(widths: dict[str, int], room: int) -> None:
    """Takes columns from the widest until a line fits."""
    while sum(widths.values()) + 2 * (len(widths) - 1) > room:
        widest = max(widths, key=lambda name: widths[name])
        if widths[widest] <= _NARROW:
            return
        widths[widest] -= 1


def _folded(cells: Sequence[str], widths: Mapping[str, int]) -> list[tuple[str, ...]]:
    """The lines that a row takes; words that are separated by two blanks stay whole where they can."""
    folded = []
    for cell, width in zip(cells, widths.values(), strict=True):
        lines = [""]
        for word in cell.split("  "):
            if lines[-1] and len(lines[-1]) + 2 + len(word) <= width:
                lines[-1] += f"  {word}"
                continue
            pieces = [word[at : at + width] for at in range(0, len(word), width)] or [""]
            lines = [*lines, *pieces] if lines != [""] else pieces
        folded.append(lines)
    height = max(map(len, folded))
    return list(zip(*([*lines, *[""] * (height - len(lines))] for lines in folded), strict=True))
