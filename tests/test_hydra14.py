"""The next Hydra: the tests of configuration, grids and plugins, and a sweep over joblib, under 1.4's pre-release.

Hydra and OmegaConf are installed into a folder of their own, which stands before everything else on the path.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
NEXT = ("hydra-core==1.4.0rc3", "omegaconf==2.4.1rc1")

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def environment(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Variables under which Python finds the next Hydra."""
    folder = tmp_path_factory.mktemp("hydra14")
    done = subprocess.run(
        [sys.executable, "-m", "pip", "install", "--quiet", "--target", str(folder), *NEXT],
        capture_output=True,
        text=True,
        timeout=300,
    )
    if done.returncode and ("No matching distribution" in done.stderr or "Could not find" in done.stderr):
        pytest.skip(f"the package index has no {' '.join(NEXT)}")
    assert done.returncode == 0, done.stderr
    return os.environ | {"PYTHONPATH": f"{folder}{os.pathsep}{ROOT}", "OMP_NUM_THREADS": "1"}


def run(environment: dict[str, str], *words: str, cwd: Path = ROOT, timeout: int = 400) -> str:
    done = subprocess.run(
        [sys.executable, *words], cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout
    )
    assert done.returncode == 0, f"{words}\n{done.stdout[-4000:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_it_is_the_next_hydra_that_is_tested(environment: dict[str, str]) -> None:
    code = "import hydra, omegaconf, importlib.metadata as m; print(hydra.__version__, m.version('omegaconf'))"
    assert run(environment, "-c", code).split() == [name.split("==")[1] for name in NEXT]


def test_configuration_grids_and_plugins(environment: dict[str, str]) -> None:
    tests = ["tests/test_config.py", "tests/test_cli.py", "tests/test_plugins.py", "tests/runs/test_grid.py"]
    closing = run(environment, "-m", "pytest", "-p", "no:cacheprovider", "-m", "not slow", *tests)
    assert " passed" in closing


@pytest.mark.parametrize("launcher", [(), ("hydra/launcher=joblib", "hydra.launcher.n_jobs=2")])
def test_a_sweep(environment: dict[str, str], launcher: tuple[str, ...], tmp_path: Path) -> None:
    train = ["train", "max_minutes=0.1", "outputs=made"]
    run(environment, "-m", "diffq", *train, cwd=tmp_path)
    words = ["sampler=cfg", "scale=1,2", "steps=3", "num_sources=10", "num_samples=2", "outputs=made", *launcher]
    run(environment, "-m", "diffq", "sweep", *words, cwd=tmp_path)
    assert len(list(tmp_path.glob("made/points/*/*/*/*/metrics.json"))) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["made"]
