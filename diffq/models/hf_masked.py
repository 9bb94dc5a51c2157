"""Masked language models of Hugging Face `transformers`, RoBERTa and BERT first, as denoisers of masks.

The library's own classes run. Their head is a transform and a matrix: the transform is applied to the asked positions
alone, and the matrix is ours to apply, tile by tile. When a checkpoint is read this is compared with the library's own
logits, and a model in which it is not the same is refused. The network is told no noise level. Nothing is trained here.

Shape suffixes: B rows, R = B × branches, L positions, K asked positions of a row, N asked positions, D width.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from diffq.diffusion.contracts import COND, Branch, Canvas, Process
from diffq.diffusion.noise import Noise
from diffq.errors import UserError
from diffq.models.base import DenoisingModel
from diffq.models.berts import first_place
from diffq.models.dit import gather
from diffq.models.pretrained import PretrainedSettings, pretrained_weights, read_pretrained
from diffq.models.published import Layout, read_json
from diffq.models.sessions import MaskedSession, drawable, places, tiles
from diffq.registry import MODELS

# Weights of heads that a model was also trained with, and tables that older versions wrote.
_LEFT_OVER = r"pooler|seq_relationship|sop_classifier|discriminator_predictions|position_ids$|lm_head\.decoder\.bias$"


@MODELS.register("hf_masked")
@dataclass(frozen=True, kw_only=True)
class HuggingFaceMaskedSettings(PretrainedSettings):
    """A masked language model that somebody else has trained."""

    process: ClassVar[Process] = "absorbing"
    instead: ClassVar[str] = "llada_mini or mdlm_mini"

    def blank(self) -> dict[str, Any]:
        return {"guidable": True, "max_length": self.max_length, "noise": Noise()}


class HuggingFaceMasked(Layout):
    """The layout: config.json of a class that ends in ForMaskedLM, and its weights."""

    name = "Hugging Face masked models"
    places = False

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        return any(str(name).endswith("ForMaskedLM") for name in config.get("architectures") or [])

    def settings(self, folder: Path) -> HuggingFaceMaskedSettings:
        config = read_json(folder / "config.json")
        longest = int(config.get("max_position_embeddings") or 512)
        before = first_place(str(config.get("model_type")), int(config.get("pad_token_id", 1)))
        return HuggingFaceMaskedSettings(max_length=longest - before)

    def tokenizer(self, folder: Path) -> Any:
        """The folder's own. UserError where it has no mask, or another number of tokens than the network."""
        from diffq.data.tokenizers import Tokenizer

        rows = read_json(folder / "config.json").get("vocab_size")
        if not isinstance(rows, int):
            raise UserError(f"{folder / 'config.json'} does not say vocab_size")
        tokenizer = Tokenizer.load(folder)
        if tokenizer.size > rows:
            raise UserError(
                f"{folder} is a network of {rows} tokens, and its tokenizer with its mask has {tokenizer.size}; put the"
                " tokenizer that it was trained with into the folder"
            )
        return tokenizer

    def weights(self, folder: Path) -> Sequence[Path]:
        return pretrained_weights(folder)

    def load(self, folder: Path, place: Any = None) -> tuple[PretrainedMasked, Any]:
        tokenizer = self.tokenizer(folder)
        model = read_pretrained("AutoModelForMaskedLM", folder, "masked language model", _LEFT_OVER).eval()
        return PretrainedMasked(model, tokenizer, self.settings(folder), folder), tokenizer


class _Given(nn.Module):
    """Stands where the library's model has its layers, and gives the states that it was told."""

    hidden: Tensor

    def forward(self, *_: Any, **__: Any) -> Any:
        from transformers.modeling_outputs import BaseModelOutput

        return BaseModelOutput(last_hidden_state=self.hidden)


class PretrainedMasked(DenoisingModel):
    """A model of the library, taken apart: its layers, the transform of its head, and the last matrix.

    UserError where these put together do not give the library's own logits.
    """

    process: ClassVar[Process] = "absorbing"

    def __init__(self, model: Any, tokenizer: Any, settings: Any, folder: Path):
        super().__init__()
        self.settings, self.mask, self.pad = settings, tokenizer.mask, tokenizer.pad
        self.size = int(model.get_input_embeddings().weight.shape[0])
        self.words, self.never = drawable(tokenizer)
        sample_BL = torch.tensor([[v for v in range(tokenizer.size) if v != tokenizer.pad][-6:]])
        with torch.no_grad():
            expected = model(input_ids=sample_BL).logits
        try:
            self._take_apart(model)
            with torch.no_grad():
                scores = tiles(self.features(self.states(sample_BL)[0]), *self.head)(slice(None), 0, self.size)
        except Exception as error:  # another build than any that is known: each another exception
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{folder}: its head cannot be told from its layers ({reason})") from error
        if scores.shape != expected[0].shape or not torch.allclose(scores, expected[0].float(), atol=1e-4):
            raise UserError(f"{folder}: its logits are more than a transform and a matrix, which is not supported")

    def _take_apart(self, model: Any) -> None:
        self.layers, self.given = model.base_model, _Given()
        takes = inspect.signature(self.layers.forward).parameters
        self.takes_places, self.takes_padding = "position_ids" in takes, "attention_mask" in takes
        table = getattr(getattr(self.layers, "embeddings", None), "position_embeddings", None)
        padding = getattr(table, "padding_idx", None)
        self.first_place = 0 if padding is None else padding + 1
        setattr(model, model.base_model_prefix, self.given)
        self.transform = model
        self.matrix = model.get_output_embeddings()
        self.matrix.forward = lambda hidden: hidden  # the library's head stops before it

    @property
    def head(self) -> tuple[Tensor, Tensor | None]:
        """The last matrix and its bias."""
        bias = getattr(self.matrix, "bias", None)
        return self.matrix.weight.detach(), None if bias is None else bias.detach()

    def features(self, hidden_ND: Tensor) -> Tensor:
        """What the head's transform makes of states of some positions."""
        self.given.hidden = hidden_ND[None]
        nothing = torch.zeros(1, 1, dtype=torch.long, device=hidden_ND.device)
        try:
            logits: Tensor = self.transform(input_ids=nothing).logits
        finally:
            del self.given.hidden
        return logits[0]

    def states(self, tokens_BL: Tensor, valid_BL: Tensor | None = None) -> Tensor:
        """Last hidden states (B, L, D); padding is seen by nobody and has no place."""
        more: dict[str, Any] = {}
        if self.takes_places:
            place, _ = places(tokens_BL, valid_BL)
            more["position_ids"] = (place + self.first_place).expand(tokens_BL.shape)
        if valid_BL is not None:
            tokens_BL = tokens_BL.masked_fill(~valid_BL, self.pad)
            more["attention_mask"] = valid_BL.long()
        hidden: Tensor = self.layers(input_ids=tokens_BL, **more).last_hidden_state
        return hidden

    def denoiser(self) -> PretrainedMaskedDenoiser:
        return PretrainedMaskedDenoiser(self)


class PretrainedMaskedDenoiser:
    """The contract of a discrete process (`contracts.DiscreteDenoiser`)."""

    process: ClassVar[Process] = "absorbing"
    guidable = True  # the unconditional branch is the same network with the prompt masked
    learnt_z = False

    def __init__(self, model: PretrainedMasked):
        self.model = model.eval()
        self.vocab_size, self.mask, self.noise = model.words, model.mask, Noise()
        self.max_length = model.settings.max_length

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> PretrainedMaskedSession:
        if canvas.shape[1] > self.max_length:
            raise UserError(
                f"a canvas of {canvas.shape[1]} tokens is longer than the model's max_length={self.max_length}"
            )
        return PretrainedMaskedSession(self.model, canvas, branches)


class PretrainedMaskedSession(MaskedSession):
    """An opened PretrainedMaskedDenoiser. UserError as `MaskedSession`, and for padding that the model cannot be told
    of."""

    def __init__(self, model: PretrainedMasked, canvas: Canvas, branches: tuple[Branch, ...]):
        self.model = model
        super().__init__(canvas, branches, mask=model.mask, size=model.size, words=model.words, never=model.never)
        valid_BL = self.valid_BL
        if valid_BL is not None and not model.takes_padding:
            raise UserError("this model cannot be told of padding; give texts of one length")
        if valid_BL is not None and not model.takes_places and bool((valid_BL[:, 1:] & ~valid_BL[:, :-1]).any()):
            raise UserError("this model cannot be told where a text begins; put padding behind the texts alone")

    @torch.no_grad()
    def run(self, tokens_BL: Tensor, noise_B: Tensor | None = None, at_BK: Tensor | None = None) -> Tensor:
        """Last hidden states (R, L, D), or (R, K, D) of the asked positions. They do not depend on the noise."""
        valid_RL = None if self.valid_BL is None else self.repeat(self.valid_BL)
        hidden = self.model.states(self.stack(tokens_BL), valid_RL)
        return hidden if at_BK is None else gather(hidden, self.repeat(at_BK))

    @torch.no_grad()
    def scores(self, hidden: Tensor, positions_N: Tensor) -> Callable[[slice, int, int], Tensor]:
        """Log-weights of tokens, tile by tile; the head's transform goes over the asked positions alone."""
        features_ND = self.model.features(hidden.flatten(0, 1)[positions_N])
        return tiles(features_ND, *self.model.head, self.never)
