"""Datasets of checked answers: files, prompts, worked examples, what ends an answer, mathematics' verdicts."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import pytest
import torch

from diffq.data.answers import AnswerCorpus
from diffq.data.canvases import Row, answer_canvas
from diffq.data.maths import Mathematics, MathsCorpus
from diffq.data.task import Graded
from diffq.errors import UserError

MODELS = {"causal": "causal_lm_mini"}
ROWS = [
    {"problem": "What is $\\frac{1}{2} + \\frac{1}{2}$?", "solution": "It is $\\boxed{1}$.", "answer": "1"},
    {"problem": "Expand $2(x+1)$.", "solution": "$\\boxed{2x+2}$", "answer": "2x+2"},
]
WORDS = [
    {"question": f"What is {i} and {i}?", "answer": f"{i} + {i} = {2 * i}\n#### {2 * i:,}"} for i in range(500, 540)
]


def write(file: Path, rows: Sequence[dict]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("\n".join(map(json.dumps, rows)))
    return file


def maths(path: Path, **more: object) -> MathsCorpus:
    return Mathematics(name="mine", models=MODELS, path=str(path), **more).open()  # type: ignore[arg-type]


def test_files_are_looked_for_in_three_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "kept" / "a.jsonl", ROWS)
    assert len(maths(file).split("test")) == 2
    with pytest.raises(UserError, match="has no problem of the split 'train'"):
        maths(file).split("train")
    with pytest.raises(UserError, match=r"dataset\.path=.*nothing does not exist"):
        maths(tmp_path / "nothing")
    settings = Mathematics(name="mine", models=MODELS, kept="kept/a.jsonl")
    monkeypatch.delenv("DIFFQ_DATA", raising=False)
    with pytest.raises(UserError, match=r"nothing at \$DIFFQ_DATA/kept/a.jsonl, and the hub data set None is"):
        settings.open()
    monkeypatch.setenv("DIFFQ_DATA", str(tmp_path))
    assert settings.open().split("test")[1].source == "Expand $2(x+1)$."
    with pytest.raises(UserError, match="there is no split 'tset'"):
        settings.open().split("tset")  # type: ignore[arg-type]


def test_problems_may_be_left_out_and_the_others_keep_their_numbers(tmp_path: Path) -> None:
    rows = [row | {"id": i} for i, row in enumerate(WORDS[:4])]
    file = write(tmp_path / "a.jsonl", rows)
    kept = maths(file, final="number", leave_out=(1, "3")).split("test")
    assert [(p.index, p.name) for p in kept] == [(0, "0"), (2, "2")]


def test_the_hub_is_asked_for_the_split_that_is_meant(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, config: str | None, split: str) -> list[dict]:
        asked.append((name, config, split))
        return ROWS

    monkeypatch.delenv("DIFFQ_DATA", raising=False)
    monkeypatch.setattr(datasets, "load_dataset", load)
    settings = Mathematics(name="mine", models=MODELS, hub="a/b", hub_config="c", hub_split="train")
    assert len(settings.open().split("test")) == 2
    assert len(settings.open().split("valid")) == 2
    assert asked == [("a/b", "c", "train"), ("a/b", "c", "validation")]
    monkeypatch.setattr(datasets, "load_dataset", None)
    with pytest.raises(UserError, match="the hub data set a/b could not be read"):
        settings.open().split("test")


def test_a_prompt_is_a_template_with_worked_examples_before_it(tmp_path: Path) -> None:
    write(tmp_path / "data" / "test.jsonl", WORDS[:2])
    write(tmp_path / "data" / "train.jsonl", WORDS[2:])
    said = {"prompt": "Q: {question} \\boxed{} A:", "shot": "Q: {question} A: {answer}\n", "final": "number"}
    corpus = maths(tmp_path / "data", **said, shots=2, chat_prompt="Please: {question}")
    problem = corpus.split("test")[0]
    assert corpus.prompt(problem, chat=False) == (
        "Q: What is 502 and 502? A: 502 + 502 = 1004\n#### 1,004\n"
        "Q: What is 503 and 503? A: 503 + 503 = 1006\n#### 1,006\n"
        "Q: What is 500 and 500? \\boxed{} A:"
    )
    assert corpus.prompt(problem, chat=True).endswith("Please: What is 500 and 500?")
    with pytest.raises(UserError, match=r"dataset\.shots=99: there are 38 worked examples"):
        maths(tmp_path / "data", **said, shots=99).prompt(problem, chat=False)
    alone = maths(write(tmp_path / "a.jsonl", WORDS[:2]), **said, shots=1)
    with pytest.raises(UserError, match=r"dataset\.examples=FILE"):
        alone.prompt(problem, chat=False)
    other = write(tmp_path / "shots.jsonl", WORDS[5:6])
    named = maths(tmp_path / "a.jsonl", **said, shots=1, examples=str(other))
    assert named.prompt(problem, chat=False).startswith("Q: What is 505 and 505? A: 505")


def test_templates_that_say_nothing_are_refused() -> None:
    for wrong, why in (
        ({"prompt": "Answer:"}, r"dataset\.prompt must hold \{question\}"),
        ({"chat_prompt": "Answer:"}, r"dataset\.chat_prompt must hold \{question\}"),
        ({"shots": 2}, r"dataset\.shots needs dataset\.shot"),
        ({"stop": ("",)}, "an empty text"),
    ):
        with pytest.raises(UserError, match=why):
            Mathematics(name="mine", models=MODELS, **wrong)  # type: ignore[arg-type]


def test_an_answer_ends_at_the_first_text_that_ends_it(tmp_path: Path) -> None:
    corpus = maths(write(tmp_path / "a.jsonl", ROWS), stop=("\nQ:", "\n\n"), chat_stop=("<end>",))
    assert corpus.cut("3\n\nand\nQ: more", chat=False) == "3"
    assert corpus.cut("3\nQ: more\n\n", chat=False) == "3"
    assert corpus.cut("3\n\nand<end>", chat=True) == "3\n\nand"
    assert corpus.cut("3", chat=False) == "3"


def test_problems_and_solutions_are_texts_to_be_trained_on(tmp_path: Path) -> None:
    write(tmp_path / "test.jsonl", WORDS[:2])
    write(tmp_path / "train.jsonl", WORDS)
    corpus = maths(tmp_path, prompt="Q: {question} A:", shot="Q: {question} A: {answer}\n\n", final="number")
    train, valid = list(corpus.documents("train")), list(corpus.documents("valid"))
    assert (len(train), len(valid)) == (38, 2)
    assert not set(train) & set(valid)
    assert train[0] == "Q: What is 500 and 500? A: 500 + 500 = 1000\n#### 1,000"
    assert corpus.fingerprint("train") != corpus.fingerprint("valid")
    write(tmp_path / "valid.jsonl", WORDS[:5])
    assert len(list(corpus.documents("train"))) == 40
    assert len(list(corpus.documents("valid"))) == 5


def test_mathematics_is_graded_by_the_final_answer(tmp_path: Path) -> None:
    corpus = maths(write(tmp_path / "a.jsonl", ROWS))
    assert isinstance(corpus, Graded)
    assert isinstance(corpus, AnswerCorpus)
    one, two = corpus.split("test")
    asked = [
        (two, "\\boxed{2x + 2}"),  # by spelling
        (two, "The answer is $2(x+1)$."),  # by math-verify
        (two, "\\boxed{2x}"),
        (two, "I do not know"),
        (one, "\\boxed{1}"),
        (one, "\\boxed{2}"),
        (two, "The answer is $2(x+1)$."),
    ]
    verdicts = corpus.grade(asked)
    assert [v.outcome for v in verdicts] == ["passed", "passed", "failed", "failed", "passed", "failed", "passed"]
    assert verdicts[0].answer == verdicts[1].answer == verdicts[6].answer == "2x+2"  # right answers are one
    assert verdicts[2].answer == "2*x"
    assert verdicts[3].answer == ""
    assert corpus.grader.startswith("math_verify_0.9")
    assert corpus.grade([(p, corpus.reference(p)) for p in (one, two)])[1].passed


def test_whole_numbers_and_sentences_of_the_file(tmp_path: Path) -> None:
    rows = [{"problem": "How many?\nPut it in a box.", "answer": "025", "id": 7}]
    corpus = maths(write(tmp_path / "a.jsonl", rows), final="integer", unasked="Put it in a box.")
    (problem,) = corpus.split("test")
    assert (problem.source, problem.right, problem.name) == ("How many?", "25", "7")
    verdicts = corpus.grade([(problem, t) for t in ("\\boxed{25}", "\\boxed{025}", "it is 25", "26", "")])
    assert [v.passed for v in verdicts] == [True, True, True, False, False]
    assert corpus.grade([(problem, corpus.reference(problem))])[0].passed
    assert corpus.grader.startswith("integer_math_verify_0.9")
    computed = (r"\boxed{\frac{50}{2}}", r"\boxed{\frac{25}{7}}", r"\boxed{25^{2}}", r"\boxed{25\sqrt{3}}", "#### 25/7")
    assert [v.passed for v in corpus.grade([(problem, t) for t in computed])] == [True, False, False, False, False]


def test_numbers_need_no_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("diffq.data.maths.find_spec", lambda name: None)
    corpus = maths(write(tmp_path / "a.jsonl", WORDS), final="number")
    assert corpus.settings.ungradable() is None
    assert corpus.grade([(corpus.split("test")[0], "#### 1000.0")])[0].passed
    expressions = maths(write(tmp_path / "b.jsonl", ROWS))
    assert "math-verify, which is not installed" in (expressions.settings.ungradable() or "")
    with pytest.raises(UserError, match="math-verify, which is not installed"):
        expressions.grade([(expressions.split("test")[1], "\\boxed{2(x+1)}")])


def test_a_canvas_holds_prompts_then_answers_then_padding() -> None:
    prompts = {0: [5, 6, 7], 4: [8]}
    rows = [Row(0, 0, 5), Row(4, 1, 3)]
    canvas = answer_canvas(rows, prompts, pad=0, mask=9, end=1)
    assert canvas.tokens_BL.tolist() == [[5, 6, 7, 9, 9], [8, 9, 9, 0, 0]]
    assert canvas.free_BL.tolist() == [[False, False, False, True, True], [False, True, True, False, False]]
    assert canvas.valid_BL.tolist() == [[True] * 5, [True] * 3 + [False] * 2]
    assert canvas.row_B.tolist() == [0, (1 << 32) | 4]
    written = torch.tensor([[5, 6, 7, 1, 9], [8, 2, 3, 0, 0]])
    assert canvas.replace(tokens_BL=written).cut_at_end().valid_BL.sum(1).tolist() == [3, 3]
