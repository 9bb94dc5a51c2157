"""Programs: how they are made of answers, when two are the same, and that tests decide."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from diffq.data.programs import ProgramCorpus, Programs, ProgramTask, program, syntax_tree
from diffq.data.task import Graded
from diffq.errors import UserError
from diffq.sandbox import Limits
from diffq.sandbox.enclosure import bubblewrap

MODELS = {"causal": "causal_lm_mini"}
HEAD = 'from typing import List\n\n\ndef double(xs: List[int]) -> List[int]:\n    """Twice each."""\n'
TASK = ProgramTask(0, HEAD, ("    return [2 * x for x in xs]\n",), start=HEAD, entry="double")


def test_an_answer_goes_on_from_the_head_or_defines_the_function_anew() -> None:
    assert program(TASK, "    return xs * 2\n") == HEAD + "    return xs * 2\n"
    anew = "def double(xs: List[int]):\n    return xs * 2\n"
    assert program(TASK, anew) == HEAD + "\n" + anew
    assert program(TASK, f"Here it is:\n```python\n{anew}```\nIt doubles.") == HEAD + "\n" + anew
    assert program(TASK, f"```\n{anew}") == HEAD + "\n" + anew  # the end was cut off
    body = "    return xs * 2\n"
    for end in ("```", "```\n", "```\n\nThis works.", "```\n\nOr so:\n```python\nx\n```\n"):
        assert program(TASK, body + end) == HEAD + body, "what closes the prompt's block opens none"
    assert program(TASK, f"Here it is:\n``` python\n{anew}```") == HEAD + "\n" + anew
    free = ProgramTask(0, "Double.", ())
    assert program(free, "x = 1\n```") == "x = 1\n"
    assert program(free, "Sure\n```\nx = 1") == "x = 1"
    assert program(free, "x = 1") == "x = 1"
    assert program(free, "```py\nx = 1\n```\n```py\nx = 2\n```") == "x = 1\n"


def test_programs_are_the_same_where_their_syntax_trees_are() -> None:
    one = syntax_tree("def f(x):\n    return x+1")
    assert one
    assert one == syntax_tree('def f( x ):\n    """Adds one."""\n\n    return (x + 1)  # so')
    assert one != syntax_tree("def f(y):\n    return y + 1")
    assert one != syntax_tree("def f(x):\n    return 1 + x")
    assert syntax_tree('def f():\n    """Nothing."""') == syntax_tree("def f():\n    pass")


@pytest.mark.parametrize(
    "code", ["def f(", "x = 1\x00", "(" * 10**5, "x" + "+x" * 10**5, "-" * 50_000 + "1", "x = 1\n" * 10**5, "\udc80"]
)
def test_what_has_no_syntax_tree_has_none(code: str) -> None:
    assert syntax_tree(code) == ""


def corpus(file: Path, rows: list[dict], layout: str, **more: object) -> ProgramCorpus:
    file.write_text("\n".join(map(json.dumps, rows)))
    settings = Programs(name="mine", models=MODELS, layout=layout, path=str(file), **more)  # type: ignore[arg-type]
    return settings.open()


HUMANEVAL = [
    {"task_id": "Mine/0", "prompt": HEAD, "entry_point": "double", "canonical_solution": TASK.references[0],
     "test": "def check(candidate):\n    assert candidate([1, 2]) == [2, 4]\n"},
]  # fmt: skip
MBPP = [
    {"task_id": i, "text": "Write a function that adds.", "code": "def add(a, b):\r\n    return a + b", "test_list":
     ["assert add(1, 2) == three", "assert add(0, 0) == 0"], "test_setup_code": "three = 3", "challenge_test_list": []}
    for i in (1, 2, 3, 4, 11, 510, 511, 601, 974)
]  # fmt: skip


@pytest.mark.skipif(bubblewrap() is None, reason="needs bubblewrap: apt-get install bubblewrap")
def test_tests_decide(tmp_path: Path) -> None:
    found = corpus(tmp_path / "a.jsonl", HUMANEVAL, "humaneval", limits=Limits(seconds=1))
    assert isinstance(found, Graded)
    (task,) = found.split("test")
    answers = {
        "    return [x + x for x in xs]": "passed",
        "    return xs": "failed",
        "    while True: pass": "timed out",
        "    return [x + x for x in xs]\nraise SystemExit": "failed",
        "    x = = 1": "failed",
        "": "failed",
    }
    verdicts = found.grade([(task, text) for text in answers])
    assert [v.outcome for v in verdicts] == list(answers.values())
    assert verdicts[0].answer
    assert verdicts[4].answer == ""  # no program
    assert verdicts[5].answer == ""  # the head alone is no answer
    assert verdicts[1].note.startswith("AssertionError")
    (again,) = found.grade([(task, found.reference(task))])
    assert again.passed


@pytest.mark.skipif(bubblewrap() is None, reason="needs bubblewrap: apt-get install bubblewrap")
def test_a_file_of_mbpp_has_its_splits_by_number(tmp_path: Path) -> None:
    found = corpus(tmp_path / "a.jsonl", MBPP, "mbpp")
    assert [p.name for p in found.split("test")] == ["11", "510"]
    assert [p.name for p in found.split("valid")] == ["511"]
    assert [p.name for p in found.split("train")] == ["601", "974"]
    assert [p.name for p in found.examples()] == ["2", "3", "4", "1"]
    task = found.split("test")[0]
    assert "\r" not in task.references[0]
    assert task.tests == "assert add(1, 2) == three\nassert add(0, 0) == 0"
    (verdict,) = found.grade([(task, found.reference(task))])
    assert verdict.passed


def test_without_bubblewrap_nothing_is_graded_unless_that_is_wanted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("diffq.sandbox.box.bubblewrap", lambda: None)
    found = corpus(tmp_path / "a.jsonl", HUMANEVAL, "humaneval")
    (task,) = found.split("test")
    with pytest.raises(UserError, match="not installed"):
        found.grade([(task, task.references[0])])
    assert "not installed" in (found.settings.ungradable() or "")
    unsafe = corpus(tmp_path / "a.jsonl", HUMANEVAL, "humaneval", allow_unsafe_execution=True)
    (verdict,) = unsafe.grade([(task, task.references[0])])
    assert verdict.passed
    assert unsafe.settings.ungradable() is None
    assert "_unwalled_v" in unsafe.grader
    assert unsafe.grader.replace("_unwalled", "") == found.grader


@pytest.mark.skipif(bubblewrap() is None, reason="needs bubblewrap: apt-get install bubblewrap")
def test_where_there_are_walls_unsafe_execution_changes_no_signature(tmp_path: Path) -> None:
    found = corpus(tmp_path / "a.jsonl", HUMANEVAL, "humaneval")
    unsafe = corpus(tmp_path / "a.jsonl", HUMANEVAL, "humaneval", allow_unsafe_execution=True)
    assert unsafe.grader == found.grader


def test_rows_that_lack_a_column_are_named(tmp_path: Path) -> None:
    found = corpus(tmp_path / "a.jsonl", [{"task_id": 11, "text": "?", "code": ""}], "mbpp")
    with pytest.raises(UserError, match=r"row 1: there is no column 'test_list'; the columns are: task_id, text, code"):
        found.split("test")
