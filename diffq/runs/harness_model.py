"""A text model of ours as lm-eval-harness drives it: log-likelihoods of continuations, and text until a stop.

Causal models give exact values. Of diffusion there is a bound alone, and since log p(y | x) = log p(x, y) − log p(x),
answers to one question are ranked by the bound on context and continuation together, as later work says of Deschenaux &
Gulcehre (2024). That all answers of a question share their noise is ours (reconstructed): their differences have far
less error than they. Whether an answer is the greedy one is asked in one pass with all of it masked.

Shape suffixes: B requests, L tokens.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from lm_eval.api.model import LM
from torch import Tensor

from diffq.data.canvases import token_budget
from diffq.diffusion.contracts import Canvas
from diffq.diffusion.draws import Draw
from diffq.diffusion.likelihood import bound, by_row, teacher_forced
from diffq.errors import UserError
from diffq.rng import Rng
from diffq.runs.progress import point_progress
from diffq.store.files import append, cut_back, read_lines
from diffq.store.identity import digest

Ranked = Literal["joint", "conditional"]
Asked = tuple[list[int], list[int], int, bool]  # context, continuation, the question's number, one of several answers


@dataclass
class DiffqLM(LM):
    """See the module.

    ranked        joint: the bound on context and continuation, where a question has several answers to be ranked (a
                  single one, as LAMBADA's, has the bound on itself); conditional: that on the continuation alone
    draws         noise levels a request
    folder        where answers are kept, a batch a line: a run that is cut off goes on from them
    sampler       writes text for `generate_until`
    batch_tokens  of requests that are scored together; None: what suits the device
    """

    denoiser: Any
    tokenizer: Any
    device_: torch.device
    folder: Path
    sampler: Any
    ranked: Ranked = "joint"
    draws: int = 16
    seed: int = 0
    quiet: bool = False
    batch_tokens: int | None = None

    def __post_init__(self) -> None:
        super().__init__()
        self.causal = self.denoiser.process == "causal"
        self.most = int(self.denoiser.max_length)

    @property
    def tokenizer_name(self) -> str:
        return str(self.tokenizer.digest[:12])

    def loglikelihood(self, requests: Sequence[Any]) -> list[tuple[float, bool]]:
        """(log-likelihood or its bound, whether the continuation is the greedy one) of each (context, continuation)."""
        pairs = [self._pair(request) for request in requests]
        asked = [(getattr(request, "task_name", ""), request.doc_id) for request in requests]
        answers = Counter(asked)
        rows = [(*pair, answers[name] > 1) for pair, name in zip(pairs, asked, strict=True)]
        named = [digest([*row]) for row in rows]
        held = self._held()
        first = {name: i for i, name in reversed([*enumerate(named)])}
        todo = sorted((i for name, i in first.items() if name not in held), key=lambda i: (_length(rows[i]), i))
        with point_progress("harness", self.quiet) as show:
            for part in self._batches(todo, rows):
                found = self._score([rows[i] for i in part])
                self._keep([named[i] for i in part], found)
                held |= dict(zip([named[i] for i in part], found, strict=True))
                if show is not None:
                    show(_progress(len(held), len(named)))
        return [held[name] for name in named]

    def loglikelihood_rolling(self, requests: Sequence[Any]) -> list[float]:
        """Log-likelihoods of whole texts, in windows as long as the model reads."""
        made = []
        for request in requests:
            ids = self.tokenizer.encode_target(request.args[0])
            parts = [ids[i : i + self.most] for i in range(0, len(ids), self.most)]
            made.append(sum(self._score([([], part, request.doc_id or 0, False)])[0][0] for part in parts if part))
        return made

    def generate_until(self, requests: Sequence[Any]) -> list[str]:
        """Text behind each context, cut at the first stop."""
        texts = []
        for request in requests:
            context, options = request.args
            ids = self.tokenizer.encode_target(context)
            room = min(int(options.get("max_gen_toks", 128)), self.most - 1)
            ids = ids[-(self.most - room) :]
            tokens = torch.tensor([[*ids, *[self.tokenizer.mask] * room]], device=self.device_)
            free = torch.zeros_like(tokens, dtype=torch.bool)
            free[:, len(ids) :] = True
            canvas = Canvas(tokens, free, torch.ones_like(free), torch.tensor([request.doc_id or 0]).to(tokens.device),
                            end=self.tokenizer.end)  # fmt: skip
            filled = self.sampler(self.denoiser, canvas, Rng(self.seed)).cut_at_end()
            kept = (filled.valid_BL & free)[0]
            text = self.tokenizer.decode(filled.tokens_BL[0][kept].tolist())
            for stop in options.get("until") or ():
                text = text.partition(stop)[0] if stop else text
            texts.append(text)
        return texts

    def _pair(self, request: Any) -> tuple[list[int], list[int], int]:
        """The tokens of context and continuation, and the question's number, which keys the noise.

        White space at the end of the context goes to the continuation, as the harness' own models have it. A context
        that is too long loses its beginning. UserError for a continuation that is longer than the model reads.
        """
        context, answer = request.args
        kept = context.rstrip()
        whole = self.tokenizer.encode_target(kept + context[len(kept) :] + answer)
        before = self.tokenizer.encode_target(kept)
        if whole[: len(before)] != before:  # the continuation's first letters joined the context's last token
            whole = [*before, *self.tokenizer.encode_target(context[len(kept) :] + answer)]
        after = whole[len(before) :]
        if len(after) > self.most:
            raise UserError(f"a continuation has {len(after)} tokens, and the model reads at most {self.most}")
        return before[-(self.most - len(after)) :] if len(after) < self.most else [], after, int(request.doc_id or 0)

    def _batches(self, order: Sequence[int], rows: Sequence[Asked]) -> list[list[int]]:
        most = self.batch_tokens or token_budget(self.device_)
        made: list[list[int]] = []
        for i in order:
            size = _length(rows[i])
            if made and (len(made[-1]) + 1) * size <= most:
                made[-1].append(i)
            else:
                made.append([i])
        return made

    def _score(self, rows: Sequence[Asked]) -> list[tuple[float, bool]]:
        length = max(map(_length, rows))
        tokens_BL = torch.full((len(rows), length), self.tokenizer.end, device=self.device_)
        valid_BL = torch.zeros_like(tokens_BL, dtype=torch.bool)
        answer_BL = torch.zeros_like(valid_BL)
        joint_B = torch.zeros(len(rows), dtype=torch.bool, device=self.device_)
        for b, (context, answer, _, among) in enumerate(rows):
            ids = [*context, *answer]
            tokens_BL[b, : len(ids)] = torch.tensor(ids, device=self.device_)
            valid_BL[b, : len(ids)] = True
            answer_BL[b, len(context) : len(ids)] = True
            joint_B[b] = among and self.ranked == "joint" and not self.causal
        row_B = torch.tensor([row for _, _, row, _ in rows], device=self.device_)
        free_BL = torch.where(joint_B[:, None], valid_BL, answer_BL)
        canvas = Canvas(tokens_BL, free_BL, valid_BL, row_B)
        if self.causal:
            value_B, greedy_B = self._exact(canvas)
        else:
            value_B = -bound(self.denoiser, canvas, Rng(self.seed), self.draws)
            greedy_B = self._greedy(canvas.replace(free_BL=answer_BL))
        return list(zip(value_B.tolist(), greedy_B.tolist(), strict=True))

    def _exact(self, canvas: Canvas) -> tuple[Tensor, Tensor]:
        """Σ log p of the free tokens, and whether each is the likeliest where it stands."""
        position_N, log_p_N, best_N = teacher_forced(self.denoiser, canvas, Draw(None, 0.0))
        wrong_N = best_N != canvas.tokens_BL.flatten()[position_N]
        return by_row(log_p_N, position_N, canvas), by_row(wrong_N, position_N, canvas) == 0

    def _greedy(self, canvas: Canvas) -> Tensor:
        """Whether the best token of every free position, all of them masked, is the one that stands there."""
        masked_BL = torch.where(canvas.free_BL, self.denoiser.mask, canvas.tokens_BL)
        if self.denoiser.process != "absorbing":
            return torch.zeros(len(masked_BL), dtype=torch.bool)
        session = self.denoiser.open(canvas)
        share_B = canvas.free_BL.sum(1).double() / canvas.valid_BL.sum(1)
        hidden = session.run(masked_BL, share_B)
        position_N = canvas.free_BL.flatten().nonzero().squeeze(1)
        (best_N,) = session.read(hidden, position_N, [Draw(None, 0.0)])
        return by_row(best_N != canvas.tokens_BL.flatten()[position_N], position_N, canvas) == 0

    @property
    def _file(self) -> Path:
        return self.folder / "answers.jsonl"

    def _held(self) -> dict[str, tuple[float, bool]]:
        """The answers that are kept, by name; what a crash has left of a batch behind them is cut off.

        A line holds a batch, so a run that goes on makes the batches that it would have made, and the same bytes.
        """
        remedy = "delete it and the questions are asked again"
        held: dict[str, tuple[float, bool]] = {}
        end = 0
        for answers, end in read_lines(self._file, _decode_answers, "a list of answers", remedy):  # noqa: B007
            held |= answers
        cut_back(self._file, end)
        return held

    def _keep(self, names: Sequence[str], found: Sequence[tuple[float, bool]]) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        line = json.dumps([[name, *answer] for name, answer in zip(names, found, strict=True)])
        append(self._file, line.encode() + b"\n")


def _decode_answers(line: bytes) -> dict[str, tuple[float, bool]] | None:
    """The values of a batch and whether they are greedy, by name; None where the line holds something else."""
    try:
        held = json.loads(line)
        rows = [held] if isinstance(held[0], str) else held  # at first a line was one answer
        return {str(name): (float(value), bool(greedy)) for name, value, greedy in rows}
    except (ValueError, TypeError, KeyError, IndexError):
        return None


def _length(row: Asked) -> int:
    return len(row[0]) + len(row[1])


def _progress(done: int, total: int) -> Any:
    from diffq.runs.sampling import Progress

    return Progress(done, total, 0.0)
