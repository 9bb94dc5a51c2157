"""The energy of a few rows of a point along its steps (`energy=N`), recorded as traces are: batches of a finished point
are run again, and at every step the draft with nothing masked is given to the network, once a position.

The file is described in docs/samplers.md.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from diffq.metrics.intervals import resample
from diffq.report.energy import Course, save_courses, table_of, unit_of, verdict
from diffq.resamples import interval
from diffq.runs.trace import describe_rows, first_samples, run_again
from diffq.store.files import write_atomic
from diffq.store.point import Point

if TYPE_CHECKING:
    from torch import Tensor

    from diffq.config import Config
    from diffq.data.canvases import Batch
    from diffq.diffusion.contracts import Canvas, Step
    from diffq.report.points import Line
    from diffq.report.tables import ReportTable
    from diffq.runs.workbench import Workbench
    from diffq.store import Store

FILE = "energy.json"
_LEAST_ROWS = 6  # of fewer, all change in one direction by chance more often than in 5 of 100


def read_energy(folder: Path) -> dict[str, Any]:
    """What was recorded of a point; empty where nothing was."""
    try:
        return json.loads((folder / FILE).read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return {}


def has_energy(point: Point, config: Config) -> bool:
    """Whether the energies that a configuration wants are recorded, or as many as there are."""
    if config.energy == 0:
        return True
    found = read_energy(point.folder)
    enough = min(config.energy, found.get("of", 0)) <= found.get("asked", 0)
    return found.get("potential") == config.energy_potential and enough


def record_energy(config: Config, bench: Workbench, point: Point) -> None:
    """Records the energies of `config.energy` rows of a finished point, where they are not recorded yet, and says how
    they change."""
    if has_energy(point, config):
        return
    batches = first_samples(config, bench, point)
    lines: list[dict[str, Any]] = []
    steps: list[int] = []
    total = asked = 0
    for batch in _spread(batches, config.energy):
        rows = min(config.energy - asked, len(batch.rows))
        found, recorder = _of_batch(config, bench, point, batch, rows)
        asked, lines = asked + rows, lines + found
        steps, total = max(steps, recorder.steps, key=len), max(total, recorder.total)
    if not lines:
        print(f"diffq: {point.folder}: no row has anything to be written, so there is no energy", file=sys.stderr)
        return
    for line in lines:  # a row of fewer rounds keeps the energy of its last
        line["energies"] += line["energies"][-1:] * (len(steps) - len(line["energies"]))
    values = np.array([line["energies"] for line in lines], dtype=np.float64)
    there = sum(len(batch.rows) for batch in batches)
    made: dict[str, Any] = {"potential": config.energy_potential, "of": there, "asked": asked, "total": total}
    made |= {"steps": steps, "band": band(values), "change": change(values), "rows": lines}
    write_atomic(point.folder / FILE, (json.dumps(made) + "\n").encode())
    for said in (describe(made["change"], config.energy_potential), describe_rows(lines, "energies")):
        if said:
            print(f"diffq: {point.folder}: {said}", file=sys.stderr)


def _of_batch(
    config: Config, bench: Workbench, point: Point, batch: Batch, rows: int
) -> tuple[list[dict[str, Any]], Energies]:
    """The energies of the first rows of a batch, without those that have nothing to be written."""
    canvas = bench.canvas(batch).replace(leaves=False)  # a draft is what was drawn, behind an end token, too
    budget = max(1, bench.batch_tokens(config) // canvas.shape[1])
    recorder = Energies(bench.denoiser, canvas.map(itemgetter(slice(rows))), config.energy_potential, budget)
    lines = [
        place | {"same": same, "energies": [values[at] for values in recorder.values]}
        for at, (place, same, _) in enumerate(run_again(config, bench, point, batch, canvas, recorder.on_step, rows))
        if bool(canvas.free_BL[at].any())
    ]
    return lines, recorder


def _spread(batches: Sequence[Batch], rows: int) -> Sequence[Batch]:
    """The fewest batches that have so many rows, in even distances from one another, so that all lengths are among
    them; all where they have fewer."""
    for count in range(1, len(batches)):
        chosen = [batches[(2 * i + 1) * len(batches) // (2 * count)] for i in range(count)]
        if sum(len(batch.rows) for batch in chosen) >= rows:
            return chosen
    return batches


class Energies:
    """Keeps the energies of the drafts of some rows, step by step; a draft that has not changed is not asked again.

    canvas  those rows, as the sampler was given them
    rows    how many rows the network is given at once
    """

    def __init__(self, denoiser: Any, canvas: Canvas, potential: Any, rows: int):
        self._denoiser, self._canvas, self._potential, self._rows = denoiser, canvas, potential, rows
        self._draft_BL: Tensor | None = None
        self._energy_B: Tensor | None = None
        self.steps: list[int] = []
        self.values: list[list[float]] = []
        self.total = 0

    def on_step(self, step: Step) -> None:
        """Takes the full draft of a step, as `on_step` of a sampler."""
        from diffq.diffusion.energy import energies

        assert step.filled is not None, "checked when the point was composed"
        draft_BL = step.filled()[: len(self._canvas.tokens_BL)]
        if self._draft_BL is None or self._energy_B is None:
            changed_B = self._canvas.free_BL.any(1)
            self._energy_B = changed_B.new_full(changed_B.shape, float("nan"), dtype=step.time_B.dtype)
        else:
            changed_B = (draft_BL != self._draft_BL).any(1)
        if bool(changed_B.any()):
            texts = self._canvas.replace(tokens_BL=draft_BL).map(lambda x: x[changed_B])
            self._energy_B[changed_B] = energies(self._denoiser, texts, potential=self._potential, rows=self._rows).to(
                self._energy_B.dtype
            )
        self._draft_BL, self.total = draft_BL, step.total
        self.steps.append(step.index)
        self.values.append([float(f"{value:.9g}") for value in self._energy_B.tolist()])


def band(values: np.ndarray) -> dict[str, list[float]]:
    """The median over rows at each step, and the middle 50 % and 95 % of them. values: rows × steps."""
    shares = {"low_95": 0.025, "low_50": 0.25, "median": 0.5, "high_50": 0.75, "high_95": 0.975}
    return {name: np.quantile(values, share, axis=0).tolist() for name, share in shares.items()}


def change(values: np.ndarray) -> dict[str, Any]:
    """The mean of last − first over rows, each of a source or text of its own, with a 95 % interval from resampling
    these; None for fewer than 6 rows or for only one step."""
    gaps = (values[:, -1] - values[:, 0])[:, None]
    made: dict[str, Any] = {"value": float(gaps.mean()), "low": None, "high": None, "rows": len(gaps)}
    if len(gaps) >= _LEAST_ROWS and values.shape[1] > 1:
        made["low"], made["high"] = interval(resample(gaps, "energy|agg:mean"))
    return made


def describe(found: Mapping[str, Any], potential: str = "log_probability") -> str:
    """`energy falls by 0.41 [0.30, 0.53] nats a token, from the first draft to the last`."""
    unit = unit_of(potential)
    value, low, high = found["value"], found["low"], found["high"]
    if low is None:
        return f"whether energy falls is undecided: that takes {_LEAST_ROWS} rows and two steps"
    if verdict(found) == "undecided":
        return f"whether energy falls is undecided: it changes by {value:+.3g} [{low:+.3g}, {high:+.3g}] {unit}"
    ends = (-value, -high, -low) if high < 0 else (value, low, high)
    shown = "{:.3g} [{:.3g}, {:.3g}]".format(*ends)
    return f"energy {verdict(found)} by {shown} {unit}, from the first draft to the last"


def courses(lines: Sequence[Line], store: Store) -> list[Course]:
    """What is recorded of the points of these lines, in their order; points of several seeds have a course a seed.
    Points are called by their lines, and by the dials in which those with energies differ."""
    from diffq.report.points import short_dials, varying_dials

    points = [(n, point) for n, line in enumerate(lines) for point in line.points]
    parts = [(n, point, part) for n, point in points for part in point.parts or (point,)]
    read = [(n, point, part, read_energy(store.outputs / part.folder)) for n, point, part in parts]
    held = [row for row in read if row[-1]]
    varying, made = varying_dials([point for _, point, _, _ in held]), []
    for n, point, part, found in held:
        name = f"{lines[n].label} {short_dials(point, varying)}".strip()
        name += f" · seed {part.seed}" if len(point.parts) > 1 else ""
        said = describe(found["change"], found["potential"])
        steps, change = tuple(found["steps"]), found["change"]
        made.append(Course(name, found["potential"], steps, found["band"], change, said, n))
    return made


def write_courses(
    lines: Sequence[Line], store: Store, folder: Path, formats: Sequence[str] = ("png", "svg")
) -> tuple[list[ReportTable], list[Path]]:
    """The table of how energies change, and the picture energy.png and energy.svg in a folder; nothing where nothing is
    recorded."""
    found = courses(lines, store)
    if not found:
        return [], []
    wanted = [name for name in ("png", "svg") if name in formats]
    try:
        files = list(save_courses(found, folder / "energy", wanted)) if wanted else []
    except ImportError:
        files = []
    return [table_of(found)], files
