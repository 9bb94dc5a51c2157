"""Every experiment of conf/experiment, run small: all its points but for their numbers of steps, on four sources, from
models that have learnt next to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments import words_of
from reference import text_models
from trained import STEPS, copy_of

from diffq.cli.main import main
from diffq.config.composer import Composer
from diffq.config.files import builtin_dir, group_files
from diffq.rng import Rng
from diffq.runs.grid import expand
from diffq.runs.sampling import sample_point
from diffq.runs.workbench import Workbenches, with_checkpoint

SMALL = ("dataset=grammar", "dataset.tokenizer=words", "num_sources=4", "num_samples=2")
MASKED = ("model=sedd_tiny", "dataset.room=10")
TINY = {
    "gaussian": ("model=gaussian_tiny", "steps=2"),
    "causal": ("model=causal_seq2seq_tiny",),
    "absorbing": (*MASKED, "steps=2"),
}


NAMES = list(group_files("experiment", [builtin_dir()]))
TEXT = [n for n in NAMES if Composer(verb="sweep").compose(words_of(n)).dataset.written_by == "text"]


@pytest.mark.parametrize("name", TEXT)
def test_every_sampler_of_an_experiment_on_text_runs(name: str) -> None:
    """On small random networks: its own models and texts are too large to be had here."""
    samplers = {repr(p.config.sampler): p.config for p in expand(words_of(name))}
    assert samplers
    for config in samplers.values():
        assert config.model.process in config.sampler.processes
        if config.model.process == "causal":
            continue  # `tests/models/test_causal_lms.py`
        steps = {"steps": 2} if "steps" in vars(config.sampler) else {}
        canvas = text_models.canvas(2, 9 if config.sampler.kind != "power" else 2)  # which follows all beginnings
        filled = config.sampler.replace(**steps)(text_models.build(config.model.kind).denoiser(), canvas, Rng(0))
        assert int(filled.tokens_BL.max()) < text_models.WORDS


@pytest.fixture(scope="module")
def learnt(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The trainings that all tests share, and one of masks."""
    outputs = copy_of(trained, tmp_path_factory.mktemp("learnt"))
    few = ("model.width=16", "model.heads=2", "model.layers=1", "trainer.batch_size=8", "trainer.max_steps=2")
    more = (*STEPS, "trainer.warmup_steps=0", *few, f"outputs={outputs}")
    assert main(["train", "dataset=grammar", "dataset.tokenizer=words", *MASKED, *more]) == 0
    return outputs


@pytest.mark.parametrize("name", [name for name in NAMES if name not in TEXT])
def test_every_point_of_an_experiment_is_sampled(name: str, learnt: Path, tmp_path: Path) -> None:
    outputs = f"outputs={copy_of(learnt, tmp_path / 'outputs')}"
    composer, benches = Composer(verb="sweep"), Workbenches()
    whole = expand(words_of(name), composer=composer)
    for sampler in dict.fromkeys(p.config.choices.sampler for p in whole):
        process = next(p.config.model.process for p in whole if p.config.choices.sampler == sampler)
        words = [*words_of(name), f"sampler={sampler}", *SMALL, *TINY[process], outputs]
        points = expand(words, composer=composer)
        assert points
        for point in points:
            config = with_checkpoint(point.config)
            done = sample_point(config, benches(config))
            assert len(list(done.rows())) == 8
