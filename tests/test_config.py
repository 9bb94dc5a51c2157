"""Composition: defaults, layers, every YAML, and every misuse with its one sentence."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest
import yaml
from experiments import words_of
from hypothesis import given, settings
from hypothesis import strategies as st

import diffq.config
from diffq.config import Config, from_mapping, identity
from diffq.config.composer import Composer
from diffq.config.files import builtin_dir, group_files
from diffq.errors import UserError
from diffq.registry import SAMPLERS
from diffq.settings import as_mapping, key_fields

CONF = [builtin_dir()]
_composers: dict[str, Composer] = {}


def shared(verb: str = "sample") -> Composer:
    """One composer a verb, over the built-in YAML, so that each file is composed once in this file of tests."""
    return _composers.setdefault(verb, Composer(verb=verb))


def compose(words: Sequence[str], verb: str = "sample", config_dirs: Sequence[Path] = ()) -> Config:
    if config_dirs:
        return diffq.config.compose(words, verb=verb, config_dirs=config_dirs)
    return shared(verb).compose(words)


def refusal(*overrides: str, verb: str = "sample", config_dirs: tuple[Path, ...] = ()) -> str:
    with pytest.raises(UserError) as caught:
        compose(overrides, verb=verb, config_dirs=config_dirs)
    message = str(caught.value)
    assert "\n" not in message
    for word in ("Hydra", "hydra", "omegaconf", "OmegaConf", "struct", "ListConfig"):
        assert word not in message.replace("hydra/", "").replace("hydra.", "")
    return message


@pytest.mark.parametrize("model", [m for m in group_files("model", CONF) if m.endswith(("_tiny", "_mini"))])
def test_small_models_on_worlds_are_trained_in_minutes(model: str) -> None:
    world = "sudoku" if shared().options.component("model", model).task == "text" else "grammar"
    trainer = compose([f"model={model}", f"dataset={world}"]).trainer
    assert trainer.max_steps is None
    assert trainer.max_minutes <= (5 if model.endswith("_tiny") else 60)


def test_any_k_of_pass_at_k_is_a_metric_by_its_name(tmp_path: Path) -> None:
    suite = compose(["dataset=sudoku", "metric=pass_at_1,pass_at_10,distinct_solutions", "num_samples=16"]).metric
    assert suite.names == ("pass_at_1", "pass_at_10", "distinct_solutions")
    assert (suite.metrics[1].kind, suite.metrics[1].k, suite.metrics[1].name) == ("pass_at_k", 10, "pass_at_10")
    (tmp_path / "metric").mkdir()
    (tmp_path / "metric" / "mine.yaml").write_text("metrics: [pass_at_3, pass_at_5]\ny: pass_at_3\n")
    words = ["dataset=sudoku", "metric=mine", "num_samples=5"]
    assert compose(words, config_dirs=[tmp_path]).metric.names == ("pass_at_3", "pass_at_5")
    assert "needs 10 answers to each source, not 3" in refusal("dataset=sudoku", "metric=pass_at_10")
    for name in ("pass_at_0", "pass_at_x", "pass_at_", "distinct_9", "model_7"):
        assert f"no metric '{name}'" in refusal("dataset=sudoku", f"metric={name}")


def test_a_budget_is_said_in_words() -> None:
    assert compose(["dataset=sudoku"]).trainer.budget == "3 minutes"
    assert compose(["trainer=default"]).trainer.budget == "113,000 steps"
    assert compose(["trainer=default", "trainer.max_minutes=0.6"]).trainer.budget == "0.6 minutes or 113,000 steps"


def test_the_function_composes_what_a_composer_does() -> None:
    words = ["sampler=cfg", "scale=3"]
    assert diffq.config.compose(words) == compose(words)


def test_defaults_follow_from_the_dataset() -> None:
    config = compose([])
    assert config.choices.dataset == "grammar"
    assert config.choices.model == "gaussian_tiny"
    assert config.choices.sampler == "dpmpp"
    assert config.choices.metric == (config.dataset.metric,)
    assert config.choices.trainer == "tiny"
    assert (config.seed, config.num_samples, config.outputs, config.plugins) == (0, 3, "outputs", ())
    assert config.metric.x in config.metric.names
    assert config.metric.y in config.metric.names


def test_the_model_follows_the_samplers_process_and_the_sampler_the_models() -> None:
    assert compose(["sampler=autoregressive"]).model.process == "causal"
    assert compose(["model=causal_seq2seq"]).choices.sampler == "autoregressive"
    assert compose(["model=gaussian_tiny", "dataset=qqp"]).choices.trainer == "default"
    assert compose(["model=gaussian_small", "sampler=cfg"]).choices.model == "gaussian_small"


@pytest.mark.parametrize("group", ["model", "dataset", "sampler", "metric", "trainer", "tracker", "experiment"])
def test_every_yaml_composes(group: str) -> None:
    names = group_files(group, CONF)
    assert names
    composer = shared()
    composer.options.names(group)
    if group in ("model", "dataset", "sampler", "metric"):
        composer.options.fragments.prepare([(group, name) for name in names])
    for name in names:
        if group == "metric":
            composer.options.check("metric", name)
            held = composer.options.fragments("metric", name)
            held.get("metrics") or composer._member("metric", name, {})
        else:
            words = words_of(name) if group == "experiment" else [f"{group}={name}"]
            if group in ("model", "sampler"):
                owner = composer.options.component(group, name)
                text = owner.task == "text" if group == "model" else "absorbing" in owner.processes
                words += ["dataset=tinyshakespeare"] if text else []
            assert getattr(composer.compose(words).choices, group) == name


@pytest.mark.parametrize("name", list(group_files("metric", CONF)))
def test_every_metric_option_is_a_suite_of_known_names_or_a_metric(name: str) -> None:
    composer = shared()
    names, axes = composer._suite_members([name])
    assert names
    assert {value for value in axes.values() if value} <= set(names)


def test_a_dial_needs_no_prefix_and_the_last_word_holds() -> None:
    bare, prefixed = compose(["sampler=cfg", "scale=3"]), compose(["sampler=cfg", "sampler.scale=3"])
    assert bare == prefixed
    assert bare.sampler.scale == 3.0
    assert compose(["model=gaussian", "seed=1", "model=gaussian_tiny", "seed=2"]).choices.model == "gaussian_tiny"
    assert compose(["trainer.max_steps=700"]).trainer.max_steps == 700
    assert compose(["max_steps=700"], verb="train").trainer.max_steps == 700


def test_two_and_two_point_nought_are_one_point() -> None:
    a, b = compose(["sampler=cfg", "scale=2"]), compose(["sampler=cfg", "scale=2.0"])
    assert a == b
    assert identity(a) == identity(b)


def test_identity_ignores_what_makes_no_difference() -> None:
    base = identity(compose(["sampler=cfg", "scale=2"]))
    assert identity(compose(["sampler=dpmpp", "scale=2"])) == base
    assert identity(compose(["sampler=cfg", "scale=2", "outputs=o", "device=cpu", "tracker=wandb"])) == base
    assert identity(compose(["sampler=cfg", "scale=2", "num_samples=4"])) != base
    assert identity(compose(["sampler=cfg", "scale=2", "seed=4"])) != base
    assert "num_samples" not in key_fields(compose([]))
    free = compose(["sampler=autoregressive", "length=fixed_9"])
    assert identity(free) == identity(compose(["sampler=autoregressive"]))


@given(scale=st.floats(0, 100), steps=st.integers(1, 1000), seed=st.integers(0, 2**40), samples=st.integers(2, 9))
@settings(max_examples=25, deadline=None)
def test_yaml_and_back(scale: float, steps: int, seed: int, samples: int) -> None:
    words = ["sampler=cfg", f"scale={scale!r}", f"steps={steps}", f"seed={seed}", f"num_samples={samples}"]
    config = shared().compose(words)
    assert from_mapping(yaml.safe_load(yaml.safe_dump(as_mapping(config)))) == config


def test_a_stored_configuration_of_another_version_says_so() -> None:
    stored = as_mapping(compose([]))
    assert from_mapping({k: v for k, v in stored.items() if k not in ("batch_tokens", "tracker")}) == compose([])
    with pytest.raises(UserError, match="no key 'colour'"):
        from_mapping(stored | {"colour": 1})
    with pytest.raises(UserError, match="needs the mapping 'model'"):
        from_mapping({k: v for k, v in stored.items() if k != "model"})


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["modle=gaussian"], ["'modle'", "did you mean 'model'?"]),
        (["num_sample=3"], ["'num_sample'", "did you mean 'num_samples'?"]),
        (["model=gausian"], ["no model 'gausian'", "did you mean 'gaussian'?", "diffq ls models"]),
        (["metric=mos"], ["`diffq mos export`", "`diffq mos import`"]),
        (["sampler=cgf"], ["no sampler 'cgf'", "did you mean 'cfg'?"]),
        (["dataset=gramar"], ["no dataset 'gramar'", "did you mean 'grammar'?"]),
        (["metric=blue"], ["no metric 'blue'", "did you mean 'bleu'?"]),
        (["metric=bleu,slef_bleu"], ["no metric 'slef_bleu'", "did you mean 'self_bleu'?"]),
        (["tracker=wandbb"], ["no tracker 'wandbb'", "did you mean 'wandb'?"]),
        (["experiment=clampin"], ["no experiment 'clampin'", "did you mean 'clamping'?"]),
        (["paper=nope"], ["no paper 'nope'"]),
        (["sampler.sale=2"], ["sampler 'dpmpp' has no dial 'sale'", "did you mean 'scale'?"]),
        (["tempratur=1"], ["no setting or dial 'tempratur'", "did you mean 'temperature'?"]),
        (["sampler=cfg", "top_p=0.9"], ["sampler 'cfg' has no dial 'top_p'", "autoregressive, confi", "scale"]),
        (["trainer.max_step=3"], ["trainer 'tiny' has no setting 'max_step'", "did you mean 'max_steps'?"]),
        (["trainr.max_steps=3"], ["no section 'trainr'", "did you mean 'trainer'?"]),
        (["model.widht=3"], ["model 'gaussian_tiny' has no setting 'widht'", "did you mean 'width'?"]),
        (["dataset.siez=3"], ["dataset 'grammar' has no setting 'siez'", "did you mean 'size'?"]),
        (["metric=bleu", "metric.bleu.ordr=2"], ["has no setting 'ordr'", "did you mean 'order'?"]),
        (["metric=bleu", "metric.order=2"], ["metric.NAME.OPTION", "bleu"]),
        (["metric=bleu", "metric.x=self_bleu"], ["'self_bleu'", "metric.x", "known: bleu"]),
        (["sampler=autoregressive", "model=gaussian"], ["serves causal models", "'gaussian' is gaussian", "cfg"]),
        (["dataset=qqp", "metric=validity"], ["'validity' needs to know all right answers", "'qqp'", "grammar"]),
        (["dataset=qqp", "metric=world"], ["needs to know all right answers"]),
        (["metric=self_bleu", "num_samples=1"], ["'self_bleu' needs 2 answers", "num_samples=2"]),
        (["model.condition_dropout=0", "sampler=cfg"], ["condition_dropout=0", "scale=1"]),
        (["seed=x"], ["seed='x' must be a whole number"]),
        (["seed=1.5"], ["seed=1.5 must be a whole number"]),
        (["seed=-1"], ["seed=-1 is out of range", "≥ 0"]),
        (["dataset=qqp", "dataset.room=0"], ["dataset.room=0 is out of range", "≥ 1"]),
        (["trainer.bins=0"], ["trainer.bins=0 is out of range", "1 … 64"]),
        (["num_samples=0"], ["num_samples=0 is out of range", "≥ 1"]),
        (["split=tset"], ["split=tset", "did you mean 'test'?", "train, valid, test"]),
        (["sampler=cfg", "scale='2'"], ["sampler.scale='2' must be a number"]),
        (["sampler=cfg", "scale=true"], ["sampler.scale=True must be a number"]),
        (["sampler=cfg", "scale="], ["sampler.scale='' must be a number"]),
        (["sampler=cfg", "scale=[1"], ["sampler.scale='[1' must be a number"]),
        (["sampler=cfg", "scale=1,2"], ["scale=1,2 is a list of 2", "diffq sweep"]),
        (["seed=range(0,3)"], ["list of 3", "diffq sweep"]),
        (["seed=glob(*)"], ["glob", "'seed' has none"]),
        (["sampler=glob(zz*)"], ["matches nothing", "known:"]),
        (["seed=interval(0,1)"], ["interval", "range("]),
        (["length=fixed"], ["length=fixed is no length model", "fixed_N"]),
        (["length=uniform_9_3"], ["uniform_9_3", "LO ≤ HI"]),
        (["device=gpu"], ["device=gpu", "cuda:N"]),
        (["+seed=1"], ["write seed=1"]),
        (["~seed"], ["'~seed'"]),
        (["seed"], ["'seed'", "key=value"]),
        (["a b=1"], ["'a b'", "no key"]),
        (["hydra/launcher=joblib"], ["only `diffq sweep` has launchers"]),
        (["plugins=[no_such_module]"], ["plugin 'no_such_module' was not found"]),
        (["plugins=[3]"], ["list of module names"]),
    ],
)
def test_every_misuse_is_one_sentence(words: list[str], told: list[str]) -> None:
    message = refusal(*words)
    for part in told:
        assert part in message


def test_training_refuses_dials_but_takes_the_trainers_settings() -> None:
    message = refusal("scale=2", verb="train")
    assert "'scale' is a dial of samplers" in message
    assert "learning_rate" in message
    assert "did you mean 'max_steps'?" in refusal("max_step=3", verb="train")
    assert compose(["sampler=cfg", "sampler.scale=3"], verb="train").sampler.scale == 3


def test_metrics_are_a_list_and_options_reach_one_of_them() -> None:
    config = compose(["metric=bleu,self_bleu", "metric.bleu.order=2"])
    assert config.metric.names == ("bleu", "self_bleu")
    assert config.metric.metrics[0].order == 2
    assert (config.metric.x, config.metric.y) == ("self_bleu", "bleu")
    assert compose(["metric=[bleu,self_bleu]"]).metric == compose(["metric=bleu,self_bleu"]).metric
    mixed = compose(["metric=text,nfe_rows,bleu", "metric.x=distinct_2"])
    assert mixed.metric.names[-1] == "nfe_rows"
    assert mixed.metric.x == "distinct_2"


def test_the_frontier_of_puzzles_is_drawn_against_what_tells_samplers_apart() -> None:
    metric = compose(["dataset=sudoku", "sampler=random"]).metric
    assert (metric.x, metric.y) == ("coverage", "pass_at_1")


def test_what_a_default_suite_cannot_measure_is_left_out_with_the_reason() -> None:
    suite = compose(["num_samples=1"]).metric
    assert "self_bleu" not in suite.names
    assert any("'self_bleu' needs 2 answers" in reason for reason in suite.left_out)
    assert suite.x in suite.names


@pytest.mark.parametrize("path", ["outputs/train/a=b,c", "~/x y", "a(1)", "/tmp/{x}", "x'y", "a:b", "null/x"])
def test_paths_need_no_quotes(path: str) -> None:
    assert compose([f"checkpoint={path}"]).checkpoint == str(Path(path).expanduser())
    assert compose([f"outputs={path}"]).outputs == str(Path(path).expanduser())


def test_paths_are_a_list_only_where_each_part_is_a_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    argument = Composer(verb="sweep").layers.arguments
    assert argument(["checkpoint=runs/a,runs/b"])[0].values == ("runs/a", "runs/b")
    assert argument(["checkpoint=runs/a,b"])[0].values == ("runs/a,b",)
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs/a,runs").mkdir()
    (tmp_path / "runs/a,runs/b").mkdir()
    monkeypatch.chdir(tmp_path)
    assert argument(["checkpoint=runs/a,runs/b"])[0].values == ("runs/a,runs/b",)
    assert argument(["checkpoint='runs/a=1','runs/b'"])[0].values == ("runs/a=1", "runs/b")
    assert argument(["checkpoint=null"])[0].values == (None,)


def test_a_checkpoint_says_what_it_was_trained_on(tmp_path: Path) -> None:
    trained = compose(["dataset=grammar_hard", "model=gaussian_small", "model.width=64"], verb="train")
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(as_mapping(trained)))
    config = compose([f"checkpoint={tmp_path}", "sampler=cfg"])
    assert (config.choices.model, config.choices.dataset) == ("gaussian_small", "grammar_hard")
    assert config.model == trained.model
    assert compose([f"checkpoint={tmp_path}", "dataset=grammar"]).choices.dataset == "grammar"
    assert "serves causal models" in refusal(f"checkpoint={tmp_path}", "sampler=autoregressive")


@pytest.fixture
def user_dir(tmp_path: Path) -> Path:
    for group in ("sampler", "experiment"):
        (tmp_path / group).mkdir()
    (tmp_path / "sampler/strong.yaml").write_text("defaults: [cfg, _self_]\nscale: 7.5\n")
    (tmp_path / "config.yaml").write_text("seed: 5\nnum_samples: 2\nsampler: strong\n")
    (tmp_path / "experiment/mine.yaml").write_text("defaults: {num_samples: 4, scale: 3, trainer: {max_steps: 90}}\n")
    return tmp_path


def test_layers_lie_over_each_other(user_dir: Path) -> None:
    config = compose([], config_dirs=[user_dir])
    assert (config.seed, config.num_samples, config.sampler.scale) == (5, 2, 7.5)
    config = compose(["experiment=mine"], config_dirs=[user_dir])
    assert (config.seed, config.num_samples, config.sampler.scale, config.trainer.max_steps) == (5, 4, 3, 90)
    config = compose(["experiment=mine", "num_samples=6", "scale=1"], config_dirs=[user_dir])
    assert (config.num_samples, config.sampler.scale) == (6, 1)


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("sampler/bad.yaml", "kind: cfg\nscael: 2\n", ["sampler/bad.yaml", "'scael'", "did you mean 'scale'?"]),
        ("sampler/bad.yaml", "scale: 2\n", ["sampler/bad.yaml", "kind: NAME"]),
        ("sampler/bad.yaml", "kind: cgf\n", ["sampler/bad.yaml", "no sampler 'cgf'", "did you mean 'cfg'?"]),
        ("sampler/bad.yaml", "kind: cfg\nscale: '2'\n", ["sampler.scale='2' must be a number"]),
        ("sampler/bad.yaml", "kind: cfg\nscale: ${nowhere}\n", ["sampler=bad", "nowhere"]),
        ("sampler/bad.yaml", "kind: [cfg\n", ["sampler=bad"]),
        ("sampler/bad.yaml", "defaults: [nowhere]\n", ["sampler=bad", "nowhere"]),
        ("sampler/cfg.yaml", "kind: cfg\n", ["both sampler=cfg", "rename"]),
        ("config.yaml", "sed: 3\n", ["config.yaml", "'sed'", "did you mean 'seed'?"]),
        ("config.yaml", "seed: x\n", ["seed='x' must be a whole number"]),
        ("config.yaml", "- seed\n", ["config.yaml", "mapping"]),
        ("config.yaml", "seed: [1\n", ["config.yaml", "line", "not YAML"]),
        ("samplers/x.yaml", "kind: cfg\n", ["samplers is no group", "did you mean 'sampler'?"]),
        ("experiment/bad.yaml", "default: {}\n", ["experiment/bad.yaml", "did you mean 'defaults'?"]),
        ("experiment/bad.yaml", "defaults: {sed: 1}\n", ["experiment 'bad'", "did you mean 'seed'?"]),
        ("experiment/bad.yaml", "grids: {sampler: cfg}\n", ["experiment/bad.yaml", "grids must be a list"]),
        ("experiment/bad.yaml", 'defaults: {seed: "???"}\n', ["experiment 'bad' leaves seed to you", "add seed=…"]),
        ("metric/bad.yaml", "metrics: [blue]\n", ["metric/bad.yaml", "no metric 'blue'", "did you mean 'bleu'?"]),
        ("metric/bad.yaml", "metrics: [bleu]\nz: bleu\n", ["metric/bad.yaml", "no key 'z'"]),
        ("metric/bad.yaml", "metrics: [bleu]\nx: self_bleu\n", ["'self_bleu'", "known: bleu"]),
    ],
)
def test_yaml_files_are_checked_too(tmp_path: Path, name: str, text: str, told: list[str]) -> None:
    (tmp_path / name).parent.mkdir(exist_ok=True)
    (tmp_path / name).write_text(text)
    group, _, rest = name.partition("/")
    words = [f"{group}=bad"] if rest.startswith("bad") else []
    message = refusal(*words, config_dirs=(tmp_path,))
    for part in told:
        assert part in message


def test_a_config_dir_that_is_not_there() -> None:
    assert "--config-dir /nowhere is no folder" in refusal(config_dirs=(Path("/nowhere"),))


def test_a_configuration_that_is_lacking_says_what_is_missing(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset/bare.yaml").write_text("kind: grammar\n")
    assert "names no default model" in refusal("dataset=bare", config_dirs=(tmp_path,))
    assert "dataset.models must be given" in refusal("dataset=bare", "model=gaussian", config_dirs=(tmp_path,))


def test_every_sampler_composes_with_its_own_defaults() -> None:
    composer = shared()
    for name in SAMPLERS.names():
        masks = {"gaussian", "causal"}.isdisjoint(SAMPLERS[name].processes)
        config = composer.compose([f"sampler={name}", f"dataset={'tinyshakespeare' if masks else 'grammar'}"])
        assert config.model.process in config.sampler.processes


def test_a_folder_of_ones_own_is_found_after_a_launcher_has_put_back_hydras_registry(user_dir: Path) -> None:
    from hydra.core.plugins import Plugins
    from hydra.core.singleton import Singleton

    before = compose(["experiment=mine"], config_dirs=[user_dir])
    Singleton._instances.pop(Plugins, None)
    assert compose(["experiment=mine"], config_dirs=[user_dir]) == before


@pytest.mark.parametrize("said", ["café,boat", "don't,boat", "日本,boat", "storm,boat", "[storm,boat]"])
def test_keywords_of_a_sample_are_taken_apart_at_commas_in_any_script(said: str) -> None:
    config = compose(["dataset=paradetox", "model=mdlm_tiny", f"keywords={said}"], verb="sample")
    assert list(config.dataset.keywords) == said.strip("[]").split(",")


@pytest.mark.parametrize(("label", "said"), [("0", "is no folder"), ("[1]", "must be text or a whole number")])
def test_a_class_is_named_by_its_number_too(label: str, said: str) -> None:
    asked = ["metric=sta", "metric.sta.classifier=/nowhere", f"metric.sta.label={label}"]
    with pytest.raises(UserError, match=said):
        compose(["dataset=paradetox", "model=mdlm_tiny", *asked], verb="score")
