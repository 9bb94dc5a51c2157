"""scripts/reproduce_eags.sh on the first rows of ParaDetox: all its trainings, sweeps and tables, and a second call."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not os.environ.get("DIFFQ_DATA"), reason="needs DIFFQ_DATA"),
]


def some_of_the_data(place: Path) -> Path:
    """A folder of data with few pairs: the entropies of all of them would take minutes."""
    real, made = Path(os.environ["DIFFQ_DATA"]), place / "data"
    (made / "paradetox").mkdir(parents=True)
    (made / "tokenizers").symlink_to(real / "tokenizers")
    lines = (real / "paradetox/paradetox.tsv").read_text(encoding="utf-8").splitlines(keepends=True)
    (made / "paradetox/paradetox.tsv").write_text("".join(lines[:601]), encoding="utf-8")
    return made


def call(place: Path, data: Path) -> str:
    words = ["0.4", "--only", "paradetox", "--sources", "4", "--samples", "2"]
    where = ["--outputs", str(place / "outputs"), "--results", str(place / "results")]
    environment = os.environ | {"PYTHON": sys.executable, "OMP_NUM_THREADS": "1", "DIFFQ_DATA": str(data)}
    command = [str(ROOT / "scripts/reproduce_eags.sh"), *words, *where]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_it_trains_sweeps_and_keeps_its_tables(tmp_path: Path) -> None:
    data = some_of_the_data(tmp_path)
    said = call(tmp_path, data)
    assert said.count("$ diffq train") == 5
    table = (tmp_path / "results/paper-2411.06438.md").read_text()
    assert "## paradetox, 4 sources × 2 samples: as claimed" in table
    assert "| VS_ngram is above SEDD's |" in table
    assert "| +13.08 % |" in table
    assert "trainings are called" not in table
    samples = (tmp_path / "results/samples.md").read_text()
    assert samples.count("\n**") == 9
    assert samples.count("\n- ") == 27
    assert (tmp_path / "results/paradetox-frontier.png").stat().st_size > 10_000
    points = {p: p.stat().st_mtime_ns for p in tmp_path.glob("outputs/points/**/samples.jsonl")}
    assert len(points) > 25
    call(tmp_path, data)
    assert {p: p.stat().st_mtime_ns for p in tmp_path.glob("outputs/points/**/samples.jsonl")} == points
