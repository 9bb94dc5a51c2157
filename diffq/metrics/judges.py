"""Causal models that judge texts: log-likelihoods of given tokens, in teacher-forced passes.

A judge is a checkpoint of diffq's own causal process, or any causal model of Hugging Face. It is loaded once a process
and knows no metric. torch is imported where a judge is used.

Shape suffixes: B texts, L tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from diffq.errors import UserError

if TYPE_CHECKING:
    import torch

_BATCH_TOKENS = 4096


class Judge(NamedTuple):
    """A loaded causal model.

    name    what tables call it: the model it was trained as, or its name on the hub
    digest  of weights, tokenizer and configuration
    """

    name: str
    digest: str
    tokenizer: Any
    denoiser: Any
    device: torch.device


@lru_cache(maxsize=2)
def load_judge(where: str) -> Judge:
    """The judge of a checkpoint folder or a hub name. UserError where it is none, or not causal over plain text."""
    import torch

    from diffq.models.checkpoints import load
    from diffq.models.published import resolve

    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    folder = resolve(where)
    loaded = load(folder, device)
    denoiser = loaded.model.denoiser()
    settings: Any = loaded.model.settings
    if denoiser.process != "causal" or settings.task != "text":
        raise UserError(f"judge={where} is a {denoiser.process} model of another task; a judge is causal over text")
    return Judge(judge_name(where), loaded.digest, loaded.tokenizer, denoiser, device)


def judge_name(where: str) -> str:
    """What tables call a judge, without loading it."""
    config = Path(where).expanduser() / "config.yaml"
    if config.is_file():
        from diffq.models.checkpoints import read_yaml

        return str(read_yaml(config).get("choices", {}).get("model") or Path(where).name)
    return Path(where).name


def token_losses(judge: Judge, texts: Sequence[Sequence[int]], from_start: bool) -> list[np.ndarray]:
    """−log p of each token of each text given those before it, nats, float64.

    from_start: the first token is predicted too, from the start token; else it has no loss (one value fewer).
    UserError for a text that is longer than the judge reads.
    """
    import torch

    longest = max((len(t) for t in texts), default=0)
    most = judge.denoiser.max_length + (0 if from_start else 1)
    if longest > most:
        raise UserError(
            f"judge {judge.name} reads at most {most} tokens and a text has {longest}; give max_tokens={most}"
        )
    order = sorted(range(len(texts)), key=lambda i: -len(texts[i]))
    found: list[Any] = [np.zeros(0)] * len(texts)
    while order:
        size = max(1, _BATCH_TOKENS // max(1, len(texts[order[0]])))
        part, order = order[:size], order[size:]
        rows = [list(texts[i]) for i in part]
        inputs = [([judge.denoiser.start] if from_start else []) + row[:-1] for row in rows]
        if not inputs[0]:
            continue
        wanted = [row if from_start else row[1:] for row in rows]
        losses = _losses(judge, inputs, wanted, torch)
        at = 0
        for i, row in zip(part, wanted, strict=True):
            found[i] = losses[at : at + len(row)]
            at += len(row)
    return found


def _losses(judge: Judge, inputs: list[list[int]], wanted: list[list[int]], torch: Any) -> np.ndarray:
    """Losses of the wanted tokens of rows laid end to end; padding stands behind the text, where no token sees it."""
    from diffq.diffusion.contracts import Canvas
    from diffq.diffusion.reductions import LogProb

    length = max(map(len, inputs))
    tokens_BL = torch.full((len(inputs), length), judge.denoiser.end, device=judge.device)
    for b, row in enumerate(inputs):
        tokens_BL[b, : len(row)] = torch.tensor(row, device=judge.device)
    whole_BL = torch.ones_like(tokens_BL, dtype=torch.bool)
    canvas = Canvas(tokens_BL, whole_BL, whole_BL, torch.arange(len(inputs), device=judge.device))
    session = judge.denoiser.open(canvas)
    hidden = session.run(tokens_BL)
    place_N = torch.tensor(
        [b * length + i for b, row in enumerate(inputs) for i in range(len(row))], device=judge.device
    )
    token_N = torch.tensor([t for row in wanted for t in row], device=judge.device)
    (log_p_N,) = session.read(hidden, place_N, [LogProb(token_N)])
    losses: np.ndarray = -log_p_N.cpu().numpy()
    return losses


def last_states(judge: Judge, texts: Sequence[Sequence[int]]) -> np.ndarray:
    """Texts × width: the judge's last hidden state at the last token of each text, float64 (what MAUVE's authors take
    of GPT-2 large)."""
    import torch

    from diffq.diffusion.contracts import Canvas

    found = []
    for row in texts:
        tokens = torch.tensor([row], device=judge.device)
        whole = torch.ones_like(tokens, dtype=torch.bool)
        canvas = Canvas(tokens, whole, whole, torch.zeros(1, dtype=torch.long, device=judge.device))
        found.append(judge.denoiser.open(canvas).run(tokens)[0, -1].double().cpu().numpy())
    return np.stack(found)
