"""Keywords on the way through the verbs: held in every answer, part of the question, scored and refused."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from trained import copy_of, sweep

from diffq.cli import main
from diffq.runs.paper_tables import tasks_of


@pytest.fixture
def outputs(trained: Path, tmp_path: Path) -> Path:
    return copy_of(trained, tmp_path / "outputs")


def rows_of(outputs: Path) -> list[list[dict[str, Any]]]:
    files = sorted(outputs.glob("points/**/samples.jsonl"))
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


WORDS = ("sampler=cfg", "scale=1", "steps=3")


def test_drawn_keywords_are_in_every_answer_and_in_the_points_key(outputs: Path) -> None:
    assert sweep(outputs, *WORDS, "keywords=2", "metric=keywords") == 0
    (rows,) = rows_of(outputs)
    assert all(row["keywords"] and set(row["keywords"]) <= set(row["text"].split()) for row in rows)
    by_source: dict[int, set[tuple[str, ...]]] = {}
    for row in rows:
        by_source.setdefault(row["source"], set()).add(tuple(row["keywords"]))
    assert all(len(asked) == 1 for asked in by_source.values())  # all samples are asked the same
    (scores,) = [json.loads(p.read_text()) for p in outputs.glob("points/**/metrics.json")]
    values = {score["name"]: score["value"] for score in scores.values()}
    assert values["keyword_coverage"] == 100
    assert values["keyword_coverage_null"] < 60
    assert sweep(outputs, *WORDS) == 0
    points = rows_of(outputs)
    assert len(points) == 2
    assert sum("keywords" in row for rows in points for row in rows) == len(rows)


def test_a_causal_model_holds_them_too(outputs: Path) -> None:
    words = ("model=causal_seq2seq_tiny", "sampler=autoregressive", "dataset.keywords=2")
    assert sweep(outputs, *words) == 0
    (rows,) = rows_of(outputs)
    assert all(set(row["keywords"]) <= set(row["text"].split()) for row in rows)


def test_points_with_and_without_keywords_are_scored(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert sweep(outputs, *WORDS, "dataset.keywords=1") == 0
    (folder,) = [p.parent for p in outputs.glob("points/**/samples.jsonl")]
    capsys.readouterr()
    assert main(["score", str(folder), f"outputs={outputs}", "metric=keyword_coverage", "--json"]) == 0
    assert '"value": 100' in capsys.readouterr().out
    assert main(["rerun", str(folder), f"outputs={outputs}", "--json"]) == 0
    (again,) = json.loads(capsys.readouterr().out)
    assert "keyword_coverage" in {metric["name"] for metric in again["metrics"]}


def test_words_of_ones_own_stand_in_every_answer(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    said = ["sample", f"outputs={outputs}", *WORDS, "num_samples=4", "--source", "why is my shawl so rare", "--json"]
    assert main([*said, "--keywords", "shawl, rare"]) == 0
    texts = [row["text"].split() for row in json.loads(capsys.readouterr().out)["samples"]]
    assert all(text.index("shawl") < text.index("rare") for text in texts)
    assert len({(text.index("shawl"), text.index("rare")) for text in texts}) > 1  # positions are a row's own
    for spelt in ("dataset.keywords=[9:rare,2:shawl]", "keywords=9:rare,2:shawl"):
        assert main([*said, spelt]) == 0
        texts = [row["text"].split() for row in json.loads(capsys.readouterr().out)["samples"]]
        assert all((text[2], text[9]) == ("shawl", "rare") for text in texts)  # rows are as long as they must be
    assert main([*said, "keywords=4:rare"]) == 0
    assert all(row["text"].split()[4] == "rare" for row in json.loads(capsys.readouterr().out)["samples"])


def test_a_sweep_takes_keywords_apart_at_commas(outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Three points that differ in nothing else are three lines of a report, and no seeds of one."""
    assert sweep(outputs, *WORDS, "seed=0,1", "keywords=1,2,[1:rare]") == 0
    assert sorted({len(row["keywords"]) for rows in rows_of(outputs) for row in rows}) == [1, 2]
    assert len(rows_of(outputs)) == 6
    (file,) = outputs.glob("sweeps/*/frontier.csv")
    rows = [row for row in csv.DictReader(file.open()) if row["kind"] == "point"]
    assert [(row["dataset_keywords"], row["seed"]) for row in rows] == [("1", "0 1"), ("2", "0 1"), ("1:rare", "0 1")]
    shown = (file.parent / "frontier.md").read_text()
    assert all(f"| cfg · keywords {asked} |" in shown for asked in ("1", "2", "1:rare"))
    assert "lines differ in keywords" in shown + capsys.readouterr().out
    tasks = tasks_of({"tasks": ["grammar"], "models": "many", "claims": []}, outputs)
    assert sorted(task.label.rpartition(", ")[2] for task in tasks) == ["keywords 1", "keywords 1:rare", "keywords 2"]
    assert all(len(task.points) == 2 for task in tasks)


def test_the_suite_does_without_its_null_where_all_are_asked_for_the_same_words(
    outputs: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert sweep(outputs, *WORDS, "keywords=[1:rare]", "metric=keywords") == 0
    assert "words of your own are asked of all alike" in capsys.readouterr().err
    (scores,) = [json.loads(p.read_text()) for p in outputs.glob("points/**/metrics.json")]
    names = {score["name"] for score in scores.values()}
    assert "keyword_coverage" in names
    assert "keyword_coverage_null" not in names


def test_the_flag_works_for_points(outputs: Path) -> None:
    said = ["sample", f"outputs={outputs}", *WORDS, "num_samples=1", "num_sources=5", "--json"]
    assert main([*said, "--keywords", "1:rare"]) == 0
    (rows,) = rows_of(outputs)
    assert all(row["text"].split()[1] == "rare" and row["keywords"] == ["rare"] for row in rows)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--source", "why", "dataset.keywords=2"], "draws words of references"),
        (["--source", "why", "--keywords", "rare", "--template", "_ _"], "both put words"),
        (["--keywords", "rare", "keywords=why"], "--keywords rare and keywords=why say one thing twice"),
        (["--keywords", "zebrafish"], "does not know the keyword"),
        (["--keywords", "rare,,why"], "holds no word"),
        (["--keywords", "99:rare"], "need a target of 100 tokens"),
        (["model=causal_seq2seq_tiny", "sampler=autoregressive", "--keywords", "rare"], "ends an answer by itself"),
        (["metric=keyword_coverage"], "dataset.keywords=3 asks for some"),
        (["dataset=sudoku", "--keywords", "rare"], "no setting 'keywords'"),
    ],
)
def test_what_cannot_be_asked(words: list[str], said: str, outputs: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = [f"outputs={outputs}", "num_sources=3", "num_samples=1", *words]
    assert main(["sample", *given]) == 2
    assert said in capsys.readouterr().err


@pytest.fixture(scope="module")
def laid_out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An outputs folder with an eags_tiny of the world that has seen a few batches."""
    outputs = tmp_path_factory.mktemp("laid_out")
    words = ["model=eags_tiny", "dataset.room=12", "trainer.max_minutes=null", "trainer.max_steps=6"]
    assert main(["train", *words, "trainer.validation_sources=0", f"outputs={outputs}"]) == 0
    return outputs


def test_pairs_on_one_canvas_hold_keywords_too(laid_out: Path, tmp_path: Path) -> None:
    """Their room is behind the source, and an answer ends behind the words that it holds."""
    outputs = copy_of(laid_out, tmp_path / "outputs")
    words = ("model=eags_tiny", "dataset.room=12", "sampler=random", "steps=4")
    assert sweep(outputs, *words, "dataset.keywords=2") == 0
    (rows,) = rows_of(outputs)
    assert all(row["keywords"] for row in rows)
    assert all(set(row["keywords"]) <= set(row["text"].split()) for row in rows)
    said = ["sample", f"outputs={outputs}", *words, "num_samples=2", "num_sources=4", "--json"]
    assert main([*said, "--keywords", "0:rare"]) == 0
    own = [row for rows in rows_of(outputs) for row in rows if row["keywords"] == ["rare"]]
    assert len(own) == 8
    assert all(row["text"].split()[0] == "rare" for row in own)


def test_what_has_no_room_on_one_canvas(laid_out: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    outputs = copy_of(laid_out, tmp_path / "outputs")
    words = [f"outputs={outputs}", "model=eags_tiny", "dataset.room=12", "sampler=random", "num_sources=3"]
    assert main(["sample", *words, "--keywords", "12:rare"]) == 2
    assert "need a target of 13 tokens, and it has at most 12" in capsys.readouterr().err
