"""What `make demo` must show: enough points, a plain baseline that is neither perfect nor lost, and two dials that
trade quality against diversity by more than their intervals.

The checks run on the kept figures of docs/results/demo; the slow test runs the demo itself, or takes the one that
`make demo` has left in this checkout.
"""

from __future__ import annotations

import csv
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
Row = dict[str, str]


def read(path: Path) -> list[Row]:
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def differ(a: Row, b: Row) -> bool:
    """Whether two points' 95 % intervals are apart in quality or in diversity."""
    return any(
        float(a[f"{axis}_high"]) < float(b[f"{axis}_low"]) or float(b[f"{axis}_high"]) < float(a[f"{axis}_low"])
        for axis in ("validity", "self_bleu")
    )


def ends(rows: Sequence[Row], sampler: str, dial: str) -> tuple[Row, Row]:
    """The points of a sampler with the smallest and the largest value of a dial."""
    line = sorted(
        (r for r in rows if r["sampler"] == sampler and r[f"dial_{dial}"]), key=lambda r: float(r[f"dial_{dial}"])
    )
    return line[0], line[-1]


def check(path: Path) -> None:
    rows = read(path)
    points = [r for r in rows if r["kind"] == "point"]
    assert len(points) >= 16
    assert len({r["sampler"] for r in points}) >= 4
    assert min(int(r["n"]) for r in points) >= 200
    assert min(int(r["s"]) for r in points) >= 3
    plain = next(r for r in points if r["sampler"] == "cfg" and float(r["dial_scale"]) == 1)
    assert 40 <= float(plain["validity"]) <= 90
    assert differ(*ends(points, "cfg", "scale"))
    assert differ(*ends(points, "clamp", "temperature"))
    assert differ(*ends(points, "autoregressive", "temperature"))
    corrupt = [float(r["total_variation"]) for r in rows if r["sampler"] == "corrupt"]
    assert min(float(r["total_variation"]) for r in points) < min(corrupt)


def test_kept_figures() -> None:
    check(ROOT / "docs" / "results" / "demo" / "frontier.csv")


@pytest.mark.slow
def test_the_demo_itself(tmp_path: Path) -> None:
    made = ROOT / "outputs" / "sweeps" / "demo" / "frontier.csv"
    if not made.exists():
        command = [sys.executable, "-m", "diffq", "sweep", "experiment=demo", f"outputs={tmp_path}"]
        subprocess.run(command, check=True, cwd=tmp_path, timeout=600)
        made = tmp_path / "sweeps" / "demo" / "frontier.csv"
    check(made)
