"""What must fit together before any weight is loaded: dials and samplers, samplers and models, metrics and tasks.

Every refusal is one sentence that names what would be allowed. Nothing here composes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffq.conf_files import GROUPS
from diffq.errors import UserError, did_you_mean
from diffq.registry import SAMPLERS

if TYPE_CHECKING:
    from diffq.config import Config


def dials_of(sampler: Any) -> tuple[str, ...]:
    """The dials of a sampler class, in their order."""
    return tuple(f.name for f in dataclasses.fields(sampler))


def dial_owners() -> dict[str, list[str]]:
    """Every dial of every registered sampler, with the samplers that have it."""
    owners: dict[str, list[str]] = {}
    for name in SAMPLERS.names():
        for dial in dials_of(SAMPLERS[name]):
            owners.setdefault(dial, []).append(name)
    return owners


def process_of(sampler: Any) -> tuple[str, ...]:
    """The processes that a sampler class serves; gaussian where none is chosen."""
    return ("gaussian",) if sampler is None else tuple(sampler.processes)


def check_registered_dials(root: Iterable[str]) -> None:
    """UserError where a sampler's dial has the name of a key at the root: a bare `name=` would mean two things."""
    taken = set(root)
    for dial, samplers in dial_owners().items():
        if dial in taken:
            raise UserError(
                f"sampler '{samplers[0]}' has a dial '{dial}', which is a key at the root; give the dial another name"
            )


def refuse_key(key: str, where: str, owners: Mapping[str, Any], trainer: Sequence[str]) -> UserError:
    """The error for a key that nothing has."""
    from diffq.config import RootSettings

    root = [f.name for f in dataclasses.fields(RootSettings)]
    head, dot, _ = key.partition(".")
    if head == "hydra" or key.startswith("hydra/"):
        return UserError(f"{where}'{key}' belongs to launchers, which only `diffq sweep` has")
    if dot:
        sections = [g for g in GROUPS if g not in ("experiment", "paper")]
        return UserError(
            f"{where}there is no section '{head}'{did_you_mean(head, sections)}; sections: {', '.join(sections)}"
        )
    near = did_you_mean(key, [*GROUPS, *root, *trainer, *owners])
    more = f"; of the trainer: {', '.join(trainer)}" if trainer else "; dials: `diffq ls samplers` shows them"
    return UserError(f"{where}there is no setting or dial '{key}'{near}; settings: {', '.join((*GROUPS, *root))}{more}")


def refuse_dial(sampler: Any, option: str, dial: str) -> UserError:
    """The error for a dial that the chosen sampler does not have."""
    own = dials_of(sampler)
    others = dial_owners().get(dial, [])
    has = f"it has: {', '.join(own) or 'none'}"
    if others:
        return UserError(
            f"sampler '{option}' has no dial '{dial}'; {_listed(others)} it, and '{option}' has: {', '.join(own)}"
        )
    return UserError(f"sampler '{option}' has no dial '{dial}'{did_you_mean(dial, own)}; {has}")


def _listed(names: Sequence[str]) -> str:
    return f"{names[0]} has" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} have"


def task_gives(dataset: Any, num_samples: int) -> frozenset[str]:
    """What a dataset gives to metrics, in the words of `Metric.needs`."""
    given = {"references", "source", "cost"}
    if dataset.embedded:
        given.add("truth")
    if num_samples >= 2:
        given.add("many")
    return frozenset(given)


def unfed(name: str, metric: Any, dataset: Any, num_samples: int) -> str:
    """Why the task cannot feed a metric, in one sentence; empty where it can."""
    missing = metric.needs() - task_gives(dataset, num_samples)
    if "truth" in missing:
        return (
            f"metric '{name}' needs to know all right answers, which dataset '{dataset.name}' does not;"
            " worlds such as dataset=grammar do"
        )
    if "many" in missing:
        return f"metric '{name}' compares several answers to one source; give num_samples=2 or more, not {num_samples}"
    if missing:
        return f"metric '{name}' needs {', '.join(sorted(missing))}, which dataset '{dataset.name}' does not give"
    return ""


def check_fit(config: Config) -> None:
    """UserError where the sampler cannot serve the model."""
    model, sampler = config.choices.model, config.choices.sampler
    process = config.model.process
    if process not in config.sampler.processes:
        fitting = [name for name in SAMPLERS.names() if process in SAMPLERS[name].processes]
        raise UserError(
            f"sampler '{sampler}' serves {' and '.join(config.sampler.processes) or 'no'} models, and model '{model}' is"
            f" {process}; samplers for it: {', '.join(fitting) or 'none'}"
        )
    if getattr(config.model, "condition_dropout", None) == 0 and config.sampler.needs_guidance():
        raise UserError(
            f"sampler '{sampler}' guides here, and model '{model}' has model.condition_dropout=0, so no unconditional"
            " branch to guide with; use scale=1 or train with model.condition_dropout=0.1"
        )
