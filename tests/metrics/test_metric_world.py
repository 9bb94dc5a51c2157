"""Exact figures of worlds, by enumeration of all samples on tiny truths."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.distribution import Kl, KlFloor, TotalVariation, TotalVariationFloor, binomial
from diffq.metrics.world import Coverage, Mass, Validity

TRUTHS = [
    {"a": 0.5, "b": 0.3, "c": 0.2},
    {"a": 1.0},
    {"a": 0.9, "b": 0.1},
    dict.fromkeys("abcdefg", 1 / 7),
]


def world(truth, *texts, source="q"):
    return Answers(sources=(source,), references=(("a",),), candidates=(texts,), truth=(truth,))


def test_by_hand():
    given = world({"a": 0.5, "b": 0.3, "c": 0.2}, "a", " b ", "a", "wrong")
    assert Validity()(given).value == pytest.approx(75)
    assert Coverage()(given).value == pytest.approx(100 * 2 / 3)
    assert Mass()(given).value == pytest.approx(80)
    assert TotalVariation()(given).value == pytest.approx(50 * (0 + 0.05 + 0.2 + 0.25))
    kl = 0.5 * math.log(0.5 / (0.99 * 0.5)) + 0.25 * math.log(0.25 / (0.99 * 0.3)) + 0.25 * math.log(0.25 / 0.01)
    assert Kl()(given).value == pytest.approx(kl)


def test_coverage_is_over_what_could_be_found():
    assert Coverage()(world(TRUTHS[3], "a", "b")).value == 100
    assert Coverage()(world(TRUTHS[3], "a", "a")).value == 50
    assert Coverage()(world({"a": 1.0}, "a", "a", "wrong")).value == 100


def test_a_copy_of_the_source_is_right_only_where_the_truth_says_so():
    assert Validity()(world({"a": 1.0}, "the source", source="the source")).value == 0
    assert Validity()(world({"the source": 1.0}, "the source", source="the source")).value == 100


@pytest.mark.parametrize("metric", [Validity(), Coverage(), Mass()])
def test_wrong_and_empty_samples_score_nothing(metric):
    assert metric(world(TRUTHS[0], "wrong", "")).value == 0


def test_wrong_samples_are_as_far_as_can_be():
    assert TotalVariation()(world(TRUTHS[0], "wrong", "")).value == pytest.approx(100)
    assert Kl()(world(TRUTHS[0], "wrong", "")).value == pytest.approx(-math.log(0.01))
    assert Kl(leak=0.1)(world(TRUTHS[0], "wrong", "other")).value == pytest.approx(-math.log(0.1))


@pytest.mark.parametrize("metric", [TotalVariation(), Kl()])
@pytest.mark.parametrize("texts", [("a", "a", "b", "wrong"), ("c", "worse", "wrong", ""), ("a", "b", "b", "c")])
def test_against_the_definition_over_all_texts(metric, texts):
    truth = TRUTHS[0]
    share = {x: texts.count(x) / len(texts) for x in set(texts)}
    if isinstance(metric, TotalVariation):
        expected = 50 * sum(abs(share.get(x, 0) - truth.get(x, 0)) for x in set(share) | set(truth))
    else:
        believed = {x: 0.99 * p for x, p in truth.items()} | {"<wrong>": 0.01}
        lumped: dict[str, float] = {}
        for x, f in share.items():
            key = x if x in truth else "<wrong>"
            lumped[key] = lumped.get(key, 0) + f
        expected = sum(f * math.log(f / believed[x]) for x, f in lumped.items())
    assert metric(world(truth, *texts)).value == pytest.approx(expected)


@pytest.mark.parametrize(("metric", "floor"), [(TotalVariation(), TotalVariationFloor()), (Kl(), KlFloor())])
@pytest.mark.parametrize("truth", TRUTHS)
@pytest.mark.parametrize("s", [1, 2, 4])
def test_floors_are_the_expectation_over_exact_draws(metric, floor, truth, s):
    expected = 0.0
    for texts in itertools.product(truth, repeat=s):
        expected += math.prod(truth[x] for x in texts) * metric(world(truth, *texts)).value
    assert floor(world(truth, *["wrong"] * s)).value == pytest.approx(expected, abs=1e-9)


def test_binomial_is_a_distribution():
    p = np.array([1e-9, 0.2, 0.5, 1.0])
    law = binomial(6, p)
    np.testing.assert_allclose(law.sum(axis=0), 1, atol=1e-12)
    np.testing.assert_allclose((np.arange(7)[:, None] * law).sum(axis=0), 6 * p, atol=1e-12)
    assert law[6, 1] == pytest.approx(0.2**6)


def test_a_sampler_closer_to_the_truth_scores_better():
    truth = {"a": 0.5, "b": 0.5}
    even, odd = world(truth, "a", "b", "a", "b"), world(truth, "a", "a", "a", "a")
    assert TotalVariation()(even).value == 0 < TotalVariation()(odd).value
    assert Kl()(even).value == pytest.approx(-math.log(0.99))
    assert Kl()(even).value < Kl()(odd).value


def test_impossible_answers_are_wrong_ones():
    assert Validity()(world({"a": 1.0, "b": 0.0}, "b")).value == 0


def test_what_is_no_truth_is_refused():
    with pytest.raises(UserError, match="no right answer"):
        Validity()(world({}, "a"))
    with pytest.raises(UserError, match=r"sum to 0\.5"):
        Kl()(world({"a": 0.5}, "a"))
    with pytest.raises(UserError, match="does not know"):
        Validity()(Answers(sources=("q",), references=(("a",),), candidates=(("a",),)))
