"""The typed configuration that everything below the command line works from, and its way to YAML and back.

A `Config` is one point: model, dataset, sampler, metrics, and how they are run. `compose` makes one from `key=value`
words; `from_mapping` makes it again from a stored `config.yaml`, without Hydra.
This file does not know how words become values (`diffq.config.composer` does) and imports no component.
"""

from __future__ import annotations

import argparse
import dataclasses
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from diffq import plugins
from diffq.config.sections import TrackerSettings, TrainerSettings
from diffq.errors import UserError
from diffq.settings import Settings, key_fields, setting, typed

if TYPE_CHECKING:
    from diffq.data.task import DatasetSettings
    from diffq.metrics.base import Metric
    from diffq.models.base import ModelSettings
    from diffq.samplers.base import Sampler


@dataclass(frozen=True, kw_only=True)
class RootSettings(Settings):
    """The settings at the root: how many samples, of what, and where."""

    seed: int = setting(0, "the seed of every draw", low=0)
    num_samples: int = setting(3, "answers sampled for each source", low=1, in_key=False)
    num_sources: int | None = setting(None, "the first sources of the split; null = all", low=1)
    split: Literal["train", "valid", "test"] = setting("test", "which part of the dataset is sampled")
    length: str = setting("oracle", "the model of the target length in tokens: oracle, normal, uniform_LO_HI, fixed_N")
    checkpoint: str | None = setting(
        None, "a folder with a trained model; null = the newest finished training of the same model and dataset"
    )
    outputs: str = setting("outputs", "the folder that everything is written to", in_key=False)
    plugins: tuple[str, ...] = setting((), "modules that register a user's own components", in_key=False)
    device: str = setting(
        "auto",
        "auto, cpu, cuda, cuda:N, mps or spread: over all GPUs, then memory, then disk, for large models",
        in_key=False,
    )
    dtype: Literal["float32", "bfloat16", "float16", "float64"] = setting("float32", "what the network computes in")
    batch_tokens: int | None = setting(None, "canvas tokens a batch; null = what suits the device", low=1, in_key=False)
    trace: int = setting(
        0, "rows of each point whose denoising is kept step by step, at most a batch; 0 = none", low=0, in_key=False
    )
    energy: int = setting(
        0, "rows of each point whose energy is recorded at every step, at most a batch; 0 = none", low=0, in_key=False
    )
    energy_potential: Literal["log_probability", "logit"] = setting(
        "log_probability", "what that energy sums: log-probabilities, or the model's raw scores", in_key=False
    )

    def check(self) -> None:
        if not re.fullmatch(r"auto|cpu|mps|spread|cuda(:\d+)?", self.device):
            raise UserError(f"device={self.device} is not known; it is auto, cpu, cuda, cuda:N, mps or spread")
        if not self.outputs:
            raise UserError("outputs= must name a folder")


@dataclass(frozen=True, kw_only=True)
class MetricSuite(Settings):
    """What is measured, and which two metrics are the axes of the frontier.

    names       the YAML name of each metric
    x, y        names of the diversity and the quality axis; empty where the suite has none
    left_out    why metrics of a default suite are not measured, a sentence each
    """

    metrics: tuple[Metric, ...] = ()
    names: tuple[str, ...] = ()
    x: str = ""
    y: str = ""
    left_out: tuple[str, ...] = setting((), in_key=False)


@dataclass(frozen=True, kw_only=True)
class Choices(Settings):
    """The names that were chosen, given or by default: what folders and tables call things. They end a config.yaml,
    and the last of them tells that it is whole.

    given   the settings of model, dataset and trainer that were not left as their YAML has them, such as `model.width`
    """

    given: tuple[str, ...] = ()
    model: str = ""
    dataset: str = ""
    sampler: str = ""
    metric: tuple[str, ...] = ()
    trainer: str = ""
    tracker: str = ""
    experiment: str | None = None
    paper: str | None = None


@dataclass(frozen=True, kw_only=True)
class Config(RootSettings):
    """One point, whole: typed, checked, frozen.

    `key_fields` of it leaves out what does not determine samples; `identity` tells two points apart.
    """

    model: ModelSettings
    dataset: DatasetSettings
    sampler: Sampler
    metric: MetricSuite = setting(MetricSuite(), in_key=False)
    trainer: TrainerSettings = setting(in_key=False)
    tracker: TrackerSettings = setting(TrackerSettings(), in_key=False)
    choices: Choices = setting(Choices(), in_key=False)

    @property
    def laid_out(self) -> bool:
        """Whether pairs are asked of a masked model of running text, so that the source stands on the canvas too."""
        return self.dataset.task == "pairs" and self.model.task == "text"


@dataclass(frozen=True)
class Request:
    """What a verb is asked to do, as the command line was read.

    overrides    `key=value` words, not composed yet
    runs         folders and files that were named
    json         tables are printed as JSON
    flags        the verb's own flags, by argparse
    """

    verb: str
    overrides: tuple[str, ...] = ()
    runs: tuple[Path, ...] = ()
    json: bool = False
    config_dirs: tuple[Path, ...] = ()
    flags: argparse.Namespace = field(default_factory=argparse.Namespace)


def compose(overrides: Sequence[str], *, verb: str = "sample", config_dirs: Sequence[Path] = ()) -> Config:
    """The typed configuration of one point. UserError, in one sentence, for everything that does not fit.

    For many points keep a `diffq.config.composer.Composer`: it composes each choice of groups once.
    """
    from diffq.config.composer import Composer

    return Composer(verb=verb, config_dirs=config_dirs).compose(overrides)


def identity(config: Config) -> dict[str, Any]:
    """Plain data that is equal for two configurations exactly where they ask for the same samples.

    Samplers count under their canonical names, and the length model only where the sampler uses one.
    """
    plain = key_fields(config)
    plain["sampler"] = key_fields(config.sampler.canonical())
    plain["num_samples"] = config.num_samples
    if not config.sampler.takes_length:
        plain["length"] = "free"
    return plain


def from_mapping(values: Mapping[str, Any], *, config_dirs: Sequence[Path] = ()) -> Config:
    """The configuration that `as_mapping` wrote; plugins it names are imported first.

    Settings that were added since hold their defaults. UserError where it does not describe a configuration.
    """
    from diffq.registry import DATASETS, METRICS, MODELS, SAMPLERS

    values = dict(values)
    plugins.load(values.get("plugins") or (), config_dirs)
    root = {f.name for f in dataclasses.fields(RootSettings)}
    suite = dict(_section(values, "metric", required=False))
    listed = suite.pop("metrics", ())
    if not isinstance(listed, list | tuple):
        raise UserError(f"metric.metrics={listed!r} must be a list of metrics")
    members = tuple(_member(METRICS, m, f"metric.metrics[{i}]") for i, m in enumerate(listed))
    unknown_keys = set(values) - {f.name for f in dataclasses.fields(Config)}
    if unknown_keys:
        raise UserError(f"a stored configuration has no key '{min(unknown_keys)}'; it was written by another version")
    plain = typed_root({k: v for k, v in values.items() if k in root})
    return Config(
        **{name: getattr(plain, name) for name in root},
        model=_member(MODELS, _section(values, "model"), "model"),
        dataset=_member(DATASETS, _section(values, "dataset"), "dataset"),
        sampler=_member(SAMPLERS, _section(values, "sampler"), "sampler"),
        metric=_typed_suite(suite, members),
        trainer=typed(TrainerSettings, _section(values, "trainer"), "trainer"),
        tracker=typed(TrackerSettings, _section(values, "tracker", required=False), "tracker"),
        choices=typed(Choices, _section(values, "choices", required=False), "choices"),
    )


def typed_root(values: Mapping[str, Any]) -> RootSettings:
    """The root's settings; a message names a key as a user writes it."""
    try:
        return typed(RootSettings, values, "root")
    except UserError as error:
        raise UserError(re.sub(r"^root\.|^RootSettings: ", "", str(error))) from error


def _typed_suite(values: Mapping[str, Any], members: tuple[Metric, ...]) -> MetricSuite:
    known = {"names": (), "x": "", "y": "", "left_out": ()} | dict(values)
    return MetricSuite(
        metrics=members, names=tuple(known["names"]), x=known["x"], y=known["y"], left_out=tuple(known["left_out"])
    )


def _section(values: Mapping[str, Any], name: str, required: bool = True) -> Mapping[str, Any]:
    section = values.get(name)
    if isinstance(section, Mapping):
        return section
    if section is None and not required:
        return {}
    raise UserError(f"a stored configuration needs the mapping '{name}'")


def _member(registry: Any, values: Mapping[str, Any], where: str) -> Any:
    if not isinstance(values, Mapping):
        raise UserError(f"{where}={values!r} must be a mapping")
    plain = dict(values)
    kind = plain.pop("kind", None)
    if kind is None:
        raise UserError(f"a stored configuration must say {where}.kind")
    return typed(registry[kind], plain, where)
