"""What the trainer and the samplers ask of every model."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal, Protocol

from torch import Tensor, nn

from diffq.diffusion.contracts import Process
from diffq.rng import Rng
from diffq.settings import Settings


class Vocabulary(Protocol):
    """What a network must know of its tokenizer."""

    size: int
    pad: int
    mask: int  # also the unconditional source
    start: int
    end: int


@dataclass(frozen=True)
class PairBatch:
    """A batch of training pairs.

    source_BS, target_BL  token ids; a source has its special tokens, a target has none
    *_valid_*             False where padding stands
    row_B                 the index of the pair in the training split: it keys the pair's draws
    visit_B               how often each pair has been drawn before (its epoch): keys too
    """

    source_BS: Tensor
    source_valid_BS: Tensor
    target_BL: Tensor
    target_valid_BL: Tensor
    row_B: Tensor
    visit_B: Tensor


@dataclass(frozen=True)
class TextBatch:
    """A batch of windows of running text.

    tokens_BL  token ids
    valid_BL   False where padding stands
    row_B      the index of the window in the training split: it keys the window's draws
    visit_B    how often each window has been drawn before (its epoch): keys too
    """

    tokens_BL: Tensor
    valid_BL: Tensor
    row_B: Tensor
    visit_B: Tensor


@dataclass(frozen=True)
class Totals:
    """The counts that a loss is divided by: those of the whole optimiser step, over all processes and micro-batches,
    so that the losses of the parts add up to the loss of the whole."""

    examples: int
    tokens: int


class TrainableModel(nn.Module):
    """A network with its loss and its denoiser."""

    process: ClassVar[Process]

    def loss(self, batch: Any, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """Named parts of the loss; `loss` is what is minimised. Each is this batch's share of the step's loss.

        Every random number but dropout's is keyed by (row, visit), so it does not depend on how rows are batched.
        """
        raise NotImplementedError

    def forward(self, batch: Any, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """The loss: what distributed wrappers call."""
        return self.loss(batch, rng, totals)

    def after_step(self) -> None:
        """Called after each optimiser step."""

    def records(self) -> Mapping[str, Tensor] | None:
        """Per-example observations of the last loss to be gathered over processes and given to `observe`, in batch
        order, or None."""
        return None

    def observe(self, records: Mapping[str, Tensor]) -> None:
        """Takes the gathered observations of one optimiser step (importance sampling learns from them)."""

    def denoiser(self) -> Any:
        """The network behind the contract of its process (`contracts.Denoiser`)."""
        raise NotImplementedError


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings):
    """Registered subclasses hold a network's sizes and implement `build`."""

    process: ClassVar[Process]
    task: ClassVar[Literal["pairs", "text"]] = "pairs"  # what it is trained on

    def build(self, vocabulary: Vocabulary) -> Any:
        """A freshly initialised TrainableModel. Initial weights come from torch's generator, which the caller seeds."""
        raise NotImplementedError

    def work(self, vocab_size: int) -> Any:
        """How much work a network of these sizes does (`models.work`), or None where nobody has counted it."""
        return None

    def blank(self) -> dict[str, Any] | None:
        """What the denoiser of such a model will say of itself (`guidable`, `max_length`, `alpha_bar_T`, as far as its
        process has them), or None where only a built network can tell."""
        return None
