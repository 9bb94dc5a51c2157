"""`diffq report paper=NAME` for papers whose file holds tables of their own: what is published, or claimed, beside what
lies under outputs/. No sweep has to be named: all points, likelihoods and benches there are looked at."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from diffq.config import Request
from diffq.config.files import group_files, read_mapping, search_dirs
from diffq.errors import UserError
from diffq.registry import DATASETS
from diffq.report.contests import Task, contest_tables, metrics_of
from diffq.report.points import ReportPoint
from diffq.report.published import Measured, Table, tables
from diffq.report.tables import print_table
from diffq.runs.energy import read_energy
from diffq.runs.report_points import points_of, resampled
from diffq.runs.selection import outputs_of, select
from diffq.store import Store
from diffq.store.files import read_json, read_yaml


def spec_of(request: Request) -> Mapping[str, Any] | None:
    """The paper's file where it holds tables or contests, else None."""
    name = next((w.partition("=")[2] for w in reversed(request.overrides) if w.startswith("paper=")), "")
    files = group_files("paper", search_dirs(request.config_dirs))
    held = read_mapping(files[name]) if name in files else {}
    return held if held.keys() & {"likelihoods", "contests"} else None


def run(request: Request, spec: Mapping[str, Any]) -> int:
    """Prints the tables. Returns 0. UserError where runs are named."""
    if request.runs:
        raise UserError(f"paper={spec['paper']} looks at all that lies under outputs/; name no run beside it")
    made = made_tables(spec, outputs_of(request))
    if request.json:
        print(json.dumps([dataclasses.asdict(table) for table in made], indent=1, ensure_ascii=False))
        return 0
    for table in made:
        print_table(table.title, table.heads, table.cells)
        for note in table.notes:
            print(f"- {note}")
        print()
    return 0


def made_tables(spec: Mapping[str, Any], outputs: Path) -> list[Table]:
    """The tables of a paper from what lies under a folder of outputs."""
    if "contests" in spec:
        held = spec["contests"]
        return contest_tables(spec, tasks_of(held, outputs))
    return tables(spec, gather(outputs))


def tasks_of(held: Mapping[str, Any], outputs: Path) -> list[Task]:
    """The finished points of a paper's data sets, those together that were asked the same as often, with one model
    where the paper compares samplers of one; the sets with most points first. Resampled are the metrics that the
    claims are about."""
    found: dict[tuple[str, ...], list[tuple[ReportPoint, Any]]] = {}
    store, datasets, wanted = Store(outputs), held["tasks"], metrics_of(held)
    for name in datasets:
        folder = store.points / name
        if not any(folder.glob("**/run.json")):
            continue
        chosen = select(store, [folder]).finished()[0]
        for at, point in zip(chosen.chosen, points_of(chosen), strict=True):
            if point.figures:
                label = _label(point, at.point.config().get("dataset") or {}, held["models"])
                metrics = {n for n in point.figures if any(fnmatchcase(n, pattern) for pattern in wanted)}
                drawn = resampled(point, at.point.per_source(), metrics)
                model = point.checkpoint if held["models"] == "one" else ""
                key = (name, label, model, point.sources_digest)  # a label holds what is asked
                energy = read_energy(at.point.folder)
                change = energy.get("change") if energy.get("potential") == "log_probability" else None
                found.setdefault(key, []).append((drawn, change))
    ordered = sorted(found.items(), key=lambda item: (datasets.index(item[0][0]), -len(item[1]), _natural(item[0][1])))
    return [
        Task(key[0], key[1], tuple(p for p, _ in held), {p.key: change for p, change in held if change})
        for key, held in ordered
    ]


def _label(point: ReportPoint, dataset: Mapping[str, Any], models: str) -> str:
    """`sudoku, 108 of sudoku_4x4_4.jsonl × 32 samples, mdlm_tiny`."""
    kind = str(dataset.get("kind"))
    what = "sources" if kind in DATASETS and DATASETS[kind].task in ("pairs", "text") else "questions"
    asked = f"{point.sources} of {Path(dataset['path']).name}" if dataset.get("path") else f"{point.sources} {what}"
    said = f"{point.dataset}, {asked} × {point.samples} samples"
    return ", ".join(part for part in (said, point.model if models == "one" else "", point.question) if part)


def _natural(label: str) -> list[tuple[int, str]]:
    """What orders texts by the numbers in them: what ends in _4 before what ends in _10."""
    return [(int(word), "") if word.isdigit() else (0, word) for word in re.findall(r"[0-9]+|[^0-9]+", label)]


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
    config = read_yaml(folder / "config.yaml")
    dataset = {f"dataset.{name}": value for name, value in config.get("dataset", {}).items()}
    about = {name: run.get(name) for name in ("dataset", "model", "sampler", "samples", "seed")}
    return dataset | dict(run.get("dials", {})) | about | {"scores": scores}
