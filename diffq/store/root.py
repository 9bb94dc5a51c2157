"""The folder that everything goes into: where points, trainings, sweeps and caches lie under `outputs`.

Knows no file inside a training or a sweep but their `run.json`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from diffq.errors import UserError
from diffq.store.files import read_json
from diffq.store.identity import Identity
from diffq.store.point import Point


@dataclass(frozen=True)
class Store:
    """A folder of results. Nothing is made before something is written."""

    outputs: Path

    def __post_init__(self) -> None:
        object.__setattr__(self, "outputs", Path(self.outputs))

    @property
    def points(self) -> Path:
        return self.outputs / "points"

    @property
    def train(self) -> Path:
        return self.outputs / "train"

    @property
    def sweeps(self) -> Path:
        return self.outputs / "sweeps"

    @property
    def reports(self) -> Path:
        return self.outputs / "reports"

    @property
    def cache(self) -> Path:
        return self.outputs / "cache"

    def point(self, identity: Identity) -> Point:
        """The point of an identity, whether or not it is there yet.

        Six digits of the key end its name. Where another point has that name already, more digits do.
        """
        for digits in (6, 12, 24):
            point = Point(self.points / identity.folder(digits), identity)
            if point.run().get("key", identity.key) == identity.key:
                return point
        raise AssertionError("two keys are equal in 24 digits and yet differ")

    def open(self, folder: Path | str) -> Point:
        """The point in a folder, given by its path or by its path under outputs/. UserError where there is none."""
        for path in (Path(folder), self.outputs / folder):
            if (path / "config.yaml").exists() or (path / "run.json").exists():
                return Point(path)
        raise UserError(
            f"{folder} is no point: a point's folder holds config.yaml and run.json, and lies under {self.points}"
        )

    def checkpoint(self, named: str) -> Path | None:
        """The folder of the checkpoint that a point's configuration names, also where the store was moved; None where
        it is gone."""
        places = (Path(named), self.outputs / named, self.train / Path(named).name)
        return next((path for path in places if path.is_dir()), None)

    def relative(self, path: Path) -> str:
        """A path as it is written in tables and plans: under outputs/ without it, elsewhere whole."""
        absolute, root = Path(path).resolve(), self.outputs.resolve()
        return absolute.relative_to(root).as_posix() if absolute.is_relative_to(root) else str(absolute)

    def newest_sweep(self) -> Path | None:
        """The sweep whose plan was written last, or None."""
        plans = list(self.sweeps.glob("*/plan.jsonl")) if self.sweeps.is_dir() else []
        return max(plans, key=lambda p: (p.stat().st_mtime_ns, p.parent.name)).parent if plans else None


def newest_training(store: Store, dataset: str, model: str) -> Path | None:
    """The folder of the finished training of this dataset and model that ended last, or None."""
    return next(iter(trainings(store, dataset, model)), None)


def trainings(store: Store, dataset: str, model: str) -> list[Path]:
    """The folders of the finished trainings of this dataset and model, the one that ended last first.

    A training is finished when its `run.json` says `"status": "done"`; `finished` is an ISO time.
    """
    found = []
    for path in store.train.glob("*/run.json"):
        run = read_json(path) or {}
        if run.get("status") == "done" and run.get("dataset") == dataset and run.get("model") == model:
            found.append((str(run.get("finished", "")), str(path.parent)))
    return [Path(folder) for _, folder in sorted(found, reverse=True)]
