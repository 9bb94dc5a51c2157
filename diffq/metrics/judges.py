"""Causal models that judge texts: log-likelihoods of given tokens, in teacher-forced passes.

A judge is a checkpoint of diffq's own causal process, or any causal model of Hugging Face. It is loaded once a process
and knows no metric. torch is imported where a judge is used.

Shape suffixes: B texts, L tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import lru_cache
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffq.errors import UserError

if TYPE_CHECKING:
    import torch

    from diffq.diffusion.contracts import Canvas

_BATCH_TOKENS = 4096
_MOST_HELD = 8192  # texts whose losses are kept: of 1,024 tokens each, 64 MB


class Judge(NamedTuple):
    """A loaded causal model.

    name    what tables call it: the model it was trained as, or its name on the hub
    digest  of weights, tokenizer and configuration
    dtype   what its network computes in
    """

    name: str
    digest: str
    tokenizer: Any
    denoiser: Any
    device: torch.device
    dtype: str = "float32"


# Layers and width of the judges whose figures are published. A folder that has their name has to have their size.
_SIZES = {"gpt2": (12, 768), "gpt2-medium": (24, 1024), "gpt2-large": (36, 1280), "gpt2-xl": (48, 1600),
          "gemma-2-9b": (42, 3584), "Meta-Llama-3-8B": (32, 4096)}  # fmt: skip


@lru_cache(maxsize=8)
def fetch_judge(where: str) -> str:
    """The folder of a judge, fetched from the hub where it is a name there. UserError where there is none."""
    from diffq.models.published import resolve

    if reason := missing_judge(where):
        raise UserError(reason)
    return resolve(where)


@lru_cache(maxsize=2)
def load_judge(where: str) -> Judge:
    """The judge of a checkpoint folder or a hub name. UserError where it is none, or not causal over plain text."""
    import torch

    from diffq.models.checkpoints import load

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    loaded = load(fetch_judge(where), device)
    denoiser = loaded.model.denoiser()
    settings: Any = loaded.model.settings
    if denoiser.process != "causal" or settings.task != "text":
        task = "running text" if settings.task == "text" else "a source and a target"
        raise UserError(f"judge={where} is {denoiser.process} and of {task}; a judge is causal, of running text")
    dtype = str(next(loaded.model.parameters()).dtype).removeprefix("torch.")
    return Judge(judge_name(where), loaded.digest, loaded.tokenizer, denoiser, device, dtype)


def missing_judge(where: str) -> str:
    """Why nothing can be loaded from there, in one sentence, without looking further than this machine's folders;
    empty where it can, and where it may be a name on the hub."""
    path = Path(where).expanduser()
    if path.exists():
        files = ("config.yaml", "config.json")
        found = path.suffix == ".safetensors" or any((path / name).is_file() for name in files)
        return "" if found else f"judge={where} is no model: it has neither {' nor '.join(files)}"
    like_a_path = (
        where.startswith((".", "/", "~")) or where.count("/") > 1 or (where.count("/") and path.parent.is_dir())
    )
    return f"judge={where} does not exist; give a checkpoint folder or a name on the hub" if like_a_path else ""


def judge_name(where: str) -> str:
    """What tables call a judge, without loading it: the model that a training of ours was of, else the last part of
    its folder or its name on the hub. A folder named as a published judge is that one only if it has its size."""
    path = Path(where).expanduser()
    folder = path.parent if path.suffix == ".safetensors" else path
    if (folder / "config.yaml").is_file():
        from diffq.store.files import read_yaml

        return str(read_yaml(folder / "config.yaml").get("choices", {}).get("model") or folder.name)
    if folder.name not in _SIZES or not (folder / "config.json").is_file():
        return folder.name
    from diffq.models.published import read_json

    config = read_json(folder / "config.json")
    layers, width = (
        config.get("n_layer", config.get("num_hidden_layers")),
        config.get("n_embd", config.get("hidden_size")),
    )
    return folder.name if (layers, width) == _SIZES[folder.name] else f"{folder.name}_{layers}x{width}"


def judge_tokens(judge: Judge, text: str) -> list[int]:
    """The judge's tokens of a text, in which the end token's spelling is the end token."""
    parts = judge.tokenizer.encode_targets(text.split(judge.tokenizer.token(judge.tokenizer.end)))
    row = list(parts[0])
    for part in parts[1:]:
        row += [judge.tokenizer.end, *part]
    return row


def token_losses(judge: Judge, texts: Sequence[Sequence[int]], from_start: bool) -> list[np.ndarray]:
    """−log p of each token of each text given those before it, nats, float64.

    from_start: the first token is predicted too, from the start token; else it has no loss (one value fewer).
    What was judged before in this process is kept: the variants of one figure, and null lines at share 0, cost nothing.
    UserError for a text that is longer than the judge reads, or has a token that it does not know, such as a mask.
    """
    words = judge.denoiser.vocab_size
    for row in texts:
        if row and not 0 <= max(row) < words:
            raise UserError(
                f"a sample has token {max(row)}, and judge {judge.name} knows tokens 0 … {words - 1}; a mask that was"
                " left over is no text"
            )
    longest = max((len(t) for t in texts), default=0)
    most = judge.denoiser.max_length + (0 if from_start else 1)
    if longest > most:
        raise UserError(
            f"judge {judge.name} reads at most {most} tokens and a text has {longest}; give max_tokens={most}"
        )
    keys = [(judge.digest, from_start, sha256(np.asarray(row, dtype=np.int64).tobytes()).digest()) for row in texts]
    if len(_held) + len(keys) > _MOST_HELD:
        _held.clear()
    new = {key: row for key, row in zip(keys, texts, strict=True) if key not in _held}
    _held.update(zip(new, _judged(judge, list(new.values()), from_start), strict=True))
    return [_held[key] for key in keys]


_held: dict[tuple[str, bool, bytes], np.ndarray] = {}


def _judged(judge: Judge, texts: Sequence[Sequence[int]], from_start: bool) -> list[np.ndarray]:
    from diffq.diffusion.likelihood import teacher_forced

    found: list[Any] = [np.zeros(0)] * len(texts)
    first = 0 if from_start else 1  # the first token that is predicted
    for batch in _batches([len(row) for row in texts]):
        part = [i for i in batch if texts[i]]
        if not any(texts[i][first:] for i in part):
            continue
        canvas = _canvas([texts[i] for i in part], judge)
        free_BL = canvas.valid_BL.clone()
        free_BL[:, :first] = False
        _, log_p_N = teacher_forced(judge.denoiser, canvas.replace(free_BL=free_BL), from_start=from_start)
        ends = np.cumsum([len(texts[i]) - first for i in part])
        for i, losses in zip(part, np.split(-log_p_N.cpu().numpy(), ends[:-1]), strict=True):
            found[i] = losses
    if not all(np.isfinite(losses).all() for losses in found):
        raise UserError(f"judge {judge.name} gives probabilities that are no numbers; its weights are damaged")
    return found


def text_states(judge: Judge, texts: Sequence[Sequence[int]], over: str) -> np.ndarray:
    """Texts × width, float64: the judge's last hidden states, at the last token of each text (over=last: what the
    papers take of GPT-2 large) or their mean over its tokens (over=mean). An empty text is the end token alone."""
    rows = [list(row) or [judge.denoiser.end] for row in texts]
    found: list[Any] = [None] * len(rows)
    for part in _batches([len(row) for row in rows]):
        canvas = _canvas([rows[i] for i in part], judge)
        hidden_BLD = judge.denoiser.open(canvas).run(canvas.tokens_BL).double().cpu().numpy()
        for i, states_LD in zip(part, hidden_BLD, strict=True):
            own = states_LD[: len(rows[i])]
            found[i] = own[-1] if over == "last" else own.mean(axis=0)
    return np.stack(found)


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Texts of like length together, by their places, the longest first."""
    order = sorted(range(len(lengths)), key=lambda i: -lengths[i])
    while order:
        size = max(1, _BATCH_TOKENS // max(1, lengths[order[0]]))
        yield order[:size]
        order = order[size:]


def _canvas(rows: Sequence[Sequence[int]], judge: Judge) -> Canvas:
    """The rows, all free; padding stands behind the text, where no token sees it."""
    import torch

    from diffq.diffusion.contracts import Canvas

    tokens_BL = torch.full((len(rows), max(map(len, rows))), judge.denoiser.end)
    valid_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
    for b, row in enumerate(rows):
        tokens_BL[b, : len(row)] = torch.tensor(row)
        valid_BL[b, : len(row)] = True
    tokens_BL, valid_BL = tokens_BL.to(judge.device), valid_BL.to(judge.device)
    return Canvas(tokens_BL, valid_BL, valid_BL, torch.arange(len(rows), device=judge.device))
