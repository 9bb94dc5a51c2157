"""Conditional masked language models of Hugging Face's RoBERTa, BERT and ModernBERT classes, trained here (Koh et al.,
arXiv 2411.06438).

The condition stands on the canvas and is never masked; places of the target's room are, and their tokens are learnt by
plain cross-entropy. Which places: a uniformly drawn share of them, or by entropy, those of least first (ENS,
`models.entropy_masks`). The network is told no noise level: the number of masks tells it (reconstructed, as is the
optimiser). A training begins with random weights, or with those of `start`. As a denoiser it is `hf_masked`.

Knows no layout of a canvas and no sampling algorithm.

Shape suffixes: B rows, L positions, N masked positions, D width, V tokens.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from diffq.diffusion.contracts import Process
from diffq.diffusion.noise import Noise
from diffq.diffusion.reductions import entropy_of
from diffq.errors import UserError
from diffq.models.base import ModelSettings, TextBatch, Totals, TrainableModel, Vocabulary
from diffq.models.berts import CLASSES, Classes, Family, first_place
from diffq.models.cross_entropy import weighted_sum
from diffq.models.entropy_masks import Masking, halves, masked_by_bins, masked_uniformly, room_bins
from diffq.models.hf_masked import PretrainedMasked
from diffq.models.hf_work import PretrainedWork
from diffq.models.sessions import drawable
from diffq.registry import MODELS
from diffq.rng import Rng
from diffq.settings import setting


@MODELS.register("eags")
@dataclass(frozen=True, kw_only=True)
class EAGSSettings(ModelSettings):
    """A masked language model to be trained on conditions and targets. With `start` the sizes are the start's."""

    process: ClassVar[Process] = "absorbing"
    task: ClassVar[Literal["pairs", "text"]] = "text"
    masks_by_entropy: ClassVar[bool] = True
    # Settings in which a training may differ from what it starts from.
    not_of_start: ClassVar[tuple[str, ...]] = ("start", "loss_on", "dropout")

    family: Family = setting("roberta", "whose classes: roberta, bert or modernbert")
    layers: int = setting(12, "transformer layers", low=1)
    width: int = setting(768, "width of the network", low=2)
    heads: int = setting(12, "attention heads, which share the width equally", low=1)
    mlp_width: int = setting(
        0, "width inside of feed-forward networks; 0 = four times the width, in gated ones 8/3 of it", low=0
    )
    max_length: int = setting(512, "longest canvas in tokens", low=4)
    dropout: float = setting(0.1, "dropout in training, of states and of attention", low=0, high=0.9)
    loss_on: Literal["masked", "newest"] = setting(
        "masked", "what the loss is the mean of: all masked tokens, or only the bin that was masked last (ENS)"
    )
    start: str | None = setting(
        None,
        "weights to start from: a folder of one of these classes, a training of this kind, or a hub name",
    )
    library: dict[str, Any] = dataclasses.field(
        default_factory=dict,
        metadata={"help": "further settings of the library's configuration class; a start brings its own"},
    )

    def check(self) -> None:
        if self.width % self.heads:
            raise UserError(f"model.width={self.width} is no multiple of model.heads={self.heads}")

    def build(self, vocabulary: Vocabulary) -> EAGS:
        """The network of these sizes, without the weights of `start` (`models.starts`)."""
        return EAGS(self, vocabulary)

    def work(self, vocabulary: Vocabulary) -> PretrainedWork:
        modern, square, inner = self.classes.modern, self.width**2, self.width * self.inner
        matrices = 4 * square + (3 if modern else 2) * inner
        beside = 2 * self.width if modern else self.inner + 9 * self.width  # biases and norms
        tied = self.library.get("tie_word_embeddings", True)
        tables = self.rows(vocabulary) * ((1 if tied else 2) * self.width + 1)
        places = 0 if modern else (self.max_length + 4) * self.width
        return PretrainedWork(
            vocab_size=drawable(vocabulary)[0],
            inner=self.width,
            parameters=tables + places + self.layers * (matrices + beside) + square + 5 * self.width,
            multiplied=self.layers * matrices,
            layers=self.layers,
            width=self.width,
            heads=self.heads,
            attended=self.width,
            kept=0,
        )

    def blank(self) -> dict[str, Any]:
        return {"guidable": True, "max_length": self.max_length, "noise": Noise()}

    @property
    def classes(self) -> Classes:
        return CLASSES[self.family]

    @property
    def inner(self) -> int:
        return self.mlp_width or self.classes.inner(self.width)

    def rows(self, vocabulary: Any) -> int:
        """Rows of the embedding matrix. UserError where the tokenizer has more tokens."""
        rows = int(self.library.get("vocab_size") or vocabulary.size)
        if rows < vocabulary.size:
            raise UserError(
                f"the network has embeddings of {rows} tokens, and the tokenizer has {vocabulary.size}; take the"
                " start's own, with dataset.tokenizer=FOLDER"
            )
        return rows

    def library_config(self, vocabulary: Any) -> Any:
        """The library's configuration of such a network."""
        before = first_place(self.family, int(self.library.get("pad_token_id", vocabulary.pad)))
        said: dict[str, Any] = {
            "pad_token_id": vocabulary.pad,
            "bos_token_id": vocabulary.start,
            "eos_token_id": vocabulary.end,
            "cls_token_id": vocabulary.start,
            "sep_token_id": vocabulary.end,
            "vocab_size": self.rows(vocabulary),
            "hidden_size": self.width,
            "num_hidden_layers": self.layers,
            "num_attention_heads": self.heads,
            "intermediate_size": self.inner,
            "max_position_embeddings": self.max_length + before,
            **dict.fromkeys(self.classes.dropouts, self.dropout),
        }
        return self.classes.configuration(said, {k: v for k, v in self.library.items() if k != "vocab_size"})

    @classmethod
    def of_library(cls, config: Mapping[str, Any], where: Path) -> EAGSSettings:
        """The settings of a network of the library by its config.json. UserError for another class."""
        family: Any = config.get("model_type")
        if family not in CLASSES:
            raise UserError(
                f"model.start={where} is a {family} model; a training starts from the classes {', '.join(CLASSES)}"
            )
        classes, before = CLASSES[family], first_place(family, int(config.get("pad_token_id", 1)))
        return cls(
            family=family,
            layers=int(config["num_hidden_layers"]),
            width=int(config["hidden_size"]),
            heads=int(config["num_attention_heads"]),
            mlp_width=int(config["intermediate_size"]),
            max_length=int(config["max_position_embeddings"]) - before,
            dropout=float(config.get(classes.dropouts[0], 0.0 if classes.modern else 0.1)),
            library={name: config[name] for name in classes.kept if config.get(name) is not None},
        )


_SCORES = 1 << 26
"""The most scores that are held at once where entropies are asked for."""


class EAGS(PretrainedMasked, TrainableModel):
    """The network with its loss.

    masking: how places are masked in training; where none is said, a uniformly drawn share
    """

    settings: EAGSSettings
    masking: Masking = Masking()

    def __init__(self, settings: EAGSSettings, vocabulary: Any):
        made = settings.classes.network(settings.library_config(vocabulary)).eval()
        super().__init__(made, vocabulary, settings, Path(f"model={settings.kind}"))
        self.end: int = vocabulary.end
        self.train()

    def log_weights(self, hidden_ND: Tensor) -> Tensor:
        """Float32 log-weights of all words, (N, V), −inf for what is never drawn."""
        return F.linear(self.features(hidden_ND), *self._projection()).float()

    def _projection(self) -> tuple[Tensor, Tensor]:
        """The last matrix and its bias, which is −inf for what is never drawn."""
        weight_VD = self.matrix.weight[: self.words]
        bias = getattr(self.matrix, "bias", None)
        bias_V = weight_VD.new_zeros(self.words) if bias is None else bias[: self.words]
        never = torch.tensor(self.never, dtype=torch.long, device=weight_VD.device)
        return weight_VD, bias_V.index_fill(0, never, -math.inf)

    def loss(self, batch: TextBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """The mean cross-entropy of a row's masked tokens, or of its newest bin, averaged over rows, in nats a token.

        Validation always masks a uniformly drawn share, so that its losses compare trainings of every noise: for each
        row they estimate, without bias, the loss over all orders of writing its room.
        """
        masked_BL, counted_BL = self._masked(batch, rng)
        noised_BL = batch.tokens_BL.masked_fill(masked_BL, self.mask)
        hidden_BLD = self.states(noised_BL, batch.seen_BL)
        share_BL = (1.0 / counted_BL.sum(1, keepdim=True).clamp(min=1)).expand(counted_BL.shape)
        features_ND, token_N = self.features(hidden_BLD[counted_BL]), batch.tokens_BL[counted_BL]
        total = weighted_sum(features_ND, *self._projection(), token_N, share_BL[counted_BL])
        return {"loss": total / totals.examples}

    def _masked(self, batch: TextBatch, rng: Rng) -> tuple[Tensor, Tensor]:
        """Which places are masked, and which of them the loss is of, (B, L) each."""
        if self.masking.noise == "uniform" or not self.training:
            masked_BL = masked_uniformly(batch, rng)
            return masked_BL, masked_BL
        bin_BL = batch.bin_BL
        if bin_BL is None:
            entropy_BL = self._own_entropy(batch, rng)
            bin_BL = room_bins(entropy_BL, batch.tokens_BL, batch.valid_BL, self.end, self.masking)
        masked_BL, newest_BL = masked_by_bins(bin_BL, self.masking.bins, batch, rng)
        return masked_BL, newest_BL if self.settings.loss_on == "newest" else masked_BL

    @torch.no_grad()
    def _own_entropy(self, batch: TextBatch, rng: Rng) -> Tensor:
        """The entropy of every place of the room under the model as it is, nats (B, L): each is read in a draft in
        which a keyed half of the room is masked, its own half. Dropout is off."""
        entropy_BL = torch.zeros(batch.tokens_BL.shape, device=batch.tokens_BL.device)
        self.eval()
        try:
            for half_BL in halves(batch, rng):
                hidden_BLD = self.states(batch.tokens_BL.masked_fill(half_BL, self.mask), batch.seen_BL)
                parts = hidden_BLD[half_BL].split(max(1, _SCORES // self.words))
                entropy_BL[half_BL] = torch.cat([entropy_of(self.log_weights(part_ND)) for part_ND in parts]).float()
        finally:
            self.train()
        return entropy_BL
