"""How good the times of `diffq sweep --plan` are: every finished point in turn is the only one that is known, and the
other points of its model and device are predicted from it.

    python scripts/plan_accuracy.py outputs/points/qqp/gaussian_mini [FOLDER ...]

To be called in the folder that the sweeps were called in. A FOLDER is a model's, under outputs/points/DATASET/.
Prints, for each, the distribution of predicted over recorded seconds, the pairs that are further off than a factor of
1.5, and the same where all other points are known.
"""

from __future__ import annotations

import itertools
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from diffq.config import Config, from_mapping
from diffq.runs.planning.clock import Clock, Timing
from diffq.runs.planning.experience import Experience, Experiences, answers, comparable, expected_lengths
from diffq.runs.planning.forecast import Benches, ends_by_itself
from diffq.runs.planning.memory import offset
from diffq.store import Point

FACTOR = 1.5


@dataclass(frozen=True)
class Known:
    """A finished point with what it took."""

    point: Point
    config: Config
    run: dict[str, Any]
    timing: Timing
    held: int

    @property
    def name(self) -> str:
        return f"{self.point.folder.parent.name}/{self.point.folder.name}"


def main(folders: Sequence[str]) -> int:
    """Prints a paragraph a folder and device. Returns 0, or 1 where a folder holds fewer than two points."""
    status = 0
    for folder in map(Path, folders):
        benches = Benches()
        points = read(folder, benches)
        devices = sorted({p.run["device"] for p in points})
        for device in devices:
            here = [p for p in points if p.run["device"] == device]
            if len(here) < 2:
                continue
            show(f"{folder.parent.name} {folder.name}, {device}", here, benches)
        if len(points) < 2:
            print(f"{folder} has fewer than two finished points", file=sys.stderr)
            status = 1
    return status


def read(folder: Path, benches: Benches) -> list[Known]:
    """The finished points of a model's folder that can be compared."""
    experiences = Experiences(benches)
    found = []
    for dtype in ("float32", "bfloat16", "float16", "float64"):
        for point, run in comparable(folder, dtype):
            config = from_mapping(point.config())
            looked_at = experiences.look(config, "", point, run)
            if looked_at is not None and run["status"] == "done":
                found.append(Known(point, config, run, *looked_at))
    return found


def show(title: str, points: Sequence[Known], benches: Benches) -> None:
    """The ratios from one known point, and from all but one."""
    one, misses = [], []
    for warm_up in points:
        clock = Clock.fitted([warm_up.timing], warm_up.run["device"])
        assert clock is not None
        for other in points:
            if other is not warm_up:
                one.append(predicted(clock, warm_up, other, benches) / other.timing.seconds)
                misses += [(one[-1], warm_up, other)] if not 1 / FACTOR <= one[-1] <= FACTOR else []
    rest = []
    for other in points:
        known = [p for p in points if p is not other]
        clock = Clock.fitted([p.timing for p in known], other.run["device"])
        assert clock is not None
        rest.append(predicted(clock, known[0], other, benches) / other.timing.seconds)
    memory = []
    for warm_up, other in itertools.permutations(points, 2):
        besides = offset([(warm_up.run, warm_up.held)]) or 0
        memory.append((other.held + besides) / other.run["peak_memory_bytes"])
    print(f"{title}: {len(points)} points")
    print(f"  one known point:  {summary(one)}")
    print(f"  all others known: {summary(rest)}")
    print(f"  memory, one known: predicted/actual {min(memory):.2f} … {max(memory):.2f}")
    for ratio, warm_up, other in sorted(misses, key=lambda m: abs(np.log(m[0])), reverse=True)[:5]:
        print(f"    {ratio:.2f}  {other.name} ({other.timing.seconds:.2f} s) from {warm_up.name}")


def predicted(clock: Clock, warm_up: Known, other: Known, benches: Benches) -> float:
    """Seconds of a point as a plan that knew the warm-up point alone would have them."""
    if not ends_by_itself(other.config):
        return clock.seconds(other.timing.work)
    bench = benches(other.config)
    lengths = expected_lengths(other.config, bench, Experience(lengths=answers(warm_up.point)))
    work = benches.forecast(other.config, bench, other.run["batch_tokens"], lengths).left(0).work
    assert work is not None
    return clock.seconds(work)


def summary(ratios: Sequence[float]) -> str:
    """`within 1.5: 98 % of 380; 5 %, 50 %, 95 %: …; extremes …`."""
    within = np.mean([1 / FACTOR <= r <= FACTOR for r in ratios])
    low, middle, high = np.quantile(ratios, [0.05, 0.5, 0.95])
    return (
        f"within {FACTOR}: {100 * within:.1f} % of {len(ratios)}; predicted/actual 5 % {low:.2f}, median {middle:.2f},"
        f" 95 % {high:.2f}, extremes {min(ratios):.2f} … {max(ratios):.2f}"
    )


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
