"""`diffq train`: from a configuration to a checkpoint under outputs/train/.

A training is named by what determines its weights. Called again it goes on where it was, and does nothing where its
budget is used up. Knows no loss and no sampling algorithm.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import sys
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from diffq.config import Config, Request, compose
from diffq.errors import UserError
from diffq.interrupts import reaching
from diffq.runs.tracking import NoTracker, Tracker, open_tracker
from diffq.runs.training.journal import RUN, claimed, remove_leftovers
from diffq.settings import as_mapping, key_fields
from diffq.store.files import read_json, read_yaml, write_yaml
from diffq.store.identity import digest
from diffq.store.root import Store
from diffq.store.versions import versions

if TYPE_CHECKING:
    from diffq.runs.training.loop import Job


def run(request: Request) -> int:
    """Trains what the command line asks for. Returns 0, or 1 where the loss stopped being a number."""
    from diffq.runs.training.loop import NotFinite

    config = _sized(compose(request.overrides, verb="train", config_dirs=request.config_dirs))
    try:
        with reaching(lambda: "no step has been taken since the last checkpoint"), _tracker(config) as tracker:
            tracker.training(training_folder(config))
            folder = train(config, progress=not request.json)
    except NotFinite as error:
        print(f"diffq: {error}", file=sys.stderr)
        return 1
    if _first_process():
        made = read_json(folder / RUN) or {}
        if request.json:
            print(json.dumps({"folder": str(folder)} | made))
        else:
            print(f"{folder}: {made['step']} steps in {made['seconds'] / 60:.1f} min, {_losses(made)}")
    return 0


def _sized(config: Config) -> Config:
    """The configuration with the sizes of what its network starts from."""
    if not getattr(config.model, "start", None):
        return config
    from diffq.models.starts import with_start

    return with_start(config)


def _tracker(config: Config) -> Tracker:
    """The tracker that is asked for, in the process that speaks."""
    return open_tracker(config.tracker, Path(config.outputs)) if _first_process() else NoTracker()


def train(config: Config, *, progress: bool = True) -> Path:
    """The folder of the finished training; of a training that is finished already at most the name is touched.

    Raises NotFinite, Interrupted (after a checkpoint), and UserError for what cannot be trained.
    """
    config = _sized(config)
    folder = training_folder(config)
    if _finished(folder, config):
        _call(folder, config.trainer.label)
        if progress and _first_process():
            more = "goes on from it" if config.trainer.schedule == "constant" else "is another training"
            print(f"{folder} is trained already; a larger budget {more}", file=sys.stderr)
        return folder
    with accelerator_for(config) as accelerator:
        from diffq.runs.training.loop import Trainer

        first = accelerator.is_main_process
        with claimed(folder) if first else contextlib.nullcontext():
            if first:
                remove_leftovers(folder)
            job = prepare(config, folder, accelerator, progress)
            Trainer(job, accelerator).run()
        accelerator.wait_for_everyone()
    return folder


def training_key(config: Config) -> dict[str, Any]:
    """What determines a training's weights: model, data, optimiser, seed, and the end that the learning rate falls
    towards. A larger budget is another training where the learning rate falls, and the same one where it does not."""
    trainer = config.trainer
    end: dict[str, Any] = {}
    if trainer.schedule != "constant":
        end = {"max_minutes": trainer.max_minutes} if trainer.max_steps is None else {"max_steps": trainer.max_steps}
    data, path = key_fields(config.dataset), getattr(config.dataset, "path", None)
    if path is not None and "path" not in config.dataset.not_learnt:
        data["path"] = str(path)  # a point's key has the digest of its sources instead; here nothing is read yet
    return {
        "model": key_fields(config.model),
        "dataset": data,
        "trainer": key_fields(trainer),
        "end": end,
        "seed": config.seed,
    }


def training_folder(config: Config) -> Path:
    """outputs/train/DATASET-MODEL-hash of this training, whether or not it is there."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "_", f"{config.choices.dataset}-{config.choices.model}")[:100]
    return Store(Path(config.outputs)).train / f"{name}-{digest(training_key(config))[:8]}"


def _finished(folder: Path, config: Config) -> bool:
    """Whether its budget is used up, and the user's files are those that it was trained on. Files that look otherwise
    have it prepared once more, which tells whether they hold something else (`_check_data`)."""
    run = read_json(folder / RUN) or {}
    if run.get("status") != "done" or ("files" in run and run["files"] != _files(config)):
        return False
    steps, minutes = config.trainer.max_steps, config.trainer.max_minutes
    return (steps is not None and run["step"] >= steps) or (minutes is not None and run["seconds"] >= 60 * minutes)


def _files(config: Config) -> str:
    """A digest of names, sizes and times of change of what a training reads at places that the user gives."""
    given = (
        getattr(config.dataset, "path", None),
        getattr(config.model, "start", None),
        config.trainer.entropy_model,
    )
    found = []
    for place in (Path(path).expanduser() for path in given if path):
        for file in sorted(place.rglob("*")) if place.is_dir() else [place]:
            if file.is_file():
                about = file.stat()
                found.append([str(file.relative_to(place)), about.st_size, about.st_mtime_ns])
    return digest(found)


def _call(folder: Path, label: str | None) -> None:
    """Gives a finished training another name, where one is given."""
    if label is None or not _first_process():
        return
    held = read_yaml(folder / "config.yaml")
    held["trainer"]["label"] = label
    write_yaml(folder / "config.yaml", held)


@contextlib.contextmanager
def accelerator_for(config: Config) -> Iterator[Any]:
    """Hugging Face's Accelerator for the device and the precision asked for; what it keeps globally is cleared."""
    import torch
    from accelerate import Accelerator, DistributedDataParallelKwargs
    from accelerate.state import AcceleratorState

    precision = {"fp32": "no", "bf16": "bf16", "fp16": "fp16"}[config.trainer.precision]
    on_cpu = config.device == "cpu" or (config.device == "auto" and not torch.cuda.is_available())
    if config.device.startswith("cuda:"):
        raise UserError(
            f"device={config.device}: training takes the GPUs it is shown; set CUDA_VISIBLE_DEVICES={config.device[5:]}"
            " and leave device=auto"
        )
    if config.device == "spread":
        raise UserError("device=spread is for sampling; a training takes the GPUs it is shown: leave device=auto")
    if on_cpu and precision == "fp16":
        raise UserError("trainer.precision=fp16 needs a GPU; on a CPU use fp32 or bf16")
    AcceleratorState._reset_state(reset_partial_state=False)
    accelerator = Accelerator(
        cpu=on_cpu,
        mixed_precision=precision,
        kwargs_handlers=[DistributedDataParallelKwargs(broadcast_buffers=False, gradient_as_bucket_view=True)],
    )
    try:
        yield accelerator
    finally:
        AcceleratorState._reset_state(reset_partial_state=False)


def prepare(config: Config, folder: Path, accelerator: Any, shown: bool) -> Job:
    """The training's parts, with everything on disk that a checkpoint is besides its weights."""
    import torch

    from diffq.runs.training.loop import Job
    from diffq.runs.training.material import gather

    first, device = accelerator.main_process_first(), accelerator.device
    made = gather(config, Store(Path(config.outputs)).cache, first, device, shown and accelerator.is_main_process)
    torch.manual_seed(config.seed)
    model = config.model.build(made.tokenizer)
    facts = {"tokenizer": made.tokenizer.digest, **made.facts, **_started(model, config, made.tokenizer)}
    _check_data(folder, facts)
    if accelerator.process_index:  # dropout differs between processes, initial weights do not
        torch.manual_seed(config.seed + 1_000_003 * accelerator.process_index)
    if accelerator.is_main_process:
        made.tokenizer.save(folder / "tokenizer")
        if made.lengths is not None:
            write_yaml(folder / "lengths.yaml", made.lengths)
        write_yaml(folder / "config.yaml", as_mapping(config))
        for note in filter(None, (made.note, _beginning(config)) if shown else ()):
            print(note, file=sys.stderr)
    before = read_json(folder / RUN) or {}
    run = {
        "dataset": config.choices.dataset,
        "model": config.choices.model,
        "parameters": sum(p.numel() for p in model.parameters()),
        **facts,
        "files": _files(config),
        "started": before.get("started") or datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
    }
    return Job(
        model, made.batches, config.trainer, config.seed, folder, validation=made.validation, preview=made.preview,
        run=run, title=f"{config.choices.dataset} {config.choices.model}", shown=shown,
    )  # fmt: skip


def _beginning(config: Config) -> str:
    """What to know of a training of a masked language model that has no weights to start from; empty for others."""
    if getattr(config.model, "start", "other"):
        return ""
    asked = "; ENS asks the model itself for entropies" if config.trainer.entropy_from == "self_partial" else ""
    return (
        f"{config.choices.model} begins from no weights{asked}; model.start=FacebookAI/roberta-base"
        " dataset.tokenizer=roberta or model.start=FOLDER begins from others'"
    )


def _started(model: Any, config: Config, tokenizer: Any) -> dict[str, Any]:
    """Gives a network the weights that it starts from and says how its training masks, where it is told such; what
    run.json is to keep of it."""
    from diffq.models.entropy_masks import Masking

    trainer, start = config.trainer, getattr(config.model, "start", None)
    if hasattr(model, "masking"):
        model.masking = Masking(trainer.noise, trainer.bins, trainer.fill)
    if not start:
        return {}
    from diffq.models.starts import load_start

    return {"start": load_start(model, start, tokenizer)}


def _check_data(folder: Path, facts: Mapping[str, Any]) -> None:
    """UserError where a training was begun on other data than is there now."""
    run = read_json(folder / RUN) or {}
    if run.get("step") and any(run.get(name, value) != value for name, value in facts.items()):
        counted = next(name for name in ("pairs", "windows", "forms") if name in facts)
        raise UserError(
            f"{folder} was begun on other data ({run.get(counted)} {counted}, there are {facts[counted]} now, and their"
            " words or tokens, or a model that it starts from, differ); delete the folder to train on the new data, or"
            " give back the old"
        )


def _losses(run: dict[str, Any]) -> str:
    parts = [("loss", run.get("loss")), ("validation loss", run.get("validation_loss"))]
    return ", ".join(f"{name} {value:.4f}" for name, value in parts if value is not None)


def _first_process() -> bool:
    """True in the process that speaks, whichever launcher started it."""
    return os.environ.get("RANK", "0") == "0"
