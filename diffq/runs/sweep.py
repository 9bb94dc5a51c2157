"""`diffq sweep`: a grid of points, sampled, scored and seen as a frontier.

Every point is typed and checked before the first starts, and scored as soon as it is sampled. Finished points are not
computed again; a sweep that was cut off goes on where it was. Knows no sampler and no metric.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING

from diffq.config import Request
from diffq.errors import UserError
from diffq.interrupts import reaching, unmasked
from diffq.runs.launch import Result, launched, run_point, uses_launcher
from diffq.runs.live import showing
from diffq.runs.planned import alone, planned_points, write_configs
from diffq.store import Point, Store
from diffq.store.point import Busy
from diffq.store.sweeps import SweepFolder

if TYPE_CHECKING:
    from diffq.diffusion.contracts import Step
    from diffq.runs.board import Board, Entry
    from diffq.runs.sampling import Progress
    from diffq.runs.scoring import Scoring
    from diffq.runs.tracking import Tracker
    from diffq.runs.workbench import Workbenches

_LOOK = 0.3  # seconds between two looks at what other processes have written


def run(request: Request) -> int:
    """Samples, scores and reports the grid. Returns 0, or 1 where a point failed."""
    if request.flags.plan:
        from diffq.runs import plan

        return plan.run(request)
    from diffq.runs.board import Board
    from diffq.runs.scoring import Scoring
    from diffq.runs.tracking import open_tracker
    from diffq.runs.workbench import Workbenches

    benches = Workbenches()
    with reaching(lambda: "no point has been begun"):
        planned, sweep = planned_points(request, benches)
        scoring = Scoring(request, planned, Store(sweep.folder.parent.parent))
        board = Board(sweep.folder.name, planned, scoring.x, scoring.y, scoring.columns)
        done = [e for e in board.entries if e.planned.done]
        if not request.json:
            print(f"{sweep.folder}: {len(board.entries)} points, {len(done)} of them done already", file=sys.stderr)
        write_configs([e.planned for e in board.entries if e not in done])
        rows = [p.plan_row() for p in planned]
        sweep.write(rows)
    with open_tracker(planned[0].config.tracker, Store(sweep.folder.parent.parent).outputs) as tracker:
        with reaching(board.reached), showing(board, quiet=request.json):
            Sweeping(request, board, sweep, scoring, benches, tracker).run(done)
        with reaching(lambda: f"{board.reached()}, and the report is not written yet"):
            sweep.write(rows)  # another sweep of this name may have written its own since
            reported = _report(request, sweep, board, scoring, tracker)
    failed = board.of("failed")
    for entry in failed:
        print(f"\n{entry.planned.point.folder} failed:\n{entry.error.rstrip()}", file=sys.stderr)
        print(f"repeat it alone: {entry.repeat}", file=sys.stderr)
    return 1 if failed or not reported else 0


class Sweeping:
    """One sweep at work: this process samples, or a launcher's workers do, and this process scores."""

    def __init__(
        self,
        request: Request,
        board: Board,
        sweep: SweepFolder,
        scoring: Scoring,
        benches: Workbenches,
        tracker: Tracker,
    ):
        self._request, self._board, self._sweep = request, board, sweep
        self._scoring, self._benches, self._tracker = scoring, benches, tracker

    def run(self, done: Sequence[Entry]) -> None:
        """Brings every point to its end. done: those that are sampled already."""
        board = self._board
        for entry in done:
            entry.state = "done"
            board.scored(entry, self._scoring.held(entry.planned))
        stale = [e for e in done if not set(board.columns) <= set(e.figures)]
        for entry in stale:
            self._score(entry)
        waiting = [e for e in board.entries if e not in done]
        if waiting and uses_launcher(self._request.overrides):
            self._launch(waiting)
        else:
            for entry in waiting:
                self._sample(entry)
        self._wait_for_others()
        for entry in done:
            if entry not in stale:
                self._score(entry, again=True)  # which finds metrics that have come since

    def _sample(self, entry: Entry) -> None:
        """Samples a point in this process."""
        board = self._board
        board.set(entry, "running")

        def on_progress(progress: Progress) -> None:
            board.sampled(entry, progress.rows, progress.seconds)

        def on_step(step: Step) -> None:
            entry.drafted = step.canvas.shape[0] * (step.index + 1) / step.total

        folder = str(entry.planned.point.folder)
        self._ended(entry, run_point(folder, self._benches, self._request.config_dirs, on_progress, on_step))

    def _ended(self, entry: Entry, result: Result) -> None:
        if result.outcome == "busy":
            self._board.set(entry, "elsewhere")
        elif result.outcome == "failed":
            entry.repeat = alone(entry.planned, self._request.config_dirs)
            self._board.set(entry, "failed", result.error)
        else:
            self._board.look(entry)
            self._score(entry)

    def _score(self, entry: Entry, again: bool = False) -> None:
        """Scores a sampled point; one that cannot be scored has failed. again: say nothing where all is well."""
        if not again:
            self._board.set(entry, "scoring")
        try:
            with unmasked():
                figures = self._scoring(entry.planned)
        except Exception as error:
            entry.repeat = self._scoring.alone(entry.planned)
            self._board.set(entry, "failed", str(error) if isinstance(error, UserError) else traceback.format_exc())
            return
        self._board.scored(entry, figures)
        if not again:
            self._board.set(entry, "done")
        self._tracker.point(entry.planned.point.folder)

    def _launch(self, entries: Sequence[Entry]) -> None:
        """Has points sampled by a launcher's workers, and scores what they finish while they go on."""
        folders = [str(e.planned.point.folder) for e in entries]
        with launched(folders, self._request.overrides, self._request.config_dirs, self._sweep.folder) as work:
            self._board.workers = work.workers
            alive = True
            while alive:
                alive = work.alive
                for entry in entries:
                    self._look(entry)
                work.wait(_LOOK)
        self._board.workers = 1
        results = {result.folder: result for result in work.results}
        left = [e for e in entries if e.state not in ("done", "failed")]
        lost = [e for e in left if str(e.planned.point.folder) not in results]
        for entry in left:
            if entry not in lost:
                self._ended(entry, results[str(entry.planned.point.folder)])
        if lost and work.local:
            text = f"diffq: a worker was killed ({work.broken}); {len(lost)} points left are sampled in this process"
            print(text, file=sys.stderr)
            for entry in sorted(lost, key=lambda e: e.rows):  # whatever it died of comes last
                self._sample(entry)
        else:
            for entry in lost:
                self._ended(entry, Result("", "failed", f"its worker ended badly: {work.broken}"))

    def _look(self, entry: Entry) -> None:
        """Takes note of what another process has written of a point, and scores it where it is whole."""
        board = self._board
        if entry.state in ("done", "failed") or not board.look(entry):
            return
        if entry.planned.done:
            self._score(entry)
        elif entry.state == "waiting":
            board.set(entry, "running")
        else:
            board.changed(entry)

    def _wait_for_others(self) -> None:
        """Until no point is in the hands of another process; one whose process has died is taken over."""
        while elsewhere := self._board.of("elsewhere"):
            for entry in elsewhere:
                if entry.planned.done:
                    self._board.look(entry)
                    self._score(entry)
                elif _is_free(entry.planned.point):
                    self._sample(entry)
                elif self._board.look(entry):
                    self._board.changed(entry)
            if self._board.of("elsewhere"):
                time.sleep(_LOOK)


def _is_free(point: Point) -> bool:
    try:
        point.claim().release()
    except Busy:
        return False
    return True


def _report(request: Request, sweep: SweepFolder, board: Board, scoring: Scoring, tracker: Tracker) -> bool:
    """Writes, prints and logs the frontier of what is done, or prints its scores where the metrics span none. False
    where that failed, which is said."""
    from diffq.runs.report import print_report
    from diffq.runs.tabulated import Tabulated

    if not board.of("done"):
        return False
    try:
        report = scoring.report(sweep.folder)
    except UserError as error:
        print(f"diffq: no report: {error}", file=sys.stderr)
        return False
    if request.json:
        print(json.dumps(report.as_json(), indent=1, ensure_ascii=False))
    elif isinstance(report, Tabulated):
        report.print()
    else:
        print_report(report)
    if not isinstance(report, Tabulated):  # a tracker's sweep is its frontier
        tracker.sweep(sweep.folder, report.frontier.x, report.frontier.y)
    return True
