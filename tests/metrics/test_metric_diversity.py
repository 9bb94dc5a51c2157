"""Distinct n-grams, unique texts and Vendi, by hand and against loops."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from diffq.metrics.base import Answers
from diffq.metrics.distinct import Distinct, Div, Unique
from diffq.metrics.intervals import paired_difference, value_of
from diffq.metrics.vendi import Vendi, vendi


def answers(*groups):
    n = len(groups)
    return Answers(sources=("q",) * n, references=(("r",),) * n, candidates=groups)


def test_distinct_by_hand():
    given = answers(("a b a", "a b c"), ("x x", "x"))
    by_source = (3 / 6 + 1 / 3) / 2
    by_sample = ((2 / 3 + 1) / 2 + (1 / 2 + 1) / 2) / 2
    assert Distinct(n=1)(given).value == pytest.approx(100 * by_source)
    assert Distinct(n=1, over="sample")(given).value == pytest.approx(100 * by_sample)
    assert Distinct(n=1, over="corpus")(given).value == pytest.approx(100 * 4 / 9)
    # Pairs: {ab, ba, ab, bc} and {xx}.
    assert Distinct(n=2)(given).value == pytest.approx(100 * (3 / 4 + 1) / 2)
    assert Distinct(n=4)(given).value == 0  # no 4-gram anywhere


def test_div_4_is_distinct_4_of_a_source_split_at_white_space():
    given = answers(("a b c d e.", "a b c d f"), ("p q r s", "p q r s"))
    assert Div()(given).value == pytest.approx(100 * (3 / 4 + 1 / 2) / 2)
    assert Div()(given).value == pytest.approx(Distinct(n=4, tokenizer="split")(given).value)
    assert Div()(given).value != pytest.approx(Distinct(n=4)(given).value)


@pytest.mark.parametrize("seed", range(4))
def test_corpus_distinct_leaves_one_out_as_a_loop_does(random_answers, seed):
    given = random_answers(seed, n=9)
    metric = Distinct(n=2, over="corpus")
    without = []
    for i in range(9):
        rest = dataclasses.replace(
            given,
            sources=given.sources[:i] + given.sources[i + 1 :],
            references=given.references[:i] + given.references[i + 1 :],
            candidates=given.candidates[:i] + given.candidates[i + 1 :],
        )
        without.append(metric(rest).value)
    found = metric(given)
    spread = 1.959963984540054 * np.sqrt(8 / 9 * np.sum((np.array(without) - np.mean(without)) ** 2))
    assert (found.low, found.high) == pytest.approx((found.value - spread, found.value + spread))
    assert value_of(found.per_source, found.signature) == pytest.approx(found.value)
    assert found.per_source.std(ddof=1) / 3 == pytest.approx(spread / 1.959963984540054)  # the jackknife's error


def worlds(count: int, n: int, share: float):
    """Pairs of answers to the same n sources by two equal samplers: words of a source's own and words of all, drawn
    anew by each but for a share of them."""
    for seed in range(count):
        rng = np.random.default_rng(seed)
        pair: list[list[tuple[str, ...]]] = [[], []]
        for _ in range(n):
            length, own = rng.integers(3, 9), rng.zipf(1.6, (2, 9))
            own[1] = np.where(rng.random(9) < share, own[0], own[1])
            for side in (0, 1):
                pair[side].append((" ".join(f"w{word % 500}" for word in own[side, :length]),))
        yield tuple(answers(*texts) for texts in pair)


def test_differences_of_a_corpus_figure_are_paired():
    """150 worlds of equal samplers: fewer than 132 intervals of the difference cover zero with probability 0.001, if
    95 % do; and pairing narrows them."""
    metric, covered, widths = Distinct(n=1, over="corpus"), 0, []
    for one, two in worlds(150, 60, 0.6):
        a, b = metric(one), metric(two)
        gap = paired_difference(a, b)
        assert gap.value == pytest.approx(a.value - b.value)
        covered += gap.low <= 0 <= gap.high
        widths.append((gap.high - gap.low) / np.hypot(a.high - a.low, b.high - b.low))
    assert covered >= 132
    assert np.mean(widths) < 0.85


def test_repeated_sources_lower_the_corpus_figure_and_not_the_others():
    once, twice = answers(("a b c", "a d e")), answers(("a b c", "a d e"), ("a b c", "a d e"))
    assert Distinct(n=1, over="corpus")(twice).value == Distinct(n=1, over="corpus")(once).value / 2
    assert Distinct(n=1)(twice).value == Distinct(n=1)(once).value


def test_unique_counts_texts():
    given = answers(("a b", "a  b ", "c"), ("x", "y", "z"))
    assert Unique()(given).value == pytest.approx(100 * (2 / 3 + 1) / 2)
    assert Unique()(answers(("a",))).value == 100


def test_vendi_of_known_kernels():
    assert vendi(np.eye(5)) == pytest.approx(5)
    assert vendi(np.ones((5, 5))) == pytest.approx(1)
    blocks = np.kron(np.eye(2), np.ones((3, 3)))
    assert vendi(blocks) == pytest.approx(2)
    both = vendi(np.stack([np.eye(3), np.ones((3, 3))]))
    np.testing.assert_allclose(both, [3, 1], atol=1e-12)
    angle = 0.6  # two texts of similarity c: eigenvalues (1 ± c) / 2
    p = np.array([0.8, 0.2])
    assert vendi(np.array([[1, angle], [angle, 1]])) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_vendi_ngram_by_hand():
    assert Vendi()(answers(("a b", "a b", "c d"))).value == pytest.approx(
        np.exp(-(2 / 3 * np.log(2 / 3) + np.log(1 / 3) / 3))
    )
    # "a b" and "a c": words share 1 of 2 (cosine 1/2), pairs nothing: similarity 1/4.
    p = np.array([1.25, 0.75]) / 2
    assert Vendi()(answers(("a b", "a c"))).value == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_short_and_empty_texts_have_a_vendi_score():
    assert Vendi()(answers(("", ""))).value == pytest.approx(1)
    assert Vendi()(answers(("", "a"))).value == pytest.approx(2)
    assert Vendi()(answers(("a", "a", "b"))).value == pytest.approx(Vendi()(answers(("", "", "b c"))).value)
    assert Vendi()(answers(("",))).value == pytest.approx(1)


@pytest.mark.parametrize("metric", [Distinct(n=2), Distinct(n=1, over="corpus"), Distinct(n=1, over="sample"), Div()])
def test_empty_texts_have_no_distinct_ngrams(metric):
    assert metric(answers(("", ""), ("", ""))).value == 0


@pytest.mark.parametrize("seed", range(3))
def test_ranges(random_answers, seed):
    given = random_answers(seed)
    for metric in (Distinct(n=1), Distinct(n=3), Div(), Unique()):
        found = metric(given)
        assert 0 <= found.low <= found.value <= found.high <= 100
    score = Vendi()(given)
    assert 1 <= score.low <= score.value <= score.high <= 4


def test_vs_ngram_is_over_one_to_four_words_as_in_the_library():
    """By count vectors in dictionaries; every text has four words, so no order is empty."""
    from collections import Counter

    texts = ("the cat sat down", "the cat sat up today", "a dog ran off", "the cat sat down")

    def cosine(a, b, n):
        one, other = (Counter(zip(*(t.split()[i:] for i in range(n)), strict=False)) for t in (a, b))
        dot = sum(one[g] * other[g] for g in one)
        return dot / np.sqrt(sum(v * v for v in one.values()) * sum(v * v for v in other.values()))

    def kernel(orders):
        return np.array([[np.mean([cosine(a, b, n) for n in orders]) for b in texts] for a in texts])

    given = answers(texts)
    metric = Vendi(orders=4)
    assert metric(given).value == pytest.approx(vendi(kernel((1, 2, 3, 4))))
    assert Vendi()(given).value == pytest.approx(vendi(kernel((1, 2))))
    assert (metric.name, Vendi().name) == ("vendi_ngram_4", "vendi_ngram")
    assert metric.signature(given) == "vendi_ngram_4|kernel:ngram|n:1,2,3,4|tok:13a|q:1|over:source|agg:mean|s:4|v:1"
