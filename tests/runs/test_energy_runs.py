"""`energy=N`: recorded beside a finished point, drawn beside a frontier, and said in words."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from diffq.cli.main import main
from diffq.runs.energy import FILE, change, describe, read_energy

WORDS = ["dataset=textfiles", "dataset.tokenizer=characters", "dataset.documents=row", "dataset.block=12"]
SIZES = ["model.width=16", "model.heads=2", "model.layers=1", "model.max_length=16"]
SAMPLER = ["sampler=eags", "num_samples=9", "metric=unigram_entropy"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str], dict[str, Path]]:
    """A text, and trainings of a few steps on it."""
    folder = tmp_path_factory.mktemp("text")
    lines = [" ".join(("sun", "moon", "sea", "sand")[(i * 7 + j) % 4] for j in range(6)) for i in range(120)]
    (folder / "all.txt").write_text("\n".join(lines))
    words = [*WORDS, f"dataset.path={folder / 'all.txt'}"]
    trained = ["max_steps=3", "trainer.batch_size=4", "trainer.schedule=constant", "trainer.validation_sources=4"]
    made = {}
    for model in ("mdlm_tiny", "causal_lm_tiny"):
        said = [f"model={model}", *words, f"outputs={folder / 'outputs'}", *SIZES, *trained, "trainer.previews=0"]
        assert main(["train", *said, "--json"]) == 0
        made[model] = next((folder / "outputs" / "train").glob(f"*{model}*"))
    return [*words, f"checkpoint={made['mdlm_tiny']}"], made


def only(folder: Path, pattern: str) -> Path:
    (found,) = folder.glob(pattern)
    return found


def test_a_finished_point_gets_its_energies_later_and_keeps_them(place, tmp_path, capsys):
    words, _ = place
    said = ["sample", *words, f"outputs={tmp_path}", *SAMPLER]
    assert main(said) == 0
    point = only(tmp_path, "points/**/run.json").parent
    before = {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in point.iterdir()}
    capsys.readouterr()
    assert main([*said, "energy=4"]) == 0
    assert "that takes 6 rows and two steps" in capsys.readouterr().err
    assert {p.name: (p.read_bytes(), p.stat().st_mtime_ns) for p in point.iterdir() if p.name != FILE} == before
    found = read_energy(point)
    assert (found["potential"], found["total"], found["steps"]) == ("log_probability", 4, [0, 1, 2, 3])
    assert [row["row"] for row in found["rows"]] == [0, 1, 2, 3]
    assert all(row["same"] and len(row["energies"]) == 4 for row in found["rows"])
    values = np.array([row["energies"] for row in found["rows"]])
    assert (values > 0).all()
    assert found["band"]["median"] == np.median(values, axis=0).tolist()
    assert found["change"]["value"] == pytest.approx((values[:, -1] - values[:, 0]).mean())
    made = (point / FILE).stat().st_mtime_ns
    for more in ("energy=3", "energy=0"):
        assert main([*said, more]) == 0
        assert (point / FILE).stat().st_mtime_ns == made
    assert main([*said, "energy=3", "energy_potential=logit"]) == 0
    logit = read_energy(point)
    assert logit["potential"] == "logit"
    assert logit["rows"][0]["energies"] != found["rows"][0]["energies"]
    assert main([*said, "energy=500"]) == 0
    assert len(read_energy(point)["rows"]) == read_energy(point)["of"]
    assert main([*said, "update=all", "energy=2"]) == 0
    capsys.readouterr()
    both = [json.loads(p.read_text()) for p in tmp_path.glob(f"points/**/{FILE}")]
    assert sorted(len(one["steps"]) for one in both) == [4, 8]


def test_a_sweep_draws_them_beside_its_table_and_its_frontier(place, tmp_path, capsys):
    words, made = place
    grid = ["sweep", *words, f"outputs={tmp_path}", "sampler=eags", "order=high_entropy,random", "energy=5"]
    assert main([*grid, "num_samples=6", "metric=unigram_entropy", "--json"]) == 0
    body = json.loads(capsys.readouterr().out)
    sweep = only(tmp_path, "sweeps/*")
    assert {Path(f).name for f in body["files"]} == {"energy.png", "energy.svg"}
    (table,) = body["tables"]
    assert [cells[0] for cells in table["cells"]] == ["eags order high_entropy", "eags order random"]
    assert {cells[4] for cells in table["cells"]} <= {"falls", "rises", "undecided"}
    svg = (sweep / "energy.svg").read_bytes()
    assert b"eags order random" in svg
    prompted = ["dataset.prefix=3", "num_sources=6", "num_samples=2", f"metric.gen_ppl.judge={made['causal_lm_tiny']}"]
    assert main([*grid, *prompted, "--json"]) == 0
    tables = json.loads(capsys.readouterr().out)["tables"]
    assert sum(t["title"].startswith("Energy") for t in tables) == 1
    page = (sweep / "report.html").read_text()
    assert "data:image/svg+xml;base64," in page
    assert "Energy along the steps" in page
    assert (sweep / "energy.svg").read_bytes() != svg
    drawn = (sweep / "energy.svg").read_bytes()
    assert main(["report", str(sweep), f"outputs={tmp_path}", "--json"]) == 0
    capsys.readouterr()
    assert (sweep / "energy.svg").read_bytes() == drawn, "the same picture of the same points"


def test_samplers_without_full_drafts_are_refused(place, tmp_path, capsys):
    words, _ = place
    assert main(["sample", *words, f"outputs={tmp_path}", "sampler=ancestral", "energy=4"]) == 2
    assert "sampler 'ancestral' gives none" in capsys.readouterr().err
    assert main(["sample", *words, f"outputs={tmp_path}", "sampler=eags", "allow_mask=true", "energy=4"]) == 2
    assert "allow_mask=false and cache=off: " in capsys.readouterr().err
    assert main(["sweep", *words, f"outputs={tmp_path}", "sampler=eags", "energy=1,2"]) == 2
    assert "cannot be swept" in capsys.readouterr().err


def test_the_change_is_paired_and_said_in_words():
    """Rows far apart whose gaps are alike: paired, the interval is narrow."""
    levels = np.arange(20.0)[:, None]
    falling = change(np.hstack([levels, levels - 1, levels - 2 + 0.1 * (-1) ** levels]))
    assert falling["value"] == pytest.approx(-2.0)
    assert -2.1 < falling["low"] < -2.0 < falling["high"] < -1.9
    assert describe(falling).startswith("energy falls by 2 [1.9")
    rising = {"value": 0.5, "low": 0.25, "high": 0.75}
    assert describe(rising) == "energy rises by 0.5 [0.25, 0.75] nats a token, from the first draft to the last"
    assert describe({"value": 0.1, "low": -0.2, "high": 0.4}) == (
        "whether energy falls is undecided: it changes by +0.1 [-0.2, +0.4] nats a token"
    )
    assert describe(rising, "logit").endswith("logits a token, from the first draft to the last")
    for few in (np.ones((1, 3)), np.ones((8, 1)), np.arange(15.0).reshape(5, 3)):
        assert "undecided" in describe(change(few))
