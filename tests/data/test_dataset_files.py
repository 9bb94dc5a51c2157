"""Every dataset's YAML is a dataset: its settings are known, and the small ones open."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from diffq.config.checks import serves
from diffq.data.task import DatasetSettings
from diffq.registry import DATASETS, MODELS
from diffq.settings import typed

CONF = Path(__file__).parents[2] / "conf"
FILES = sorted((CONF / "dataset").glob("*.yaml"))


def read(file: Path) -> DatasetSettings:
    values = yaml.safe_load(file.read_text())
    return typed(DATASETS[values.pop("kind")], values, "dataset")


@pytest.mark.parametrize("file", FILES, ids=lambda f: f.stem)
def test_it_is_typed_and_names_models_that_exist(file: Path) -> None:
    dataset = read(file)
    assert dataset.name == file.stem
    assert {"causal", "gaussian" if dataset.task == "pairs" else "absorbing"} <= set(dataset.models)
    for process, model in dataset.models.items():
        kind = yaml.safe_load((CONF / "model" / f"{model}.yaml").read_text())["kind"]
        assert MODELS[kind].process == process
        assert serves(MODELS[kind], dataset)
    assert (CONF / "metric" / f"{dataset.metric}.yaml").is_file()


def test_the_worlds_are_embedded_and_fit_their_limits() -> None:
    for name in ("grammar", "grammar_hard"):
        dataset = read(CONF / "dataset" / f"{name}.yaml")
        assert dataset.embedded
        texts = [text for e in dataset.open().split("valid") for text in (e.source, *e.references)]
        assert max(len(text.split(" ")) for text in texts) + 2 <= dataset.max_source
        assert max(len(text.split(" ")) for text in texts) <= dataset.max_target
    hard, easy = (read(CONF / "dataset" / f"{name}.yaml") for name in ("grammar_hard", "grammar"))
    assert hard.reordering == 3 > easy.reordering  # type: ignore[attr-defined]
