"""What counts as the newest, also after the clock was set back."""

from __future__ import annotations

import os
import time

from diffq.store import PlanRow, Store, SweepFolder, newest_training
from diffq.store.files import write_json


def test_the_latest_stamp_is_the_newest_whatever_the_clock_does(tmp_path):
    store = Store(tmp_path)
    about = {"status": "done", "dataset": "grammar", "model": "tiny"}
    for name, finished in (("a", "2031-01-01"), ("b", "2030-01-01"), ("c", "2031-01-01")):  # the clock went back for b
        write_json(store.train / name / "run.json", about | {"finished": finished})
    write_json(store.train / "d" / "run.json", about | {"status": "running"})
    assert newest_training(store, "grammar", "tiny") == store.train / "c"  # of equal stamps always the same one
    for name, ahead in (("first", 1e6), ("second", 0.0)):
        folder = store.sweeps / name
        SweepFolder(folder).write([PlanRow(key="0" * 64, folder="points/x")])
        os.utime(folder / "plan.jsonl", (time.time() + ahead,) * 2)
    assert store.newest_sweep() == store.sweeps / "first"
