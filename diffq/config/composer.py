"""From `key=value` words to a typed `Config`: defaults, and every check that needs no data and no weights.

YAML is composed once for each choice of groups; dials are then set on the plain mapping, which becomes typed once.
This file knows neither how Hydra works nor what any component does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffq.config.checks import check_fit, process_of, refuse_dial, unfed, unready
from diffq.config.layers import ROOT, Layer, Layers
from diffq.config.options import Options
from diffq.config.schema import Choices, Config, MetricSuite, typed_root
from diffq.config.sections import TrackerSettings, TrainerSettings
from diffq.errors import UserError, did_you_mean, unknown
from diffq.settings import typed

SUITE_KEYS = ("metrics", "x", "y", "help")


class Composer:
    """Composes many points of one command; what they share is read, composed and typed once.

    verb: under `train` a bare key is the trainer's, under the others it is a dial; `report` reads scores and computes
    none, so no metric is refused for what this machine lacks.
    """

    def __init__(self, *, verb: str = "sample", config_dirs: Sequence[Path | str] = ()):
        self.options = Options(config_dirs)
        self.layers = Layers(self.options, verb)
        self._reads = verb == "report"
        self._typed: dict[tuple[str, ...], Any] = {}

    def compose(self, overrides: Sequence[str]) -> Config:
        """The typed configuration of one point. UserError for a list where one value is wanted."""
        chosen: Layer = {}
        for a in self.layers.arguments(overrides):
            if a.key != "metric" and a.swept:
                raise UserError(
                    f"{a.text} is a list of {len(a.values)}; only `diffq sweep` takes lists, give one value"
                )
            chosen[a.key] = a.values if a.key == "metric" else a.values[0]
        return self.point(chosen)

    def point(self, chosen: Mapping[str, Any]) -> Config:
        """The configuration of one point from canonical keys and single values, over all lower layers."""
        values = self.layers.merge(chosen) | {"plugins": list(self.options.plugins)}
        choices = self._choose(values)
        root = typed_root({k: v for k, v in values.items() if k in ROOT})
        dataset = self._member("dataset", choices.dataset, values)
        model = self._member("model", choices.model, values)
        config = Config(
            **{name: getattr(root, name) for name in ROOT},
            model=model,
            dataset=dataset,
            sampler=self._member("sampler", choices.sampler, values),
            metric=self._suite(choices.metric, values, dataset, root.num_samples, root.num_sources),
            trainer=self._trainer(choices.trainer, values, model),
            tracker=self._section("tracker", TrackerSettings, choices.tracker, values),
            choices=choices,
        )
        check_fit(config)
        return config

    def _trainer(self, name: str, values: Layer, model: Any) -> TrainerSettings:
        """The trainer. Where there is no frozen model, and nobody says whose entropies ENS takes, it takes those of the
        model that is trained."""
        made = self._section("trainer", TrainerSettings, name, values)
        frozen = made.entropy_model or getattr(model, "start", None)
        if made.noise == "ens" and not frozen and "trainer.entropy_from" not in values:
            made = made.replace(entropy_from="self_partial")
        return made

    def _choose(self, values: Layer) -> Choices:
        """The option of every group. What nobody names follows from the dataset, the sampler and the model."""
        check = self.options.check
        named = {group: check(group, values[group]) for group in _GROUPS if values.get(group) is not None}
        dataset = named["dataset"]
        self.options.fragments.prepare(list(named.items()))
        self._expect(named)
        model = named.get("model") or check("model", self._default_model(dataset, named.get("sampler")))
        sampler = named.get("sampler") or check("sampler", self._default_sampler(model))
        metric = values.get("metric") or self._of_dataset(dataset, "metric", "text")
        listed = [metric] if isinstance(metric, str) else metric
        names = [n for entry in listed for n in (entry if isinstance(entry, list) else [entry])]
        made = Choices(
            model=model,
            dataset=dataset,
            sampler=sampler,
            metric=tuple(dict.fromkeys(check("metric", n) for n in names)),
            trainer=named.get("trainer") or check("trainer", self._default_trainer(model, dataset)),
            tracker=named["tracker"],
            experiment=values.get("experiment"),
            paper=named.get("paper"),
            given=tuple(sorted(key for key in values if key.startswith(("model.", "dataset.", "trainer.")))),
        )
        wanted = [(group, getattr(made, group)) for group in ("model", "sampler", "trainer", "tracker")]
        self.options.fragments.prepare(wanted + [("metric", n) for n in made.metric])
        return made

    def _expect(self, named: Mapping[str, str]) -> None:
        """Composes what is likely to be chosen in one call, since each call costs as much as twenty files."""
        likely = {
            "model": self._of_dataset(named["dataset"], "models", {}).values(),
            "sampler": self.options.mapping("default_samplers").values(),
            "trainer": ["default", *self.options.mapping("default_trainers").values()],
            "metric": [self._of_dataset(named["dataset"], "metric", "text")],
        }
        wanted = [(g, n) for g, ns in likely.items() if g not in named for n in ns if n in self.options.names(g)]
        self.options.fragments.prepare(wanted)

    def _default_model(self, dataset: str, sampler: str | None) -> str:
        models = self._of_dataset(dataset, "models", {})
        processes = process_of(self.options.component("sampler", sampler)) if sampler else tuple(models)[:1]
        for process in processes:
            if process in models:
                return models[process]
        raise UserError(
            f"dataset '{dataset}' names no default model for the process {' or '.join(processes)}; give model=NAME, or"
            " a dataset that has one: `diffq ls datasets` shows them"
        )

    def _default_sampler(self, model: str) -> str:
        made, samplers = self.options.component("model", model), self.options.mapping("default_samplers")
        name = samplers.get(made.kind) or samplers.get(made.process)
        if name is None:
            process = made.process
            raise UserError(f"there is no default sampler for {process} models such as '{model}'; give sampler=NAME")
        return name

    def _default_trainer(self, model: str, dataset: str) -> str:
        world = self.options.component("dataset", dataset).embedded
        return self.options.mapping("default_trainers").get(model, "default") if world else "default"

    def _of_dataset(self, option: str, name: str, otherwise: Any) -> Any:
        """What a dataset's YAML says, or else its class."""
        held = self.options.fragments("dataset", option)
        if held.get(name) is not None:
            return held[name]
        for f in dataclasses.fields(self.options.component("dataset", option)):
            if f.name == name and f.default is not dataclasses.MISSING:
                return f.default
            if f.name == name and f.default_factory is not dataclasses.MISSING:
                return f.default_factory()
        return otherwise

    def _member(self, group: str, option: str, values: Mapping[str, Any]) -> Any:
        """A registered component, typed, with the changes that the layers make to it."""
        changes = _changes(values, group)
        memo = (group, option, repr(sorted(changes.items())))
        if memo not in self._typed:
            cls = self.options.component(group, option)
            held = self.options.fragments(group, option)
            del held["kind"]
            if group == "dataset":
                held.setdefault("name", option)
            self._typed[memo] = self._make(cls, group, option, held, changes)
        return self._typed[memo]

    def _section(self, group: str, cls: Any, option: str, values: Mapping[str, Any]) -> Any:
        """Settings that belong to no registered component, typed."""
        changes = _changes(values, group)
        memo = (group, option, repr(sorted(changes.items())))
        if memo not in self._typed:
            self._typed[memo] = self._make(cls, group, option, self.options.fragments(group, option), changes)
        return self._typed[memo]

    def _make(self, cls: Any, group: str, option: str, held: dict[str, Any], changes: Mapping[str, Any]) -> Any:
        names = [f.name for f in dataclasses.fields(cls)]
        for key in held:
            if key not in names:
                raise UserError(
                    f"{self.options.where(group, option)} has a key '{key}' that {group} '{option}' does not have"
                    f"{did_you_mean(key, names)}; it has: {', '.join(names) or 'none'}"
                )
        for key in changes:
            head = key.partition(".")[0]
            if head not in names and group == "sampler":
                raise refuse_dial(cls, option, head)
            if head not in names:
                raise UserError(
                    f"{group} '{option}' has no setting '{head}'{did_you_mean(head, names)};"
                    f" it has: {', '.join(names) or 'none'}"
                )
        return typed(cls, _changed(held, changes), group)

    def _suite(
        self, chosen: Sequence[str], values: Layer, dataset: Any, samples: int, sources: int | None
    ) -> MetricSuite:
        """The metrics of all chosen suites and metrics, each once; the axes are those of the first suite.

        A suite's members that need more samples or another package are left out, with the reason. What the task cannot
        feed at all is left out of a default suite only.
        """
        names, axes = self._suite_members(chosen)
        self.options.fragments.prepare([("metric", n) for n in names])
        names = self._with_companions(names)
        changes = _changes(values, "metric")
        axes |= {axis: changes.pop(axis) for axis in ("x", "y") if axis in changes}
        for key in changes:
            if key.partition(".")[0] not in names or "." not in key:
                near = did_you_mean(key.partition(".")[0], ("x", "y", *names))
                raise UserError(
                    f"metric.{key} is no setting{near}; there are metric.x, metric.y and metric.NAME.OPTION, with NAME"
                    f" one of {', '.join(names)}"
                )
        self.options.fragments.prepare([("metric", n) for n in names])
        kept: dict[str, Any] = {}
        left_out = []
        for name in names:
            member = self._member("metric", name, {f"metric.{k}": v for k, v in _changes(changes, name).items()})
            reason = unfed(name, member, dataset)
            if reason and values.get("metric") is not None and not member.is_null:
                raise UserError(reason)
            reason = reason or unready(name, member, samples, dataset, sources, self._reads)
            if reason and name in chosen:
                raise UserError(reason)
            if reason and member.quiet and samples < member.least_samples():
                continue
            if reason:
                left_out.append(reason)
            else:
                kept[name] = member
        for axis, kind in (("x", "diversity"), ("y", "quality")):
            if axes[axis] and axes[axis] not in names:
                raise unknown(f"metric for metric.{axis} in the chosen suite", axes[axis], names)
            if axes[axis] not in kept:
                axes[axis] = next((n for n, m in kept.items() if m.axis == kind), "")
        return MetricSuite(metrics=tuple(kept.values()), names=tuple(kept), left_out=tuple(left_out), **axes)

    def _with_companions(self, names: Sequence[str]) -> list[str]:
        """The names and those of the metrics that always go with them, behind each."""
        found = [[name, *self.options.component("metric", name).companions] for name in names]
        return list(dict.fromkeys(name for group in found for name in group))

    def _suite_members(self, chosen: Sequence[str]) -> tuple[list[str], dict[str, str]]:
        names: list[str] = []
        axes = {"x": "", "y": ""}
        for name in chosen:
            held = self.options.fragments("metric", name)
            if "metrics" not in held:
                names.append(name)
                continue
            where = self.options.where("metric", name)
            for key in held:
                if key not in SUITE_KEYS:
                    near = did_you_mean(key, SUITE_KEYS)
                    raise UserError(f"{where} has no key '{key}'{near}; a suite has {', '.join(SUITE_KEYS)}")
            if not isinstance(held["metrics"], list):
                raise UserError(f"{where}: metrics must be a list of names")
            for member in held["metrics"]:
                if not isinstance(member, str) or not self.options.has("metric", member):
                    raise UserError(f"{where}: {unknown('metric', member, self.options.names('metric'))}")
                names.append(member)
            axes = {axis: value or held.get(axis, "") for axis, value in axes.items()}
        return list(dict.fromkeys(names)), axes


_GROUPS = ("dataset", "model", "sampler", "trainer", "tracker", "paper")


def _changes(values: Mapping[str, Any], section: str) -> dict[str, Any]:
    """What the layers say below a section, without its name."""
    return {k.partition(".")[2]: v for k, v in values.items() if k.startswith(f"{section}.")}


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
