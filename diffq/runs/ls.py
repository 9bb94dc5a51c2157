"""`diffq ls`: what there is to choose from. What has been run, `diffq ls runs`, is in `diffq.runs.listing`.

Reads YAML and class definitions.
"""

from __future__ import annotations

import dataclasses
import json
import re
import sys
import typing
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffq.config import Request
from diffq.errors import UserError, unknown
from diffq.settings import as_mapping, describe_range, type_name
from diffq.store.identity import show_value

if TYPE_CHECKING:
    from diffq.config.options import Options

PIPE_WIDTH = 160  # columns where the output is no terminal


def run(request: Request) -> int:
    """Prints the list that was asked for. Returns 0."""
    subject = request.flags.subject
    if subject == "runs":
        from diffq.runs import listing

        return listing.run(request)
    for name in ("where", "sort", "limit", "columns"):
        if getattr(request.flags, name, None):
            raise UserError(f"--{name} asks about runs: diffq ls runs --{name} …")
    from diffq.config.layers import Layers
    from diffq.config.options import Options

    options = Options(request.config_dirs)
    Layers(options, "sample").arguments(request.overrides)  # imports plugins, refuses what is no key
    rows = list_experiments(options) if subject == "experiments" else list_members(options, subject.removesuffix("s"))
    rows = _named(rows, request.flags.names, subject.removesuffix("s"))
    if request.json:
        print(json.dumps(rows, indent=2, ensure_ascii=False))
    elif not rows:
        print(f"no {subject} yet")
    elif subject == "experiments":
        _print_table([{k: str(v) for k, v in row.items()} for row in rows])
    else:
        _print_members(rows)
    return 0


def _named(rows: list[dict[str, Any]], names: Sequence[str], what: str) -> list[dict[str, Any]]:
    """The rows of these names; all where none is given. UserError where there is none of a name."""
    known = [row["name"] for row in rows]
    for name in names:
        if name not in known:
            raise unknown(what, name, known, f"diffq ls {what}s")
    return [row for row in rows if not names or row["name"] in names]


def list_members(options: Options, group: str) -> list[dict[str, Any]]:
    """Every option of a group: its name, kind, help, what it fits, and its dials with range, default and help."""
    names = options.names(group)
    options.fragments.prepare([(group, name) for name in names])
    return [_member(options, group, name, path) for name, path in names.items()]


def _member(options: Options, group: str, name: str, path: Path | None) -> dict[str, Any]:
    held = options.fragments(group, name)
    if group == "metric" and "metrics" in held:
        text = _yaml_help(path) or "A suite of metrics."
        return {"name": name, "kind": "suite", "help": text} | {k: held.get(k) for k in ("metrics", "x", "y")}
    cls = options.component(group, name)
    row: dict[str, Any] = {"name": name, "kind": cls.kind, "help": _yaml_help(path) or first_sentence(cls.__doc__)}
    if group == "model":
        row["process"] = cls.process
    if group == "sampler":
        row["processes"] = list(cls.processes)
    if group == "dataset":
        row |= {"models": held.get("models"), "metric": held.get("metric")}
    if group == "metric":
        row |= {"axis": cls.axis, "direction": cls.direction}
    return row | {"dials": [_dial(cls, field, held) for field in dataclasses.fields(cls)]}


def _dial(cls: Any, field: dataclasses.Field, held: Mapping[str, Any]) -> dict[str, Any]:
    hints = typing.get_type_hints(cls)
    default = None if field.default is dataclasses.MISSING else field.default
    if dataclasses.is_dataclass(default) and not isinstance(default, type):
        default = dataclasses.asdict(default)
    kind, span = type_name(hints[field.name]), describe_range(field)
    return {
        "name": field.name,
        "default": held.get(field.name, as_mapping(default)),
        "allowed": f"{kind}, {span}" if span else kind,
        "help": field.metadata.get("help", ""),
    }


def first_sentence(text: str | None) -> str:
    """The first sentence of a docstring, on one line."""
    paragraph = " ".join((text or "").strip().split("\n\n")[0].split())
    return re.split(r"(?<=[a-z0-9)%`])\.(?= [A-Z`(]|$)", paragraph)[0].rstrip(":;")


def _yaml_help(path: Path | None) -> str:
    """The comment at the head of a YAML file, which says what this option is."""
    lines = path.read_text(encoding="utf-8").splitlines() if path else []
    head = []
    for line in lines:
        if not line.startswith("#"):
            break
        head.append(line.lstrip("# "))
    return first_sentence(" ".join(head))


def list_experiments(options: Options) -> list[dict[str, Any]]:
    """Every experiment: its help, and how many grids it has."""
    rows = []
    for name, path in options.names("experiment").items():
        held = options.experiment(name)
        text = held.get("help") or _yaml_help(path)
        rows.append({"name": name, "help": text, "grids": len(held.get("grids") or [])})
    return rows


def _console() -> Any:
    try:
        from rich.console import Console
    except ImportError as error:
        raise UserError("ls lays its tables out with the package rich, which is not installed; add --json") from error
    return Console(width=None if sys.stdout.isatty() else PIPE_WIDTH, highlight=False, markup=False, emoji=False)


def _print_table(rows: Sequence[Mapping[str, str]]) -> None:
    console = _console()
    from rich.table import Table

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for column in rows[0]:
        table.add_column(column, overflow="fold", no_wrap=column in ("name", "status"))
    for row in rows:
        table.add_row(*row.values())
    console.print(table)


def _print_members(rows: Sequence[Mapping[str, Any]]) -> None:
    """A heading for each member and a table of its dials; members of one kind after the first show what they change."""
    console = _console()
    from rich.table import Table
    from rich.text import Text

    shown: dict[str, str] = {}
    for row in rows:
        console.print(Text(row["name"], style="bold"), Text(f"  {_notes(row)}", style="dim"))
        if row["help"]:
            console.print(Text(f"  {row['help']}"))
        first = shown.setdefault(row["kind"], row["name"])
        dials = row.get("dials") or []
        if first != row["name"] and dials:
            other = next(r for r in rows if r["name"] == first)
            before = {d["name"]: d["default"] for d in other["dials"]}
            changed = [f"{d['name']}={show_value(d['default'])}" for d in dials if d["default"] != before[d["name"]]]
            console.print(Text(f"  as {first}" + (f", with {', '.join(changed)}" if changed else "")))
        elif dials:
            table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 2), show_header=False)
            table.add_column(no_wrap=True, style="cyan")
            for _ in range(3):
                table.add_column(overflow="fold")
            for d in dials:
                table.add_row(d["name"], _line(d["default"]), d["allowed"], d["help"])
            console.print(table)
        console.print()


def _notes(row: Mapping[str, Any]) -> str:
    return " · ".join(_note_parts(row))


def _note_parts(row: Mapping[str, Any]) -> Iterator[str]:
    if row["kind"] == "suite":
        yield f"suite of {', '.join(row['metrics'])}"
        yield f"x={row['x'] or 'none'}, y={row['y'] or 'none'}"
        return
    if row["kind"] != row["name"]:
        yield f"kind {row['kind']}"
    if "process" in row:
        yield row["process"]
    if "processes" in row:
        yield f"for {', '.join(row['processes'])} models"
    if row.get("models"):
        yield "models " + ", ".join(row["models"].values())
    if row.get("axis"):
        yield row["axis"] + ("" if row["direction"] == "none" else f", {row['direction']} is better")


def _line(value: Any) -> str:
    """A value on one line."""
    return show_value(value).replace("\n", "\\n")
