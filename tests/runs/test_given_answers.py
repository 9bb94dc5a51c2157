"""`diffq score --answers`: answers from a file, and the datasets' own solutions."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffq.cli.main import main
from diffq.sandbox.enclosure import bubblewrap

PROBLEMS = [{"question": f"{i} + {i}?", "answer": f"#### {2 * i}", "id": f"p{i}"} for i in range(3)]


@pytest.fixture
def words(tmp_path: Path) -> list[str]:
    (tmp_path / "test.jsonl").write_text("\n".join(map(json.dumps, PROBLEMS)))
    return ["dataset=gsm8k", f"dataset.path={tmp_path}", f"outputs={tmp_path / 'outputs'}"]


def scored(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[Path, dict[str, float]]:
    capsys.readouterr()
    assert main(["score", *arguments, "--json"]) == 0
    (found,) = json.loads(capsys.readouterr().out)
    return Path(found["folder"]), {s["name"]: s["value"] for s in found["metrics"].values()}


def test_a_file_of_answers_is_scored_and_kept(words, tmp_path, capsys):
    file = tmp_path / "mine.jsonl"
    rows = [{"source": i, "text": f"It is {2 * i if right else 99}."} for right in (True, False) for i in (2, 0, 1)]
    file.write_text("\n".join(map(json.dumps, rows)))
    folder, scores = scored(capsys, *words, "--answers", str(file))
    assert folder.parent == tmp_path / "outputs/answers/gsm8k"
    assert folder.name.startswith("mine-")
    assert (scores["pass_at_1"], scores["pass_at_2"], scores["majority"]) == (50, 100, 50)
    assert "pass_at_4" not in scores
    assert len((folder / "samples.jsonl").read_text().splitlines()) == 6
    assert len((folder / "verdicts.jsonl").read_text().splitlines()) == 6
    stamp = (folder / "metrics.json").stat().st_mtime_ns
    again, same = scored(capsys, *words, "--answers", str(file))
    assert (again, same) == (folder, scores)
    assert (folder / "metrics.json").stat().st_mtime_ns == stamp
    assert main(["score", *words, "--answers", str(file), "metric=pass_at_1,bleu"]) == 0
    assert "50.0" in capsys.readouterr().out


def test_problems_may_be_named(words, tmp_path, capsys):
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(json.dumps({"task_id": f"p{i}", "completion": f"#### {2 * i}"}) for i in (1, 0, 2)))
    _, scores = scored(capsys, *words, "--answers", str(file), "metric=pass_at_1")
    assert scores == {"pass_at_1": 100}
    _, scores = scored(capsys, *words, "--answers", str(file), "metric=pass_at_1", "num_sources=2")
    assert scores == {"pass_at_1": 100}


def test_a_world_scores_given_answers_too(tmp_path, capsys):
    words = ["dataset=grammar", "num_sources=20", f"outputs={tmp_path}"]
    _, scores = scored(capsys, *words, "--answers", "reference")
    assert scores["validity"] == 100
    assert scores["bleu"] == pytest.approx(100)


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([{"source": 0, "text": "1"}], "has 0 answers to question p1 and 1 to others"),
        ([{"source": 9, "text": "1"}], "answers no question of this split"),
        ([{"text": "1"}], r"row 1: expected a column source or task_id or name; the columns are: text"),
        ([{"source": 0}], "row 1: expected a column text or completion"),
        ([{"source": 0, "text": 5}], "row 1: an answer is a text, found int"),
    ],
)
def test_a_file_that_does_not_fit_is_named(words, tmp_path, capsys, rows, told):
    file = tmp_path / "mine.jsonl"
    file.write_text("\n".join(map(json.dumps, rows)))
    capsys.readouterr()
    assert main(["score", *words, "--answers", str(file)]) == 2
    assert told in capsys.readouterr().err


def test_what_has_no_answers_is_refused(words, tmp_path, capsys):
    for arguments, told in (
        ([*words, "--answers", str(tmp_path / "none.jsonl")], "does not exist"),
        ([*words, str(tmp_path), "--answers", "reference"], "instead of a point's samples"),
        (["dataset=textfiles", f"dataset.path={tmp_path}", "--answers", "reference"], "running text asks none"),
        ([*words, "--answers", "reference", "metric=pass_at_2"], "needs 2 answers to each source, not 1"),
    ):
        capsys.readouterr()
        assert main(["score", *arguments]) == 2
        assert told in capsys.readouterr().err


@pytest.mark.data
@pytest.mark.parametrize("name", ["math500", "aime24", "aime25", "gsm8k"])
def test_solutions_of_the_real_files_of_mathematics_pass(name, data_dir, tmp_path, capsys):
    _, scores = scored(capsys, f"dataset={name}", f"outputs={tmp_path}", "--answers", "reference", "metric=pass_at_1")
    assert scores["pass_at_1"] == 100


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(bubblewrap() is None, reason="needs bubblewrap: apt-get install bubblewrap")
@pytest.mark.parametrize(
    ("name", "split"), [("humaneval", "test"), ("mbpp", "test"), ("mbpp", "valid"), ("mbpp", "train")]
)
def test_programs_of_the_real_files_pass(name, split, data_dir, tmp_path, capsys):
    _, scores = scored(
        capsys, f"dataset={name}", f"split={split}", f"outputs={tmp_path}", "--answers", "reference",
        "metric=pass_at_1,cut_off,unanswered",
    )  # fmt: skip
    assert scores == {"pass_at_1": 100, "cut_off": 0, "unanswered": 0}


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(bubblewrap() is None, reason="needs bubblewrap: apt-get install bubblewrap")
def test_programs_of_the_sanitized_file_pass(data_dir, tmp_path, capsys):
    file = data_dir / "mbpp" / "sanitized-mbpp.json"
    _, scores = scored(
        capsys, "dataset=mbpp", f"dataset.path={file}", f"outputs={tmp_path}", "--answers", "reference",
        "metric=pass_at_1",
    )  # fmt: skip
    assert scores["pass_at_1"] == 100


@pytest.mark.data
@pytest.mark.slow
@pytest.mark.skipif(bubblewrap() is None, reason="needs bubblewrap: apt-get install bubblewrap")
def test_answers_to_other_problems_do_not_pass(data_dir, tmp_path, capsys):
    """Each problem is given the next one's solution: the graders can say no."""
    for name, most in (("math500", 2.0), ("humaneval", 0.0)):
        folder, _ = scored(
            capsys, f"dataset={name}", f"outputs={tmp_path}", "--answers", "reference", "num_sources=100",
            "metric=pass_at_1",
        )  # fmt: skip
        rows = [json.loads(line) for line in (folder / "samples.jsonl").read_text().splitlines()]
        moved = [row | {"text": rows[(i + 1) % len(rows)]["text"]} for i, row in enumerate(rows)]
        (tmp_path / "moved.jsonl").write_text("\n".join(map(json.dumps, moved)))
        _, scores = scored(
            capsys, f"dataset={name}", f"outputs={tmp_path}", "--answers", str(tmp_path / "moved.jsonl"),
            "num_sources=100", "metric=pass_at_1",
        )  # fmt: skip
        assert scores["pass_at_1"] <= most
