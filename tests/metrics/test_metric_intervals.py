"""The bootstrap, paired differences and the jackknife, against loops and by simulation."""

from __future__ import annotations

import time

import numpy as np
import pytest

from diffq.errors import UserError
from diffq.metrics import intervals
from diffq.metrics.base import Answers, Score
from diffq.metrics.bleu import Bleu
from diffq.metrics.ngrams import bleu
from diffq.resamples import interval

MEAN = "m|agg:mean|s:1|v:1"


def score(values: np.ndarray, signature: str = MEAN) -> Score:
    rows = np.asarray(values, dtype=float).reshape(len(values), -1)
    value = intervals.value_of(rows, signature)
    return Score(name="m", value=value, signature=signature, direction="higher", n=len(rows), per_source=rows)


def test_counts_are_resamples_of_equal_size():
    counts = np.concatenate(list(intervals._draw(50)))
    assert counts.shape == (intervals.RESAMPLES, 50)
    assert (counts.sum(axis=1) == 50).all()
    # Each source is in a resample once on average: 50,000 Poisson-like counts, a deviation of 6 standard errors.
    assert abs(counts.mean() - 1) < 1e-12
    assert abs(counts.var() - 49 / 50) < 6 * np.sqrt(3 / counts.size)


def test_blocks_are_the_same_draws_as_one_piece(monkeypatch):
    whole = np.concatenate(list(intervals._draw(40)))
    monkeypatch.setattr(intervals, "_BLOCK", 40 * 7)
    pieces = list(intervals._draw(40))
    assert len(pieces) > 100
    np.testing.assert_array_equal(np.concatenate(pieces), whole)


def test_resampled_means_are_the_means_of_the_resampled_sources():
    values = np.random.default_rng(1).normal(size=20)
    counts = np.concatenate(list(intervals._draw(20)))
    by_hand = [np.repeat(values, row.astype(int)).mean() for row in counts[:50]]
    np.testing.assert_allclose(intervals.resample(values[:, None], MEAN)[:50], by_hand, rtol=0, atol=1e-12)


def test_resampled_bleu_is_the_bleu_of_the_resampled_corpus(random_answers):
    answers = random_answers(3, n=15, s=2)
    metric = Bleu()
    found = metric(answers)
    counts = np.concatenate(list(intervals._draw(15)))
    values = intervals.resample(found.per_source, found.signature)
    for row, value in zip(counts[:20], values, strict=False):
        chosen = np.repeat(np.arange(15), row.astype(int))
        again = Answers(
            sources=tuple(answers.sources[i] for i in chosen),
            references=tuple(answers.references[i] for i in chosen),
            candidates=tuple(answers.candidates[i] for i in chosen),
        )
        assert value == pytest.approx(metric(again).value, abs=1e-9)


def test_interval_covers_the_mean_as_often_as_it_says():
    """600 seeded data sets of 60 exponentials: the coverage of a percentile bootstrap is near 0.935 there. The bounds
    are 5 standard errors away (false alarms below 1e-6 over seeds, and none for this one)."""
    generator = np.random.default_rng(7)
    hits = 0
    for _ in range(600):
        low, high = interval(intervals.resample(generator.exponential(size=(60, 1)), MEAN))
        hits += low <= 1 <= high
    assert 0.885 < hits / 600 < 0.98


def test_paired_difference_of_shifted_scores_is_exact():
    values = np.random.default_rng(2).normal(size=100)
    gap = intervals.paired_difference(score(values + 0.25), score(values))
    assert gap.value == pytest.approx(0.25)
    assert gap.low == pytest.approx(0.25)
    assert gap.high == pytest.approx(0.25)
    assert gap.probability == 1.0


def test_pairing_narrows_the_interval_and_is_antisymmetric():
    generator = np.random.default_rng(3)
    shared = generator.normal(size=200)
    a, b = shared + 0.1 * generator.normal(size=200), shared + 0.1 * generator.normal(size=200)
    gap, back = intervals.paired_difference(score(a), score(b)), intervals.paired_difference(score(b), score(a))
    alone = np.ptp(interval(intervals.resample(a[:, None], MEAN)))
    assert gap.high - gap.low < alone / 3
    assert (gap.low, gap.high) == pytest.approx((-back.high, -back.low))
    assert gap.probability + back.probability == pytest.approx(1)


def test_equal_scores_differ_by_nothing_with_even_odds():
    gap = intervals.paired_difference(score(np.arange(10.0)), score(np.arange(10.0)))
    assert (gap.value, gap.low, gap.high, gap.probability) == (0, 0, 0, 0.5)


def test_what_cannot_be_paired_is_refused():
    a = score(np.arange(4.0))
    with pytest.raises(UserError, match="different figures"):
        intervals.paired_difference(a, score(np.arange(4.0), "m|agg:mean|s:2|v:1"))
    with pytest.raises(UserError, match="cannot be paired"):
        intervals.paired_difference(a, score(np.arange(5.0)))
    with pytest.raises(UserError, match="per-source statistics"):
        intervals.paired_difference(a, Score(name="m", value=0, signature=MEAN, direction="none", n=4))
    with pytest.raises(UserError, match="no aggregate"):
        intervals.resample(np.ones((3, 1)), "m|agg:nonsense|s:1|v:1")


def test_jackknife_of_a_mean_is_the_textbook_interval():
    values = np.random.default_rng(5).normal(size=30)
    without = (values.sum() - values) / 29
    low, high = intervals.jackknife(values.mean(), without)
    assert high - low == pytest.approx(2 * 1.959964 * values.std(ddof=1) / np.sqrt(30), rel=1e-5)
    assert intervals.jackknife(1.0, np.array([1.0])) == (None, None)


def test_bootstrap_of_2500_sources_is_quick():
    rows = np.random.default_rng(0).integers(0, 30, size=(2500, 10)).astype(float)
    rows[:, 6:] = rows[:, 2:6] + 1
    signature = "bleu|eff:no|agg:corpus_bleu|s:1|v:1"
    intervals._aggregate_of(signature)
    intervals._kept.cache_clear()
    best = np.inf
    for _ in range(3):
        intervals._kept.cache_clear()
        start = time.perf_counter()
        values = intervals.resample(rows, signature)
        best = min(best, time.perf_counter() - start)
    assert best < 0.2
    assert values.mean() == pytest.approx(float(bleu(rows.sum(axis=0))), rel=0.01)
