"""The picture of energies: which points it shows, and what stands above them."""

from __future__ import annotations

import math

from diffq.report.energy import MOST, Course, draw_courses, verdict


def course(label: str, steps: int, rows: int = 5) -> Course:
    """A course whose energy falls by one a step."""
    values = [9.0 - step for step in range(steps)]
    band = dict.fromkeys(("median", "low_50", "high_50", "low_95", "high_95"), values)
    change = {"value": 1.0 - steps, "low": 0.5 - steps, "high": 1.5 - steps, "rows": rows}
    return Course(label, "log_probability", tuple(range(steps)), band, change, "said")


def titles(*courses: Course) -> tuple[str, list[str]]:
    """The picture's title, and that of each panel."""
    figure = draw_courses(courses)
    return figure.get_suptitle(), [a.get_title("left").splitlines()[0] for a in figure.axes if a.get_visible()]


def test_what_all_panels_share_is_said_once() -> None:
    said, panels = titles(course("eags · tiny · ens n5", 5), course("eags · tiny · uniform n5", 5))
    assert said.startswith("eags · tiny: Energy of each step's full draft, log-probability potentials, 5 rows a point")
    assert panels == ["ens n5", "uniform n5"]
    assert titles(course("eags · tiny", 5)) == (said.replace("eags · tiny: ", ""), ["eags · tiny"])
    assert titles(course("eags n5", 5), course("random n5", 5))[1] == ["eags n5", "random n5"]


def test_points_of_one_step_make_room_for_others() -> None:
    long = [course(f"eags n{n}", n) for n in range(2, MOST + 4)]
    said, panels = titles(course("eags n1", 1), *long)
    assert panels == [c.label for c in long[:MOST]]
    assert f"{MOST} of {len(long)} points of more than one step" in said
    assert titles(course("eags n1", 1))[1] == ["eags n1"]


def test_only_an_interval_on_one_side_of_zero_decides() -> None:
    ends = [(-2.0, -1.0), (1.0, 2.0), (-1.0, 1.0), (None, None), (math.nan, math.nan)]
    said = [verdict({"value": 0.0, "low": low, "high": high}) for low, high in ends]
    assert said == ["falls", "rises", "undecided", "undecided", "undecided"]
