"""Running text from the command line: train, sample, extend, sweep, likelihood, on a tiny text of our own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from diffq.cli.main import main

WORDS = ["dataset=textfiles", "dataset.tokenizer=characters", "dataset.documents=row", "dataset.block=12"]
TRAINER = ["trainer.batch_size=4", "trainer.schedule=constant"]
SIZES = ["model.width=16", "model.heads=2", "model.layers=1", "model.max_length=16"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, list[str]]:
    """A text, and trainings of three steps on it."""
    folder = tmp_path_factory.mktemp("text")
    lines = [" ".join(("sun", "moon", "sea", "sand")[(i * 7 + j) % 4] for j in range(6)) for i in range(120)]
    (folder / "all.txt").write_text("\n".join(lines))
    words = [*WORDS, f"dataset.path={folder / 'all.txt'}", f"outputs={folder / 'outputs'}"]
    for model in ("mdlm_tiny", "causal_lm_tiny"):
        trained = ["max_steps=3", *TRAINER, "trainer.previews=1", "trainer.validation_sources=4"]
        assert main(["train", f"model={model}", *words, *SIZES, *trained, "--json"]) == 0
    return str(folder / "outputs"), words


def rows_of(outputs: str) -> list[dict]:
    files = list(Path(outputs).glob("points/**/samples.jsonl"))
    assert len(files) == 1
    return [json.loads(line) for line in files[0].read_text().splitlines()]


def test_a_training_goes_on_and_knows_its_text(place, capsys):
    _, words = place
    capsys.readouterr()
    assert main(["train", "model=mdlm_tiny", *words, *SIZES, "max_steps=5", *TRAINER, "--json"]) == 0
    run = json.loads(capsys.readouterr().out)
    assert run["step"] == 5
    assert run["windows"] > 100
    text = Path(words[4].partition("=")[2])
    before = text.read_text()
    text.write_text(before.replace("sun", "sin"))
    assert main(["train", "model=mdlm_tiny", *words, *SIZES, "max_steps=6", *TRAINER]) == 2
    text.write_text(before)
    assert "was begun on other data" in capsys.readouterr().err


def test_more_samples_append_rows(place, tmp_path, capsys):
    outputs, words = place
    checkpoint = next(Path(outputs).glob("train/*mdlm_tiny*"))
    said = [*words[:-1], f"outputs={tmp_path}", f"checkpoint={checkpoint}", "sampler=ancestral", "steps=4"]
    assert main(["sample", *said, "num_samples=5", "batch_tokens=36"]) == 0
    before = rows_of(str(tmp_path))
    assert [len(row["ids"]) for row in before] == [12] * 5
    assert main(["sample", *said, "num_samples=11", "batch_tokens=36"]) == 0
    after = rows_of(str(tmp_path))
    assert after[:5] == before
    assert [row["sample"] for row in after] == list(range(11))


def test_a_prompt_is_kept_and_the_table_says_what_was_measured(place, tmp_path, capsys):
    outputs, words = place
    checkpoint = next(Path(outputs).glob("train/*mdlm_tiny*"))
    judge = next(Path(outputs).glob("train/*causal_lm_tiny*"))
    said = [*words[:-1], f"outputs={tmp_path}", f"checkpoint={checkpoint}", "sampler=first_hitting", "num_samples=2"]
    given = ["dataset.prefix=3", "dataset.suffix=2", "num_sources=6", f"metric.gen_ppl.judge={judge}"]
    assert main(["sweep", *said, *given, "temperature=0.5,1", "--json"]) == 0
    capsys.readouterr()
    for path in tmp_path.glob("points/**/samples.jsonl"):
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        assert len(rows) == 12
        assert all(row["prompt_at"] == [[0, 3], [10, 12]] for row in rows)
        assert all([*row["ids"][:3], *row["ids"][10:]] == row["prompt_ids"] for row in rows)
        scores = json.loads((path.parent / "metrics.json").read_text())
        names = {score["name"] for score in scores.values()}
        assert {"gen_ppl_by_causal_lm_tiny", "unigram_entropy", "repetition_4", "loops"} <= names
        assert all(score["low"] < score["value"] < score["high"] for score in scores.values() if "ppl" in score["name"])


def test_sampling_says_nothing_of_metrics_since_it_scores_nothing(place, tmp_path, capsys):
    outputs, words = place
    checkpoint = next(Path(outputs).glob("train/*mdlm_tiny*"))
    capsys.readouterr()
    said = [*words[:-1], f"outputs={tmp_path}", f"checkpoint={checkpoint}", "sampler=ancestral", "steps=2"]
    assert main(["sample", *said, "num_samples=1"]) == 0
    assert "metric" not in capsys.readouterr().err


@pytest.mark.parametrize(
    ("metric", "needed"),
    [
        ("unigram_entropy", "a metric of quality beside unigram_entropy"),
        ("seconds", "a metric of diversity and one of quality beside seconds"),
    ],
)
def test_metrics_that_span_no_frontier_are_scored_and_tabulated(place, tmp_path, capsys, metric, needed):
    outputs, words = place
    checkpoint = next(Path(outputs).glob("train/*mdlm_tiny*"))
    where = [*words[:-1], f"outputs={tmp_path}"]
    said = ["sweep", *where, f"checkpoint={checkpoint}", "sampler=ancestral", "steps=2", "num_samples=3"]
    said += ["temperature=0.5,1", f"metric={metric}"]
    names = metric.split(",")
    capsys.readouterr()
    assert main(said) == 0
    told, shown = capsys.readouterr()
    assert "2 points" in told
    assert all(name in told for name in names)
    assert f"no frontier is drawn: that takes {needed}; the same sweep with metric={metric},NAME" in told
    assert shown.count(f"{names[0]} ") == 2  # a line for each point as it ends
    assert main([*said, "--json"]) == 0
    held = json.loads(capsys.readouterr().out)
    assert [row["dial_temperature"] for row in held["points"]] == [0.5, 1.0]
    assert all(isinstance(row[name], float) for row in held["points"] for name in names)
    assert len(held["notes"]) == 1
    (sweep,) = tmp_path.glob("sweeps/*")
    assert main(["report", str(sweep), f"outputs={tmp_path}"]) == 2
    assert "none measures it; score one with diffq score RUN metric=NAME" in capsys.readouterr().err
    if metric == "unigram_entropy":  # with one more it has a frontier
        assert main(["score", str(sweep), f"outputs={tmp_path}", "metric=loops"]) == 0
        assert main(["report", str(sweep), f"outputs={tmp_path}", "--y", "loops", "--format", "csv"]) == 0
        assert (sweep / "frontier.csv").exists()


def test_a_text_of_ones_own_is_continued_and_filled_in(place, capsys):
    _, words = place
    said = ["sample", "model=mdlm_tiny", *words, *SIZES, "sampler=ancestral", "steps=3", "num_samples=2", "--json"]
    capsys.readouterr()
    assert main([*said, "--source", "sun "]) == 0
    texts = [row["text"] for row in json.loads(capsys.readouterr().out)["samples"]]
    assert all(text.startswith("sun ") for text in texts)
    assert main([*said, "--source", "sun", "--template", " a…sea"]) == 0
    texts = [row["text"] for row in json.loads(capsys.readouterr().out)["samples"]]
    assert all(text.startswith("sun a") and text.endswith("sea") for text in texts)
    assert main([*said, "--source", ""]) == 0  # nothing is given
    assert len(json.loads(capsys.readouterr().out)["samples"]) == 2
    assert main([*said, "--source", "sun moon sea sand"]) == 2
    assert "leave nothing free of dataset.block=12" in capsys.readouterr().err


def test_likelihoods_are_exact_or_bounds_and_are_kept(place, capsys):
    outputs, words = place
    for model, bound in (("causal_lm_tiny", False), ("mdlm_tiny", True)):
        said = ["likelihood", f"model={model}", *words, *SIZES, "num_sources=5", "--draws", "3", "--json"]
        capsys.readouterr()
        assert main(said) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["bound"], row["tokens"]) == (bound, 60)
        assert (row["drawing_error"] > 0) == bound
        assert row["perplexity"] == pytest.approx(2.718281828459045 ** row["nats_per_token"])
        assert main(said) == 0
        assert json.loads(capsys.readouterr().out) == [row]
    assert len(list(Path(outputs).glob("likelihood/*/likelihood.json"))) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["model=gaussian_tiny"], "is for a source and a target, and dataset 'textfiles' is running text"),
        (["model=causal_lm_tiny", "dataset=grammar"], "is for running text, and dataset 'grammar'"),
        (["model=mdlm_tiny", "length=fixed_9"], "the canvas of running text has dataset.block tokens"),
        (["model=mdlm_tiny", "sampler=cfg"], "sampler 'cfg' serves gaussian models"),
        (["model=mdlm_tiny", "sampler=ancestral", "steps=0"], "steps=0 is out of range"),
        (["model=mdlm_tiny", "dataset.prefix=12"], "leave nothing free of dataset.block=12"),
        (["model=mdlm_tiny", "dataset.block=17", "sampler=ancestral"], "dataset.block=17 is longer than the model's"),
        (["model=mdlm_tiny", "sampler=ancestral", "scale=2"], "guidance needs a prompt"),
    ],
)
def test_misuse_is_one_sentence(place, capsys, words, told):
    _, said = place
    kept = [word for word in said if word.partition("=")[0] not in {w.partition("=")[0] for w in words}]
    if "dataset=grammar" in words:
        kept = [word for word in kept if not word.startswith("dataset.")]
    sizes = SIZES if "model=mdlm_tiny" in words else []
    capsys.readouterr()
    assert main(["sample", *kept, *sizes, *words, "num_samples=1"]) == 2
    assert told in capsys.readouterr().err


def test_likelihoods_of_other_windows_are_others(place, capsys):
    _, words = place
    said = ["likelihood", "model=causal_lm_tiny", *words, *SIZES, "num_sources=4", "--json"]
    found = []
    for starts in ("packed", "document"):
        capsys.readouterr()
        assert main([*said, f"dataset.starts={starts}"]) == 0
        found += json.loads(capsys.readouterr().out)
    assert found[0]["nats_per_token"] != found[1]["nats_per_token"]


def test_the_likelihood_of_one_window_has_no_error_of_the_text(place, capsys):
    _, words = place
    said = ["likelihood", "model=causal_lm_tiny", *words, *SIZES, "num_sources=1"]
    for _ in range(2):  # made, and read
        capsys.readouterr()
        assert main([*said, "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert row["text_error"] is None
        assert row["perplexity"] > 1
    assert main(said) == 0
    assert " exact " in capsys.readouterr().out


def test_a_likelihood_that_was_cut_off_ends_with_the_same_bytes(place, tmp_path, capsys):
    outputs, words = place
    checkpoint = next(Path(outputs).glob("train/*mdlm_tiny*"))
    said = ["likelihood", *words[:-1], f"outputs={tmp_path}", f"checkpoint={checkpoint}", "num_sources=5", "--json"]
    said.append("batch_tokens=24")
    assert main(said) == 0
    told = capsys.readouterr().out
    (file,) = tmp_path.glob("likelihood/*/nats.f64")
    whole = file.read_bytes()
    assert len(whole) == 5 * 2 * 8
    for there in (20, 48, 80):  # bytes: batches have 32, windows 16
        (file.parent / "likelihood.json").unlink()
        file.write_bytes(whole[:there])
        assert main(said) == 0
        assert capsys.readouterr().out == told
        assert file.read_bytes() == whole


def test_a_likelihood_that_another_process_is_at_is_waited_for(place, tmp_path, capsys):
    """Two at once would append to one file; the second finds the first one's result."""
    outputs, words = place
    checkpoint = next(Path(outputs).glob("train/*mdlm_tiny*"))
    said = ["likelihood", *words[:-1], f"outputs={tmp_path}", f"checkpoint={checkpoint}", "--draws", "8", "--json"]
    code = "import sys; from diffq.cli.main import main; sys.exit(main(sys.argv[1:]))"
    runs = [subprocess.Popen([sys.executable, "-c", code, *said], stdout=subprocess.PIPE) for _ in range(2)]
    told = [json.loads(run.communicate()[0]) for run in runs]
    assert told[0] == told[1]
    (file,) = tmp_path.glob("likelihood/*/nats.f64")
    assert file.stat().st_size == 8 * 2 * told[0][0]["windows"]


def test_a_split_of_less_than_a_window_is_one_sentence(place, tmp_path, capsys):
    outputs, _ = place
    checkpoint = next(Path(outputs).glob("train/*mdlm_tiny*"))
    (tmp_path / "short.txt").write_text("sun\nmoon")
    words = [*WORDS, f"dataset.path={tmp_path / 'short.txt'}", f"outputs={tmp_path}", f"checkpoint={checkpoint}"]
    capsys.readouterr()
    assert main(["likelihood", *words]) == 2
    assert "not one window of dataset.block=12" in capsys.readouterr().err


@pytest.mark.parametrize("sampler", ["ancestral", "remdm_conf", "ancestral temperature=0"])
@pytest.mark.parametrize("words", [[], ["--source", "sun"]], ids=["task", "own text"])
def test_scores_that_are_no_numbers_are_refused(place, tmp_path, capsys, sampler, words):
    """Weights and hidden states are numbers, and their products are not: nothing of it is kept."""
    outputs, said = place
    bad = tmp_path / "bad"
    shutil.copytree(next(Path(outputs).glob("train/*mdlm_tiny*")), bad)
    weights = load_file(bad / "model.safetensors")
    matrix = weights["net.output_layer.linear.weight"]
    matrix[:] = 3e38 * (1 - 2 * (torch.arange(matrix.numel()).view_as(matrix) % 2))
    save_file(weights, bad / "model.safetensors")
    asked = [*said[:-1], f"outputs={tmp_path}", f"checkpoint={bad}", f"sampler={sampler.split()[0]}"]
    capsys.readouterr()
    assert main(["sample", *asked, *sampler.split()[1:], "num_samples=2", *words]) == 2
    assert "values that are no numbers" in capsys.readouterr().err
    assert not [row for path in tmp_path.glob("points/**/samples.jsonl") for row in path.read_text().splitlines()]
