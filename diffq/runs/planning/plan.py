"""The plan of a sweep: every point with what is done, what is left and what that will cost, and their sum.

Nothing is sampled, trained or written.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from diffq.config import Config, Request
from diffq.errors import UserError
from diffq.models.published import Unfetched
from diffq.models.work import Work
from diffq.report.given import Given
from diffq.runs.grid import GridPoint
from diffq.runs.launch import deal, uses_launcher, workers_of
from diffq.runs.planned import given_in
from diffq.runs.planning.amounts import Counts
from diffq.runs.planning.dry import Uncounted
from diffq.runs.planning.experience import Experience, Experiences, expected_lengths
from diffq.runs.planning.forecast import Benches, Forecast, ends_by_itself
from diffq.runs.planning.memory import resident
from diffq.runs.sampling import device_name
from diffq.runs.train import training_folder
from diffq.runs.workbench import Untrained, Workbench, known_checkpoint, to_train
from diffq.settings import as_mapping
from diffq.store import Point, Store
from diffq.store.identity import changed_dials, show_value

State = Literal["new", "partial", "busy", "done", "fails"]
_STOPS = "the sweep stops until it is there"  # of a training that takes a command of its own


@dataclass(frozen=True)
class Cost:
    """What some sampling costs. None: not known.

    flops  of the network and of its projections on the vocabulary
    """

    calls: int | None = 0
    rows: int | None = 0
    positions: int | None = 0
    network_flops: float | None = 0.0
    projection_flops: float | None = 0.0
    seconds: float | None = 0.0

    def __add__(self, other: Cost) -> Cost:
        pairs = zip(dataclasses.astuple(self), dataclasses.astuple(other), strict=True)
        return Cost(*(None if a is None or b is None else a + b for a, b in pairs))


UNKNOWN = Cost(None, None, None, None, None, None)


@dataclass(frozen=True)
class PlannedPoint:
    """One point of the plan.

    words       that compose it alone
    folder      under outputs/; empty where its checkpoint has yet to be trained
    repeats     True where the same point stands in the plan before, under another name
    there       rows on disk, of `wanted`
    whole, left what all of it costs, and what is still to be paid
    exact       whether calls and rows are certain
    took        seconds that it has taken so far, as recorded
    peak        bytes of memory at the most; disk: bytes of its samples; None: not known
    why         why it fails, or why its cost is not known
    """

    words: tuple[str, ...]
    config: Config
    state: State
    folder: str = ""
    key: str = ""
    repeats: bool = False
    there: int = 0
    wanted: int = 0
    whole: Cost = UNKNOWN
    left: Cost = UNKNOWN
    exact: bool = True
    took: float | None = None
    peak: int | None = None
    disk: int | None = None
    why: str = ""

    @property
    def label(self) -> str:
        """`clamp scale=2 temperature=0.5`: the sampler as it was named, and the dials that are not its defaults."""
        return " ".join([self.config.choices.sampler, *(f"{n}={show_value(v)}" for n, v in self.dials.items())])

    @property
    def dials(self) -> dict[str, Any]:
        """The dials that are not at their defaults, and say something beside the others."""
        idle = self.config.sampler.idle()
        return {name: value for name, value in changed_dials(self.config.sampler).items() if name not in idle}

    @property
    def given(self) -> Given | None:
        """What is given of a text; None for other tasks."""
        return given_in(self.config)


@dataclass(frozen=True)
class Training:
    """A training that the sweep would begin with, or that has to be there before it. minutes, steps: its budget; None
    where it has none of that kind."""

    model: str
    dataset: str
    folder: str
    minutes: float | None
    steps: int | None
    why: str

    @property
    def comes_first(self) -> bool:
        """Whether the sweep begins with it by itself."""
        return self.why != _STOPS


@dataclass(frozen=True)
class Plan:
    """A sweep before it is begun.

    workers  points sampled at once; seconds is then the longest worker's share of what is left
    notes    what a reader must know of the figures
    stops    whether the sweep would not begin, since a model has to be trained by a command of its own, or fetched
    """

    name: str
    points: tuple[PlannedPoint, ...]
    trainings: tuple[Training, ...]
    workers: int
    seconds: float | None
    device: str
    notes: tuple[str, ...] = ()
    stops: bool = False
    power: dict[str, Any] = field(default_factory=dict)

    @property
    def once(self) -> list[PlannedPoint]:
        """The points, each once."""
        return [p for p in self.points if not p.repeats]

    def total(self, which: Literal["whole", "left"]) -> Cost:
        """The sum over all points but those that fail."""
        return sum((getattr(p, which) for p in self.once if p.state != "fails"), start=Cost())


class Planner:
    """Makes the plan of a grid."""

    def __init__(self, request: Request):
        self.request = request
        self.benches = Benches()
        self.experiences = Experiences(self.benches, request.config_dirs)
        self.trainings: dict[str, Training] = {}
        self.notes: dict[str, None] = {}
        self.untrained: dict[str, None] = {}
        self._seen: set[str] = set()
        self._known: dict[str, Config | str] = {}

    def plan(self, grid: Sequence[GridPoint], name: str) -> Plan:
        """The plan of these points. UserError as the sweep has it, where it would not begin."""
        points = [self._point(p) for p in grid]
        workers = workers_of(self.request.overrides, Path(grid[0].config.outputs)) if self._launched else 1
        device = device_name(self.benches.device(grid[0].config))
        waiting = [p for p in points if not p.repeats and p.state not in ("done", "fails")]
        shares = [[p.left.seconds for p in share] for share in deal(waiting, workers)]
        known = [sum(s for s in share if s is not None) for share in shares if None not in share]
        seconds = max(known, default=0.0) if len(known) == len(shares) else None
        if workers > 1:
            self.notes["time is for workers that do not slow one another down"] = None
        notes = (*self.untrained, *self.notes)
        return Plan(
            name, tuple(points), tuple(self.trainings.values()), workers, seconds, device, notes, bool(self.untrained)
        )

    @property
    def _launched(self) -> bool:
        return uses_launcher(self.request.overrides)

    def _point(self, grid_point: GridPoint) -> PlannedPoint:
        """The point; bare where its model is missing and the cost cannot be told without it."""
        config = self._with_checkpoint(grid_point.config)
        bare = PlannedPoint(grid_point.overrides, config, "new")
        if config.checkpoint is None and not config.model.trainable:  # its sizes are in its files, too
            self.notes[f"what {config.choices.model} costs is unknown without its files"] = None
            return bare
        try:
            return self._described(bare)
        except UserError as error:
            if config.checkpoint is not None or not self.untrained:
                raise
            return dataclasses.replace(bare, why=str(error))  # of a model that the user is asked to replace anyway

    def _described(self, bare: PlannedPoint) -> PlannedPoint:
        config = bare.config
        bench = self.benches(config)
        point = None
        if config.checkpoint is not None:
            point = Store(Path(config.outputs)).point(bench.identity(config))
        wanted = config.num_samples * len(bench.examples)
        bare = dataclasses.replace(bare, wanted=wanted)
        if point is not None:
            bare = self._placed(bare, point)
        experience = self.experiences(config, bench, point)
        run = point.run() if point is not None else {}
        tokens = run.get("batch_tokens") or bench.batch_tokens(config)
        try:
            expected = expected_lengths(config, bench, experience)
            forecast = self.benches.forecast(config, bench, tokens, expected)
        except UserError as error:
            return dataclasses.replace(bare, state="fails" if bare.state == "new" else bare.state, why=str(error))
        except Uncounted as error:
            return dataclasses.replace(bare, why=str(error))
        return self._priced(bare, bench, forecast, experience, run)

    def _with_checkpoint(self, config: Config) -> Config:
        """The configuration with its checkpoint; as it is where one has yet to be trained, which is then noted."""
        key = json.dumps([config.checkpoint, as_mapping(config.model), as_mapping(config.dataset),
                          as_mapping(config.choices.replace(sampler=""))])  # fmt: skip
        if key not in self._known:
            try:
                self._known[key] = known_checkpoint(config)
            except (Untrained, Unfetched) as error:
                if config.checkpoint is not None:  # a name of the user's own, which may be misspelt
                    raise
                self._known[key] = _STOPS
                if str(error) not in self.untrained:  # points that are given other prompts need the same training
                    self.untrained[str(error)] = None
                    if isinstance(error, Untrained):
                        self._train_first(config, _STOPS)
                    elif config.model.trainable:
                        told = "is taken to have the sizes of its YAML and the data set's tokenizer"
                        self.notes[f"{config.choices.model} {told}"] = None
        known = self._known[key]
        if isinstance(known, str):
            if known != _STOPS:
                self._train_first(config, known)
            return config
        choices = config.choices.replace(model=known.choices.model)
        return dataclasses.replace(
            config, checkpoint=known.checkpoint, model=known.model, dataset=known.dataset, choices=choices
        )

    def _train_first(self, config: Config, why: str) -> None:
        training = to_train(config)
        folder = str(training_folder(training))
        trainer = training.trainer
        self.trainings.setdefault(
            folder,
            Training(config.choices.model, config.choices.dataset, folder, trainer.max_minutes, trainer.max_steps, why),
        )

    def _placed(self, bare: PlannedPoint, point: Point) -> PlannedPoint:
        """The point with its place in the store, and how far it is there."""
        assert point.identity is not None
        there = min(_lines(point.samples_file), bare.wanted)
        state: State = "done" if point.status(bare.wanted) == "done" else "partial" if there else "new"
        if state != "done" and point.busy():
            state = "busy"
        repeats = str(point.folder) in self._seen
        self._seen.add(str(point.folder))
        return dataclasses.replace(
            bare,
            state=state,
            folder=Store(Path(bare.config.outputs)).relative(point.folder),
            key=point.identity.key,
            repeats=repeats,
            there=there,
        )

    def _priced(
        self, bare: PlannedPoint, bench: Workbench, forecast: Forecast, experience: Experience, run: dict[str, Any]
    ) -> PlannedPoint:
        done = len(forecast.batches) if bare.state == "done" else forecast.batches_done(bare.there)
        if experience.clock is None and bare.state != "done":
            self._say_unknown(bare, bench)
        elif experience.clock is not None and experience.device != device_name(bench.device):
            here = device_name(bench.device)
            self.notes[f"time is from points that were sampled on {experience.device}; this is {here}"] = None
        if ends_by_itself(bare.config):
            words = "of an earlier point" if experience.lengths is not None else "of the references"
            self.notes[f"{bare.config.choices.model} ends by itself: NFE for answers as long as those {words}"] = None
        whole = _cost(forecast.left(0), experience)
        recorded = bare.state == "done" and run.get("rows") == bare.wanted
        if recorded:
            counted = {name: run.get(f"nfe_{name}") for name in ("calls", "rows")}
            whole = dataclasses.replace(whole, **counted, positions=run.get("positions_projected"))
        besides = experience.besides
        if besides is None:
            besides = 0 if bench.device.type == "cuda" else resident()
        return dataclasses.replace(
            bare,
            whole=whole,
            left=_cost(forecast.left(done), experience) if done < len(forecast.batches) else Cost(),
            exact=forecast.exact or recorded,
            took=run.get("seconds"),
            peak=None if forecast.held is None else forecast.held + besides,
            disk=forecast.disk,
        )

    def _say_unknown(self, bare: PlannedPoint, bench: Workbench) -> None:
        model, where = bare.config.choices.model, device_name(bench.device)
        if self.benches.network(bench) is None:
            why = "its settings do not say how much work it does (ModelSettings.work)"
            self.notes[f"FLOPs, memory and time of {model} are unknown: {why}"] = None
        else:
            self.notes[f"time of {model} is unknown until one point of it has been sampled on {where}"] = None


def _cost(counts: Counts, experience: Experience) -> Cost:
    work, clock = counts.work, experience.clock
    if work is None:
        return Cost(counts.calls, counts.rows, counts.positions, None, None, None)
    if work == Work():
        return Cost(counts.calls, counts.rows, counts.positions)
    seconds = clock.seconds(work) if clock is not None else None
    return Cost(counts.calls, counts.rows, counts.positions, work.flops, work.projection, seconds)


def _lines(path: Path) -> int:
    """How many whole lines a file has."""
    try:
        with open(path, "rb") as file:
            return sum(part.count(b"\n") for part in iter(lambda: file.read(1 << 20), b""))
    except FileNotFoundError:
        return 0
