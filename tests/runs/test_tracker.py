"""A tracker logs, or says in one line why it does not; it never stops a run and never waits for a network."""

from __future__ import annotations

import sys
import time

import pytest

from diffq.config.sections import TrackerSettings
from diffq.runs import tracker
from diffq.store.index import Record

RECORD = Record.build(
    "points/a/b/c/scale2-123456",
    {"key": "k" * 64, "dials": {"scale": 2.0}, "dataset": "grammar", "sampler": "cfg", "nfe_rows": 7, "samples": 3},
    {"bleu|v:1": {"name": "bleu", "value": 10.0, "low": 9.0, "high": None, "n": 3, "direction": "higher"}},
)


@pytest.fixture
def alone(tmp_path, monkeypatch):
    """No login, no network, a home of its own."""
    for name in (
        "WANDB_API_KEY",
        "WANDB_MODE",
        "WANDB_BASE_URL",
        "WANDB_CACHE_DIR",
        "WANDB_CONFIG_DIR",
        "WANDB_DATA_DIR",
    ):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    monkeypatch.setattr(tracker, "_reachable", lambda host, port: False)
    return tmp_path / "outputs"


def test_none_does_nothing(tmp_path):
    made = tracker.open_tracker(TrackerSettings(), tmp_path, say=pytest.fail)
    made.point(RECORD)
    made.frontier("name", [], None)
    assert list(tmp_path.iterdir()) == []


def test_the_mode(alone, monkeypatch):
    assert tracker.choose_mode({}) == ("offline", "nobody is logged in")
    assert tracker.choose_mode({"WANDB_MODE": "disabled"})[0] == "disabled"
    assert tracker.choose_mode({"WANDB_MODE": "", "WANDB_API_KEY": "x"}) == (
        "offline", "api.wandb.ai cannot be reached",
    )  # fmt: skip
    asked = []
    monkeypatch.setattr(tracker, "_reachable", lambda *place: asked.append(place) or True)
    assert tracker.choose_mode({"WANDB_API_KEY": "x", "WANDB_BASE_URL": "http://here.local:8080"})[0] == "online"
    assert asked == [("here.local", 8080)]
    (alone.parent / "netrc").write_text("machine api.wandb.ai login user password secret\n")
    (alone.parent / "netrc").chmod(0o600)
    assert tracker.choose_mode({})[0] == "online"


def test_a_missing_package_is_said(monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, "wandb", None)
    said: list[str] = []
    made = tracker.open_tracker(TrackerSettings(name="wandb"), tmp_path, said.append)
    made.point(RECORD)
    assert said == ["tracker=wandb logs nothing: the package wandb is not installed"]


def test_points_and_frontier_are_logged_offline_under_outputs(alone):
    pytest.importorskip("wandb")
    said: list[str] = []
    began = time.monotonic()
    made = tracker.open_tracker(TrackerSettings(name="wandb"), alone, said.append)
    made.point(RECORD)
    made.frontier("sweep", [{"sampler": "cfg", "dial_scale": 2.0}, {"sampler": "x", "dial_scale": "none"}], None)
    assert time.monotonic() - began < 20
    assert len(said) == 1
    assert "offline" in said[0]
    names = [p.name for p in (alone / "wandb").iterdir()]
    assert any(name.startswith("offline-run-") and name.endswith("k" * 64) for name in names)
    assert sum(name.startswith("offline-run-") for name in names) == 2
    assert list((alone / "wandb").glob("offline-run-*/files/media/table/frontier*"))
    assert not (alone.parent / "home").exists()


def test_a_failure_is_said_once_and_stops_nothing(alone, monkeypatch):
    wandb = pytest.importorskip("wandb")

    def fail(**_):
        raise RuntimeError("no such project\nand more")

    monkeypatch.setattr(wandb, "init", fail)
    said: list[str] = []
    made = tracker.open_tracker(TrackerSettings(name="wandb"), alone, said.append)
    made.point(RECORD)
    made.point(RECORD)
    made.frontier("sweep", [], None)
    assert said[1:] == ["tracker=wandb stopped logging: RuntimeError: no such project"]
