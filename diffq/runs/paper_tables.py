"""`diffq report paper=NAME` for papers whose file holds tables of their own: what is published beside what lies under
outputs/. No sweep has to be named: all points, likelihoods and benches there are looked at."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from diffq.config import Request
from diffq.config.files import group_files, read_mapping, search_dirs
from diffq.report.published import Measured, Table, tables
from diffq.report.tables import print_table
from diffq.runs.selection import outputs_of
from diffq.store.files import read_json


def spec_of(request: Request) -> Mapping[str, Any] | None:
    """The paper's file where it holds tables, else None."""
    name = next((w.partition("=")[2] for w in reversed(request.overrides) if w.startswith("paper=")), "")
    files = group_files("paper", search_dirs(request.config_dirs))
    held = read_mapping(files[name]) if name in files else {}
    return held if "likelihoods" in held else None


def run(request: Request, spec: Mapping[str, Any]) -> int:
    """Prints the tables. Returns 0."""
    made = tables(spec, gather(outputs_of(request)))
    if request.json:
        print(json.dumps([dataclasses.asdict(table) for table in made], indent=1, ensure_ascii=False))
        return 0
    for table in made:
        print_table(table.title, table.heads, table.cells)
        for note in table.notes:
            print(f"- {note}")
        print()
    return 0


def markdown(made: list[Table]) -> str:
    """The same as a page."""
    parts = []
    for table in made:
        rows = [table.heads, ["---"] * len(table.heads), *table.cells]
        lines = ["| " + " | ".join(cell.replace("\n", "<br>") for cell in row) + " |" for row in rows]
        parts.append(f"## {table.title}\n\n" + "\n".join(lines) + "\n\n" + "\n".join(f"- {n}" for n in table.notes))
    return "\n\n".join(parts) + "\n"


def gather(outputs: Path) -> Measured:
    """What lies under a folder of outputs."""
    likelihoods = [held for f in sorted(outputs.glob("likelihood/*/likelihood.json")) if (held := read_json(f))]
    points = [point for f in sorted(outputs.glob("points/**/run.json")) if (point := _point(f.parent))]
    return Measured(likelihoods, points, read_json(outputs / "bench" / "latency.json"))


def _point(folder: Path) -> dict[str, Any] | None:
    """A finished and scored point as one flat record."""
    run, scores = read_json(folder / "run.json") or {}, read_json(folder / "metrics.json")
    if run.get("status") != "done" or not scores:
        return None
    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    dataset = {f"dataset.{name}": value for name, value in config.get("dataset", {}).items()}
    about = {name: run.get(name) for name in ("dataset", "model", "sampler", "samples", "seed")}
    return dataset | dict(run.get("dials", {})) | about | {"scores": scores}
