"""What tests of the verbs share: two small trainings, made once a worker."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
sys.path.append(str(Path(__file__).parents[1] / "report"))  # its Chromium
from trained import train_both


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with a gaussian_tiny and a causal_seq2seq_tiny that have seen a few batches."""
    return train_both(tmp_path_factory.mktemp("trained"))
