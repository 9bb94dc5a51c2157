"""A report stands on saved samples alone: the files, the null lines, the front and the paper's table."""

from __future__ import annotations

import csv
import json
import re
from types import SimpleNamespace

import pytest
from made_up_store import make_store

from diffq.config import Request
from diffq.errors import UserError
from diffq.runs import report, report_points, score
from diffq.runs.selection import select


def request(store, *words, runs=(), json=True):
    return Request(verb="report", overrides=(f"outputs={store.outputs}", *words), runs=tuple(runs), json=json)


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    store, sweep = make_store(tmp_path_factory.mktemp("reported"))
    score.run(request(store))
    return store, sweep


def test_the_newest_sweep_is_reported(scored, capsys):
    store, sweep = scored
    assert report.run(request(store)) == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["x"], said["y"]) == ("self_bleu", "validity")
    assert {p.name for p in sweep.iterdir()} >= {
        "frontier.csv",
        "frontier.png",
        "frontier.svg",
        "frontier.md",
    }
    with open(sweep / "frontier.csv") as file:
        rows = list(csv.DictReader(file))
    assert [row["sampler"] for row in rows if row["kind"] == "point"].count("clamp_before_cfg") == 4
    assert {row["sampler"] for row in rows if row["kind"] == "null"} == {"corrupt", "copy"}
    start = next(row for row in rows if row["sampler"] == "corrupt" and float(row["dial_q"]) == 0)
    plain = next(row for row in rows if row["sampler"] == "dpmpp")
    assert start["validity"] == plain["validity"]  # null lines start from the plain baseline
    worst = next(row for row in rows if row["sampler"] == "corrupt" and float(row["dial_q"]) == 1)
    assert float(worst["bleu"]) < float(plain["bleu"])
    front = {row["key"] for row in rows if row["on_front"] == "true"}
    assert front == set(said["front"])
    assert front
    assert all(row["low"] is not None for row in said["hypervolume"]["lines"])


def test_null_lines_are_scored_once(scored, monkeypatch):
    store, _ = scored
    report.run(request(store))

    def again(*_):
        raise AssertionError("scored again")

    monkeypatch.setattr(score, "evaluate", again)
    report.run(request(store))
    report.run(request(store, "metric=bleu,self_bleu", "metric.x=self_bleu", "metric.y=bleu"))  # of part of them


def test_axes_can_be_chosen(scored, capsys):
    store, _ = scored
    report.run(request(store, "metric.x=distinct_2", "metric.y=bleu", json=False))
    out = capsys.readouterr().out
    assert "(bleu against distinct_2)" in out
    assert "frontier.png" in out
    with pytest.raises(UserError):
        report.run(request(store, "metric.x=nonsense"))


def test_loose_points_are_reported_under_reports(scored, capsys):
    store, _ = scored
    runs = sorted((store.points / "grammar" / "gaussian_tiny").glob("*/*"))
    report.run(request(store, runs=runs))
    files = json.loads(capsys.readouterr().out)["files"]
    assert all(f.startswith(str(store.reports)) for f in files)
    assert len(list(store.reports.iterdir())) == 1


def test_two_points_are_compared_in_every_metric(scored, capsys):
    store, _ = scored
    runs = [point.folder for point in select(store, []).points[:2]]
    score.run(request(store, "metric=distinct_1_corpus", runs=runs))
    capsys.readouterr()
    report.run(request(store, runs=runs))
    (table,) = json.loads(capsys.readouterr().out)["tables"]
    found = {row["metric"]: row for row in table["data"]}
    assert {"validity", "self_bleu", "coverage", "distinct_1_corpus"} <= set(found)
    for name in ("validity", "coverage", "distinct_1_corpus"):
        assert found[name]["low"] <= found[name]["value"] <= found[name]["high"]
        assert 0 <= found[name]["probability"] <= 1


def test_the_papers_table(scored, capsys):
    store, sweep = scored
    words = ("metric=bleu,rouge_l,self_bleu", "metric.x=self_bleu", "metric.y=bleu", "paper=2503.10683")
    score.run(request(store, *words[:1]))
    capsys.readouterr()
    report.run(request(store, *words))
    said = json.loads(capsys.readouterr().out)["paper"]
    assert [c["name"] for c in said["claims"]] == ["a", "b", "c", "d"]
    assert all(c["verdict"] in ("held", "did not hold", "undecided") for c in said["claims"])
    text = (sweep / "paper-2503.10683.md").read_text()
    assert re.search(r"\| BLEU-4 \| \+5\.9 \|", text)
    assert "needs deberta-xlarge-mnli" in text


def test_a_report_without_its_checkpoint_has_no_null_lines_and_says_so(scored, capsys):
    store, _ = scored
    store.train.rename(store.train.with_name("moved"))
    try:
        report.run(request(store))
    finally:
        store.train.with_name("moved").rename(store.train)
    notes = json.loads(capsys.readouterr().out)["notes"]
    assert any(note.startswith("no null lines:") for note in notes)


def test_nothing_finished_is_refused(tmp_path):
    store, _ = make_store(tmp_path)
    for path in store.points.glob("**/run.json"):
        path.unlink()
    with pytest.raises(UserError, match="none of these points is finished"):
        report.run(request(store))


@pytest.mark.parametrize(
    ("dials", "idle"),
    [
        ({}, {"update", "sweeps", "within", "entropy", "renyi_order"}),
        ({"update": "all", "entropy": "renyi", "a dial of another version": 3}, set()),
        ({"update": "all", "steps": 0}, set()),  # what no sampler has
    ],
)
def test_labels_leave_out_dials_that_say_nothing(dials, idle):
    assert report_points._idle(SimpleNamespace(sampler="eags", dials=dials)) == idle
    assert report_points._idle(SimpleNamespace(sampler="a plugin's", dials=dials)) == set()


@pytest.mark.parametrize(
    ("sampler", "own"),
    [("imh", {"alpha", "chain"}), ("best_of", {"candidates", "temperature"}), ("low_confidence", set()), ("?", set())],
)
def test_a_samplers_own_dials_are_the_numbers_that_it_declares(sampler, own):
    assert report_points._own(SimpleNamespace(sampler=sampler)) == own
