"""What must fit together before any weight is loaded: dials and samplers, samplers and models, metrics and tasks.

Every refusal is one sentence that names what would be allowed. Nothing here composes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from diffq.config.files import GROUPS
from diffq.errors import UserError, did_you_mean
from diffq.registry import SAMPLERS

if TYPE_CHECKING:
    from diffq.config.schema import Config

ASKED = ("keywords",)
"""Settings of a dataset that say what is asked of an answer. They are written bare, like a dial."""


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
    """The processes that a sampler class serves."""
    return tuple(sampler.processes)


def root_keys() -> tuple[str, ...]:
    """Every key at the root, the groups first."""
    from diffq.config.schema import RootSettings

    return (*GROUPS, *(f.name for f in dataclasses.fields(RootSettings)))


def check_registered_dials() -> None:
    """UserError where a sampler's dial has the name of another key: a bare `name=` would mean two things."""
    taken = {*root_keys(), *ASKED}
    for dial, samplers in dial_owners().items():
        if dial in taken:
            raise UserError(
                f"sampler '{samplers[0]}' has a dial '{dial}', which is a key already; give the dial another name"
            )


def refuse_key(key: str, where: str, owners: Mapping[str, Any], trainer: Sequence[str]) -> UserError:
    """The error for a key that nothing has."""
    head, dot, _ = key.partition(".")
    if head == "hydra" or key.startswith("hydra/"):
        return UserError(f"{where}'{key}' belongs to launchers, and only `diffq sweep` has launchers")
    if dot:
        sections = [g for g in GROUPS if g not in ("experiment", "paper")]
        return UserError(
            f"{where}there is no section '{head}'{did_you_mean(head, sections)}; sections: {', '.join(sections)}"
        )
    near = did_you_mean(key, [*root_keys(), *ASKED, *trainer, *owners])
    more = f"; of the trainer: {', '.join(trainer)}" if trainer else "; dials: `diffq ls samplers` shows them"
    return UserError(f"{where}there is no setting or dial '{key}'{near}; settings: {', '.join(root_keys())}{more}")


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


def unfed(name: str, metric: Any, dataset: Any) -> str:
    """Why a task cannot feed a metric, in one sentence; empty where it can. 'many' is for the samples to give."""
    given = {"source", "cost", "many", "ids"} | ({"truth"} if dataset.all_known else set())
    given |= {"text": {"real"}, "pairs": {"real", "references"}}.get(dataset.task, {"references"})
    given |= {"verdicts"} if dataset.graded else set()
    if dataset.task == "text" and not dataset.given:
        given -= {"source"}
    if asked := getattr(dataset, "keywords", 0):
        given |= {"keywords", "other_keywords"} if isinstance(asked, int) else {"keywords"}
    missing = metric.needs() - given
    if "keywords" in missing:
        return (
            f"metric '{name}' needs words that answers were asked to hold: on pairs, dataset.keywords=3 asks for some"
        )
    if "other_keywords" in missing:
        return f"metric '{name}' looks for the keywords of other sources, and words of your own are asked of all alike"
    if "truth" in missing:
        return (
            f"metric '{name}' needs to know all right answers, which dataset '{dataset.name}' does not;"
            " worlds such as dataset=grammar do"
        )
    if "verdicts" in missing:
        return (
            f"metric '{name}' needs answers that can be checked, and those of dataset '{dataset.name}' cannot; those of"
            " dataset=math500 and humaneval can"
        )
    if not missing:
        return ""
    return f"metric '{name}' needs {', '.join(sorted(missing))}, which dataset '{dataset.name}' does not give"


def unready(
    name: str, metric: Any, num_samples: int, dataset: Any, num_sources: int | None, computed: bool = False
) -> str:
    """Why a metric cannot be computed with so few samples, or on this machine; empty where it can. computed: it is
    already, so the machine does not matter."""
    if few := _few_texts(name, metric, num_samples, dataset, num_sources):
        return few
    least = metric.least_samples()
    if num_samples < least:
        return (
            f"metric '{name}' needs {least} answers to each source, not {num_samples}; give num_samples={least} or more"
        )
    return "" if computed else metric.unavailable() or ""


def _few_texts(name: str, metric: Any, num_samples: int, dataset: Any, num_sources: int | None) -> str:
    """Why a metric of laws of texts is not to be had of so few; empty where it is, or where a split's size decides."""
    least = metric.least_texts()
    if dataset.task == "text":
        real = min(dataset.windows, num_sources or dataset.windows) if dataset.given else dataset.windows
        texts, more = num_samples * (real if dataset.given else 1), "num_samples, num_sources or dataset.windows"
    elif num_sources is not None:  # a reference each at least
        real, texts, more = num_sources, num_samples * num_sources, "num_sources"
    else:
        return ""
    if min(texts, real) >= least:
        return ""
    found = f"metric '{name}' of {texts} texts beside {real} real ones is mostly bias"
    return f"{found}; it needs {least} of each: raise {more}"


def serves(model: Any, dataset: Any) -> bool:
    """Whether models of a kind serve a data set: those of its own task, and masked ones of running text pairs too, laid
    out on one canvas."""
    masked = model.task == "text" and model.process == "absorbing"
    return bool(model.task == dataset.written_by or (dataset.task == "pairs" and masked))


def check_fit(config: Config) -> None:
    """UserError where model and dataset are of different tasks, where the sampler cannot serve the model, and where
    `length` is no length model or says nothing."""
    from diffq.data.lengths import LengthModel  # it imports torch, as the registered samplers do

    LengthModel.parse(config.length)
    model, sampler = config.choices.model, config.choices.sampler
    dataset, kinds = config.choices.dataset, {"pairs": "a source and a target", "text": "running text"}
    kinds["answers"] = "answers behind a prompt"
    kinds["forms"] = "forms to be filled in"
    if not serves(config.model, config.dataset):
        models = ", ".join(config.dataset.models.values()) or "see diffq ls models"
        raise UserError(
            f"model '{model}' is for {kinds[config.model.task]}, and dataset '{dataset}' is"
            f" {kinds[config.dataset.task]}; models for it: {models}"
        )
    if config.laid_out and config.length != "oracle":
        raise UserError(
            f"length={config.length} is for models that have the source beside their canvas; for model '{model}' a"
            " target has dataset.room places and ends by itself"
        )
    if config.dataset.task != "pairs" and config.length != "oracle":
        room = "the canvas of running text has dataset.block" if config.dataset.task == "text" else ""
        raise UserError(
            f"length={config.length} is for targets beside a source; {room or 'an answer has at most dataset.answer'}"
            " tokens"
        )
    _check_noise(config)
    process = config.model.process
    if process not in config.sampler.processes:
        fitting = [name for name in SAMPLERS.names() if process in SAMPLERS[name].processes]
        raise UserError(
            f"sampler '{sampler}' serves {' and '.join(config.sampler.processes) or 'no'} models, and model '{model}'"
            f" is {process}; samplers for it: {', '.join(fitting) or 'none'}"
        )
    dials = vars(config.sampler)
    if config.energy and (not config.sampler.fills or dials.get("allow_mask") or dials.get("cache", "off") != "off"):
        filling = [name for name in SAMPLERS.names() if SAMPLERS[name].fills]
        raise UserError(
            f"energy={config.energy} is that of drafts of words with nothing masked, and sampler '{sampler}' gives none"
            f" here; those that do, with allow_mask=false and cache=off: {', '.join(filling)}"
        )
    reason = config.sampler.misfit(config.model.keeps, getattr(config.model, "block_causal", 0))
    if reason and config.checkpoint is None:  # what a checkpoint holds may be another model; the sampler looks at it
        raise UserError(reason)
    if getattr(config.model, "condition_dropout", None) == 0 and config.sampler.needs_guidance():
        raise UserError(
            f"sampler '{sampler}' guides here, and model '{model}' has model.condition_dropout=0, so no unconditional"
            " branch to guide with; use scale=1 or train with model.condition_dropout=0.1"
        )


def _check_noise(config: Config) -> None:
    """UserError where a training is to mask by entropy, and model or settings cannot."""
    trainer, room = config.trainer, getattr(config.dataset, "room", None)
    if trainer.noise != "ens":
        loss_on = getattr(config.model, "loss_on", "masked")
        if config.checkpoint is None and loss_on != "masked":
            raise UserError(
                f"model.loss_on={loss_on} means the bin that trainer.noise=ens masked last; leave it out, or give that"
            )
        return
    if not config.laid_out:
        raise UserError(
            f"trainer.noise=ens masks targets of pairs, and dataset '{config.choices.dataset}' with model"
            f" '{config.choices.model}' has none on a canvas; give dataset=paradetox model=eags_mini, or"
            " trainer.noise=uniform"
        )
    if not getattr(config.model, "masks_by_entropy", False):
        raise UserError(
            f"trainer.noise=ens is for models of kind eags, and not for model '{config.choices.model}'; give"
            " model=eags_mini or trainer.noise=uniform"
        )
    if room is not None and room < trainer.bins:
        raise UserError(f"dataset.room={room} cannot be masked in trainer.bins={trainer.bins} parts; give more room")
    if trainer.entropy_from != "self_partial" and not (trainer.entropy_model or getattr(config.model, "start", None)):
        raise UserError(
            f"trainer.entropy_from={trainer.entropy_from} asks a frozen model, and none is given; give model.start or"
            " trainer.entropy_model, a checkpoint's folder, or trainer.entropy_from=self_partial"
        )
