"""EAGS one row, one step and one position at a time, over whole rows of float64 probabilities; its Gibbs sweeps as
transition matrices over all states; the energy of the D-cMRF, position by position. Random numbers are ours.

Shape suffixes: B rows, L positions, V tokens, S states of the whole canvas.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffq.rng import Rng, Stream, uniform
from reference.decoding import State, conditionals, logits, most, outcomes
from reference.reductions import nucleus, race


@dataclass
class EAGS:
    """The textbook sampler. drafts: after each step of each row, the row with nothing masked."""

    model: Any
    tokens_BL: Tensor
    free_BL: Tensor
    row_B: Tensor
    steps: int = 5
    update: str = "masked_only"
    sweeps: int = 1
    within: str = "exact"
    order: str = "high_entropy"
    renyi_order: float = 1.0
    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    seed: int = 0

    def run(self) -> Tensor:
        self.drafts: list[list[Tensor]] = []
        return torch.stack([self.row(b) for b in range(len(self.tokens_BL))])

    def row(self, b: int) -> Tensor:
        x_L, drafts = self.tokens_BL[b].clone(), []
        free = [i for i in range(len(x_L)) if self.free_BL[b, i]]
        count = math.ceil(len(free) / self.steps)
        if self.update == "any":
            return self.anywhere(b, x_L, free, count)
        for number in range(1 + (self.sweeps if self.update == "all" else 0)):
            rest = list(free)
            while rest:
                blank_L = x_L.clone()
                blank_L[rest] = self.model.mask
                p_LV = self.p(blank_L, len(rest) / len(free))
                chosen = self.chosen(p_LV, rest, number, b)[:count]
                draft_L = blank_L.clone()
                if number == 0:
                    for i in rest:
                        draft_L[i] = self.draw(p_LV[i], b, i, 0)
                    x_L[chosen] = draft_L[chosen]
                elif self.within == "independent":
                    hidden_L = x_L.clone()
                    hidden_L[chosen] = self.model.mask
                    p_LV = self.p(hidden_L, len(chosen) / len(free))
                    for i in chosen:
                        x_L[i] = self.draw(p_LV[i], b, i, (1 << 20) + number - 1)
                else:
                    for i in chosen:
                        hidden_L = x_L.clone()
                        hidden_L[i] = self.model.mask
                        x_L[i] = self.draw(self.p(hidden_L, 1 / len(free))[i], b, i, (1 << 20) + number - 1)
                drafts.append(draft_L if number == 0 else x_L.clone())
                rest = [i for i in rest if i not in chosen]
        self.drafts.append(drafts)
        return x_L

    def anywhere(self, b: int, x_L: Tensor, free: list[int], count: int) -> Tensor:
        """Each step writes where there is most entropy, masked or not, and the last what is masked, too."""
        x_L[free] = self.model.mask
        drafts = []
        for t in range(self.steps):
            masked = [i for i in free if x_L[i] == self.model.mask]
            p_LV = self.p(x_L, len(masked) / len(free))
            chosen = self.chosen(p_LV, free, t, b)[:count]
            if t == self.steps - 1:
                chosen = [*chosen, *(i for i in masked if i not in chosen)]
            drawn = {i: self.draw(p_LV[i], b, i, t) for i in free}
            draft_L = x_L.clone()
            for i in {*masked, *chosen}:
                draft_L[i] = drawn[i]
            for i in chosen:
                x_L[i] = drawn[i]
            drafts.append(draft_L)
        self.drafts.append(drafts)
        return x_L

    def p(self, x_L: Tensor, share: float) -> Tensor:
        return logits(self.model, x_L[None], torch.tensor([share], dtype=torch.float64))[0].double()

    def chosen(self, scores_LV: Tensor, rest: list[int], number: int, b: int) -> list[int]:
        """All that is left, in the order in which it is taken."""
        if self.order == "random":
            key_L = Rng(self.seed).key(Stream.ORDER, self.row_B[b], number, torch.tensor(rest))
            value = uniform(key_L)
        else:
            p = scores_LV[rest].softmax(-1)
            if self.renyi_order == 1:
                value = -torch.special.xlogy(p, p).sum(-1)
            else:
                value = (p**self.renyi_order).sum(-1).log() / (1 - self.renyi_order)
            value = -value if self.order == "low_entropy" else value
            key_L = Rng(self.seed).key(Stream.ORDER, self.row_B[b], number, torch.tensor(rest))
            value = (value * 2**13).round() + uniform(key_L) / 2  # what rounding alone tells apart is in random order
        return [rest[j] for j in most(value, len(rest)).tolist()]

    def draw(self, scores_V: Tensor, b: int, i: int, visit: int) -> Tensor:
        if self.temperature == 0:
            return scores_V.argmax()
        key = Rng(self.seed).key(Stream.TOKEN, self.row_B[b], visit, torch.tensor([i]))
        sharp_V = nucleus(scores_V[None], self.temperature, self.top_k, self.top_p)
        return race(sharp_V.softmax(-1), key)[0]


Merit = Callable[[Tensor], float]


def shannon(p_V: Tensor) -> float:
    return -float(torch.special.xlogy(p_V, p_V).sum())


def sweep(denoiser, state: State, free: list[int], steps: int, merit: Merit | None, within: str) -> Counter:
    """The law of a state after one sweep. merit: of a distribution; None takes a random order."""
    count = math.ceil(len(free) / steps)
    law = Counter({(state, tuple(free)): 1.0})
    for _ in range(math.ceil(len(free) / count)):
        following: Counter = Counter()
        for (x, rest), weight in law.items():
            p = conditionals(denoiser, tuple(denoiser.mask if i in rest else t for i, t in enumerate(x)))
            if merit is None:
                orders = list(itertools.permutations(rest, min(count, len(rest))))
            else:
                orders = [tuple(sorted(rest, key=lambda i, p=p: (-merit(p[i]), i))[:count])]
            for chosen in orders:
                left = tuple(i for i in rest if i not in chosen)
                for y, q in redraw(denoiser, x, chosen, within).items():
                    following[y, left] += weight * q / len(orders)
        law = following
    return Counter({x: q for (x, _), q in law.items()})


def anywhere(denoiser, start: State, free: list[int], steps: int, merit: Merit | None) -> Counter:
    """The law of update=any from this state, whose free positions are masked."""
    count, law = math.ceil(len(free) / steps), Counter({start: 1.0})
    for t in range(steps):
        following: Counter = Counter()
        for x, weight in law.items():
            p = {i: denoiser.log_weights(x, i, 0.5).exp() for i in free}
            masked = [i for i in free if x[i] == denoiser.mask] if t == steps - 1 else []
            if merit is None:
                groups = list(itertools.combinations(free, count))
            else:
                groups = [tuple(sorted(free, key=lambda i, p=p: (-merit(p[i]), i))[:count])]
            for group in groups:
                for q, written in outcomes({i: p[i] for i in {*group, *masked}}):
                    following[tuple(written.get(i, v) for i, v in enumerate(x))] += weight * q / len(groups)
        law = following
    return law


def redraw(denoiser, state: State, chosen: tuple[int, ...], within: str) -> Counter:
    """The law of a state whose chosen positions are drawn anew."""
    law = Counter({state: 1.0})
    for group in [chosen] if within == "independent" else [(i,) for i in chosen]:
        following: Counter = Counter()
        for x, weight in law.items():
            hidden = tuple(denoiser.mask if i in group else t for i, t in enumerate(x))
            for q, written in outcomes(conditionals(denoiser, hidden)):
                following[tuple(written.get(i, t) for i, t in enumerate(x))] += weight * q
        law = following
    return law


def matrix(states: list[State], law_after: Callable[[State], Counter]) -> Tensor:
    """The transition matrix, (S, S), float64."""
    at = {state: s for s, state in enumerate(states)}
    made_SS = torch.zeros(len(states), len(states), dtype=torch.float64)
    for s, state in enumerate(states):
        for after, q in law_after(state).items():
            made_SS[s, at[after]] += q
    return made_SS


def stationary(matrix_SS: Tensor) -> Tensor:
    """The stationary law of a chain that reaches everything, (S,)."""
    size = len(matrix_SS)
    system = torch.cat([matrix_SS.T - torch.eye(size, dtype=torch.float64), torch.ones(1, size, dtype=torch.float64)])
    wanted = torch.zeros(size + 1, dtype=torch.float64)
    wanted[-1] = 1
    return torch.linalg.lstsq(system, wanted[:, None]).solution.squeeze(1)


def energy(denoiser, state: State, free: list[int]) -> float:
    """−Σ log p(x_l | everything else) / L."""
    total = 0.0
    for i in free:
        hidden = tuple(denoiser.mask if k == i else t for k, t in enumerate(state))
        total -= float(conditionals(denoiser, hidden)[i][state[i]].log())
    return total / len(free)


def variation(p_S: Tensor, q_S: Tensor) -> float:
    """The total variation of two laws."""
    return float((p_S - q_S).abs().sum()) / 2
