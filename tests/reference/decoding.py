"""Decoding of masked models in the published arrangements, and laws of every rule and of IMH by enumeration.

The loops project every position at every step and work in float64 over the whole vocabulary; random numbers are ours,
so that they can be compared token by token with the fast samplers.

Shape suffixes: B rows, L positions, V tokens, C candidates of a step.
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from diffq.rng import Rng, Stream
from reference.reductions import nucleus, race


@torch.no_grad()
def logits(model, tokens_BL: Tensor, noise_B: Tensor, allow_mask: bool = False) -> Tensor:
    """All logits of a text-diffusion model, or of a masked language model, at all positions, (B, L, V)."""
    if hasattr(model, "states"):
        weight, bias = model.net.head
        all_BLV = torch.nn.functional.linear(model.states(tokens_BL), weight, bias)
        return all_BLV if allow_mask else all_BLV.index_fill(-1, torch.tensor(model.never), -math.inf)
    hidden_BLD = model.net(tokens_BL, model.sigma(noise_B))
    linear = model.net.output_layer.linear
    all_BLV = torch.nn.functional.linear(hidden_BLD, linear.weight, linear.bias)
    return all_BLV if allow_mask else all_BLV[..., : model.words]


def most(value_L: Tensor, count: int) -> Tensor:
    """The places of the largest; of equal ones the first (`topk`, which is published, leaves that open)."""
    return value_L.argsort(descending=True, stable=True)[:count]


@dataclass
class LLaDA:
    """LLaDA's generate.py for an answer at the end of the canvas: blocks from the left, in each step a draw at every
    position of the canvas, the best of the block's by the untempered probability of what was drawn.

    gumbel  draws as published, by float64 Gumbel noise over batch × length × vocabulary, which is not keyed: for
            timing; else by the keyed race
    """

    model: Any
    tokens_BL: Tensor
    free_BL: Tensor
    row_B: Tensor
    block: int
    steps: int
    temperature: float = 0.0
    allow_mask: bool = False
    seed: int = 0
    gumbel: bool = False

    def __post_init__(self) -> None:
        self.x_BL = torch.where(self.free_BL, self.model.mask, self.tokens_BL)
        self.begin = int((~self.free_BL[0]).sum())
        self.blocks = (self.x_BL.shape[1] - self.begin) // self.block
        self.in_steps = self.steps // self.blocks

    def step(self, number: int) -> None:
        """Step `number` of all."""
        b, k = divmod(number, self.in_steps)
        last = self.begin + (b + 1) * self.block
        count = self.block // self.in_steps + (k < self.block % self.in_steps)
        x_BL = self.x_BL
        masked_BL = x_BL == self.model.mask
        share_B = (masked_BL & self.free_BL).sum(1).double() / self.free_BL.sum(1)
        logits_BLV = logits(self.model, x_BL, share_B, self.allow_mask)
        drawn_BL = self.draw(logits_BLV, k)
        confidence_BL = logits_BLV.double().softmax(-1).gather(-1, drawn_BL[..., None]).squeeze(-1)
        confidence_BL[:, last:] = -math.inf
        confidence_BL = torch.where(masked_BL, confidence_BL, -math.inf)
        for r in range(len(x_BL)):
            chosen = most(confidence_BL[r], count)
            x_BL[r, chosen] = drawn_BL[r, chosen]

    def draw(self, logits_BLV: Tensor, visit: int) -> Tensor:
        if self.temperature == 0:
            return logits_BLV.argmax(-1)
        if self.gumbel:
            wide = logits_BLV.double()
            noise = torch.rand_like(wide)
            return (wide.exp() / (-torch.log(noise)) ** self.temperature).argmax(-1)
        place_L = torch.arange(self.x_BL.shape[1])
        key_BL = Rng(self.seed).key(Stream.TOKEN, self.row_B[:, None], visit, place_L)
        weight_BLV = (logits_BLV.double() / self.temperature).softmax(-1)
        return race(weight_BLV.flatten(0, 1), key_BL.flatten()).view_as(self.x_BL)

    def run(self) -> Tensor:
        for number in range(self.in_steps * self.blocks):
            self.step(number)
        return self.x_BL


def llada(model, tokens_BL, free_BL, row_B, **how) -> Tensor:
    return LLaDA(model, tokens_BL, free_BL, row_B, **how).run()


def dream(
    model, tokens_BL, free_BL, row_B, *, steps, alg, temperature=0.0, top_p=1.0, top_k=0, seed=0, eps=1e-3
) -> Tensor:
    """Dream's diffusion_generate with maskgit_plus, topk_margin or entropy and no alg_temp: no blocks, its own counts,
    confidences after temperature, top-k and top-p."""
    x_BL = torch.where(free_BL, model.mask, tokens_BL)
    time, rng, place_L = torch.linspace(1, eps, steps + 1), Rng(seed), torch.arange(x_BL.shape[1])
    visit = 0
    for i in range(steps):
        masked_BL = (x_BL == model.mask) & free_BL
        left = int(masked_BL[0].sum())
        count = int(left * float(1 - time[i + 1] / time[i])) if i < steps - 1 else left
        if not count:
            continue
        share_B = masked_BL.sum(1).double() / free_BL.sum(1)
        sharp_BLV = nucleus(logits(model, x_BL, share_B).double().flatten(0, 1), temperature or 1.0, top_k, top_p)
        p_NV = sharp_BLV.softmax(-1)
        # A rule that draws before it ranks draws anew in every step; the others draw where they write.
        key_BL = rng.key(Stream.TOKEN, row_B[:, None], visit if alg == "maskgit_plus" else 0, place_L)
        drawn_N = p_NV.argmax(-1) if temperature == 0 else race(p_NV, key_BL.flatten())
        if alg == "maskgit_plus":
            confidence_N = p_NV.gather(-1, drawn_N[:, None]).squeeze(-1)
        elif alg == "topk_margin":
            two = p_NV.topk(2, -1).values
            confidence_N = two[:, 0] - two[:, 1]
        else:
            confidence_N = torch.special.xlogy(p_NV, p_NV).sum(-1)
        confidence_BL = torch.where(masked_BL, confidence_N.view_as(x_BL), -math.inf)
        for r in range(len(x_BL)):
            chosen = most(confidence_BL[r], count)
            x_BL[r, chosen] = drawn_N.view_as(x_BL)[r, chosen]
        visit += 1
    return x_BL


State = tuple[int, ...]
Choice = tuple[float, dict[int, int]]  # its probability, and tokens by position


def push(start: State, moves: Callable[[State], Iterator[Choice]], mask: int) -> dict[State, float]:
    """The law of full canvases where `moves` tells what may be written next, until nothing is masked."""
    law, done = Counter({start: 1.0}), Counter()
    while law:
        following: Counter = Counter()
        for state, weight in law.items():
            if mask not in state:
                done[state] += weight
                continue
            for p, written in moves(state):
                if p > 0:
                    following[tuple(written.get(i, t) for i, t in enumerate(state))] += weight * p
        law = following
    return dict(done)


def conditionals(denoiser, state: State) -> dict[int, Tensor]:
    """p(x_i | state) of every masked position, float64."""
    return {i: denoiser.log_weights(state, i, 0.5).exp() for i, t in enumerate(state) if t == denoiser.mask}


def outcomes(p: dict[int, Tensor]) -> Iterator[Choice]:
    """Tokens of several positions drawn independently."""
    places = sorted(p)
    for tokens in itertools.product(*(range(len(p[i])) for i in places)):
        yield (
            math.prod(float(p[i][v]) for i, v in zip(places, tokens, strict=True)),
            dict(zip(places, tokens, strict=True)),
        )


def rule_moves(denoiser, rule: str, count: int, temperature: float = 1.0, threshold: float = 0.0, factor: float = 0.0):
    """The moves of a decoding rule without blocks that writes `count` positions a step."""

    def sharp(p: Tensor) -> Tensor:
        return (p.log() / temperature).softmax(-1)

    def moves(state: State) -> Iterator[Choice]:
        p = conditionals(denoiser, state)
        n = min(count, len(p))
        if rule == "random":
            sets = list(itertools.combinations(sorted(p), n))
            for chosen in sets:
                for q, written in outcomes({i: sharp(p[i]) for i in chosen}):
                    yield q / len(sets), written
        elif rule in ("low_confidence", "confidence_threshold", "factor"):
            for q, drawn in outcomes({i: sharp(p[i]) for i in p}):
                confidence = {i: float(p[i][v]) for i, v in drawn.items()}
                order = sorted(drawn, key=lambda i: (-confidence[i], i))
                m = n
                if rule == "confidence_threshold":
                    m = max(1, sum(c >= threshold for c in confidence.values()))
                elif rule == "factor":
                    fits = [k for k in range(1, len(order) + 1) if (k + 1) * (1 - confidence[order[k - 1]]) < factor]
                    m = max(fits, default=1)
                yield q, {i: drawn[i] for i in order[:m]}
        else:
            two = {i: p[i].sort(descending=True).values for i in p}
            merit = {
                "left_to_right": lambda i: -i,
                "rank_then_sample": lambda i: float(two[i][0]),
                "margin": lambda i: float(two[i][0] - two[i][1]),
                "entropy": lambda i: float(torch.special.xlogy(p[i], p[i]).sum()),
                "high_entropy": lambda i: -float(torch.special.xlogy(p[i], p[i]).sum()),
                "high_renyi_2": lambda i: -float((p[i] ** 2).sum().log()),
            }[rule]
            chosen = sorted(p, key=lambda i: (-merit(i), i))[:n]
            yield from outcomes({i: sharp(p[i]) for i in chosen})

    return moves


def power_mass(denoiser, state: State, alpha: float) -> float:
    """log Z_α(state) = log Σ over fillings of p(filling | state)^α, exactly."""
    index = tuple(slice(None) if t == denoiser.mask else t for t in state)
    table = denoiser.joint[index]
    return float(((table / table.sum()) ** alpha).sum().log())


def mean_field(denoiser, state: State, alpha: float) -> float:
    """log Ẑ_α(state): as if what is masked were independent."""
    return sum(float((p**alpha).sum().log()) for p in conditionals(denoiser, state).values())


def imh_moves(
    denoiser, *, alpha, chain, count=1, proposal="tempered", within="independent", exact=False, select="chain"
):
    """The moves of IMH in random order. chain = math.inf is the stationary law; finite chains are pushed through the
    transition matrix of independent Metropolis–Hastings."""
    mass = power_mass if exact else mean_field

    def moves(state: State) -> Iterator[Choice]:
        p = conditionals(denoiser, state)
        n = min(count, len(p))
        orders = list(itertools.permutations(sorted(p), n))
        for chosen in orders:
            sharp = {i: p[i] ** (alpha if proposal == "tempered" else 1.0) for i in chosen}
            drawn = list(outcomes({i: w / w.sum() for i, w in sharp.items()}))
            g = torch.tensor([q for q, _ in drawn], dtype=torch.float64)
            log_w = []
            for _, written in drawn:
                after = tuple(written.get(i, t) for i, t in enumerate(state))
                together = sum(float(p[i][v].log()) for i, v in written.items())
                weight = mass(denoiser, after, alpha) + (alpha - 1) * together * (proposal == "plain")
                if within == "exact":
                    joint, now = 0.0, state
                    for i in chosen:
                        joint += float(denoiser.log_weights(now, i, 0.5)[written[i]])
                        now = tuple(written[i] if k == i else t for k, t in enumerate(now))
                    weight += alpha * (joint - together)
                log_w.append(weight)
            last = denoiser.mask not in tuple(drawn[0][1].get(i, t) for i, t in enumerate(state))
            lone = within == "independent" or n == 1
            # Where nothing is left to look ahead at, tempered candidates weigh the same: the first is taken.
            same = last and lone and proposal == "tempered"
            law = g if same else after_chain(g, torch.tensor(log_w, dtype=torch.float64), chain, select)
            for q, (_, written) in zip(law.tolist(), drawn, strict=True):
                yield q / len(orders), written

    return moves


def after_chain(g: Tensor, log_w: Tensor, chain: float, select: str = "chain") -> Tensor:
    """The law of the chosen candidate: g·P^K for K proposals of an independent chain that begins in g."""
    w = (log_w - log_w.max()).exp()
    if select == "resample":
        law = torch.zeros_like(g)
        for picks in itertools.product(range(len(g)), repeat=int(chain) + 1):
            q = math.prod(float(g[i]) for i in picks)
            total = sum(float(w[i]) for i in picks)
            for i in picks:
                law[i] += q * float(w[i]) / total
        return law
    if math.isinf(chain):
        return g * w / (g * w).sum()
    move = g * (w[None, :] / w[:, None]).clamp(max=1)
    move.fill_diagonal_(0)
    move += torch.diag(1 - move.sum(1))
    law = g
    for _ in range(int(chain)):
        law = law @ move
    return law
