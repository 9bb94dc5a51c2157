"""Fixtures that many tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder of real data files; tests that ask for it are skipped where DIFFQ_DATA names none."""
    value = os.environ.get("DIFFQ_DATA")
    if not value or not Path(value).is_dir():
        pytest.skip("needs the real data files: set DIFFQ_DATA to their folder")
    return Path(value)
