"""`experiment=sedd_prompts` with its own grids at tiny size: planned, sampled, scored by the judge that the experiment
names, and reported by length of prompt."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffq.cli import main
from diffq.config.files import builtin_dir, group_files

TRAINER = ["max_steps=1", "trainer.batch_size=4", "trainer.validation_sources=0", "trainer.previews=0"]
SIZES = ["model.width=16", "model.heads=2", "model.layers=1", "model.max_length=150"]
COLUMNS = ["5 of 100", "10 of 100", "25 of 100", "50 of 100", "100 of 150", "25 + 25 of 100"]


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The words of the experiment with models that were trained for a step, 3 sources and metrics that are quick."""
    folder = tmp_path_factory.mktemp("study")
    lines = [" ".join(("sun", "moon", "sea", "sand")[(i * 7 + j) % 4] for j in range(6)) for i in range(600)]
    (folder / "all.txt").write_text("\n".join(lines))
    data = ["dataset=textfiles", f"dataset.path={folder / 'all.txt'}", "dataset.tokenizer=characters"]
    outputs = f"outputs={folder / 'outputs'}"
    for model in ("sedd_tiny", "causal_lm_tiny"):
        assert main(["train", f"model={model}", *data, "dataset.block=150", outputs, *SIZES, *TRAINER]) == 0
    held: dict[str, Any] = yaml.safe_load(group_files("experiment", [builtin_dir()])["sedd_prompts"].read_text())
    held["defaults"] |= {"num_sources": 3, "num_samples": 2, "metric": ["unigram_entropy", "gen_ppl"]}
    held["defaults"]["metric.gen_ppl.judge"] = str(next((folder / "outputs/train").glob("*causal*")))
    del held["defaults"]["metric.mauve.features"], held["defaults"]["dataset"]
    for grid in held["grids"]:
        diffusion = "sedd" in grid["model"]
        grid |= {"model": "sedd_tiny", "steps": 2} if diffusion else {"model": "causal_lm_tiny"}
        grid.pop("checkpoint", None)
    (folder / "conf/experiment").mkdir(parents=True)
    (folder / "conf/experiment/prompts.yaml").write_text(yaml.safe_dump(held, sort_keys=False))
    return ["experiment=prompts", "--config-dir", str(folder / "conf"), *data, outputs]


def test_the_plan_tells_its_points_apart(study, capsys):
    assert main(["sweep", *study, "--plan"]) == 0
    lines = [line.partition("  ")[0] for line in capsys.readouterr().out.splitlines() if " given " in line]
    assert len(lines) == len(set(lines)) == 16
    assert "analytic steps=2, 25 + 25 of 100 given" in lines


def test_quality_is_told_by_length_of_prompt(study, capsys):
    assert main(["sweep", *study, "--json"]) == 0
    captured = capsys.readouterr()
    report = json.loads(captured.out)
    quality, diversity, *_ = report["tables"]
    assert quality["title"] == "gen_ppl_by_causal_lm_tiny by what is given of the text"
    assert diversity["title"] == "unigram_entropy by what is given of the text"
    assert quality["heads"][1:] == COLUMNS
    measured = {row[0]: [cell != "–" for cell in row[1:]] for row in quality["cells"]}
    assert measured == {"analytic": [True] * 6} | dict.fromkeys(("nucleus", "autoregressive"), [True] * 5 + [False])
    assert sum(point["kind"] == "point" for point in report["points"]) == 3
    assert any("13 points of other prompts left out" in note for note in report["notes"])
    outputs = Path(study[-1].partition("=")[2])
    for entry in quality["data"]:
        (scores,) = outputs.glob(f"points/**/*-{entry['key'][:6]}/metrics.json")
        held = {score["name"]: score["value"] for score in json.loads(scores.read_text()).values()}
        assert held["gen_ppl_by_causal_lm_tiny"] == entry["value"]
        given = yaml.safe_load((scores.parent / "config.yaml").read_text())["dataset"]
        assert [given[name] for name in ("block", "prefix", "suffix")] == list(entry["given"].values())[:3]
    text = (outputs / "sweeps/prompts/comparisons.md").read_text()
    assert text.startswith("## gen_ppl_by_causal_lm_tiny by what is given of the text\n\n| gen_ppl_by_causal_lm_tiny, ")


def test_a_later_report_knows_what_the_sweep_was_measured_by(study, capsys):
    """Neither the experiment nor its judge is named again."""
    assert main(["sweep", *study]) == 0
    lines = capsys.readouterr().err.splitlines()
    assert sum(" given 50 of 100 " in line for line in lines) == 0, "a finished sweep is not sampled again"
    outputs = study[-1]
    folder = Path(outputs.partition("=")[2]) / "sweeps/prompts"
    options = json.loads((folder / "plan.jsonl").read_text().splitlines()[0])["options"]
    assert [word.partition("=")[0] for word in options] == ["metric.x", "metric.y", "metric.gen_ppl.judge"]
    assert main(["report", str(folder), outputs, "--json", "--format", "csv"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["x"], report["y"]) == ("unigram_entropy", "gen_ppl_by_causal_lm_tiny")
    assert report["tables"][0]["heads"][1:] == COLUMNS
    assert main(["score", str(folder), outputs, "--json"]) == 0
    assert {len(point["metrics"]) for point in json.loads(capsys.readouterr().out)} == {2}
