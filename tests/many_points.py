"""Points and trainings that consist of their records alone, for tests that ask about them."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffq.store import Store

AGED = 100.0  # seconds: a record that is younger than two is read again each time


def put(store: Store, name: str, scale: Any = 1.0, value: float | None = None, age: float = AGED, **more: Any) -> Path:
    """A point with run.json, and with metrics.json where there is a value; its folder.

    more: entries of run.json; `dials` are added to scale and solver, `metrics` to bleu.
    """
    sampler = more.get("sampler", "cfg")
    folder = store.points / "grammar" / "tiny" / sampler / name
    dials = {"scale": scale, "solver": "ddim"} | more.pop("dials", {})
    metrics: Mapping[str, Any] = more.pop("metrics", {})
    run = {"status": "done", "key": name, "dataset": "grammar", "model": "tiny", "process": "gaussian",
           "sampler": sampler, "dials": dials, "changed": ["scale"], "seed": 0, "dtype": "float32", "length": "oracle",
           "samples": 3, "sources": 9, "rows": 27, "seconds": 1.5, "nfe_rows": 540, "device": "cpu, 1 threads",
           "versions": {"commit": "abc", "torch": "2.13"}, "finished": "2026-01-02T03:04:05+00:00"} | more  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "run.json").write_text(json.dumps(run))
    if value is not None:
        score = {"name": "bleu", "value": value, "low": value - 1, "high": value + 1, "n": 9, "direction": "higher"}
        (folder / "metrics.json").write_text(json.dumps({"bleu|s:3|v:1": score} | metrics))
    grow_old(folder, age)
    return folder


def put_training(store: Store, name: str, age: float = AGED, **more: Any) -> Path:
    """A training's folder with its run.json."""
    folder = store.train / name
    folder.mkdir(parents=True, exist_ok=True)
    run = {"status": "done", "dataset": "grammar", "model": "tiny", "step": 40, "loss": 2.5, "validation_loss": 2.75,
           "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T01:00:00+00:00"} | more  # fmt: skip
    (folder / "run.json").write_text(json.dumps(run))
    grow_old(folder, age)
    return folder


def grow_old(folder: Path, age: float = AGED) -> None:
    """Sets the files' times back by `age` seconds (not the time of their last change, which nothing can set)."""
    for file in folder.iterdir():
        stamp = file.stat().st_mtime - age
        os.utime(file, (stamp, stamp))
