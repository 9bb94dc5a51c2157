"""The settings of the two sections that belong to no registered component: how one trains, and where one logs.

Knows nothing of Hydra, and imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from diffq.errors import UserError
from diffq.settings import Settings, setting


def budget(minutes: float | None, steps: int | None) -> str:
    """`45 minutes or 113,000 steps`; empty where there is no end."""
    said = ("" if minutes is None else f"{minutes:g} minutes", "" if steps is None else f"{steps:,} steps")
    return " or ".join(filter(None, said))


@dataclass(frozen=True, kw_only=True)
class TrainerSettings(Settings):
    """How a model is trained: AdamW, a learning-rate schedule, a budget in steps, minutes or both.

    What does not change the weights, or only says when to stop, is left out of a training's name.
    """

    batch_size: int = setting(64, "pairs an optimiser step, over all processes and micro-batches", low=1)
    micro_batch: int | None = setting(
        None,
        "largest number of pairs a network call; the rest is accumulated, sorted by length so that little padding is"
        " computed; null = all at once",
        low=1,
        in_key=False,
    )
    window: int = setting(
        1, "batches whose pairs are shared out by length, so that each has little padding; 1 = off", low=1
    )
    max_steps: int | None = setting(None, "optimiser steps; null = until max_minutes", low=1, in_key=False)
    max_minutes: float | None = setting(
        None, "minutes of training, counted over repeated calls; null = until max_steps", above=0, in_key=False
    )
    learning_rate: float = setting(1e-4, "the peak of the learning rate", above=0)
    schedule: Literal["linear", "cosine", "constant"] = setting(
        "linear",
        "how the learning rate falls after the warm-up: over max_steps, or by the clock if only max_minutes is given",
    )
    warmup_steps: int = setting(
        0, "steps over which the learning rate rises from 0; at most half of max_steps where it falls afterwards", low=0
    )
    final_fraction: float = setting(0.1, "what is left of the learning rate at the end", low=0, high=1)
    weight_decay: float = setting(0.01, "AdamW's decoupled weight decay", low=0)
    decay: Literal["all", "matrices"] = setting(
        "all", "what decays: every parameter, or none of the biases, norms and embeddings"
    )
    beta1: float = setting(0.9, "AdamW: decay of the first moment", low=0, high=0.9999)
    beta2: float = setting(0.999, "AdamW: decay of the second moment", low=0, high=0.99999)
    epsilon: float = setting(1e-8, "AdamW: added to the root of the second moment", above=0)
    clip: float | None = setting(None, "largest norm of the gradient; null = not clipped", above=0)
    ema: float = setting(
        0.0, "decay of the averaged weights, which are the ones sampled; 0 = off", low=0, high=0.999999
    )
    precision: Literal["fp32", "bf16", "fp16"] = setting(
        "fp32",
        "what the network computes in, weights stay fp32; bf16 on a CPU that lacks it is many times slower than fp32",
    )
    validate_steps: int | None = setting(1000, "steps between validations; null = never by steps", low=1, in_key=False)
    validate_minutes: float | None = setting(None, "minutes between validations", above=0, in_key=False)
    validation_sources: int = setting(
        512, "pairs of the validation split that are looked at; 0 = none", low=0, in_key=False
    )
    previews: int = setting(3, "samples shown at each validation", low=0, in_key=False)
    save_steps: int | None = setting(None, "steps between checkpoints; null = never by steps", low=1, in_key=False)
    save_minutes: float | None = setting(10.0, "minutes between checkpoints", above=0, in_key=False)
    keep: int = setting(2, "training states kept", low=1, in_key=False)
    log_steps: int = setting(10, "steps between rows of train.jsonl", low=1, in_key=False)
    label: str | None = setting(
        None, "what reports call this training, where they show two of one model", in_key=False, since="0.2"
    )

    noise: Literal["uniform", "ens"] = setting(
        "uniform",
        "what model=eags masks: a uniformly drawn share of a target, or ens: tokens of least entropy first; others have"
        " a noise of their own",
        since="0.2",
    )
    bins: int = setting(5, "ens: parts that a target is masked in, T", low=1, high=64, since="0.2")
    entropy_from: Literal["frozen_full", "frozen_once", "self_partial"] = setting(
        "frozen_full",
        "ens: whose entropies: frozen_full, a frozen model's of each token masked alone, a row a token; frozen_once,"
        " its in one pass without masks (approximate); self_partial, the trained model's, half of a target masked,"
        " which is what no frozen model means where nothing is said",
        since="0.2",
    )
    entropy_model: str | None = setting(
        None, "ens: the frozen model, a checkpoint of the same vocabulary; null = model.start", since="0.2"
    )
    fill: Literal["ranked", "apart"] = setting(
        "ranked",
        "ens: what a room has beyond its target is ranked among the target's tokens, or apart, in bins of its own",
        since="0.2",
    )

    @property
    def budget(self) -> str:
        """When a training ends at the latest, in words."""
        return budget(self.max_minutes, self.max_steps)

    def check(self) -> None:
        if self.max_steps is None and self.max_minutes is None:
            raise UserError("a training needs an end: give trainer.max_steps or trainer.max_minutes")
        if self.noise != "ens":
            for name in ("bins", "entropy_from", "entropy_model", "fill"):
                if (value := getattr(self, name)) != getattr(type(self), name):
                    raise UserError(f"trainer.{name}={value} is for trainer.noise=ens; leave it out, or give that")


@dataclass(frozen=True, kw_only=True)
class TrackerSettings(Settings):
    """Where runs are logged beside their folders."""

    name: Literal["none", "wandb"] = setting("none", "none, or wandb (offline where nobody is logged in)")
    project: str = setting("diffq", "the tracker's project")
    artifacts: Literal["none", "samples", "checkpoints", "all"] = setting(
        "none", "files that are logged with the runs, each once by the hash of what it holds"
    )
    wait: float | None = setting(
        None,
        "seconds that a command waits at its end for what is not logged yet, which goes on in the background; null = a"
        " fiftieth of the command's own time",
        low=0,
    )
