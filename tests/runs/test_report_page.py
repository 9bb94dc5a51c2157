"""The page of a report from a store: whose samples it shows, which files are asked for, and what is said."""

from __future__ import annotations

import argparse
import json
import re
from pathlib import Path

import pytest
from made_up_store import SAMPLES, SOURCES, make_store

from diffq.cli import main
from diffq.cli.parsers import FORMATS
from diffq.config import Request
from diffq.errors import UserError
from diffq.report import page
from diffq.runs import report, report_files, score
from diffq.runs.report_files import Wanted


@pytest.fixture(scope="module")
def scored(tmp_path_factory):
    store, sweep = make_store(tmp_path_factory.mktemp("paged"))
    score.run(Request(verb="score", overrides=(f"outputs={store.outputs}",), json=True))
    return store, sweep


def block(path: Path, name: str):
    found = re.search(rf'<script type="application/json" id="{name}">(.*?)</script>', path.read_text())
    assert found, name
    return json.loads(found[1])


def run(store, *words: str) -> int:
    return main(["report", f"outputs={store.outputs}", "--json", *words])


def test_the_page_shows_the_samples_of_every_point_beside_their_sources(scored, capsys):
    store, sweep = scored
    assert run(store) == 0
    assert str(sweep / "report.html") in json.loads(capsys.readouterr().out)["files"]
    data = block(sweep / "report.html", "data")
    points = [p for p in data["points"] if p["parts"]]
    assert len(points) == 6
    for shown in points:
        (one,) = shown["parts"]
        part = block(sweep / "report.html", f"part-{one['key']}")
        rows = [json.loads(line) for line in (store.outputs / one["folder"] / "samples.jsonl").read_text().splitlines()]
        questions = block(sweep / "report.html", f"part-{data['asked'][one['key']]}")
        texts = {(row["source"], row["sample"]): row["text"] for row in rows}
        assert part["samples"] == [[texts[index, n] for n in range(SAMPLES)] for index in questions["indices"]]
        assert len(questions["sources"]) == len(questions["references"]) == SOURCES
        assert part["run"]["key"] == one["key"]
        assert "kind: " in part["config"]
    assert [t["title"] for t in data["tables"]][:2] == ["Hypervolume", "validity at equal self_bleu"]


def test_few_sources_can_be_asked_for(scored, capsys):
    store, sweep = scored
    run(store, "--format", "html", "--page-sources", "3")
    data = block(sweep / "report.html", "data")
    assert data["sources"] == {"shown": 3, "all": SOURCES}
    assert all(len(block(sweep / "report.html", f"part-{key}")["samples"]) == 3 for key in data["asked"])
    run(store, "--format", "html", "--page-sources", "0")
    assert block(sweep / "report.html", "data")["sources"]["shown"] == 0


def test_the_page_is_the_same_for_the_same_points(scored, capsys):
    store, sweep = scored
    run(store, "--format", "html")
    first = (sweep / "report.html").read_bytes()
    run(store, "--format", "html")
    assert (sweep / "report.html").read_bytes() == first


NAMES = {
    "html": "report.html",
    "png": "frontier.png",
    "svg": "frontier.svg",
    "csv": "frontier.csv",
    "latex": "frontier.tex",
    "markdown": "frontier.md",
}


@pytest.mark.parametrize("formats", [("html",), ("svg",), ("csv", "latex"), ("markdown", "png")])
def test_only_the_formats_that_are_asked_for_are_written(scored, tmp_path, capsys, formats):
    store, sweep = scored
    for name in NAMES.values():
        (sweep / name).unlink(missing_ok=True)
    assert run(store, "--format", ",".join(formats)) == 0
    assert {kind for kind, name in NAMES.items() if (sweep / name).exists()} == set(formats)
    files = json.loads(capsys.readouterr().out)["files"]
    assert {Path(f).name for f in files} - {"comparisons.md"} == {NAMES[kind] for kind in formats}


def test_axes_are_chosen_by_flags_among_everything_scored(scored, capsys):
    store, _ = scored
    assert run(store, "--x", "distinct_2", "--y", "bleu", "--format", "csv") == 0
    said = json.loads(capsys.readouterr().out)
    assert (said["x"], said["y"]) == ("distinct_2", "bleu")
    main(["score", f"outputs={store.outputs}", "metric=rouge_l", "--json"])
    capsys.readouterr()
    assert run(store, "--y", "rouge_l", "--format", "csv") == 0  # which the sweep's own suite does not have
    assert json.loads(capsys.readouterr().out)["y"] == "rouge_l"
    assert run(store, "--x", "self_blue") == 2
    assert "did you mean 'self_bleu'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--format", "htm"), "did you mean 'html'"),
        (("--open", "--format", "png"), "--format png leaves out"),
        (("--page-sources", "many"), "must be a whole number"),
    ],
)
def test_flags_that_do_not_fit_are_refused_in_one_sentence(scored, capsys, words, said):
    store, _ = scored
    assert run(store, *words) == 2
    error = capsys.readouterr().err
    assert said in error
    assert len(error.strip().splitlines()) == 1


def test_formats_of_the_help_are_those_that_are_written():
    assert FORMATS == report_files.FORMATS
    assert Wanted.of(argparse.Namespace()) == Wanted()
    assert Wanted.of(argparse.Namespace(format=["png,html", "csv"])).formats == ("html", "png", "csv")


def test_open_shows_the_page_or_says_why_not(scored, capsys, monkeypatch):
    import webbrowser

    store, sweep = scored
    opened = []
    monkeypatch.setattr(webbrowser, "open", lambda address: opened.append(address) or True)
    assert run(store, "--open", "--format", "html") == 0
    assert opened == [(sweep / "report.html").resolve().as_uri()]
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(webbrowser, "open", lambda address: False)
    assert run(store, "--open", "--format", "html") == 0
    assert f"open {sweep / 'report.html'} in one" in capsys.readouterr().err


def test_without_the_plotting_library_the_other_files_are_written(scored, capsys, monkeypatch):
    store, sweep = scored
    (sweep / "report.html").unlink(missing_ok=True)

    def missing(name):
        raise page.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(page.metadata, "files", missing)
    assert run(store, "--format", "html,csv") == 0
    said = json.loads(capsys.readouterr().out)
    assert [n for n in said["notes"] if "report.html" in n] == ["no report.html: the package plotly is not installed"]
    assert not (sweep / "report.html").exists()
    assert str(sweep / "frontier.csv") in said["files"]


def test_samples_are_shown_without_their_sources_where_the_tokenizer_is_gone(scored, capsys):
    store, sweep = scored
    store.train.rename(store.train.with_name("moved"))
    try:
        assert run(store, "--format", "html") == 0
    finally:
        store.train.with_name("moved").rename(store.train)
    data = block(sweep / "report.html", "data")
    assert any("shows samples without their sources" in note for note in data["notes"])
    key, name = next(iter(data["asked"].items()))
    assert block(sweep / "report.html", f"part-{name}")["sources"] == []
    assert len(block(sweep / "report.html", f"part-{key}")["samples"]) == SOURCES


def test_loose_points_have_a_page_too(scored, capsys):
    store, _ = scored
    runs = sorted((store.points / "grammar" / "gaussian_tiny").glob("*/*"))
    report.run(Request(verb="report", overrides=(f"outputs={store.outputs}",), runs=tuple(runs), json=True))
    files = json.loads(capsys.readouterr().out)["files"]
    assert any(f.startswith(str(store.reports)) and f.endswith("report.html") for f in files)


def test_nothing_finished_is_still_refused(tmp_path):
    store, _ = make_store(tmp_path)
    for path in store.points.glob("**/run.json"):
        path.unlink()
    with pytest.raises(UserError, match="none of these points is finished"):
        report.run(Request(verb="report", overrides=(f"outputs={store.outputs}",)))
