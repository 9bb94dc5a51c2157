"""Work that waits for processes, in threads: a few pieces at a time, each with a place of its own."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import TypeVar

T = TypeVar("T")
P = TypeVar("P")
R = TypeVar("R")


def cores() -> int:
    """Those that this process may use, where the system says so."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_places(
    work: Callable[[T, P], R],
    asked: Iterable[T],
    places: Sequence[P],
    stop: Callable[[], object],
    on_done: Callable[[int], None] | None = None,
) -> list[R]:
    """`work` of everything that is asked, in its order, as many at a time as there are places, each of which serves one
    at a time.

    on_done is told how many are done, after each. Where anything is raised, Ctrl-C among others, nothing more is begun
    and `stop` is called: it must end what is running.
    """
    free: SimpleQueue[P] = SimpleQueue()
    for place in places:
        free.put(place)

    def one(item: T) -> R:
        place = free.get()
        try:
            return work(item, place)
        finally:
            free.put(place)

    done: list[R] = []
    with ThreadPoolExecutor(len(places)) as pool:
        try:
            for result in pool.map(one, asked):
                done.append(result)
                if on_done is not None:
                    on_done(len(done))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            stop()
            raise
    return done
