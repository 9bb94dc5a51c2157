"""Where labels stand in a picture so that none covers another, a point or a bar: a greedy, deterministic placer.

Works on boxes in pixels, (x0, y0, x1, y1) with x0 < x1 and y0 < y1. Knows no plotting library.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

Box = tuple[float, float, float, float]
Segment = tuple[float, float, float, float]

_ANGLES = tuple(math.radians(a) for a in (45, 135, -45, -135, 0, 180, 90, -90, 20, 160, -20, -160, 70, 110, -70, -110))


@dataclass(frozen=True)
class Placed:
    """A label's box, and the line that leads to its point where it stands apart from it."""

    box: Box
    leader: Segment | None = None


@dataclass
class Placer:
    """Puts labels one after another, the most important first.

    area      where labels may stand
    blocked   boxes that no label may touch: points, bars, other text
    lines     segments that a label avoids where it can (they are crossed only if there is no other place)
    """

    area: Box
    blocked: list[Box] = field(default_factory=list)
    lines: list[Segment] = field(default_factory=list)
    gap: float = 4.0
    reach: Sequence[float] = (0.0, 10.0, 22.0, 38.0)
    leaders: list[Segment] = field(default_factory=list)

    def place(self, x: float, y: float, width: float, height: float, radius: float) -> Placed | None:
        """The cheapest free place near the point (x, y) whose marker has this radius, or None where there is none.

        Nearer is cheaper, crossing a line costs more than standing one ring further out.
        """
        best: tuple[float, Placed] | None = None
        for ring, reach in enumerate(self.reach):
            for turn, angle in enumerate(_ANGLES):
                placed = self._candidate(x, y, width, height, radius + self.gap + reach, angle, ring > 1)
                if placed is None:
                    continue
                crossed = sum(crosses(line, placed.box) for line in self.lines)
                cost = ring + 0.02 * turn + 1.5 * min(crossed, 3)
                if best is None or cost < best[0]:
                    best = (cost, placed)
        if best is None:
            return None
        placed = best[1]
        self.blocked.append(placed.box)
        if placed.leader:
            self.leaders.append(placed.leader)
        return placed

    def _candidate(
        self, x: float, y: float, width: float, height: float, distance: float, angle: float, apart: bool
    ) -> Placed | None:
        across, up = math.cos(angle), math.sin(angle)
        left = x + across * distance - width * (1 - across) / 2
        low = y + up * distance - height * (1 - up) / 2
        box = (left, low, left + width, low + height)
        if not inside(box, self.area) or any(overlap(box, other) for other in self.blocked):
            return None
        if any(crosses(leader, box) for leader in self.leaders):
            return None
        if not apart:
            return Placed(box)
        near = (min(max(x, box[0]), box[2]), min(max(y, box[1]), box[3]))
        length = math.hypot(near[0] - x, near[1] - y)
        start = radius_point(x, y, near, min(distance, length) * 0.3)
        leader = (*start, *near)
        others = [other for other in self.blocked if not contains(other, x, y)]
        if any(crosses(leader, other) for other in others) or any(meet(leader, line) for line in self.leaders):
            return None
        return Placed(box, leader)


def radius_point(x: float, y: float, to: tuple[float, float], distance: float) -> tuple[float, float]:
    """The point `distance` away from (x, y) on the way to another."""
    length = math.hypot(to[0] - x, to[1] - y) or 1.0
    return x + (to[0] - x) * distance / length, y + (to[1] - y) * distance / length


def inside(box: Box, area: Box) -> bool:
    return box[0] >= area[0] and box[1] >= area[1] and box[2] <= area[2] and box[3] <= area[3]


def overlap(a: Box, b: Box) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def contains(box: Box, x: float, y: float) -> bool:
    return box[0] <= x <= box[2] and box[1] <= y <= box[3]


def crosses(segment: Segment, box: Box) -> bool:
    """Whether a segment and a box have a point in common (Liang & Barsky 1984)."""
    x0, y0, x1, y1 = segment
    enter, leave = 0.0, 1.0
    for start, change, low, high in ((x0, x1 - x0, box[0], box[2]), (y0, y1 - y0, box[1], box[3])):
        if change == 0:
            if not low <= start <= high:
                return False
            continue
        first, last = sorted(((low - start) / change, (high - start) / change))
        enter, leave = max(enter, first), min(leave, last)
    return enter <= leave


def meet(a: Segment, b: Segment) -> bool:
    """Whether two segments cross; touching at an end does not count."""

    def side(p: tuple[float, float], q: tuple[float, float], r: tuple[float, float]) -> float:
        return (q[0] - p[0]) * (r[1] - p[1]) - (q[1] - p[1]) * (r[0] - p[0])

    a0, a1, b0, b1 = a[:2], a[2:], b[:2], b[2:]
    return side(a0, a1, b0) * side(a0, a1, b1) < 0 and side(b0, b1, a0) * side(b0, b1, a1) < 0
