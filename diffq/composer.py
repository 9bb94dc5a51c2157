"""From `key=value` words to a typed `Config`: layers, defaults, and every check that needs no data and no weights.

Layers, the later winning: conf/config.yaml, the config.yaml of each --config-dir, the experiment's `defaults`, the
command line. A layer is a mapping of the same keys that the command line takes.
YAML is composed once for each choice of groups; dials are then set on the plain mapping, which becomes typed once.
This file knows neither how Hydra works nor what any component does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffq import plugins
from diffq.conf_files import GROUPS, builtin_dir, check_group_folders, group_files, read_mapping, search_dirs
from diffq.config import Choices, Config, MetricSuite, RootSettings, typed_root
from diffq.config_checks import (
    check_fit,
    check_registered_dials,
    dial_owners,
    process_of,
    refuse_dial,
    refuse_key,
    unfed,
)
from diffq.config_sections import TrackerSettings, TrainerSettings
from diffq.errors import UserError, did_you_mean, unknown
from diffq.hydra_compose import Argument, Fragments, parse_argument
from diffq.registry import DATASETS, METRICS, MODELS, SAMPLERS
from diffq.settings import typed

REGISTRIES = {"model": MODELS, "dataset": DATASETS, "sampler": SAMPLERS, "metric": METRICS}
ROOT = tuple(f.name for f in dataclasses.fields(RootSettings))
SECTIONS = ("model", "dataset", "sampler", "metric", "trainer", "tracker")
TRAINER_KEYS = tuple(f.name for f in dataclasses.fields(TrainerSettings))

Layer = dict[str, Any]  # canonical key (`seed`, `model`, `sampler.scale`) -> value


class Composer:
    """Composes many points of one command; what they share is read, composed and typed once.

    verb: under `train` a bare key is the trainer's, under the others it is a dial.
    """

    def __init__(self, *, verb: str = "sample", config_dirs: Sequence[Path | str] = ()):
        self.verb = verb
        self.folders = search_dirs(config_dirs)
        check_group_folders(self.folders)
        self._config_dirs = tuple(config_dirs)
        self._fragments = Fragments(self.folders)
        self._options: dict[str, dict[str, Path | None]] = {}
        self._typed: dict[tuple[str, ...], Any] = {}
        self._layers: dict[tuple[Any, ...], tuple[Layer, tuple[str, ...]]] = {}

    def compose(self, overrides: Sequence[str]) -> Config:
        """The typed configuration of one point. UserError for a list where one value is wanted."""
        arguments = self.arguments(overrides)
        chosen: Layer = {}
        for a in arguments:
            if a.key != "metric" and a.swept:
                raise UserError(
                    f"{a.text} is a list of {len(a.values)}; only `diffq sweep` takes lists, give one value here"
                )
            chosen[a.key] = a.values if a.key == "metric" else a.values[0]
        return self.point(chosen)

    def arguments(self, overrides: Sequence[str]) -> list[Argument]:
        """The words of the command line with canonical keys; of a key that is given twice the last one holds.

        Plugins named by any layer are imported first, so that their names and dials are known.
        """
        parsed = [parse_argument(text, self._glob_options) for text in overrides]
        raw: Layer = {a.key: a.values[0] if len(a.values) == 1 else list(a.values) for a in parsed}
        experiment = raw.get("experiment")
        if isinstance(experiment, list):
            raise UserError("experiment= takes one name; sweep each experiment by itself")
        self._load_plugins(raw.get("plugins"), experiment)
        merged = {}
        for a in parsed:
            key = self.canonical(a.key)
            merged.pop(key, None)
            merged[key] = dataclasses.replace(a, key=key)
        return list(merged.values())

    def experiment(self, name: str | None) -> dict[str, Any]:
        """What an experiment's file holds: `defaults`, a mapping of overrides, and `grids`, a list of such mappings."""
        if name is None:
            return {}
        files = group_files("experiment", self.folders)
        if name not in files:
            raise unknown("experiment", name, files)
        held = read_mapping(files[name])
        for key in held:
            if key not in ("defaults", "grids", "help"):
                raise UserError(
                    f"{files[name]} has no key '{key}'{did_you_mean(key, ('defaults', 'grids', 'help'))};"
                    " an experiment has defaults, grids and help"
                )
        if not isinstance(held.get("defaults") or {}, dict):
            raise UserError(f"{files[name]}: defaults must be a mapping such as `dataset: qqp`")
        grids = held.get("grids") or []
        if not isinstance(grids, list) or not all(isinstance(g, dict) for g in grids):
            raise UserError(
                f"{files[name]}: grids must be a list of mappings such as `{{sampler: cfg, scale: [1, 2]}}`"
            )
        return held

    def options(self, group: str) -> dict[str, Path | None]:
        """The names of a group and their files; None for a registered component without one."""
        if group not in self._options:
            found: dict[str, Path | None] = dict(group_files(group, self.folders))
            stored = plugins.stored_defaults(group)
            if group in REGISTRIES:
                for name in REGISTRIES[group].names():
                    if name not in found:
                        stored.setdefault(name, {"kind": name})
            for name, node in stored.items():
                if found.get(name) is not None:
                    raise UserError(
                        f"a plugin's defaults and {found[name]} are both {group}={name}; rename one of them"
                    )
                self._fragments.store(group, name, node)
                found[name] = None
            self._options[group] = dict(sorted(found.items()))
        return self._options[group]

    def canonical(self, key: str, where: str = "") -> str:
        """A key as layers hold it: a dial becomes `sampler.DIAL`, under `train` `trainer.KEY`. UserError for others."""
        head, dot, _ = key.partition(".")
        if not dot and (key in GROUPS or key in ROOT):
            return key
        if dot and head in SECTIONS:
            return key
        if not dot and self.verb == "train" and key in TRAINER_KEYS:
            return f"trainer.{key}"
        owners = {} if dot else dial_owners()
        if key in owners and self.verb == "train":
            raise UserError(
                f"{where}'{key}' is a dial of samplers, which training has no use for; the trainer's settings:"
                f" {', '.join(TRAINER_KEYS)}"
            )
        if key in owners:
            return f"sampler.{key}"
        raise refuse_key(key, where, owners, TRAINER_KEYS if self.verb == "train" else ())

    def layer(self, mapping: Mapping[str, Any], where: str) -> Layer:
        """A YAML mapping of overrides with canonical keys; a nested mapping below a section is the same as dots."""
        out: Layer = {}
        for key, value in mapping.items():
            canonical = self.canonical(str(key), f"{where}: ")
            if canonical in SECTIONS and isinstance(value, Mapping):
                out |= {f"{canonical}.{inner}": v for inner, v in value.items()}
            else:
                out[canonical] = value
        return out

    def base(self, experiment: str | None) -> Layer:
        """Everything below the command line, merged."""
        key = (experiment,)
        if key not in self._layers:
            merged: Layer = {}
            for folder in self.folders:
                path = folder / "config.yaml"
                if path.is_file():
                    held = read_mapping(path)
                    held.pop("default_samplers", None)
                    held.pop("plugins", None)
                    merged |= self.layer(held, str(path))
            held = self.experiment(experiment).get("defaults") or {}
            held = {k: v for k, v in held.items() if k != "plugins"}
            verb, self.verb = self.verb, "sample" if self.verb == "train" else self.verb
            try:
                merged |= self.layer(held, f"experiment '{experiment}'")
            finally:
                self.verb = verb
            self._layers[key] = (merged, ())
        return dict(self._layers[key][0])

    def point(self, chosen: Mapping[str, Any]) -> Config:
        """The configuration of one point from canonical keys and single values, over all lower layers."""
        experiment = chosen.get("experiment")
        values = self.base(experiment) | dict(chosen)
        values["plugins"] = list(self._plugins)
        if self.verb == "train" and "sampler" not in chosen:
            values = {k: v for k, v in values.items() if not k.startswith("sampler.") or k in chosen}
        named_metric = "metric" in values
        choices = self._choose(values)
        wanted = [(g, getattr(choices, g)) for g in ("model", "dataset", "sampler", "trainer", "tracker")]
        self._fragments.prepare(wanted)
        root = typed_root({k: v for k, v in values.items() if k in ROOT})
        dataset = self._member("dataset", choices.dataset, values)
        config = Config(
            **{name: getattr(root, name) for name in ROOT},
            model=self._member("model", choices.model, values),
            dataset=dataset,
            sampler=self._member("sampler", choices.sampler, values),
            metric=self._suite(choices.metric, values, named_metric, dataset, root.num_samples),
            trainer=self._section(TrainerSettings, "trainer", choices.trainer, values),
            tracker=self._section(TrackerSettings, "tracker", choices.tracker, values),
            choices=choices,
        )
        check_fit(config)
        return config

    def _choose(self, values: Layer) -> Choices:
        """The option of every group, defaults filled in."""
        dataset = self._option("dataset", values["dataset"])
        sampler = self._option("sampler", values["sampler"]) if values.get("sampler") is not None else None
        model = values.get("model")
        if model is None:
            models = self._fragments("dataset", dataset).get("models") or self._dataset_default(dataset, "models", {})
            process = next((p for p in process_of(self._class("sampler", sampler)) if p in models), None)
            if process is None:
                wanted = "/".join(process_of(self._class("sampler", sampler)))
                raise UserError(f"dataset '{dataset}' names no default model for the process {wanted}; give model=NAME")
            model = models[process]
        model = self._option("model", model)
        if sampler is None:
            process = self._class("model", model).process
            default = self._default_samplers().get(process)
            if default is None:
                raise UserError(f"there is no default sampler for {process} models; give sampler=NAME")
            sampler = self._option("sampler", default)
        metric = values.get("metric")
        if metric is None:
            metric = self._fragments("dataset", dataset).get("metric") or self._dataset_default(
                dataset, "metric", "text"
            )
        names = (metric,) if isinstance(metric, str) else tuple(metric)
        flat = [n for name in names for n in (name if isinstance(name, list) else [name])]
        return Choices(
            model=model,
            dataset=dataset,
            sampler=sampler,
            metric=tuple(dict.fromkeys(self._option("metric", n) for n in flat)),
            trainer=self._option("trainer", values["trainer"]),
            tracker=self._option("tracker", values["tracker"]),
            experiment=values.get("experiment"),
            paper=self._option("paper", values["paper"]) if values.get("paper") is not None else None,
        )

    def _default_samplers(self) -> dict[str, str]:
        merged: dict[str, str] = {}
        for folder in self.folders:
            if (folder / "config.yaml").is_file():
                merged |= read_mapping(folder / "config.yaml").get("default_samplers") or {}
        return merged

    def _dataset_default(self, option: str, name: str, otherwise: Any) -> Any:
        """What the class of a dataset says where its YAML is silent."""
        for f in dataclasses.fields(self._class("dataset", option)):
            if f.name == name:
                if f.default is not dataclasses.MISSING:
                    return f.default
                if f.default_factory is not dataclasses.MISSING:
                    return f.default_factory()
        return otherwise

    def _option(self, group: str, name: Any) -> str:
        if not isinstance(name, str):
            raise UserError(f"{group}={name} must be the name of a {group}; known: {', '.join(self.options(group))}")
        if name not in self.options(group):
            raise unknown(group, name, self.options(group))
        return name

    def _glob_options(self, key: str) -> list[str]:
        if key not in GROUPS:
            raise UserError(
                f"{key}=glob(…) chooses among names, and '{key}' has none; globs are for {', '.join(GROUPS)}"
            )
        return list(self.options(key))

    def _where(self, group: str, name: str) -> str:
        path = self.options(group).get(name)
        return str(path) if path else f"{group}={name}"

    def _class(self, group: str, name: str | None) -> Any:
        """The registered class behind an option, or None where none was chosen."""
        if name is None:
            return None
        kind = self._fragments(group, name).get("kind")
        if not isinstance(kind, str):
            raise UserError(
                f"{self._where(group, name)} must say `kind: NAME`, the registered {group} that it configures"
            )
        try:
            return REGISTRIES[group][kind]
        except UserError as error:
            raise UserError(f"{self._where(group, name)}: {error}") from error

    def _member(self, group: str, option: str, values: Layer) -> Any:
        """A registered component, typed, with the changes that the layers make to it."""
        changes = {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{group}.")}
        memo = (group, option, repr(sorted(changes.items(), key=lambda kv: kv[0])))
        if memo not in self._typed:
            cls = self._class(group, option)
            held = self._fragments(group, option)
            held.pop("kind")
            names = [f.name for f in dataclasses.fields(cls)]
            if group == "dataset":
                held.setdefault("name", option)
            self._check_file(cls, held, group, option)
            for key in changes:
                if key.partition(".")[0] not in names:
                    if group == "sampler":
                        raise refuse_dial(cls, option, key.partition(".")[0])
                    raise _no_setting(group, option, key, names)
            self._typed[memo] = typed(cls, _changed(held, changes), group)
        return self._typed[memo]

    def _check_file(self, cls: Any, held: Mapping[str, Any], group: str, option: str) -> None:
        names = [f.name for f in dataclasses.fields(cls)]
        for key in held:
            if key not in names:
                raise UserError(
                    f"{self._where(group, option)}: {group} '{cls.kind or option}' has no setting '{key}'"
                    f"{did_you_mean(key, names)}; it has: {', '.join(names)}"
                )

    def _section(self, cls: Any, group: str, option: str, values: Layer) -> Any:
        changes = {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{group}.")}
        memo = (group, option, repr(sorted(changes.items(), key=lambda kv: kv[0])))
        if memo not in self._typed:
            held = self._fragments(group, option)
            self._check_file(cls, held, group, option)
            names = [f.name for f in dataclasses.fields(cls)]
            for key in changes:
                if key.partition(".")[0] not in names:
                    raise _no_setting(group, option, key, names)
            self._typed[memo] = typed(cls, _changed(held, changes), group)
        return self._typed[memo]

    def _suite(self, chosen: Sequence[str], values: Layer, named: bool, dataset: Any, samples: int) -> MetricSuite:
        """The metrics of all chosen suites and metrics, each once; the axes are those of the first suite."""
        self._fragments.prepare([("metric", n) for n in chosen])
        names, axes = self._suite_members(chosen)
        changes = {k.partition(".")[2]: v for k, v in values.items() if k.startswith("metric.")}
        for axis in ("x", "y"):
            axes[axis] = changes.pop(axis, axes[axis])
        self._fragments.prepare([("metric", n) for n in names])
        for key in changes:
            head, dot, _ = key.partition(".")
            if head not in names or not dot:
                known = ["x", "y", *names]
                raise UserError(
                    f"metric.{key} is no setting{did_you_mean(head, known)}; the axes are metric.x and metric.y, and an"
                    f" option of a metric is metric.NAME.OPTION, with NAME one of {', '.join(names)}"
                )
        kept, members, left_out = [], [], []
        for name in names:
            inner = {f"metric.{k.partition('.')[2]}": v for k, v in changes.items() if k.partition(".")[0] == name}
            member = self._member("metric", name, inner)
            reason = unfed(name, member, dataset, samples)
            if reason and named:
                raise UserError(reason)
            if reason:
                left_out.append(reason)
            else:
                kept.append(name)
                members.append(member)
        for axis, kind in (("x", "diversity"), ("y", "quality")):
            if axes[axis] and axes[axis] not in names:
                raise unknown(f"metric of the chosen suite for metric.{axis}", axes[axis], names)
            if axes[axis] not in kept:
                axes[axis] = next((n for n, m in zip(kept, members, strict=True) if m.axis == kind), "")
        return MetricSuite(
            metrics=tuple(members), names=tuple(kept), x=axes["x"], y=axes["y"], left_out=tuple(left_out)
        )

    def _suite_members(self, chosen: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        names: list[str] = []
        axes = {"x": "", "y": ""}
        for name in chosen:
            held = self._fragments("metric", name)
            if "metrics" not in held:
                names.append(name)
                continue
            where = self._where("metric", name)
            for key in held:
                if key not in ("metrics", "x", "y"):
                    near = did_you_mean(key, ("metrics", "x", "y"))
                    raise UserError(f"{where} has no key '{key}'{near}; a suite has metrics, x and y")
            if not isinstance(held["metrics"], list):
                raise UserError(f"{where}: metrics must be a list of names")
            for member in held["metrics"]:
                if member not in self.options("metric"):
                    raise UserError(f"{where}: {unknown('metric', member, self.options('metric'))}")
                names.append(member)
            for axis in axes:
                axes[axis] = axes[axis] or held.get(axis, "")
        return list(dict.fromkeys(names)), axes

    _plugins: tuple[str, ...] = ()

    def _load_plugins(self, given: Any, experiment: str | None) -> None:
        """Imports the plugins of every layer: they add up, none hides another."""
        named: list[str] = []
        sources = [
            read_mapping(f / "config.yaml").get("plugins") for f in self.folders if (f / "config.yaml").is_file()
        ]
        sources.append((self.experiment(experiment).get("defaults") or {}).get("plugins"))
        for source in (*sources, given):
            listed = [source] if isinstance(source, str) else source or []
            if not isinstance(listed, list) or not all(isinstance(m, str) for m in listed):
                raise UserError(f"plugins={source} must be a list of module names, for example plugins=[my_module]")
            named += listed
        modules = tuple(dict.fromkeys(named))
        plugins.load(modules, self._config_dirs)
        if modules != self._plugins:
            self._plugins = modules
            self._options.clear()
        check_registered_dials((*ROOT, *GROUPS))


def _changed(held: dict[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The mapping with dotted keys set in it."""
    for key, value in changes.items():
        *parents, last = key.split(".")
        place = held
        for parent in parents:
            inner = place.get(parent)
            place[parent] = dict(inner) if isinstance(inner, Mapping) else {}
            place = place[parent]
        place[last] = value
    return held


def _no_setting(group: str, option: str, key: str, names: Sequence[str]) -> UserError:
    head = key.partition(".")[0]
    return UserError(
        f"{group} '{option}' has no setting '{head}'{did_you_mean(head, names)}; it has: {', '.join(names) or 'none'}"
    )


__all__ = ["Composer", "builtin_dir"]
