"""The grid expander: every point once, in order, typed and checked before the first."""

from __future__ import annotations

from pathlib import Path

import pytest
from experiments import words_of
from hypothesis import given, settings
from hypothesis import strategies as st

from diffq.config import identity
from diffq.config.composer import Composer
from diffq.config.files import builtin_dir, group_files
from diffq.config.hydra import launcher_config
from diffq.errors import UserError
from diffq.runs.grid import expand, written

COMPOSER = Composer(verb="sweep")


def points(*overrides: str) -> list[tuple]:
    made = expand(overrides, composer=COMPOSER)
    return [(p.config.choices.sampler, p.config.sampler) for p in made]


def refusal(*overrides: str, config_dirs: tuple[Path, ...] = ()) -> str:
    with pytest.raises(UserError) as caught:
        expand(overrides, config_dirs=config_dirs, composer=None if config_dirs else COMPOSER)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_lists_multiply_and_the_first_key_is_slowest() -> None:
    made = points("sampler=clamp", "temperature=0,1", "steps=5,10,20")
    assert [(s.temperature, s.steps) for _, s in made] == [(0, 5), (0, 10), (0, 20), (1, 5), (1, 10), (1, 20)]


def test_no_list_is_one_point() -> None:
    assert len(points()) == 1


def test_equal_points_are_one() -> None:
    assert [s.scale for _, s in points("sampler=cfg", "scale=2,2.0,1,2")] == [2, 1]
    assert [name for name, _ in points("sampler=cfg,dpmpp", "scale=2")] == [
        "cfg",
        "dpmpp",
    ]  # two lines, one stored point
    assert len(expand(["sampler=autoregressive", "length=oracle,fixed_9"], composer=COMPOSER)) == 1
    assert len(expand(["sampler=cfg", "length=oracle,fixed_9"], composer=COMPOSER)) == 2


def test_ranges_and_globs() -> None:
    assert [s.steps for _, s in points("sampler=cfg", "steps=range(8,33,8)")] == [8, 16, 24, 32]
    assert [s.scale for _, s in points("sampler=cfg", "scale=range(0,1,0.1)")] == [i / 10 for i in range(10)]
    clamps = {n for n in group_files("sampler", [builtin_dir()]) if n.startswith("clamp_")}
    assert {name for name, _ in points("sampler=glob(clamp_*)")} == clamps


def test_root_keys_models_and_checkpoints_are_swept() -> None:
    made = expand(["seed=0,1", "length=oracle,fixed_8", "checkpoint=runs/a,runs/b=c"], composer=COMPOSER)
    assert len({(p.config.seed, p.config.length, p.config.checkpoint) for p in made}) == 8
    models = expand(["model=gaussian_tiny,causal_seq2seq_tiny"], composer=COMPOSER)
    assert [p.config.choices.sampler for p in models] == ["dpmpp", "autoregressive"]
    assert [p.config.dataset.name for p in expand(["dataset=grammar,grammar_hard"], composer=COMPOSER)] == [
        "grammar",
        "grammar_hard",
    ]


def test_a_metric_list_is_no_axis() -> None:
    made = expand(["metric=bleu,self_bleu", "seed=0,1"], composer=COMPOSER)
    assert len(made) == 2
    assert made[0].config.metric.names == ("bleu", "self_bleu")


def test_a_dial_that_some_samplers_lack_names_both() -> None:
    message = refusal("sampler=cfg,clamp_before_cfg", "scale=1,2", "clamp_lerp=true,false")
    assert "'clamp_lerp' is a dial of clamp_before_cfg but not of cfg" in message
    assert "grids" in message
    assert "'top_p'" in refusal("sampler=cfg,clamp", "top_p=0.5")
    assert "no setting or dial 'wobble'" in refusal("sampler=cfg,clamp", "wobble=1,2")


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["scale=1,2,x"], "sampler.scale='x' must be a number"),
        (["scale=1,-2"], "scale=-2"),
        (["outputs=/a/b,/c/d"], "one sweep has one outputs"),
        (["trainer.max_steps=100,200"], "one sweep has one trainer"),
        (["experiment=a,b"], "one name"),
        (["sampler=cfg,nope"], "no sampler 'nope'"),
        (["sampler=cfg,autoregressive", "model=gaussian_tiny"], "serves causal models"),
        (["seed=range(3,0)"], "no value"),
    ],
)
def test_one_bad_point_stops_all(words: list[str], told: str) -> None:
    assert told in refusal(*words)


VALUES = st.one_of(
    st.floats(0, 50), st.integers(0, 50), st.sampled_from([1e-7, 1e22]), st.floats(0, 1).map(lambda x: round(x, 3))
)


@given(scales=st.lists(VALUES, min_size=1, max_size=4), steps=st.lists(st.integers(1, 99), min_size=1, max_size=3))
@settings(max_examples=30, deadline=None)
def test_a_points_words_compose_the_point_alone(scales: list, steps: list[int]) -> None:
    words = ["sampler=cfg", "scale=" + ",".join(map(repr, scales)), "steps=" + ",".join(map(str, steps))]
    made = expand(words, composer=COMPOSER)
    assert len(made) == len({(float(f"{s:.12g}"), n) for s in scales for n in steps})
    for point in made:
        assert COMPOSER.compose(point.overrides) == point.config
    assert len({str(identity(p.config)) for p in made}) == len(made)


@given(st.text(min_size=1, max_size=12).filter(lambda t: t.isprintable()))
@settings(max_examples=200, deadline=None)
def test_any_text_is_written_so_that_it_is_read_again(text: str) -> None:
    from diffq.config.hydra import parse_argument

    for key in ("dataset.name", "checkpoint"):
        argument = parse_argument(written(key, text), lambda _: [])
        if key == "checkpoint" and (
            "," in text or text[0] in "~'\"" or text == "null" or text.startswith(("glob(", "choice("))
        ):
            continue
        assert argument.values == (text,)
        assert not argument.swept


@pytest.fixture
def experiments(tmp_path: Path) -> Path:
    (tmp_path / "experiment").mkdir()
    (tmp_path / "experiment/two.yaml").write_text(
        "defaults: {num_samples: 2, num_sources: 10}\n"
        "grids:\n"
        "  - {sampler: cfg, scale: [1, 2]}\n"
        "  - {sampler: autoregressive, temperature: 'range(0,1,0.5)', top_p: 0.9}\n"
    )
    return tmp_path


def test_an_experiments_grids_follow_each_other(experiments: Path) -> None:
    made = expand(["experiment=two"], config_dirs=[experiments])
    assert [p.config.choices.sampler for p in made] == ["cfg", "cfg", "autoregressive", "autoregressive"]
    assert [p.config.choices.model for p in made][2] != made[0].config.choices.model
    assert {p.config.num_samples for p in made} == {2}
    assert made[3].config.sampler.top_p == 0.9


def test_the_command_line_wins_over_an_experiment(experiments: Path) -> None:
    made = expand(["experiment=two", "num_samples=5", "seed=0,1"], config_dirs=[experiments])
    assert len(made) == 8
    assert {p.config.num_samples for p in made} == {5}
    made = expand(["experiment=two", "sampler=cfg", "scale=7"], config_dirs=[experiments])
    assert [p.config.sampler.scale for p in made] == [7]
    made = expand(["experiment=two", "sampler=clamp"], config_dirs=[experiments])
    assert [p.config.choices.sampler for p in made] == ["clamp"]
    assert "'scale'" in refusal("experiment=two", "scale=3", config_dirs=(experiments,))


@pytest.mark.parametrize("name", list(group_files("experiment", [builtin_dir()])))
def test_every_experiment_expands(name: str) -> None:
    assert len(expand(words_of(name), composer=COMPOSER)) >= 1


def test_a_thousand_points_take_no_time_to_speak_of() -> None:
    import time

    COMPOSER.compose(["sampler=clamp"])
    start = time.process_time()
    made = expand(
        ["sampler=clamp", "scale=range(0,10)", "temperature=range(0,10)", "steps=range(1,11)"], composer=COMPOSER
    )
    assert len(made) == 1000
    assert time.process_time() - start < 5


def test_launchers_are_hydras_and_passed_over_here(tmp_path: Path) -> None:
    words = ["seed=0,1", "hydra/launcher=joblib", "hydra.launcher.n_jobs=2"]
    assert len(expand(words, composer=COMPOSER)) == 2
    launcher = launcher_config(words, tmp_path / "a=b").hydra
    assert launcher.launcher.n_jobs == 2
    assert launcher.sweep.dir == str(tmp_path / "a=b")
    assert launcher.output_subdir is None
    with pytest.raises(UserError, match="no launcher 'jobli' \\(did you mean 'joblib'"):
        launcher_config(["hydra/launcher=jobli"], tmp_path)
    with pytest.raises(UserError, match=r"hydra\.launcher\.n_job=2 does not fit"):
        launcher_config(["hydra.launcher.n_job=2"], tmp_path)


def test_one_front_has_one_number_of_samples(experiments: Path) -> None:
    with pytest.raises(UserError, match="num_samples=4,2 cannot be swept: one sweep has one num_samples"):
        expand(["num_samples=4,2"], composer=COMPOSER)
    mixed = "grids: [{sampler: cfg, num_samples: 2}, {sampler: ddim, num_samples: 3}]"
    (experiments / "experiment" / "mixed.yaml").write_text(mixed)
    with pytest.raises(UserError, match="grid 1: num_samples cannot be swept"):
        expand(["experiment=mixed"], config_dirs=[experiments])
