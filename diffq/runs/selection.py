"""The runs that a command line names: point folders, sweep folders, and what they are when nothing is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from diffq.config import Request
from diffq.errors import UserError
from diffq.store import PlanRow, Point, Store, SweepFolder


@dataclass(frozen=True)
class Chosen:
    """A point, the sampler's name as it was asked for, and how many samples a source were (0: all that there are)."""

    point: Point
    sampler: str = ""
    samples: int = 0

    @property
    def done(self) -> bool:
        """Whether so many samples are there; more may be in the making."""
        sources = self.point.run().get("sources", 0)
        return self.point.status(self.samples * sources or None) == "done"


@dataclass(frozen=True)
class Selection:
    """What was named.

    folder  the sweep's folder where exactly one sweep was named (or the newest one meant), else None
    metric  the suite that the sweep was made with, and `options` the words that give its metrics theirs; empty where
            that is not known
    """

    store: Store
    chosen: tuple[Chosen, ...]
    folder: Path | None = None
    metric: str = ""
    options: tuple[str, ...] = ()

    @property
    def points(self) -> list[Point]:
        """The points, each once."""
        return list({chosen.point.folder.resolve(): chosen.point for chosen in self.chosen}.values())

    def finished(self) -> tuple[Selection, int]:
        """The selection without the points that are not sampled to the end, and how many those are."""
        done = tuple(c for c in self.chosen if c.done)
        return dataclasses.replace(self, chosen=done), len(self.chosen) - len(done)


def select(store: Store, runs: Sequence[Path]) -> Selection:
    """The runs that were named; the newest sweep where none was.

    A run is a point's folder, a sweep's folder, or a folder above points (all of them are meant). UserError for
    anything else, and where nothing was named and there is no sweep.
    """
    if not runs:
        newest = store.newest_sweep()
        if newest is None:
            raise UserError(f"there is no sweep under {store.sweeps}; name runs, or make one with diffq sweep")
        runs = [newest]
    chosen: list[Chosen] = []
    sweeps: list[Path] = []
    metrics: list[PlanRow] = []
    for run in runs:
        folder = run if run.exists() else store.outputs / run
        if (folder / "plan.jsonl").exists():
            sweeps.append(folder)
            rows = SweepFolder(folder).read()
            metrics += [row for row in rows if row.metric]
            home = _home(folder, store)
            chosen += [_planned(home, row, folder) for row in rows]
        elif (folder / "run.json").exists() or (folder / "config.yaml").exists():
            chosen.append(Chosen(Point(folder)))
        elif below := sorted(folder.glob("**/run.json")) if folder.is_dir() else []:
            chosen += [Chosen(Point(path.parent)) for path in below if "points" in path.parts]
        if not chosen:
            raise UserError(
                f"{run} is no run: a run is a point's folder (under {store.points}) or a sweep's (under {store.sweeps})"
            )
    single = sweeps[0] if len(sweeps) == 1 and len(runs) == 1 else None
    home, suite = _home(single, store) if single else store, metrics[0] if metrics else PlanRow("", "")
    return Selection(home, tuple(chosen), single, suite.metric, tuple(suite.options))


def _planned(home: Store, row: PlanRow, sweep: Path) -> Chosen:
    """A point of a plan. UserError where another one lies in the folder that the plan says."""
    point = Point(home.outputs / row.folder)
    if (key := point.run().get("key", row.key)) != row.key:
        raise UserError(
            f"{sweep / 'plan.jsonl'} means the point {row.key[:12]}, and in {point.folder} lies {key[:12]}; sweep"
            " again, and the plan is written anew"
        )
    return Chosen(point, row.sampler, row.samples)


def _home(sweep: Path, store: Store) -> Store:
    """The store that a sweep's folder lies in: a plan's folders are under it, wherever it was moved."""
    return Store(sweep.parent.parent) if sweep.parent.name == "sweeps" else store


def outputs_of(request: Request) -> Path:
    """The folder that `outputs=` names, without composing anything."""
    named = [word.partition("=")[2] for word in request.overrides if word.partition("=")[0] == "outputs"]
    return Path((named[-1] if named else "outputs").strip("'\""))
