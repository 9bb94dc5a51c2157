"""What a folder of the store becomes in Weights & Biases.

A point is a run whose id is the point's key, so logging it again goes on with the same run. A sweep is a summary run
with its frontier as table, chart and picture; its id is a hash of its name and its points. A training is a run that is
written while it lasts. What has been logged once in the same words is not logged again.
"""

from __future__ import annotations

import csv
import hashlib
import os
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from diffq.errors import UserError
from diffq.runs.tracking.mailbox import Errand, Mailbox
from diffq.store.files import decode_row, read_json
from diffq.store.identity import digest
from diffq.store.index import read_record
from diffq.store.point import Point
from diffq.store.root import Store
from diffq.store.sweeps import SweepFolder

_ABOUT = ("key", "folder", "dataset", "model", "process", "sampler", "seed", "dtype", "length", "samples", "sources")
_COSTS = ("nfe_calls", "nfe_rows", "positions_projected", "seconds", "tokens", "peak_memory")
_START = 20  # seconds that the client may take to open a run


@dataclass(frozen=True)
class Artefact:
    """Files under a name that is a hash of what they hold."""

    name: str
    type: str
    files: tuple[Path, ...]


@dataclass(frozen=True)
class Entry:
    """One run, whole. `rows` is a table, drawn with `axes` (diversity, quality); `picture` is a file."""

    id: str
    name: str
    kind: str
    group: str
    config: Mapping[str, Any]
    values: Mapping[str, Any] = field(default_factory=dict)
    rows: tuple[Mapping[str, Any], ...] = ()
    axes: tuple[str, str] = ("", "")
    picture: Path | None = None
    artefacts: tuple[Artefact, ...] = ()

    @property
    def digest(self) -> str:
        """A hash of all that would be logged."""
        drawn = hashlib.sha256(self.picture.read_bytes()).hexdigest() if self.picture else ""
        names = [a.name for a in self.artefacts]
        held = [self.name, self.kind, self.group, self.config, self.values, list(self.rows), list(self.axes)]
        return digest([*held, drawn, names])


def log(errand: Errand, mailbox: Mailbox, mode: str) -> None:
    """Logs a point or a sweep, if it has changed since it was logged last. A folder that is gone is passed over."""
    store = Store(mailbox.outputs)
    place = store.outputs / errand.folder
    if not place.is_dir():
        return
    entry = point_entry(store, place, errand) if errand.what == "point" else sweep_entry(place, errand)
    stamp, project = entry.digest, errand.project
    if mailbox.logged(f"{project}-{entry.id}") == {"digest": stamp, "mode": mode}:
        return
    if mode == "offline":
        _forget_unsent(mailbox, entry.id)
    run = _open(entry.id, entry.name, entry.kind, entry.group, entry.config, project, mailbox, mode)
    try:
        run.log(_logged(entry))
        for artefact in entry.artefacts:
            _add(run, artefact, mailbox, mode)
    finally:
        run.finish()
    mailbox.remember(f"{project}-{entry.id}", digest=stamp, mode=mode)


def point_entry(store: Store, folder: Path, errand: Errand) -> Entry:
    """A point's scores with their intervals, its costs and dials."""
    record = read_record(store, folder)
    values: dict[str, Any] = {}
    for score in record.metrics.values():
        name = str(score["name"])
        values[name] = score["value"]
        values |= {f"{name}_{end}": score[end] for end in ("low", "high") if score.get(end) is not None}
    values |= {name: record.run[name] for name in _COSTS if name in record.run}
    config = {name: getattr(record, name) for name in _ABOUT} | {f"dial_{k}": v for k, v in record.dials.items()}
    config |= {"checkpoint": record.run.get("checkpoint", ""), "versions": dict(record.run.get("versions", {}))}
    return Entry(
        id=record.key,
        name=f"{record.sampler}/{folder.name}",
        kind="point",
        group=record.dataset,
        config=config,
        values=values,
        artefacts=tuple(_artefacts(Point(folder), record.run, errand.artifacts)),
    )


def _artefacts(point: Point, run: Mapping[str, Any], wanted: str) -> list[Artefact]:
    found = []
    if wanted in ("samples", "all"):
        with open(point.samples_file, "rb") as file:
            content = hashlib.file_digest(file, "sha256").hexdigest()
        found.append(Artefact(f"samples-{content[:24]}", "samples", (point.samples_file,)))
    if wanted in ("checkpoints", "all") and run.get("checkpoint"):
        place = Path(str(point.config().get("checkpoint")))
        kept = (p for p in sorted(place.rglob("*")) if p.is_file() and "state" not in p.relative_to(place).parts)
        files = tuple(kept) if place.is_dir() else ()
        if files:
            found.append(Artefact(f"checkpoint-{str(run['checkpoint'])[:24]}", "checkpoint", files))
    return found


def sweep_entry(folder: Path, errand: Errand) -> Entry:
    """A sweep's frontier: what frontier.csv says, and its picture."""
    path, picture = folder / "frontier.csv", folder / "frontier.png"
    if not path.exists():
        raise UserError(f"{path} is missing: diffq report {folder} writes it")
    with open(path, encoding="utf-8", newline="") as file:
        rows = tuple({k: _typed(v) for k, v in row.items()} for row in csv.DictReader(file))
    keys = sorted(row.key for row in SweepFolder(folder).read())
    on_front = sum(row.get("on_front") is True for row in rows)
    return Entry(
        id=f"sweep-{digest([folder.name, keys])[:40]}",
        name=folder.name,
        kind="sweep",
        group=folder.name,
        config={"sweep": folder.name, "x": errand.x, "y": errand.y, "points": keys},
        values={"points": len(keys), "on_front": on_front},
        rows=rows,
        axes=(errand.x, errand.y),
        picture=picture if picture.exists() else None,
    )


def follow(errand: Errand, mailbox: Mailbox, mode: str, lasts: Callable[[], bool]) -> None:
    """Logs a training row by row for as long as `lasts()`, which waits a moment each time, says so.

    Begins behind the rows that were logged before. Online that is the same run, offline a further part of it, which
    `wandb sync --append` puts together.
    """
    folder = mailbox.outputs / errand.folder
    key = f"training-{digest(folder.name)[:40]}"
    held = mailbox.logged(f"{errand.project}-{key}")
    mark = tuple(held["mark"]) if held.get("mode") == mode else (-1, False)
    tail, run, there = Tail(folder / "train.jsonl"), None, True
    try:
        while there:
            there = lasts()
            for row in tail.rows():
                place = (row["step"], "validation_loss" in row)  # of one step, the row of its validation comes last
                if place <= mark:
                    continue
                if run is None:
                    run = _open_training(key, folder, errand, mailbox, mode)
                run.log({k: v for k, v in row.items() if k != "previews" and v is not None}, step=row["step"])
                mark = place
                mailbox.remember(f"{errand.project}-{key}", mark=list(mark), mode=mode)
    finally:
        if run is not None:
            run.finish()


class Tail:
    """The rows that a JSON-lines file has gained since they were asked for last; all of them where it was replaced."""

    def __init__(self, path: Path):
        self._path = path
        self._file, self._end = -1, 0

    def rows(self) -> Iterator[dict[str, Any]]:
        try:
            file = open(self._path, "rb")  # noqa: SIM115 - closed by the `with` below; opening alone may fail
        except FileNotFoundError:
            return
        with file:
            number = os.fstat(file.fileno()).st_ino
            if number != self._file:
                self._file, self._end = number, 0
            file.seek(self._end)
            for line in file:
                row = decode_row(line) if line.endswith(b"\n") else None
                if row is None:
                    return
                self._end += len(line)
                yield row


def _open_training(key: str, folder: Path, errand: Errand, mailbox: Mailbox, mode: str) -> Any:
    import yaml

    config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    made = read_json(folder / "run.json") or {}
    config |= {name: made[name] for name in ("parameters", "pairs", "versions") if name in made}
    group = str(config.get("choices", {}).get("dataset", ""))
    return _open(key, folder.name, "training", group, config, errand.project, mailbox, mode)


def _logged(entry: Entry) -> dict[str, Any]:
    import wandb

    logged: dict[str, Any] = dict(entry.values)
    if entry.rows:
        columns: list[str | int] = list(dict.fromkeys(key for row in entry.rows for key in row))
        data = [[row.get(str(column)) for column in columns] for row in entry.rows]
        # A dial such as a solver's name is missing where another sampler has a number: both kinds in one column.
        logged["frontier"] = wandb.Table(columns=columns, data=data, allow_mixed_types=True)
        x, y = entry.axes
        if x in columns and y in columns:
            logged["chart"] = wandb.plot.scatter(logged["frontier"], x, y, title=f"{y} against {x}")
    if entry.picture:
        logged["picture"] = wandb.Image(str(entry.picture))
    return logged


def _add(run: Any, artefact: Artefact, mailbox: Mailbox, mode: str) -> None:
    """Adds an artefact that has not been logged yet; the name says what it holds, so once is enough."""
    import wandb

    name = f"{run.project}-{artefact.name}"
    if mailbox.logged(name).get("mode") == mode:
        return
    made = wandb.Artifact(artefact.name, type=artefact.type)
    root = Path(os.path.commonpath([file.parent for file in artefact.files]))
    for file in artefact.files:
        made.add_file(str(file), name=file.relative_to(root).as_posix())
    run.log_artifact(made)
    mailbox.remember(name, mode=mode)


def _forget_unsent(mailbox: Mailbox, key: str) -> None:
    """Deletes what an earlier command wrote of the same run and nobody has sent: this time it is written whole."""
    for folder in (mailbox.outputs / "wandb").glob(f"offline-run-*-{key}"):
        if not list(folder.glob("*.synced")):
            shutil.rmtree(folder)


def _open(
    key: str, name: str, kind: str, group: str, config: Mapping[str, Any], project: str, mailbox: Mailbox, mode: str
) -> Any:
    """A run of the client's. All that it writes goes under outputs/wandb."""
    for variable in ("CACHE", "CONFIG", "DATA"):
        os.environ.setdefault(f"WANDB_{variable}_DIR", str(mailbox.outputs / "wandb" / variable.lower()))
    if os.environ.get("WANDB_MODE") == "":
        del os.environ["WANDB_MODE"]  # the client takes an empty one for an error
    import wandb

    settings = wandb.Settings(init_timeout=_START, silent=True, console="off", disable_git=True, x_disable_stats=True)
    return wandb.init(
        project=project,
        dir=str(mailbox.outputs),
        mode=mode,  # type: ignore[arg-type]
        id=key,
        resume="allow" if mode == "online" else None,
        name=name,
        group=group,
        job_type=kind,
        config=dict(config),
        settings=settings,
        reinit="finish_previous",
    )


def _typed(text: str | None) -> Any:
    """A cell of frontier.csv as what it was: empty is None, true and false, a number, or else the text."""
    if not text:
        return None
    if text in ("true", "false"):
        return text == "true"
    try:
        return float(text)
    except ValueError:
        return text
