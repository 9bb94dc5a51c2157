"""The law of what clamping samplers draw, by enumeration over a few tokens, on denoisers whose predictions are known.

Draws are fixed by their keys; each chi-square bound is one that fresh keys would break less than once in 1e9.
"""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from diffq.diffusion.contracts import Canvas
from diffq.diffusion.gaussian import alpha_bars
from diffq.diffusion.reductions import read_tiles
from diffq.rng import Rng
from diffq.samplers.clamping import (
    DDIM,
    Clamp,
    ClampAfterCFG,
    ClampAroundCFG,
    ClampBeforeCFG,
    ClampResidualCFG,
    DPMSolverPP,
)

ROWS = 12_000
TABLE = torch.tensor([[0.0, 0.0], [1.0, 0.2], [-0.3, 1.1], [0.8, -0.9]])


class Known:
    """A denoiser whose prediction is `predict(branch, y_BLE, t)`, over a table of embeddings."""

    process, guidable = "gaussian", True

    def __init__(self, table_VE, predict, timesteps=100):
        self.table_VE, self.predict = table_VE, predict
        self.vocab_size, self.embedding_dim = table_VE.shape
        self.alpha_bar_T = alpha_bars("sqrt", timesteps)

    def embed(self, tokens):
        return self.table_VE[tokens]

    def open(self, canvas, branches=("cond",)):
        return _Session(self, branches)


class _Session:
    def __init__(self, denoiser, branches):
        self.denoiser, self.branches = denoiser, branches

    def run(self, y_BLE, t_B):
        return torch.cat([self.denoiser.predict(b, y_BLE, int(t_B[0])) for b in self.branches])

    def read(self, y, positions, reduce):
        y_NE = y.flatten(0, 1)[positions]
        project = lambda part, a, b: -exact_distances(y_NE[part], self.denoiser.table_VE[a:b])  # noqa: E731
        return read_tiles(project, len(y_NE), self.denoiser.vocab_size, reduce)


def exact_distances(y_NE, table_VE):
    return (y_NE[:, None] - table_VE).square().sum(-1).sqrt()


def canvas_of(length=1, rows=ROWS):
    whole = torch.ones(rows, length, dtype=torch.bool)
    return Canvas(torch.zeros(rows, length, dtype=torch.long), whole, whole, torch.arange(rows))


def constant(cond, uncond):
    """A denoiser of one position that always predicts these two points."""
    points = {"cond": torch.tensor(cond), "uncond": torch.tensor(uncond)}
    return Known(TABLE, lambda branch, y, t: points[branch].expand_as(y))


def rounding(point, temperature, table=TABLE):
    """P(v) ∝ exp(−‖point − e_v‖ / temperature), float64."""
    return (-exact_distances(point[None].double(), table.double())[0] / temperature).softmax(0)


def assert_law(tokens_N, expected_V):
    counts = torch.bincount(tokens_N, minlength=len(expected_V)).double()
    wanted = expected_V * len(tokens_N)
    assert abs(float(expected_V.sum()) - 1) < 1e-9
    few = wanted < 10
    cells = torch.cat([counts[~few], counts[few].sum()[None]])
    wanted = torch.cat([wanted[~few], wanted[few].sum()[None].clamp(min=1e-9)])
    chi_square, k, x = float(((cells - wanted) ** 2 / wanted).sum()), len(cells) - 1, 9 * math.log(10)
    assert chi_square < k + 2 * math.sqrt(k * x) + 2 * x, (counts, expected_V * len(tokens_N))


C, U = [0.3, 0.1], [-0.2, 0.9]


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("sampler", [DPMSolverPP, DDIM])
def test_the_final_rounding_alone(sampler, temperature):
    """One step without clamping ends on the prediction, which is rounded at the sampler's temperature."""
    steps = {"steps": 1, "spacing": "trailing"}
    filled = sampler(temperature=temperature, **steps)(constant(C, U), canvas_of(), Rng(0))
    assert_law(filled.tokens_BL[:, 0], rounding(torch.tensor(C), temperature))


@pytest.mark.parametrize("temperature", [0.2, 1.0])
@pytest.mark.parametrize("cls", [Clamp, ClampBeforeCFG, ClampAfterCFG, ClampAroundCFG, ClampResidualCFG])
@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_one_step_of_every_order(cls, temperature, scale):
    """Σ over what each clamp may draw of its probability, times that of the final rounding: the exact law."""
    filled = cls(steps=1, temperature=temperature, scale=scale)(constant(C, U), canvas_of(), Rng(1))
    c, u = torch.tensor(C).double(), torch.tensor(U).double()
    p = lambda point: rounding(point, temperature)  # noqa: E731
    e = TABLE.double()
    expected = torch.zeros(4, dtype=torch.float64)
    if scale == 1:
        for v in range(4):
            expected += p(c)[v] * p(e[v])
    elif cls is ClampAfterCFG:
        for v in range(4):
            expected += p(u + scale * (c - u))[v] * p(e[v])
    elif cls is ClampResidualCFG:
        for v in range(4):
            expected += p(c)[v] * p(e[v] + (scale - 1) * (c - u))
    else:
        for v, w in itertools.product(range(4), repeat=2):
            guided = e[w] + scale * (e[v] - e[w])
            probability = p(c)[v] * p(u)[w]
            if cls is not ClampAroundCFG:
                expected += probability * p(guided)
            else:
                for x in range(4):
                    expected += probability * p(guided)[x] * p(e[x])
    assert_law(filled.tokens_BL[:, 0], expected)


@pytest.mark.parametrize("steps", [2, 3])
def test_two_and_three_steps_of_two_positions(steps):
    """A denoiser that reads which tokens it was last clamped to off y, and predicts from both positions' tokens: the
    joint law of two positions is a product of transition matrices over 9 states. Embeddings stand so far apart that
    the noise left in y never hides the token."""
    far = torch.tensor([[60.0, 0.0], [-60.0, 0.0], [0.0, 60.0]])
    temperature = 50.0
    follow = torch.randn(9, 2, 2, generator=torch.Generator().manual_seed(2)) * 40
    states = list(itertools.product(range(3), repeat=2))

    def predict(branch, y_BLE, t):
        if t == first:
            return follow[4].expand_as(y_BLE)
        token_BL = exact_distances(y_BLE.flatten(0, 1) / signal[t], far).argmin(-1).view(y_BLE.shape[:2])
        return follow[token_BL[:, 0] * 3 + token_BL[:, 1]]

    denoiser = Known(far, predict)
    sampler = Clamp(solver="ddim", spacing="trailing", steps=steps, temperature=temperature)
    trajectory = sampler.trajectory(denoiser.alpha_bar_T)
    first = trajectory[0].t
    signal = {s.t: float(denoiser.alpha_bar_T[s.t].sqrt()) for s in trajectory}
    filled = sampler(denoiser, canvas_of(2), Rng(5))

    def transition(points):
        """From the predictions at both positions to the probability of each pair of tokens."""
        a, b = (rounding(point, temperature, far) for point in points)
        return torch.outer(a, b).flatten()

    law = transition(follow[4])
    for _ in range(steps - 1):
        law = law @ torch.stack([transition(follow[i]) for i in range(9)])
    law = law @ torch.stack([transition(far[list(s)]) for s in states])
    assert_law(filled.tokens_BL[:, 0] * 3 + filled.tokens_BL[:, 1], law)


def test_positions_and_steps_draw_independently():
    """Two positions with one prediction, and the clamps of two steps, are independent draws."""
    filled = DPMSolverPP(steps=1, temperature=1.0)(constant(C, U), canvas_of(2), Rng(3))
    p = rounding(torch.tensor(C), 1.0)
    assert_law(filled.tokens_BL[:, 0] * 4 + filled.tokens_BL[:, 1], torch.outer(p, p).flatten())


def test_points_with_other_step_counts_share_their_noise():
    """A position's first clamp has the same draw whatever the number of steps: points of a sweep are paired."""
    seen = {}
    for steps in (2, 5, 9):
        drafts = []
        denoiser = constant(C, U)
        original = denoiser.embed
        denoiser.embed = lambda tokens, keep=drafts, embed=original: (keep.append(tokens), embed(tokens))[1]
        Clamp(steps=steps, temperature=1.0)(denoiser, canvas_of(rows=500), Rng(0))
        seen[steps] = drafts
    assert torch.equal(seen[2][0], seen[5][0])
    assert torch.equal(seen[5][0], seen[9][0])
    assert torch.equal(seen[5][1], seen[9][1])
    assert not torch.equal(seen[5][0], seen[5][1])
