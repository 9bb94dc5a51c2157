"""Checked answers from the command line: train on problems, sample behind prompts, grade, extend, plan, trace."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest

from diffq.cli.main import main
from diffq.config import compose
from diffq.data.maths import MathsCorpus
from diffq.errors import UserError
from diffq.runs.answer_questions import AnswerQuestions, chats, prompt_ids
from diffq.sandbox.enclosure import bubblewrap
from diffq.store import Point

SIZES = ["model.width=16", "model.heads=2", "model.layers=1", "model.max_length=96"]
TRAINER = ["max_steps=3", "trainer.batch_size=4", "trainer.schedule=constant", "trainer.validation_sources=2"]
MODELS = {"mdlm_tiny": "ancestral", "sedd_uniform_tiny": "analytic", "causal_lm_tiny": "autoregressive"}
SHORT = ["dataset.prompt='{question} '", "dataset.shot='{question} {answer}'", "dataset.answer=10", "num_samples=3"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Word problems of our own, prompts of several lengths among them, and trainings of three steps on them."""
    folder = tmp_path_factory.mktemp("problems")
    rows = [{"question": f"{i} and {i * i}?", "answer": f"#### {i + i * i}"} for i in range(2, 200)]
    (folder / "data").mkdir()
    for name, part in (("test", rows[:9:2] + rows[150:153]), ("train", rows)):
        (folder / "data" / f"{name}.jsonl").write_text("\n".join(map(json.dumps, part)))
    words = ["dataset=gsm8k", f"dataset.path={folder / 'data'}", f"outputs={folder / 'outputs'}", *SHORT[:2]]
    for model in MODELS:
        said = [*words, f"model={model}", *SIZES, *TRAINER, "dataset.tokenizer=characters", "dataset.block=24"]
        assert main(["train", *said, "--json"]) == 0
    return folder, words


def rows_of(outputs: Path) -> dict[str, list[dict]]:
    return {
        str(file.parent.relative_to(outputs)): [json.loads(line) for line in file.read_text().splitlines()]
        for file in sorted(outputs.glob("points/**/samples.jsonl"))
    }


def elsewhere(place: tuple[Path, list[str]], outputs: Path, model: str = "mdlm_tiny") -> list[str]:
    """The words for a store of its own, with the checkpoint of the shared one."""
    folder, words = place
    checkpoint = next((folder / "outputs").glob(f"train/*{model}*"))
    return [*words[:2], f"outputs={outputs}", *SHORT, f"checkpoint={checkpoint}", f"sampler={MODELS[model]}"]


@pytest.mark.parametrize("model", MODELS)
def test_an_answer_does_not_depend_on_its_neighbours(place, tmp_path, model, capsys):
    """Rows of other prompt lengths share a batch, padded; alone each row is the same."""
    said = [*elsewhere(place, tmp_path / "a", model), "dtype=float64"]
    assert main(["sample", *said, "--json"]) == 0
    assert main(["sample", *elsewhere(place, tmp_path / "b", model), "dtype=float64", "batch_tokens=1", "--json"]) == 0
    (one,), (other,) = rows_of(tmp_path / "a").values(), rows_of(tmp_path / "b").values()
    assert len(one) == len(other) == 24
    assert len({len(row["prompt_ids"]) for row in one}) > 2
    key = lambda row: (row["source"], row["sample"])  # noqa: E731
    for a, b in zip(sorted(one, key=key), sorted(other, key=key), strict=True):
        assert (a["ids"], a["text"], a["prompt_ids"]) == (b["ids"], b["text"], b["prompt_ids"])
        assert len(a["ids"]) <= 10
        assert "and" not in a["text"]  # the prompt is no part of the answer
    config = Point(next((tmp_path / "a").glob("points/*/*/*/*"))).config()
    assert config["choices"]["dataset"] == "gsm8k"


def test_a_sweep_is_graded_and_more_samples_grade_the_new_ones_alone(place, tmp_path, capsys, monkeypatch):
    said = [*elsewhere(place, tmp_path), "steps=2,4"]
    graded: list[int] = []
    real = MathsCorpus.grade
    monkeypatch.setattr(MathsCorpus, "grade", lambda self, asked: graded.append(len(asked)) or real(self, asked))
    assert main(["sweep", *said, "--json"]) == 0
    before = rows_of(tmp_path)
    first = sum(graded)
    assert first <= sum(map(len, before.values()))
    for folder in before:
        scores = {s["name"]: s for s in json.loads((tmp_path / folder / "metrics.json").read_text()).values()}
        assert {"pass_at_1", "pass_at_2", "pass_at_n", "majority", "unanswered", "distinct_answers"} <= scores.keys()
        assert "pass_at_4" not in scores
        kept = [json.loads(line) for line in (tmp_path / folder / "verdicts.jsonl").read_text().splitlines()]
        assert {row["outcome"] for row in kept} <= {"passed", "failed"}
        assert len(kept) == len({(row["source"], row["text"]) for row in before[folder]})
    graded.clear()
    assert main(["score", str(tmp_path / "points"), f"outputs={tmp_path}", "metric=pass_at_1,distinct_solutions"]) == 0
    assert not graded
    assert main(["sweep", *[w for w in said if "num_samples" not in w], "num_samples=4", "--json"]) == 0
    assert '"title":"Pass@k"' in next(tmp_path.glob("sweeps/*/report.html")).read_text()
    after = rows_of(tmp_path)
    for folder, rows in before.items():
        assert after[folder][: len(rows)] == rows
        names = {s["name"] for s in json.loads((tmp_path / folder / "metrics.json").read_text()).values()}
        assert "pass_at_4" in names
    assert sum(graded) <= sum(len(rows) for rows in after.values()) - sum(len(rows) for rows in before.values())
    assert "left out" not in capsys.readouterr().err.replace("unfinished", "")


def test_right_answers_pass(place, tmp_path, capsys):
    """A point whose answers are exchanged for right ones: what is graded is the text that the point holds."""
    said = [*elsewhere(place, tmp_path), "steps=2"]
    assert main(["sample", *said, "--json"]) == 0
    (file,) = tmp_path.glob("points/**/samples.jsonl")
    right = [json.loads(line) for line in (place[0] / "data" / "test.jsonl").read_text().splitlines()]
    rows = [json.loads(line) for line in file.read_text().splitlines()]
    for row in rows:
        row["text"] = right[row["source"]]["answer"] if row["sample"] else "nothing"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    run = json.loads((file.parent / "run.json").read_text())
    (file.parent / "run.json").write_text(json.dumps(run | {"bytes": file.stat().st_size}))
    capsys.readouterr()
    assert main(["score", str(file.parent), f"outputs={tmp_path}", "metric=passk", "--json"]) == 0
    scores = {s["name"]: s["value"] for s in json.loads(capsys.readouterr().out)[0]["metrics"].values()}
    assert scores["pass_at_1"] == pytest.approx(100 * 2 / 3)
    assert scores["pass_at_2"] == scores["pass_at_n"] == scores["majority"] == 100
    assert scores["distinct_solutions"] == 1
    assert scores["unanswered"] == pytest.approx(100 / 3)


def test_a_text_that_ends_an_answer_is_cut_and_the_tokens_stay(place, tmp_path, capsys):
    from diffq.data.tokenizers import Tokenizer

    said = elsewhere(place, tmp_path)
    letters = "0123456789"
    assert main(["sample", *said, "steps=2", f"dataset.stop={list(letters)}", "--json"]) == 0
    (rows,) = rows_of(tmp_path).values()
    checkpoint = next((place[0] / "outputs").glob("train/*mdlm_tiny*"))
    tokenizer = Tokenizer.load(checkpoint / "tokenizer")
    assert any(row["ended"] for row in rows)
    for row in rows:
        whole = tokenizer.decode(row["ids"])
        assert row["text"] == whole[: min([whole.find(c) for c in letters if c in whole], default=len(whole))]
        assert row["ended"] == (row["text"] != whole or len(row["ids"]) < 10)


def test_what_is_asked_decides_the_point(place, tmp_path):
    """Another prompt, other worked examples, a longer answer: another key; another limit of the grader: the same."""
    from diffq.runs.workbench import Workbenches

    benches = Workbenches()

    def key(*words: str) -> str:
        config = compose([*elsewhere(place, tmp_path), *words])
        return benches(config).identity(config).key

    keys = {key(), key("dataset.prompt='{question} = '"), key("dataset.shots=1"), key("dataset.answer=11"),
            key("dataset.stop=[x]")}  # fmt: skip
    assert len(keys) == 5
    assert key() == key("num_samples=7") == key("dataset.seconds=2") == key("dataset.shots=0")
    data = place[0] / "data" / "train.jsonl"
    text = data.read_text()
    with_examples = key("dataset.shots=1")
    try:
        data.write_text(text.replace("2 and 4?", "2 und 4?", 1))
        assert key("dataset.shots=1", "dataset.path=" + str(place[0] / "data") + "/") != with_examples
    finally:
        data.write_text(text)


def test_a_plan_counts_what_the_sweep_then_does(place, tmp_path, capsys):
    said = [*elsewhere(place, tmp_path), "steps=3"]
    capsys.readouterr()
    assert main(["sweep", *said, "--plan", "--json"]) == 0
    planned = json.loads(capsys.readouterr().out)
    assert main(["sweep", *said, "--json"]) == 0
    run = json.loads(next(tmp_path.glob("points/**/run.json")).read_text())
    assert planned["points"][0]["exact"]
    assert planned["points"][0]["whole"]["nfe_rows"] == run["nfe_rows"]
    assert planned["points"][0]["whole"]["positions_projected"] == run["positions_projected"]


def test_a_question_of_ones_own_and_a_trace(place, tmp_path, capsys):
    said = [*elsewhere(place, tmp_path), "steps=3"]
    capsys.readouterr()
    assert main(["sample", *said, "--source", "7 and 49?", "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 3
    assert not list(tmp_path.glob("points/**/samples.jsonl"))
    assert main(["sample", *said, "--source", "7?", "--template", "_"]) == 2
    assert "leave it out" in capsys.readouterr().err
    assert main(["sample", *said, "--trace", "--json"]) == 0
    (file,) = tmp_path.glob("points/**/traces.jsonl")
    assert all(json.loads(line)["same"] for line in file.read_text().splitlines())


@pytest.mark.skipif(bubblewrap() is None, reason="needs bubblewrap: apt-get install bubblewrap")
def test_programs_are_run_and_limits_may_change_when_scoring(place, tmp_path, capsys):
    row = {"task_id": "Mine/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "    return 1\n",
           "test": "def check(f):\n    assert f() == 1\n"}  # fmt: skip
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    checkpoint = next((place[0] / "outputs").glob("train/*mdlm_tiny*"))
    said = [f"outputs={tmp_path}", f"checkpoint={checkpoint}", "dataset=humaneval", "dataset.answer=9",
            f"dataset.path={tmp_path / 'mine.jsonl'}", "num_samples=2", "sampler=ancestral", "steps=2"]  # fmt: skip
    capsys.readouterr()
    assert main(["sweep", *said, "--json"]) == 0
    (file,) = tmp_path.glob("points/**/verdicts.jsonl")
    assert {json.loads(line)["outcome"] for line in file.read_text().splitlines()} == {"failed"}
    assert main(["score", str(file.parent), f"outputs={tmp_path}", "metric=pass_at_1", "dataset.limits.seconds=2"]) == 0
    signatures = json.loads((file.parent / "metrics.json").read_text())
    limits = {s.split("grader:")[1].split("_")[1] for s in signatures if s.startswith("pass_at_1|")}
    assert limits == {"5s", "2s"}


def test_a_sweep_of_programs_needs_a_sandbox_before_it_samples(place, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("diffq.sandbox.box.bubblewrap", lambda: None)
    row = {"task_id": "Mine/0", "prompt": "def f():\n", "entry_point": "f", "canonical_solution": "", "test": ""}
    (tmp_path / "mine.jsonl").write_text(json.dumps(row))
    checkpoint = next((place[0] / "outputs").glob("train/*mdlm_tiny*"))
    said = [f"outputs={tmp_path}", f"checkpoint={checkpoint}", "dataset=humaneval", "dataset.answer=9",
            f"dataset.path={tmp_path / 'mine.jsonl'}", "num_samples=2", "sampler=ancestral", "steps=2"]  # fmt: skip
    capsys.readouterr()
    assert main(["sweep", *said]) == 2
    assert "dataset.allow_unsafe_execution=true" in capsys.readouterr().err
    assert not list(tmp_path.glob("points/**/samples.jsonl"))
    assert main(["sweep", *said, "dataset.allow_unsafe_execution=true", "--json"]) == 0


@pytest.mark.parametrize("more", [[], ["--plan"]])
def test_without_a_model_of_answers_one_is_asked_for(place, tmp_path, capsys, more):
    left_out = ("checkpoint=", "model=", "sampler=")
    said = [w for w in elsewhere(place, tmp_path) if not w.startswith(left_out)]
    capsys.readouterr()
    assert main(["sweep", *more, *said, "sampler=random", "dataset.answer=512", "--json"]) in (1, 2)
    told = "".join(capsys.readouterr())
    assert "such questions need a model that answers them; give checkpoint=FOLDER" in told
    assert "or model=llada_8b" in told
    assert not told.startswith("diffq: the prompt")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=gaussian_tiny"], "is for a source and a target, and dataset 'gsm8k' is answers behind a prompt"),
        (["length=fixed_9"], "an answer has at most dataset.answer tokens"),
        (["dataset.answer=90"], "more than the model's max_length=96; take a model with more room (checkpoint=FOLDER"),
        (["dataset.chat=on"], "has no chat template"),
        (["metric=validity"], "needs to know all right answers"),
        (["metric=pass_at_4"], "needs 4 answers to each source, not 3"),
        (["dataset=grammar", "metric=pass_at_1"], "needs answers that can be checked"),
        (["dataset.prompt=x"], "must hold {question}"),
    ],
)
def test_misuse_is_one_sentence(place, tmp_path, capsys, words, told):
    said = elsewhere(place, tmp_path)
    if {"model=gaussian_tiny", "dataset=grammar"} & set(words):
        said = [w for w in said if not w.startswith(("checkpoint=", "sampler=", "dataset."))]
    capsys.readouterr()
    assert main(["sample", *said, *words]) == 2
    assert told in capsys.readouterr().err


def test_without_a_model_one_is_asked_for(place, tmp_path, capsys):
    said = [w for w in elsewhere(place, tmp_path) if not w.startswith("checkpoint=")]
    capsys.readouterr()
    assert main(["sample", *said, "model=mdlm_mini"]) == 2
    assert "give checkpoint=FOLDER" in capsys.readouterr().err


class Talker:
    """A tokenizer of letters with a chat template."""

    pad, mask, end, ends, chat = 0, 1, 2, (2, 3), "a template"

    def encode_target(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def encode_chat(self, messages) -> list[int]:
        assert [m["role"] for m in messages] == ["user"]
        return [7, *self.encode_target(messages[0]["content"]), 8]

    def decode_batch(self, rows):
        return ["".join(map(chr, ids)) for ids in rows]


def test_a_chat_template_is_used_where_there_is_one(tmp_path):
    import torch

    talker = Talker()
    assert chats(talker, "auto")
    assert chats(talker, "on")
    assert not chats(talker, "off")
    silent = SimpleNamespace(chat=None)
    assert not chats(silent, "auto")
    with pytest.raises(UserError, match="no chat template"):
        chats(silent, "on")
    assert prompt_ids(talker, "a") == [97]
    assert prompt_ids(talker, "a", chat=True) == [7, 97, 8]
    (tmp_path / "test.jsonl").write_text(json.dumps({"question": "b", "answer": "#### 1"}))
    words = ["dataset=gsm8k", f"dataset.path={tmp_path}", "dataset.prompt='{question}='", "dataset.answer=4",
             "dataset.chat_prompt='Say {question}'", "dataset.stop=[x]", "dataset.chat_stop=[y]"]  # fmt: skip
    for chat, text, cut in (("auto", "Say b", "a"), ("off", "b=", "ay")):
        settings = compose([*words, f"dataset.chat={chat}"]).dataset
        corpus = settings.open()
        asked = AnswerQuestions(corpus.split("test"), corpus, talker, 99, torch.device("cpu"))  # type: ignore[arg-type]
        ids = [ord(c) for c in text]
        assert asked.source_ids[0] == ([7, *ids, 8] if chat == "auto" else ids)
        (batch,) = asked.plan(compose([*words, f"dataset.chat={chat}", "num_samples=1"]), 1024)
        (written,) = asked.written(batch.rows, [[*asked.source_ids[0], *map(ord, "ayx")]], False)
        assert (written.ids, written.text, written.ended) == ([97, 121, 120], cut, True)
        (written,) = asked.written(batch.rows, [[*asked.source_ids[0], 98, 3, 97]], False)
        assert (written.ids, written.text, written.ended) == ([98], "b", True), "any of the tokens that end it"
