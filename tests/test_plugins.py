"""Plugins: the worked example of docs/plugins.md is taken from the page and run; mistakes are one sentence."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from diffq import plugins
from diffq.config.options import Options
from diffq.errors import UserError
from diffq.registry import SAMPLERS

PAGE = Path(__file__).parent.parent / "docs/plugins.md"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working folder with the page's module in it, and nothing else."""
    folder = tmp_path_factory.mktemp("plugin")
    found = re.search(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert found
    (folder / "my_plugin.py").write_text(found[1], encoding="utf-8")
    return folder


def diffq(folder: Path, *words: str) -> subprocess.CompletedProcess:
    environment = os.environ | {"PYTHONPATH": str(PAGE.parent.parent), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "diffq", *words],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )


def test_the_pages_sampler_metric_dataset_and_model_are_composed(folder: Path) -> None:
    words = ["plugins=[my_plugin]", "dataset=echo", "sampler=word_noise", "noise=0,0.1", "metric=bleu,mean_length"]
    done = diffq(folder, "sweep", "--cfg", "--json", *words)
    assert done.returncode == 0, done.stderr
    first, second = json.loads(done.stdout)
    assert [c["sampler"] for c in (first, second)] == [{"kind": "word_noise", "noise": n} for n in (0, 0.1)]
    assert first["model"] == {"kind": "shallow", "width": 64}
    assert first["dataset"]["name"] == "echo"
    assert first["metric"]["names"] == ["bleu", "mean_length"]
    assert (first["metric"]["x"], first["metric"]["y"]) == ("mean_length", "bleu")
    assert first["plugins"] == ["my_plugin"]
    assert not (folder / "outputs").exists()


def test_a_config_dir_and_an_experiment_may_name_plugins(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "conf/experiment").mkdir(parents=True)
    (tmp_path / "conf/other_plugin.py").write_text((folder / "my_plugin.py").read_text().split("@METRICS")[0])
    (tmp_path / "conf/config.yaml").write_text("plugins: [json]\ndataset: grammar_hard\n")
    (tmp_path / "conf/experiment/noise.yaml").write_text(
        "defaults: {plugins: other_plugin, num_samples: 2}\ngrids: [{sampler: word_noise, noise: [0, 1]}]\n"
    )
    done = diffq(tmp_path, "sweep", "experiment=noise", "--cfg", "--json", "--config-dir", "conf")
    assert done.returncode == 0, done.stderr
    held = json.loads(done.stdout)
    assert [c["sampler"] for c in held] == [{"kind": "word_noise", "noise": n} for n in (0, 1)]
    assert held[0]["plugins"] == ["json", "other_plugin"]
    assert held[0]["dataset"]["name"] == "grammar_hard"


def test_the_pages_components_run_and_are_listed(folder: Path) -> None:
    code = """
import torch
from diffq.config import compose
from diffq.diffusion.contracts import Canvas
from diffq.metrics.base import Answers
from diffq.rng import Rng
config = compose(["plugins=[my_plugin]", "dataset=echo", "sampler=word_noise", "noise=0", "metric=mean_length"])
source = torch.arange(5, 9).repeat(2, 1)
ones = torch.ones_like(source, dtype=torch.bool)
canvas = Canvas(torch.zeros_like(source), ones, ones, torch.arange(2), source, ones)
class Network: vocab_size = 50
assert torch.equal(config.sampler(Network(), canvas, Rng(0)).tokens_BL, source)
noisy = config.sampler.replace(noise=1.0)(Network(), canvas, Rng(0)).tokens_BL
assert not torch.equal(noisy, source) and int(noisy.max()) < 50
assert config.metric.metrics[0](Answers(("a",), (("a",),), (("a b c", "a"),))).value == 2
corpus = config.dataset.open()
assert corpus.truth(corpus.split("test")[3].source) == {"say 3": 1.0}
class Vocabulary: size, pad, mask, start, end = 50, 0, 1, 2, 3
assert config.model.build(Vocabulary()).process == "gaussian"
half = compose(["plugins=[my_plugin]", "dataset=echo", "sampler=half_noise", "metric=mean_length"])
assert half.sampler.noise == 0.5
from diffq.cli import main
main(["ls", "samplers", "plugins=[my_plugin]"])
"""
    environment = os.environ | {"PYTHONPATH": f"{PAGE.parent.parent}:{folder}", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", code], cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "word_noise" in done.stdout
    assert "The source again, with some of its words replaced at random: what a sampler has to beat" in done.stdout


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("import nowhere_at_all", ["cannot be imported", "nowhere_at_all"]),
        ("1 / 0", ["ZeroDivisionError", "bad.py:1"]),
        ("def (", ["SyntaxError"]),
        (
            "from diffq.registry import SAMPLERS\n@SAMPLERS.register('cfg')\nclass Mine: pass\n",
            ["sampler name 'cfg' is taken", "bad.Mine needs another"],
        ),
    ],
)
def test_a_plugin_that_fails_says_where(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, told: list[str]
) -> None:
    name = f"bad_{abs(hash(text))}"
    (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(sys, "path", [*sys.path])
    with pytest.raises(UserError) as caught:
        Options([tmp_path]).load_plugins([name], None)
    assert "\n" not in str(caught.value)
    for word in told:
        assert word.replace("bad", name) in str(caught.value)


def test_a_plugins_dial_may_not_be_a_key_at_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "bad_dial.py").write_text(
        "from dataclasses import dataclass\nfrom diffq.registry import SAMPLERS\n"
        "from diffq.samplers.base import Sampler\n"
        "@SAMPLERS.register('bad')\n@dataclass(frozen=True, kw_only=True)\nclass Bad(Sampler):\n    length: int = 3\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path])
    SAMPLERS.names()
    monkeypatch.setattr(SAMPLERS, "_members", dict(SAMPLERS._members))
    with pytest.raises(UserError, match="sampler 'bad' has a dial 'length', which is a key already"):
        Options([tmp_path]).load_plugins(["bad_dial"], None)


def test_a_missing_plugin_says_where_it_was_looked_for() -> None:
    with pytest.raises(UserError, match=r"plugin 'no\.such' was not found; it must be an installed module, or lie in "):
        plugins.load(["no.such"])
