"""Embedding diffusion, sequence to sequence (Buzzard 2025, arXiv 2503.10683): loss and denoiser.

The decoder is given a noised target, its timestep and the encoded source, and predicts the clean embeddings. Guidance
needs a model that has also seen its condition dropped: then the source is the one token [MASK].
Knows no solver, no clamp and no guidance scale.

Shape suffixes: B rows, R = B × branches, L target positions, S source positions, E embedding, D width, N positions,
V vocabulary, T timesteps, F = E + 2.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from diffq.diffusion.contracts import COND, GUIDED, Branch, Canvas, Process, require_guidable
from diffq.diffusion.gaussian import ScheduleName, alpha_bars, diffuse
from diffq.diffusion.importance import TimestepSampler
from diffq.diffusion.reductions import Reduction, read_tiles
from diffq.models.base import PairBatch, Totals, TrainableModel, Vocabulary
from diffq.models.seq2seq import Seq2Seq, Seq2SeqSettings, valid_or_none
from diffq.models.transformer import key_mask, padding_or_none, sinusoids
from diffq.registry import MODELS
from diffq.rng import Rng, Stream, training_normals, uniform
from diffq.settings import setting


@MODELS.register("gaussian")
@dataclass(frozen=True, kw_only=True)
class GaussianSettings(Seq2SeqSettings):
    """Embedding diffusion: an encoder–decoder that denoises the target's embeddings."""

    process: ClassVar[Process] = "gaussian"

    timesteps: int = setting(1000, "T, the number of diffusion timesteps", low=2)
    noise: ScheduleName = setting("sqrt", "noise schedule")
    time_mlp: bool = setting(False, "a two-layer ReLU network on the time embedding")
    condition_dropout: float = setting(0.1, "how often the source is replaced by [MASK] in training", low=0, high=1)
    anchor: float = setting(1.0, "weight of the anchor loss", low=0)
    norm_loss: float = setting(0.0, "weight of the norm loss", low=0)
    normalise_embeddings: bool = setting(False, "standardise every embedding after each optimiser step")
    importance_sampling: bool = setting(False, "draw timesteps by the size of their recent losses")

    def build(self, vocabulary: Vocabulary) -> GaussianSeq2Seq:
        return GaussianSeq2Seq(self, vocabulary)

    def blank(self) -> dict[str, Any]:
        return {
            "guidable": self.condition_dropout > 0,
            "max_length": self.max_length,
            "alpha_bar_T": alpha_bars(self.noise, self.timesteps),
        }


class GaussianSeq2Seq(TrainableModel):
    """The network with its loss (Buzzard 2025, train.py) and its denoiser."""

    process: ClassVar[Process] = "gaussian"

    alpha_bar_T: Tensor

    def __init__(self, settings: GaussianSettings, vocabulary: Vocabulary):
        super().__init__()
        self.settings = settings
        self.mask, self.pad = vocabulary.mask, vocabulary.pad
        self.net = Seq2Seq(settings, vocabulary)
        width = settings.width
        if settings.time_mlp:
            self.time_mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.ReLU(), nn.Linear(4 * width, width))
        self.register_buffer("alpha_bar_T", alpha_bars(settings.noise, settings.timesteps), persistent=False)
        self.timestep_sampler = TimestepSampler(settings.timesteps, settings.importance_sampling)
        self._records: dict[str, Tensor] = {}

    def enter(self, y_BLE: Tensor, t_B: Tensor) -> Tensor:
        """The decoder's input: up-projection, positions and time."""
        time_BD = sinusoids(t_B, self.settings.width).to(y_BLE.dtype)
        if self.settings.time_mlp:
            time_BD = self.time_mlp(time_BD)
        return self.net.place(y_BLE) + time_BD[:, None]

    def predict(
        self, y_BLE: Tensor, t_B: Tensor, valid_BL: Tensor | None, source_BS: Tensor, source_valid_BS: Tensor | None
    ) -> Tensor:
        """The predicted clean embeddings (B, L, E): the whole network in one call, as training uses it."""
        memory_BSD = self.net.encode(source_BS, source_valid_BS)
        hidden_BLD = self.net.decoder(self.enter(y_BLE, t_B), valid_BL, memory_BSD, source_valid_BS)
        return self.net.down(hidden_BLD)

    def loss(self, batch: PairBatch, rng: Rng, totals: Totals) -> dict[str, Tensor]:
        """mse + anchor·L_anchor + norm_loss·L_norm (§1.6 of the code's facts).

        mse     per example the mean over its positions and dimensions of (E(y) − y0)², then the mean over examples;
                gradients flow into E(y) too
        anchor  the mean over positions of −log softmax_v(−‖y0 − e_v‖₂) at the right token
        norm    the mean over positions of mean_d(y0)² + (var_d(y0) − 1)²
        """
        s, rows, visits = self.settings, batch.row_B, batch.visit_B
        t_B, weight_B = self.timestep_sampler(uniform(rng.key(Stream.TRAIN_TIME, rows, visits)), flat=not self.training)
        dropped_B = uniform(rng.key(Stream.TRAIN_DROP, rows, visits)) < s.condition_dropout
        source_BS, source_valid_BS = self._drop_condition(batch, dropped_B)

        clean_BLE = self.net.embed(batch.target_BL)
        position_L = torch.arange(batch.target_BL.shape[1], device=rows.device)
        noise_key_BL = rng.key(Stream.TRAIN_NOISE, rows[:, None], visits[:, None], position_L)
        noise_BLE = training_normals(noise_key_BL, s.embedding + s.embedding % 2)[..., : s.embedding]
        y_BLE = diffuse(clean_BLE, noise_BLE, self.alpha_bar_T[t_B].float())
        y0_BLE = self.predict(y_BLE, t_B, batch.target_valid_BL, source_BS, source_valid_BS).float()

        valid_BL = batch.target_valid_BL
        error_BL = (clean_BLE - y0_BLE).square().mean(-1) * valid_BL
        mse_B = error_BL.sum(1) / valid_BL.sum(1).clamp(min=1)
        self._records = {"t": t_B, "loss": mse_B.detach(), "use": ~dropped_B}
        parts = {"mse": (mse_B * weight_B).sum() / totals.examples}
        if s.anchor:
            parts["anchor"] = self._anchor(y0_BLE, batch.target_BL, valid_BL, weight_B) / totals.tokens
        if s.norm_loss:
            norm_BL = y0_BLE.mean(-1).square() + (y0_BLE.var(-1, correction=0) - 1).square()
            parts["norm"] = (norm_BL * valid_BL * weight_B[:, None]).sum() / totals.tokens
        loss = parts["mse"] + s.anchor * parts.get("anchor", 0) + s.norm_loss * parts.get("norm", 0)
        return {"loss": loss} | {name: part.detach() for name, part in parts.items()}

    def _drop_condition(self, batch: PairBatch, dropped_B: Tensor) -> tuple[Tensor, Tensor]:
        """The sources with those of the dropped examples replaced by a single [MASK]."""
        single_BS = torch.full_like(batch.source_BS, self.pad)
        single_BS[:, 0] = self.mask
        only_first_S = torch.arange(batch.source_BS.shape[1], device=dropped_B.device) == 0
        return (
            torch.where(dropped_B[:, None], single_BS, batch.source_BS),
            torch.where(dropped_B[:, None], only_first_S, batch.source_valid_BS),
        )

    def _anchor(self, y0_BLE: Tensor, target_BL: Tensor, valid_BL: Tensor, weight_B: Tensor) -> Tensor:
        """Σ over positions of −log softmax_v(−‖y0 − e_v‖)[target], in float32 under every autocast."""
        with torch.autocast(y0_BLE.device.type, enabled=False):
            y0_NE, target_N = y0_BLE[valid_BL].float(), target_BL[valid_BL]
            weight_N = weight_B[:, None].expand_as(valid_BL)[valid_BL]
            logits_NV = -distances(y0_NE, self.net.embed.weight.float())
            return (F.cross_entropy(logits_NV, target_N, reduction="none") * weight_N).sum()

    def records(self) -> dict[str, Tensor] | None:
        return self._records if self.settings.importance_sampling else None

    def observe(self, records: Any) -> None:
        self.timestep_sampler.observe(records["t"], records["loss"], records["use"])

    @torch.no_grad()
    def after_step(self) -> None:
        if self.settings.normalise_embeddings:
            table_VE = self.net.embed.weight
            variance_V1 = table_VE.var(1, correction=0, keepdim=True)
            table_VE.copy_((table_VE - table_VE.mean(1, keepdim=True)) / (variance_V1 + 1e-5).sqrt())

    def denoiser(self) -> EmbeddingDenoiser:
        return EmbeddingDenoiser(self)


def distances(y_NE: Tensor, table_VE: Tensor, table_square_V: Tensor | None = None) -> Tensor:
    """Euclidean distances (N, V) from one matrix product; float32 rounding below 1e-3 where two points coincide."""
    if table_square_V is None:
        table_square_V = table_VE.square().sum(1)
    squared_NV = torch.addmm(table_square_V, y_NE, table_VE.t(), alpha=-2) + y_NE.square().sum(1, keepdim=True)
    return squared_NV.clamp(min=1e-12).sqrt()


class EmbeddingDenoiser:
    """The gaussian denoiser contract over a GaussianSeq2Seq."""

    process: ClassVar[Process] = "gaussian"

    def __init__(self, model: GaussianSeq2Seq):
        self.model = model.eval()
        self.vocab_size = model.net.vocab_size
        self.embedding_dim = model.settings.embedding
        self.guidable = model.settings.condition_dropout > 0
        self.alpha_bar_T = model.alpha_bar_T
        self.max_length = model.settings.max_length
        with torch.no_grad():
            self.table_VE = model.net.embed.weight.detach().float()
            square_V1 = self.table_VE.square().sum(1, keepdim=True)
            self.augmented_VF = torch.cat([self.table_VE, square_V1, torch.ones_like(square_V1)], 1)
            self._uncond_D = self._unconditional_branches() if self.guidable else []

    def _unconditional_branches(self) -> list[Tensor]:
        """What cross-attention to the one-token source [MASK] adds, layer by layer: attention over a single key gives
        its value whatever the query, so each is a constant (D,)."""
        net = self.model.net
        token_11 = torch.full((1, 1), self.model.mask, device=self.table_VE.device)
        memory_11D = net.encode(token_11, None)
        constants = []
        for layer in net.decoder.blocks:
            _, value_11D = layer.cross_attention.key_value(memory_11D).chunk(2, -1)
            constants.append(layer.cross_attention.out(value_11D)[0, 0])
        return constants

    def embed(self, tokens: Tensor) -> Tensor:
        return F.embedding(tokens, self.table_VE)

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> EmbeddingSession:
        require_guidable(self, branches)  # type: ignore[arg-type]
        return EmbeddingSession(self, canvas, branches)


class EmbeddingSession:
    """An opened EmbeddingDenoiser: the source is encoded once, its keys and values are kept for every step.

    A guided pair shares its first self-attention block, which comes before the source is seen.
    """

    @torch.no_grad()
    def __init__(self, denoiser: EmbeddingDenoiser, canvas: Canvas, branches: tuple[Branch, ...]):
        self.denoiser, self.branches = denoiser, branches
        net = denoiser.model.net
        net.require_length(canvas.shape[1], "target")
        self.valid_BL = padding_or_none(canvas.valid_BL)
        self.source_valid_BS = valid_or_none(canvas.source_valid_BS)
        self.keys_values: list[tuple[Tensor, Tensor]] = []
        if "cond" in branches:
            if canvas.source_BS is None:
                raise ValueError("this model is conditioned on a source; the canvas has none")
            memory_BSD = net.encode(canvas.source_BS, self.source_valid_BS)
            self.keys_values = [layer.cross_attention.keys_values(memory_BSD) for layer in net.decoder.blocks]

    def run(self, y_BLE: Tensor, t_B: Tensor) -> Tensor:
        """Predicted clean embeddings (R, L, E), conditional rows first."""
        model = self.denoiser.model
        with torch.no_grad():
            x = model.enter(y_BLE.to(model.net.position_LD.dtype), t_B)
            mask = key_mask(self.valid_BL)
            cross_mask = key_mask(self.source_valid_BS)
            for i, layer in enumerate(model.net.decoder.blocks):
                x = layer.self_block(x, mask)
                if i == 0 and self.branches == GUIDED:
                    x = torch.cat([x, x])
                    mask = None if mask is None else torch.cat([mask, mask])
                x = layer.feed_block(layer.add(layer.norm_cross, x, self._cross(i, layer, x, cross_mask)))
            return model.net.down(model.net.decoder.norm(x)).float()

    def _cross(self, i: int, layer: Any, x_RLD: Tensor, cross_mask: Tensor | None) -> Tensor:
        """The cross-attention branch of every row: attention for conditional rows, a constant for the others."""
        cond_rows = 0 if self.branches == ("uncond",) else len(x_RLD) // len(self.branches)
        out = []
        if cond_rows:
            inner = layer.inner(layer.norm_cross, x_RLD[:cond_rows])
            out.append(layer.cross_attention.attend(inner, self.keys_values[i], cross_mask))
        if "uncond" in self.branches:
            out.append(self.denoiser._uncond_D[i].to(x_RLD.dtype).expand(len(x_RLD) - cond_rows, *x_RLD.shape[1:]))
        return out[0] if len(out) == 1 else torch.cat(out)

    def read(self, y0_RLE: Tensor, positions_N: Tensor, reduce: Sequence[Reduction]) -> tuple[Any, ...]:
        """Reduces the scores −‖y0 − e_v‖₂ over the vocabulary at the asked positions."""
        denoiser = self.denoiser
        y_NE = y0_RLE.reshape(-1, y0_RLE.shape[-1])[positions_N].float()
        square_N1 = y_NE.square().sum(1, keepdim=True)
        one_N1 = torch.ones_like(square_N1)
        # (−2·y0, 1, ‖y0‖²)·(e, ‖e‖², 1) = ‖y0 − e‖², all of it in the matrix product
        query_NF = torch.cat([-2 * y_NE, one_N1, square_N1], 1)

        def nearness(part: slice, first: int, last: int) -> Tensor:
            """−‖y0 − e‖²: the order of the scores without a root."""
            return -query_NF[part] @ denoiser.augmented_VF[first:last].t()

        def distance(part: slice, first: int, last: int) -> Tensor:
            return (query_NF[part] @ denoiser.augmented_VF[first:last].t()).relu_().sqrt_()

        if all(r.order_only for r in reduce):
            return read_tiles(nearness, len(y_NE), denoiser.vocab_size, reduce, device=y_NE.device)
        return read_tiles(distance, len(y_NE), denoiser.vocab_size, reduce, factor=-1.0, device=y_NE.device)

    def select(self, rows_K: Tensor) -> None:
        pick = lambda x: None if x is None else x[rows_K]  # noqa: E731
        self.valid_BL, self.source_valid_BS = pick(self.valid_BL), pick(self.source_valid_BS)
        self.keys_values = [(key[rows_K], value[rows_K]) for key, value in self.keys_values]
