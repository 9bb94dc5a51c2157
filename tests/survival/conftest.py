"""What the tests of survival share: a training, a fork server, and a sweep that nothing has interrupted."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from survival_harness import GRID, TRAIN, ForkServer


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ForkServer]:
    made = ForkServer(tmp_path_factory.mktemp("server"))
    yield made
    made.close()


@pytest.fixture(scope="session")
def trained(server: ForkServer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with a training of a few steps and nothing else."""
    outputs = tmp_path_factory.mktemp("trained") / "outputs"
    server.finish(["train", f"outputs={outputs}", *TRAIN])
    return outputs


@pytest.fixture
def outputs(trained: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    return Path(shutil.copytree(trained, tmp_path / "outputs"))


@pytest.fixture(scope="session")
def whole(server: ForkServer, trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after the sweep of GRID, which nothing interrupted."""
    outputs = Path(shutil.copytree(trained, tmp_path_factory.mktemp("whole") / "outputs"))
    server.finish(["sweep", f"outputs={outputs}", *GRID])
    return outputs
