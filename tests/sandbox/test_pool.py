"""Work in places: in its order, one piece a place at a time, and nothing more of it once something went wrong."""

from __future__ import annotations

import threading
import time

import pytest

from diffq.sandbox.pool import cores, in_places


def test_work_is_done_in_order_and_a_place_serves_one_at_a_time() -> None:
    busy, told = {"a": threading.Lock(), "b": threading.Lock()}, []

    def work(number: int, place: str) -> int:
        assert busy[place].acquire(blocking=False)
        time.sleep(0.002 * (number % 3))
        busy[place].release()
        return number * number

    assert in_places(work, range(20), ("a", "b"), lambda: None, told.append) == [n * n for n in range(20)]
    assert told == list(range(1, 21))
    assert in_places(work, (), ("a",), lambda: None) == []
    assert cores() >= 1


def test_what_goes_wrong_stops_what_runs_and_begins_nothing_more() -> None:
    begun, ended = [], threading.Event()

    def work(number: int, place: int) -> None:
        begun.append(number)
        if number == 0:
            raise KeyboardInterrupt
        assert ended.wait(20), "what runs is told to end"

    with pytest.raises(KeyboardInterrupt):
        in_places(work, range(50), (0, 1), ended.set)
    assert ended.is_set()
    assert len(begun) < 10
