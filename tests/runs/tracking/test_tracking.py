"""What is logged, once; and that neither a missing login, a missing network nor a broken client is ever waited for."""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from diffq.config.sections import TrackerSettings
from diffq.runs.tracking import mirror, open_tracker, tracker, worker
from diffq.runs.tracking.mailbox import Errand, Mailbox
from diffq.store.files import write_atomic, write_json
from diffq.store.sweeps import PlanRow, SweepFolder

KEY = "a" * 64
RUN = {
    "status": "done", "key": KEY, "dials": {"scale": 2.0, "solver": "dpmpp"}, "dataset": "grammar", "sampler": "cfg",
    "nfe_rows": 7, "samples": 3, "checkpoint": "c" * 64,
}  # fmt: skip
SCORES = {"bleu|v:1": {"name": "bleu", "value": 10.0, "low": 9.0, "high": None, "n": 3, "direction": "higher"}}
WANDB = TrackerSettings(name="wandb", wait=180)  # the worker has the lowest priority


@pytest.fixture
def outputs(tmp_path, monkeypatch) -> Path:
    """A store with one point and one sweep, no login, and a home of its own."""
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    made = tmp_path / "outputs"
    point = made / "points" / "a" / "scale2-aaaaaa"
    write_json(point / "run.json", RUN)
    write_json(point / "metrics.json", SCORES)
    write_atomic(point / "samples.jsonl", b'{"row":0}\n')
    checkpoint = made / "train" / "t"
    write_atomic(checkpoint / "weights", b"123")
    write_atomic(point / "config.yaml", json.dumps({"checkpoint": str(checkpoint)}).encode())
    sweep = SweepFolder(made / "sweeps" / "demo")
    sweep.write([PlanRow(KEY, "points/a/scale2-aaaaaa")])
    rows = "sampler,on_front,dial_solver,unique,bleu\ncfg,true,dpmpp,1.5,10\nx,false,,,\n"
    write_atomic(sweep.folder / "frontier.csv", rows.encode())
    return made


def point_of(outputs: Path) -> Path:
    return outputs / "points" / "a" / "scale2-aaaaaa"


def runs_of(outputs: Path) -> list[str]:
    """The ids of the runs that were written offline."""
    return sorted(path.name.split("-", 3)[3] for path in (outputs / "wandb").glob("offline-run-*"))


def test_none_does_nothing(tmp_path):
    with open_tracker(TrackerSettings(), tmp_path, say=pytest.fail) as made:
        made.point(tmp_path)
        made.sweep(tmp_path, "", "")
        made.training(tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_the_mode(outputs):
    assert tracker.login({}) == ("offline", "nobody is logged in")
    assert tracker.login({"WANDB_MODE": "disabled"})[0] == "disabled"
    assert tracker.login({"WANDB_MODE": "", "WANDB_API_KEY": "x"}) == ("online", "logged in")
    netrc = outputs.parent / "netrc"
    netrc.write_text("machine api.wandb.ai login user password secret\n")
    netrc.chmod(0o600)
    assert tracker.login({})[0] == "online"
    assert tracker.login({"WANDB_BASE_URL": "http://here.local:8080"})[0] == "offline"


def test_a_host_that_does_not_answer_means_offline(outputs, monkeypatch):
    monkeypatch.setattr(worker, "_PATIENCE", 0.2)
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    monkeypatch.setenv("WANDB_BASE_URL", "http://127.0.0.1:9")  # nobody listens on the discard port
    assert worker.reachable() == ("offline", "127.0.0.1 cannot be reached")
    with socket.create_server(("127.0.0.1", 0)) as there:
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{there.getsockname()[1]}")
        assert worker.reachable() == ("online", "logged in")


def test_a_missing_package_is_said(monkeypatch, tmp_path):
    monkeypatch.setattr(tracker.importlib.util, "find_spec", lambda name: None)
    said: list[str] = []
    open_tracker(WANDB, tmp_path, said.append).point(tmp_path)
    assert said == ["tracker=wandb logs nothing: the package wandb is not installed"]


def test_an_errand_waits_until_it_is_done(tmp_path):
    box = Mailbox(tmp_path)
    first, second = Errand("point", "points/1", "p"), Errand("point", "points/2", "p")
    for errand in (first, second, second):
        box.leave(errand)
    assert box.waiting() == 2

    def fail() -> None:
        with box.take() as errand:
            assert errand == first
            raise OSError("no network")

    with pytest.raises(OSError, match="no network"):
        fail()
    assert box.waiting() == 2
    box.put_back()
    with box.take() as taken:  # what failed has gone to the end
        assert taken == second
        box.leave(second)  # asked for again while it is at work: one more errand
    assert box.waiting() == 2
    with box.take(), box.take() as taken:
        assert taken == second
    with box.take() as taken:
        assert taken is None


def test_points_and_sweeps_are_logged_offline_and_once(outputs):
    pytest.importorskip("wandb")
    said: list[str] = []

    def log() -> None:
        with open_tracker(WANDB, outputs, said.append) as made:
            made.point(point_of(outputs))
            made.sweep(outputs / "sweeps" / "demo", "unique", "bleu")

    log()
    first = runs_of(outputs)
    assert len(first) == 2
    assert KEY in first
    assert any(name.startswith("sweep-") for name in first)
    assert list((outputs / "wandb").glob("offline-run-*/files/media/table/frontier*"))
    assert len(said) == 1
    assert "offline (nobody is logged in)" in said[0]
    folders = set((outputs / "wandb").glob("offline-run-*"))
    log()
    assert set((outputs / "wandb").glob("offline-run-*")) == folders  # nothing new
    more = {"name": "x", "value": 1.0, "low": None, "high": None, "n": 1, "direction": "higher"}
    write_json(point_of(outputs) / "metrics.json", SCORES | {"x|v:1": more})
    log()
    assert runs_of(outputs) == first  # the point's run was written anew and stands there once
    assert set((outputs / "wandb").glob("offline-run-*")) != folders
    assert Mailbox(outputs).waiting() == 0
    assert not (outputs.parent / "home").exists()
    assert {path.name for path in outputs.iterdir()} == {"points", "sweeps", "train", "wandb"}


def test_what_a_point_and_a_sweep_become(outputs):
    store = mirror.Store(outputs)
    entry = mirror.point_entry(store, point_of(outputs), Errand("point", "", "p", artifacts="all"))
    assert entry.id == KEY
    assert entry.values == {"bleu": 10.0, "bleu_low": 9.0, "nfe_rows": 7}
    assert entry.config["dial_scale"] == 2.0
    samples, checkpoint = entry.artefacts
    assert checkpoint.name == f"checkpoint-{'c' * 24}"
    with open(point_of(outputs) / "samples.jsonl", "ab") as file:
        file.write(b'{"row":1}\n')
    again = mirror.point_entry(store, point_of(outputs), Errand("point", "", "p", artifacts="samples"))
    assert [a.type for a in again.artefacts] == ["samples"]
    assert again.artefacts[0].name != samples.name
    assert again.digest != entry.digest
    made = mirror.sweep_entry(outputs / "sweeps" / "demo", Errand("sweep", "", "p", x="unique", y="bleu"))
    assert made.rows[0] == {"sampler": "cfg", "on_front": True, "dial_solver": "dpmpp", "unique": 1.5, "bleu": 10.0}
    assert made.rows[1]["bleu"] is None
    assert made.values == {"points": 1, "on_front": 1}


class Client:
    """Stands for a run of the client's."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, dict[str, float]]] = []
        self.finished = False

    def log(self, values, step):
        self.rows.append((step, values))

    def finish(self):
        self.finished = True


def test_a_training_is_followed_and_taken_up_where_it_was(outputs, monkeypatch):
    folder = outputs / "train" / "t"
    write_json(folder / "config.yaml", {"choices": {"dataset": "grammar"}})
    clients: list[Client] = []
    monkeypatch.setattr(mirror, "_open", lambda *_: clients.append(Client()) or clients[-1])

    def write(*rows, how="ab"):
        with open(folder / "train.jsonl", how) as file:
            file.writelines(json.dumps(row).encode() + b"\n" for row in rows)

    def follow(*happens) -> list[tuple[int, dict[str, float]]]:
        todo = list(happens)

        def lasts():
            if todo:
                todo.pop(0)()
            return bool(todo)

        mirror.follow(Errand("training", "train/t", "p"), Mailbox(outputs), "online", lasts)
        assert clients[-1].finished
        return clients[-1].rows

    one, two, valid = {"step": 1, "loss": 3.0}, {"step": 2, "loss": 2.0}, {"step": 2, "validation_loss": 2.5}
    half = lambda: (folder / "train.jsonl").open("ab").write(b'{"step": 2, "lo')  # noqa: E731
    assert follow(lambda: write(one), half) == [(1, one)]
    write(one, two, how="wb")  # a killed training cuts its log back and goes on
    assert follow(lambda: write(valid | {"previews": ["a"]}), lambda: write({"step": 3, "loss": None})) == [
        (2, two), (2, valid), (3, {"step": 3}),
    ]  # fmt: skip
    assert len(clients) == 2
    mirror.follow(Errand("training", "train/t", "p"), Mailbox(outputs), "online", lambda: False)
    assert len(clients) == 2  # nothing new, no run


REFUSES = """
from http.server import BaseHTTPRequestHandler, HTTPServer
server = HTTPServer(("127.0.0.1", 0), BaseHTTPRequestHandler)  # answers 501 to everything
print(server.server_port, flush=True)
server.serve_forever()
"""


@pytest.mark.parametrize("trouble", ["refused", "error", pytest.param("silent", marks=pytest.mark.slow)])
def test_no_command_waits_for_a_network(outputs, monkeypatch, trouble):
    """A host that refuses, one that takes the connection and says nothing, one that answers with errors."""
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_API_KEY", "x" * 40)
    said: list[str] = []
    with contextlib.ExitStack() as stack:
        there = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{there.getsockname()[1]}")
        if trouble == "refused":
            there.close()
        if trouble == "error":
            server = stack.enter_context(subprocess.Popen([sys.executable, "-c", REFUSES], stdout=subprocess.PIPE))
            stack.callback(server.kill)
            monkeypatch.setenv("WANDB_BASE_URL", f"http://127.0.0.1:{int(server.stdout.readline())}")
        began = time.monotonic()
        with open_tracker(TrackerSettings(name="wandb"), outputs, said.append) as made:
            made.point(point_of(outputs))
            assert time.monotonic() - began < 1  # a process was started, nothing more
            worker_process = made._worker
        assert time.monotonic() - began < 2
        worker_process.wait(120)
    if trouble == "refused":
        assert runs_of(outputs) == [KEY]
    else:
        state = Mailbox(outputs).state
        assert state["failed"]
        assert Mailbox(outputs).waiting() == 1  # the next command tries again
        assert worker_process.returncode != 0
