"""Orders of decoding on 4×4 Sudoku by networks that know every conditional, or err by a known share.

    python scripts/exact_sudoku.py          # minutes on one core

The questions, seeds and samplers are those of `experiment=reasoning_sudoku`; in the network's place stand the exact
conditionals of the 288 grids, mixed with a share ε of the uniform law at every cell, and the uniform law alone where no
grid is left. What a trained model loses beside ε = 0 is its own; what a sampler loses there is the sampler's. Prints a
table in Markdown: Pass@1 in percent and the mean number of distinct right answers, by ε and steps, and of IMH the mean
deviation of log w, in nats, between the candidates of a round. Before it stands how many cells that are undecided low
confidence draws at once.

Shape suffixes: B rows, L cells, K asked cells, V digits, G grids.
"""

from __future__ import annotations

import statistics
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from diffq.config import compose
from diffq.data.sudoku import completions, grids
from diffq.diffusion.contracts import COND, Canvas, Step, TiledSession, row_id
from diffq.diffusion.noise import Noise
from diffq.rng import Rng
from diffq.samplers.decoding_rules import LeastEntropy, LowConfidence, RandomOrder, RankThenSample
from diffq.samplers.imh import IMH

DIGITS, MASK = "1234", 4
QUESTIONS, SAMPLES = 100, 32
MISTAKES = (0.0, 0.003, 0.01, 0.03)
STEPS = (12, 6, 5, 4)
SAMPLERS: dict[str, Any] = {
    "random order": RandomOrder(),
    "random order, τ = 0.25": RandomOrder(temperature=0.25),
    "low confidence": LowConfidence(),
    "rank, then sample": RankThenSample(),
    "entropy (Dream)": LeastEntropy(),
    "IMH, α = 4, K = 4": IMH(alpha=4.0, chain=4),
    "IMH, α = 4, K = 16": IMH(alpha=4.0, chain=16),
}


class Exact:
    """A masked denoiser that knows the grids. mistakes: ε."""

    process, guidable, learnt_z, max_length = "absorbing", False, False, 16
    vocab_size = mask = MASK
    noise = Noise()

    def __init__(self, mistakes: float):
        self.mistakes = mistakes
        cells_GL = torch.tensor([[DIGITS.index(c) for c in grid if c != "\n"] for grid in grids()])
        self.cells_GLV = torch.nn.functional.one_hot(cells_GL, MASK).double()

    def open(self, canvas: Canvas, branches: Any = COND) -> Session:
        return Session(self)


class Session(TiledSession):
    """Hidden states are log-probabilities."""

    words = MASK

    def __init__(self, exact: Exact):
        self._exact = exact

    def run(self, tokens_BL: Tensor, noise_B: Tensor, at_BK: Tensor | None = None) -> Tensor:
        cells_GLV = self._exact.cells_GLV
        seen_BLV = torch.nn.functional.one_hot(tokens_BL, MASK + 1)[..., :MASK].double()
        agrees_BG = seen_BLV.flatten(1) @ cells_GLV.flatten(1).T == seen_BLV.sum((1, 2))[:, None]
        count_BLV = (agrees_BG.double() @ cells_GLV.flatten(1)).unflatten(1, cells_GLV.shape[1:])
        total_BL1 = count_BLV.sum(-1, keepdim=True)
        share_BLV = torch.where(total_BL1 > 0, count_BLV / total_BL1, 1 / MASK)
        log_BLV = ((1 - self._exact.mistakes) * share_BLV + self._exact.mistakes / MASK).log()
        return log_BLV if at_BK is None else log_BLV.gather(1, at_BK[..., None].expand(-1, -1, MASK))

    def scores(self, hidden: Tensor, positions_N: Tensor) -> Any:
        log_NV = hidden.flatten(0, 1)[positions_N]
        return lambda part, first, last: log_NV[part, first:last]

    def select(self, rows_K: Tensor) -> None:
        pass


def canvas_of(sources: list[str]) -> Canvas:
    """SAMPLES rows for each question, keyed as a sweep keys them."""
    cells_BL = torch.tensor([[int(c) - 1 for c in source if c != "\n"] for source in sources])
    cells_BL = cells_BL.repeat_interleave(SAMPLES, 0)
    free_BL = cells_BL < 0
    row_B = torch.tensor([row_id(question, sample) for question in range(len(sources)) for sample in range(SAMPLES)])
    return Canvas(torch.where(free_BL, MASK, cells_BL), free_BL, torch.ones_like(free_BL), row_B)


def judge(tokens_BL: Tensor, sources: list[str]) -> tuple[float, float]:
    """Pass@1 in percent, and the mean number of distinct right answers to a question."""
    right, distinct = 0, 0
    for at, source in enumerate(sources):
        known = {grid.replace("\n", "") for grid in completions(source)}
        rows = tokens_BL[at * SAMPLES : (at + 1) * SAMPLES].tolist()
        answers = [answer for row in rows if (answer := "".join(DIGITS[t] for t in row)) in known]
        right, distinct = right + len(answers), distinct + len(set(answers))
    return 100 * right / len(tokens_BL), distinct / len(sources)


def together(canvas: Canvas, steps: int) -> dict[int, float]:
    """In how many of the steps of low confidence that draw an undecided cell so many of them are drawn at once, in
    percent. Right grids alone count, up to the step that makes them wrong."""
    exact, counts = Exact(0.0), Counter[int]()
    session, before_BL = exact.open(canvas), torch.where(canvas.free_BL, MASK, canvas.tokens_BL)

    def listen(step: Step) -> None:
        nonlocal before_BL
        after_BL = step.draft()
        chance_BL = session.run(before_BL, step.time_B).exp().amax(-1)
        solvable_B1 = (chance_BL == 1).any(1, keepdim=True)  # a given cell is sure while a grid is left
        drawn_BL = (before_BL == MASK) & (after_BL != MASK) & (chance_BL < 1) & solvable_B1
        counts.update(number for number in drawn_BL.sum(1).tolist() if number)
        before_BL = after_BL

    LowConfidence(steps=steps)(exact, canvas, Rng(0), listen)
    return {number: 100 * count / counts.total() for number, count in sorted(counts.items())}


def cell(sampler: Any, mistakes: float, canvas: Canvas, sources: list[str]) -> str:
    """What a sampler does: `96.0, 4.23`, and of IMH ` (2.88)`."""
    spread: list[float] = []

    def listen(step: Step) -> None:
        if "spread" in step.stats:
            spread.append(float(step.stats["spread"].nanmean()))

    filled = sampler(Exact(mistakes), canvas, Rng(0), listen)
    said = "{:.1f}, {:.2f}".format(*judge(filled.tokens_BL, sources))
    return said + (f" ({statistics.mean(spread):.2f})" if spread else "")


def main() -> None:
    examples = compose(["dataset=sudoku"]).dataset.open().split("test")[:QUESTIONS]
    sources = [example.source for example in examples]
    canvas = canvas_of(sources)
    for steps in STEPS:
        said = ", ".join(f"{number}: {share:.0f} %" for number, share in together(canvas, steps).items())
        print(f"low confidence, {steps} steps, undecided cells drawn at once: {said}")
    print("\n| sampler | steps | " + " | ".join(f"ε = {mistakes:g}" for mistakes in MISTAKES) + " |")
    print("|---|---|" + "---|" * len(MISTAKES))
    for steps in STEPS:
        for name, sampler in SAMPLERS.items():
            cells = [cell(sampler.replace(steps=steps), mistakes, canvas, sources) for mistakes in MISTAKES]
            print(f"| {name} | {steps} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
