"""Scores of a sweep's points as they come. What a point is measured by is settled before the first is sampled."""

from __future__ import annotations

import dataclasses
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from diffq.config import Request
from diffq.report.points import Figure, pick_figures
from diffq.runs.judging import Judges
from diffq.runs.planned import Planned
from diffq.runs.report import Report, axis_of, make_report
from diffq.runs.score import check_available, config_of, score_points
from diffq.runs.selection import Chosen, Selection, select
from diffq.runs.tabulated import Tabulated, tabulate
from diffq.store import Store


class Scoring:
    """The metrics of one sweep.

    x, y     the names of those on its frontier's axes; empty where none of them is of diversity, or of quality
    columns  the names of those that are shown while it runs: the axes', or without a frontier the first two
    UserError where a metric cannot be computed here.
    """

    def __init__(self, request: Request, planned: Sequence[Planned], store: Store):
        self._store, self._judges = store, Judges(store, request.config_dirs)
        self._config_dirs = request.config_dirs
        suite = planned[0].plan_row()
        words = tuple(w for w in request.overrides if w.startswith(("outputs=", "plugins=", "paper=")))
        self._words = (*words, f"metric={suite.metric}", *suite.options)
        request = dataclasses.replace(request, overrides=words)
        fewest = min(p.config.num_samples for p in planned)
        self._config = config_of(request, [p.config for p in planned], suite.metric, suite.options, fewest)
        for p in planned:
            self._judges.settle(p.config)
        waiting = {p.config.choices.dataset: p.config.dataset for p in planned if not p.done}
        check_available(self._config.metric.metrics, waiting.values())
        made = self._config.metric
        self.x, self.y = (axis_of(self._config, axis) if getattr(made, axis) else "" for axis in ("x", "y"))
        first = tuple(metric.name for metric in made.metrics[:2])
        self.columns = (self.x, self.y) if self.x and self.y else first
        self._chosen: dict[Path, list[Chosen]] = {}
        for p in planned:
            chosen = Chosen(p.point, p.config.choices.sampler, p.config.num_samples)
            self._chosen.setdefault(p.point.folder, []).append(chosen)
        for line in self._config.metric.left_out:
            print(f"diffq: {line}", file=sys.stderr)

    def held(self, planned: Planned) -> Mapping[str, Figure]:
        """The figures of a point that are there already."""
        return pick_figures(planned.point.metrics(), planned.config.num_samples)

    def __call__(self, planned: Planned) -> Mapping[str, Figure]:
        """Scores a finished point and returns its figures; what was computed before is not computed again."""
        score_points(
            Selection(self._store, tuple(self._chosen[planned.point.folder])),
            self._config.metric.metrics,
            self._judges,
        )
        return self.held(planned)

    def alone(self, planned: Planned) -> str:
        """The command that scores this point alone."""
        folders = [word for folder in self._config_dirs for word in ("--config-dir", str(folder))]
        return shlex.join(["diffq", "score", str(planned.point.folder), *self._words, *folders])

    def report(self, sweep: Path) -> Report | Tabulated:
        """The report of what is sampled, written into the sweep's folder; where there is no frontier, a table alone."""
        selection, _ = select(self._store, [sweep]).finished()
        if not (self.x and self.y):
            return tabulate(selection, self._config.metric)
        return make_report(selection, self._config, self._judges)
