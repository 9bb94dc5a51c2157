"""Writes what reproduce_qqp.py has measured into one folder: figures, pictures and commands, no sentence of the data.

It reads the JSON of `diffq report`, the logs of the trainings and the records of the points, and computes nothing but
means over minutes.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

COPIED = ("frontier.csv", "frontier.md", "frontier.png", "frontier.svg")


def write_results(folder: Path, report: dict[str, Any], facts: dict[str, Any], outputs: Path, used: float) -> None:
    """README.md, the frontier's table and pictures, the paper's table, and a training log a model.

    report: the JSON that `diffq report --json` printed. facts: the state of the run. used: seconds of the budget.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for file in map(Path, report["files"]):
        if file.name in COPIED or file.name.startswith("paper-"):
            shutil.copyfile(file, folder / file.name)
    trainings = {model: Path(place) for model, place in facts["folders"].items()}
    parts = [_head(report, facts, outputs, used), _trainings(trainings), _nulls(report), _commands(facts)]
    for model, place in trainings.items():
        (folder / f"training-{model}.csv").write_text(_by_minute(place / "train.jsonl"))
    (folder / "README.md").write_text("\n".join(parts))


def _head(report: dict[str, Any], facts: dict[str, Any], outputs: Path, used: float) -> str:
    points = [p for p in report["points"] if p["kind"] == "point"]
    record = json.loads((outputs / points[0]["folder"] / "run.json").read_text())
    versions = ", ".join(f"{name} {value}" for name, value in record["versions"].items())
    picture = "![frontier](frontier.png)\n\n" if any(f.endswith("frontier.png") for f in report["files"]) else ""
    return (
        f"# QQP, {' and '.join(facts['folders'])}\n\n{picture}"
        f"- {len(points)} points of {points[0]['n']} test sources × {points[0]['s']} samples, target lengths"
        f" {points[0]['length']}, sampled in {record['dtype']}; intervals are 95 %, bootstrap over sources\n"
        f"- {record['device']}; {versions}\n"
        f"- {used / 60:.1f} minutes in all\n"
        "- Figures: `frontier.csv`, `frontier.md`; paper: `paper-2503.10683.md`, losses: `training-*.csv`\n"
    )


def _trainings(trainings: dict[str, Path]) -> str:
    lines = [
        "## Training\n",
        "| model | parameters | pairs | steps | minutes | loss | validation loss |",
        "|---|" + "---|" * 6,
    ]
    for model, place in trainings.items():
        run = json.loads((place / "run.json").read_text())
        losses = " | ".join("–" if run[n] is None else f"{run[n]:.4f}" for n in ("loss", "validation_loss"))
        counts = f"{run['parameters']:,} | {run['pairs']:,} | {run['step']:,} | {run['seconds'] / 60:.1f}"
        lines.append(f"| {model} | {counts} | {losses} |")
    return "\n".join(lines) + "\n\nThe losses of different models are different quantities.\n"


def _by_minute(log: Path) -> str:
    """A CSV row a minute of training: the step reached, mean loss and tokens a second, the last validation loss."""
    minutes: dict[int, dict[str, Any]] = {}
    for line in log.read_text().splitlines():
        row = json.loads(line)
        held = minutes.setdefault(int(row["seconds"] // 60) + 1, {"loss": [], "speed": [], "valid": None})
        held["step"] = row["step"]
        if "validation_loss" in row:
            held["valid"] = row["validation_loss"]
        else:
            held["loss"].append(row["loss"])
            held["speed"].append(row["tokens_per_second"])
    lines = ["minute,step,loss,validation_loss,tokens_per_second"]
    for minute, held in sorted(minutes.items()):
        valid = "" if held["valid"] is None else f"{held['valid']:.5f}"
        lines.append(f"{minute},{held['step']},{_mean(held['loss'], 5)},{valid},{_mean(held['speed'], 0)}")
    return "\n".join(lines) + "\n"


def _mean(values: Sequence[float | None], digits: int) -> str:
    known = [value for value in values if value is not None]
    return f"{sum(known) / len(known):.{digits}f}" if known else ""


def _nulls(report: dict[str, Any]) -> str:
    """The plain baseline beside what exchanging its words for others gives."""
    x, y = report["x"], report["y"]
    rows = [p for p in report["points"] if p["kind"] == "null" and p["dial_q"] in (0.0, 0.2, 1.0)]
    lines = ["## The baseline and the null lines\n", f"| line | words exchanged | {y} | {x} |", "|---|---|---|---|"]
    for p in rows:
        name = "baseline" if p["dial_q"] == 0 else p["sampler"]
        line = f"| {name} | {100 * p['dial_q']:.0f} % | {_interval(p, y)} | {_interval(p, x)} |"
        if line not in lines:
            lines.append(line)
    return "\n".join(lines) + "\n"


def _interval(point: dict[str, Any], name: str) -> str:
    low, high = point[f"{name}_low"], point[f"{name}_high"]
    return f"{point[name]:.2f}" + ("" if low is None else f" [{low:.2f}, {high:.2f}]")


def _commands(facts: dict[str, Any]) -> str:
    return "## Commands\n\n```console\n" + "\n".join(facts["commands"]) + "\n```\n"


def main() -> None:
    """Keeps the results of one sweep: reproduce_results.py SWEEP FOLDER COMMAND..."""
    import subprocess
    import sys

    sweep, folder, *commands = sys.argv[1:]
    outputs = Path(sweep).resolve().parents[1]
    line = [sys.executable, "-m", "diffq", "report", sweep, f"outputs={outputs}", "paper=2503.10683", "--json"]
    report = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    points = [p for p in report["points"] if p["kind"] == "point"]
    records = [json.loads((outputs / p["folder"] / "run.json").read_text()) for p in points]
    facts = {"folders": {r["model"]: r["checkpoint_folder"] for r in records}, "commands": commands}
    trained = sum(json.loads((Path(f) / "run.json").read_text())["seconds"] for f in facts["folders"].values())
    write_results(Path(folder), report, facts, outputs, trained + sum(r["seconds"] for r in records))


if __name__ == "__main__":
    main()
