"""What the trainer and the samplers ask of every model."""

from __future__ import annotations

from abc import ABC, abstractmethod
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


class TrainBatch(Protocol):
    """What the trainer knows of a batch.

    row_B    the index of each example in the training split: it keys the example's draws
    visit_B  how often each has been drawn before (its epoch): keys too
    """

    @property
    def row_B(self) -> Tensor: ...

    @property
    def visit_B(self) -> Tensor: ...

    @property
    def tokens(self) -> int:
        """The tokens that are learnt to be given, which a loss is divided by."""
        ...

    @property
    def lengths_B(self) -> Tensor:
        """Tokens of each example, for putting together those of like length."""
        ...

    def take(self, rows_K: Tensor) -> TrainBatch:
        """Those examples, in that order, without the columns in which all of them are padding."""
        ...


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

    @property
    def tokens(self) -> int:
        return int(self.target_valid_BL.sum())

    @property
    def lengths_B(self) -> Tensor:
        return self.source_valid_BS.sum(1) + self.target_valid_BL.sum(1)

    def take(self, rows_K: Tensor) -> PairBatch:
        source = _cut(self.source_valid_BS[rows_K], self.source_BS[rows_K])
        target = _cut(self.target_valid_BL[rows_K], self.target_BL[rows_K])
        return PairBatch(source[1], source[0], target[1], target[0], self.row_B[rows_K], self.visit_B[rows_K])


@dataclass(frozen=True)
class TextBatch:
    """A batch of windows of running text.

    tokens_BL  token ids
    valid_BL   where a token may be destroyed, and counts
    row_B      the index of the window in the training split: it keys the window's draws
    visit_B    how often each window has been drawn before (its epoch): keys too
    seen_BL    False where padding stands, which nobody sees; None: all is seen
    bin_BL     in which part of a given order each token is destroyed, from 1; 0 where none is. None: no order is given
    """

    tokens_BL: Tensor
    valid_BL: Tensor
    row_B: Tensor
    visit_B: Tensor
    seen_BL: Tensor | None = None
    bin_BL: Tensor | None = None

    @property
    def tokens(self) -> int:
        return int(self.valid_BL.sum())

    @property
    def lengths_B(self) -> Tensor:
        return (self.valid_BL if self.seen_BL is None else self.seen_BL).sum(1)

    def take(self, rows_K: Tensor) -> TextBatch:
        seen_BL = None if self.seen_BL is None else self.seen_BL[rows_K]
        width = _width(self.valid_BL[rows_K] if seen_BL is None else seen_BL)

        def cut(value_BL: Tensor) -> Tensor:
            return value_BL[rows_K][:, :width]

        return TextBatch(
            cut(self.tokens_BL),
            cut(self.valid_BL),
            self.row_B[rows_K],
            self.visit_B[rows_K],
            None if seen_BL is None else seen_BL[:, :width],
            None if self.bin_BL is None else cut(self.bin_BL),
        )


def _cut(valid: Tensor, tokens: Tensor) -> tuple[Tensor, Tensor]:
    """Both without the columns at their end in which all is padding; one column is always left."""
    width = _width(valid)
    return valid[:, :width], tokens[:, :width]


def _width(valid: Tensor) -> int:
    """Columns up to the last in which anything is valid; at least one."""
    return int(valid.any(0).nonzero().max()) + 1 if bool(valid.any()) else 1


@dataclass(frozen=True)
class Totals:
    """The counts that a loss is divided by: those of the whole optimiser step, over all processes and micro-batches,
    so that the losses of the parts add up to the loss of the whole."""

    examples: int
    tokens: int


class DenoisingModel(nn.Module, ABC):
    """A network that can be sampled: one that was trained here, or by others."""

    process: ClassVar[Process]

    @abstractmethod
    def denoiser(self) -> Any:
        """The network behind the contract of its process (`contracts.Denoiser`)."""


class TrainableModel(DenoisingModel):
    """A network with its loss."""

    @abstractmethod
    def loss(self, batch: Any, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """Named parts of the loss; `loss` is what is minimised. Each is this batch's share of the step's loss.

        Every random number but dropout's is keyed by (row, visit), so it does not depend on how rows are batched.
        """

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


@dataclass(frozen=True, kw_only=True)
class ModelSettings(Settings, ABC):
    """Registered subclasses hold a network's sizes and implement `build`."""

    process: ClassVar[Process]
    task: ClassVar[Literal["pairs", "text"]] = "pairs"  # what it is trained on
    trainable: ClassVar[bool] = True  # here; else others have trained it
    keeps: ClassVar[bool] = False  # its sessions can `freeze` columns

    @abstractmethod
    def build(self, vocabulary: Vocabulary) -> Any:
        """A freshly initialised TrainableModel. Initial weights come from torch's generator, which the caller seeds."""

    def work(self, vocabulary: Vocabulary) -> Any:
        """How much work a network of these sizes does (`models.work`), or None where nobody has counted it."""
        return None

    def blank(self) -> dict[str, Any] | None:
        """What the denoiser of such a model will say of itself (`guidable`, `max_length`, `alpha_bar_T`, as far as its
        process has them), or None where only a built network can tell."""
        return None
