"""Causal language models of Hugging Face `transformers`, GPT-2 first, behind the contract of the causal process.

The library's own classes run, with their key–value cache; only the last matrix is ours to apply, so that `read`
projects the asked positions alone. Models whose logits are more than that matrix, or a soft cap on it (Gemma 2), are
refused. Nothing is trained here, and code that a checkpoint brings along is never run.

Shape suffixes: B rows, K new positions, N asked positions, D width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import Tensor

from diffq.diffusion.contracts import COND, Branch, Canvas, Process, TiledSession, require_guidable
from diffq.errors import UserError
from diffq.models.base import DenoisingModel, Vocabulary
from diffq.models.hf_work import PretrainedWork, work_of
from diffq.models.pretrained import PretrainedSettings, pretrained_weights, read_pretrained
from diffq.models.published import Layout, read_json
from diffq.models.sessions import tiles
from diffq.registry import MODELS

_MORE_THAN_A_MATRIX = ("final_logit_softcapping", "logit_scale", "logits_scaling", "output_multiplier_scale")


@MODELS.register("hf_causal")
@dataclass(frozen=True, kw_only=True)
class HuggingFaceCausalSettings(PretrainedSettings):
    """A causal model that somebody else has trained."""

    process: ClassVar[Process] = "causal"
    instead: ClassVar[str] = "causal_lm_small"

    def blank(self) -> dict[str, Any]:
        return {"guidable": False, "max_length": self.max_length}


class HuggingFaceCausal(Layout):
    """The layout: config.json of a class that ends in LMHeadModel or ForCausalLM, and its weights."""

    name = "Hugging Face causal models"
    places = False

    def recognises(self, folder: Path, config: Mapping[str, Any]) -> bool:
        classes = config.get("architectures") or []
        return any(str(name).endswith(("LMHeadModel", "ForCausalLM")) for name in classes)

    def settings(self, folder: Path) -> HuggingFaceCausalSettings:
        config = read_json(folder / "config.json")
        longest = config.get("n_positions") or config.get("max_position_embeddings") or 1024
        return HuggingFaceCausalSettings(max_length=int(longest))

    def work(self, folder: Path, vocabulary: Vocabulary) -> PretrainedWork | None:
        return work_of(folder, vocabulary.mask)

    def tokenizer(self, folder: Path) -> Any:
        from diffq.data.exact_tokenizers import exact_folder

        tokenizer, words = exact_folder(folder), int(read_json(folder / "config.json")["vocab_size"])
        if tokenizer.mask > words:
            raise UserError(
                f"{folder} is a network of {words} tokens, and its tokenizer has {tokenizer.mask}; put the tokenizer"
                " that it was trained with into the folder"
            )
        return tokenizer

    def weights(self, folder: Path) -> Sequence[Path]:
        return pretrained_weights(folder)

    def load(self, folder: Path, place: Any = None) -> tuple[PretrainedCausal, Any]:
        config = read_json(folder / "config.json")
        capped = str(config.get("model_type", "")).startswith("gemma")
        for name in _MORE_THAN_A_MATRIX:
            if config.get(name) not in (None, 1, 1.0) and not (capped and name == "final_logit_softcapping"):
                raise UserError(f"{folder}: its logits are more than a matrix product ({name}={config[name]}), which is"
                                " not supported")  # fmt: skip
        tokenizer = self.tokenizer(folder)
        model = read_pretrained("AutoModelForCausalLM", folder, "causal model")
        return PretrainedCausal(model, tokenizer, self.settings(folder)), tokenizer


class PretrainedCausal(DenoisingModel):
    """A model of the library with the tokens that our contract needs."""

    process: ClassVar[Process] = "causal"

    def __init__(self, model: Any, tokenizer: Any, settings: HuggingFaceCausalSettings):
        super().__init__()
        self.model, self.settings = model, settings
        self.start, self.end = tokenizer.start, tokenizer.end
        self.words = min(tokenizer.mask, model.get_output_embeddings().weight.shape[0])

    def denoiser(self) -> PretrainedDenoiser:
        return PretrainedDenoiser(self)


class PretrainedDenoiser:
    """The causal denoiser contract."""

    process: ClassVar[Process] = "causal"
    guidable = False

    def __init__(self, model: PretrainedCausal):
        self.model = model.eval()
        self.vocab_size, self.start, self.end = model.words, model.start, model.end
        self.max_length = model.settings.max_length

    def open(self, canvas: Canvas, branches: tuple[Branch, ...] = COND) -> PretrainedSession:
        require_guidable(self, branches)  # type: ignore[arg-type]
        if canvas.shape[1] > self.max_length:
            raise UserError(
                f"a canvas of {canvas.shape[1]} tokens is longer than the model's max_length={self.max_length}"
            )
        return PretrainedSession(self)


class PretrainedSession(TiledSession):
    """An opened PretrainedDenoiser. `run` appends tokens to the library's cache."""

    branches = COND

    def __init__(self, denoiser: PretrainedDenoiser):
        from transformers import DynamicCache

        self.model, self.words = denoiser.model.model, denoiser.vocab_size
        self.cache = DynamicCache(config=self.model.config)

    @torch.no_grad()
    def run(self, tokens_BK: Tensor, noise_B: Tensor | None = None) -> Tensor:
        """Hidden states (B, K, D) of K further tokens; their scores are those of the token that follows each."""
        out = self.model.base_model(input_ids=tokens_BK, past_key_values=self.cache, use_cache=True)
        hidden: Tensor = out.last_hidden_state
        return hidden

    @torch.no_grad()
    def scores(self, hidden: Tensor, positions_N: Tensor) -> Callable[[slice, int, int], Tensor]:
        head = self.model.get_output_embeddings()
        bias_V = None if head.bias is None else head.bias.detach()
        plain = tiles(hidden.flatten(0, 1)[positions_N], head.weight.detach(), bias_V)
        cap = getattr(self.model.config, "final_logit_softcapping", None)
        return (lambda *tile: cap * torch.tanh(plain(*tile) / cap)) if cap else plain

    def select(self, rows_K: Tensor) -> None:
        self.cache.batch_select_indices(rows_K)
