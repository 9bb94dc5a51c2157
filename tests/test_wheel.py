"""The wheel in an environment of its own, run from another folder: a sweep works, and nothing is written outside it.

Everything that diffq depends on is taken from the environment of the tests; diffq itself must come from the wheel.
"""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.slow


def run(*words: str | Path, cwd: Path, timeout: int = 300) -> subprocess.CompletedProcess:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "DIFFQ_DATA")}
    done = subprocess.run(
        [str(word) for word in words],
        cwd=cwd,
        env=environment | {"OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
    return done


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "build", "--wheel", "--outdir", folder, ROOT, cwd=folder)
    (made,) = folder.glob("*.whl")
    return made


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment with the wheel in it."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=True)
    run(folder / "bin/pip", "install", "--no-deps", "--no-index", wheel, cwd=folder)
    # The dependencies, but not the checkout: a .pth of a path adds its folders, and runs none of its own .pth files.
    (site,) = folder.glob("lib/python*/site-packages")
    (site / "dependencies.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    return folder / "bin"


def test_the_wheel_holds_the_configuration_and_nothing_of_the_tests(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    own = {str(path.relative_to(ROOT)) for path in (ROOT / "conf").rglob("*.yaml")}
    assert {f"diffq/{name}" for name in own} <= set(names)
    assets = {str(path.relative_to(ROOT)) for path in (ROOT / "diffq/report/assets").iterdir()}
    assert {Path(name).suffix for name in assets} == {".js", ".css", ".html"}
    assert assets <= set(names)
    assert not [name for name in names if name.startswith(("tests/", "outputs/", "conf/"))]
    assert any(name.endswith("licenses/LICENSE") for name in names)


def test_diffq_comes_from_the_wheel(environment: Path, tmp_path: Path) -> None:
    done = run(environment / "python", "-c", "import diffq; print(diffq.__file__)", cwd=tmp_path)
    assert done.stdout.startswith(str(environment.parent))


def test_help_needs_nothing_but_the_wheel(environment: Path, tmp_path: Path) -> None:
    assert "diffq sweep sampler=cfg" in run(environment / "diffq", "--help", cwd=tmp_path).stdout
    assert list(tmp_path.iterdir()) == []


def test_a_sweep_from_another_folder_writes_into_outputs_alone(environment: Path, tmp_path: Path) -> None:
    work, outputs, home = tmp_path / "work", tmp_path / "made here", tmp_path / "home"
    work.mkdir()
    home.mkdir()
    before = {path: path.stat().st_mtime_ns for path in environment.parent.rglob("*") if "__pycache__" not in str(path)}
    words = [f"outputs={outputs}", "num_sources=20", "num_samples=2"]
    clean = ["env", f"HOME={home}", f"MPLCONFIGDIR={tmp_path / 'matplotlib'}"]  # matplotlib's font list is its own
    run(*clean, environment / "diffq", "train", "max_minutes=0.15", f"outputs={outputs}", cwd=work)
    run(*clean, environment / "diffq", "sweep", "sampler=cfg", "scale=1,2", "steps=5", *words, cwd=work)
    made = {path.name for path in (outputs / "sweeps/grammar-cfg").iterdir()}
    assert {"plan.jsonl", "frontier.csv", "frontier.png", "frontier.svg", "report.html"} <= made
    assert len(list(outputs.glob("points/*/*/*/*/samples.jsonl"))) == 2
    assert list(work.iterdir()) == []
    assert list(home.rglob("*")) == []
    after = {path: path.stat().st_mtime_ns for path in environment.parent.rglob("*") if "__pycache__" not in str(path)}
    changed = {path for path in set(before) | set(after) if before.get(path) != after.get(path) and not path.is_dir()}
    assert changed == set()


def test_the_bench_says_that_it_needs_a_checkout(environment: Path, tmp_path: Path) -> None:
    done = subprocess.run(
        [environment / "diffq", "bench", "samplers"], cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 2
    assert "checkout" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
