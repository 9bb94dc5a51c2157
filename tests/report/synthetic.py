"""Made-up points with a known trade-off, for tests of reports."""

from __future__ import annotations

from itertools import product

import numpy as np

from diffq.metrics.intervals import halves, resample, value_of
from diffq.report.points import Figure, ReportPoint

B = 200


def figure(name: str, value: float, spread: float, direction: str = "higher", seed: int = 0) -> Figure:
    draws = value + spread * np.random.default_rng(seed).standard_normal(B)
    low, high = np.quantile(draws, [0.025, 0.975])
    return Figure(name, value, f"{name}|s:3|v:1", direction, float(low), float(high), draws)


def point(sampler: str, x: float, y: float, spread: float = 0.6, kind: str = "point", **dials) -> ReportPoint:
    """A point with self_bleu x and bleu y."""
    name = sampler + "-" + "-".join(f"{k}{v}" for k, v in dials.items())
    seed = sum(map(ord, name))
    return ReportPoint(
        key=name, folder=f"points/{name}", sampler=sampler, canonical=sampler, dataset="qqp",
        model="causal_seq2seq" if sampler == "causal" else "gaussian_small",
        process="causal" if sampler == "causal" else "gaussian",
        length="free" if sampler == "causal" else "oracle", seed=0, samples=3, sources=300, sources_digest="d",
        dials=dials, changed=tuple(dials), kind=kind, costs={"nfe_rows": 9000.0, "seconds": 12.5, "rows": 900.0},
        figures={
            "self_bleu": figure("self_bleu", x, spread, "lower", seed),
            "bleu": figure("bleu", y, spread, seed=seed + 1),
            "rouge_l": figure("rouge_l", 20 + y, spread, seed=seed + 2),
        },
    )  # fmt: skip


def frontier_points() -> tuple[list[ReportPoint], list[ReportPoint]]:
    """Six samplers with 70 points, crowded as real ones are, and two null lines."""
    points = [
        point("dpmpp", 31 + n, 14 + 1.2 * n - 0.1 * n * n, steps=s, scale=1.0, temperature=0.0)
        for n, s in enumerate((10, 20, 30))
    ]
    points += [
        point("cfg", 33 + 14 * np.log(s), 15 + 5 * np.log(s), scale=s, steps=30, temperature=0.0)
        for s in (1.25, 1.5, 2, 3, 4)
    ]
    points += [
        point(
            name,
            36 + 16 * np.log(s) + up - 14 * t,
            16 + 5.5 * np.log(s) + up / 2 - 5 * t * t + n / 15,
            scale=s,
            temperature=t,
            steps=n,
        )
        for name, up in (("clamp_before_cfg", 2.0), ("clamp_after_cfg", -3.0))
        for s, t, n in product((1, 1.5, 2, 3), (0, 0.25, 0.5, 1), (10, 30))
        if name == "clamp_before_cfg" or n == 30
    ]
    points += [
        point("causal", 62 - 40 * t, 22 - 12 * t * t, temperature=t, top_p=1.0) for t in (0.2, 0.4, 0.6, 0.8, 1.0)
    ]
    nulls = [point("corrupt", 31 - 25 * q, 16 * (1 - q) ** 2, kind="null", q=q) for q in (0, 0.1, 0.2, 0.4, 0.7, 1.0)]
    nulls += [point("copy", 31 + 60 * q, 15 + 4 * q, kind="null", q=q) for q in (0, 0.1, 0.2, 0.4, 0.7, 1.0)]
    return points, nulls


def mean_figure(name: str, rows: np.ndarray, direction: str) -> Figure:
    """A mean over sources, as a report has it."""
    signature = f"{name}|s:3|agg:mean|v:1"
    draws = resample(rows[:, None], signature)
    low, high = np.quantile(draws, [0.025, 0.975])
    value = value_of(rows[:, None], signature)
    return Figure(name, value, signature, direction, float(low), float(high), draws, halves(rows[:, None], signature))


def of(sampler: str, x: np.ndarray, y: np.ndarray, seed: int = 0, checkpoint: str = "", **dials: float) -> ReportPoint:
    """A point whose sources have diversities x (less is better) and qualities y."""
    key = f"{sampler} {dials} {seed} {checkpoint}"
    return ReportPoint(
        key=key, folder=key, sampler=sampler, canonical=sampler, dataset="d", model="m", process="gaussian",
        length="oracle", seed=seed, samples=3, sources=len(x), sources_digest="d", dials=dials, changed=tuple(dials),
        figures={"self_bleu": mean_figure("self_bleu", x, "lower"), "bleu": mean_figure("bleu", y, "higher")},
        checkpoint=checkpoint,
    )  # fmt: skip
