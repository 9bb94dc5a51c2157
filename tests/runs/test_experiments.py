"""Every experiment of conf/experiment, run small: all its points but for their numbers of steps, on four sources, from
models that have learnt next to nothing."""

from __future__ import annotations

from pathlib import Path

import pytest
from trained import copy_of

from diffq.config.composer import Composer
from diffq.config.files import builtin_dir, group_files
from diffq.runs.grid import expand
from diffq.runs.sampling import sample_point
from diffq.runs.workbench import Workbenches, with_checkpoint

SMALL = ("dataset=grammar", "dataset.tokenizer=words", "num_sources=4", "num_samples=2")
TINY = {"gaussian": ("model=gaussian_tiny", "steps=2"), "causal": ("model=causal_seq2seq_tiny",)}


@pytest.mark.parametrize("name", list(group_files("experiment", [builtin_dir()])))
def test_every_point_of_an_experiment_is_sampled(name: str, trained: Path, tmp_path: Path) -> None:
    outputs = f"outputs={copy_of(trained, tmp_path / 'outputs')}"
    composer, benches = Composer(verb="sweep"), Workbenches()
    whole = expand([f"experiment={name}"], composer=composer)
    for sampler in dict.fromkeys(p.config.choices.sampler for p in whole):
        process = next(p.config.model.process for p in whole if p.config.choices.sampler == sampler)
        words = [f"experiment={name}", f"sampler={sampler}", *SMALL, *TINY[process], outputs]
        points = expand(words, composer=composer)
        assert points
        for point in points:
            config = with_checkpoint(point.config)
            done = sample_point(config, benches(config))
            assert len(list(done.rows())) == 8
