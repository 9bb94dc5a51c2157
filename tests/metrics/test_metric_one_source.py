"""Set-valued figures of texts without a prompt: all samples are of one source. Against loops that leave one out."""

from __future__ import annotations

import dataclasses
import random
from collections import Counter

import numpy as np
import pytest

from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.counts import cosines, gram_counts
from diffq.metrics.distinct import Distinct, Unique
from diffq.metrics.evaluate import evaluate
from diffq.metrics.intervals import jackknife, paired_difference, value_of
from diffq.metrics.self_bleu import SelfBleu
from diffq.metrics.vendi import Vendi, vendi, vendi_influence

WORDS = ["the", "cat", "dog", "sat", "on", "a", "mat", "why", "so", "it's", "3.14"]


def unprompted(texts):
    n = len(texts)
    return Answers(
        sources=("",) * n, references=((),) * n, candidates=tuple((text,) for text in texts), unprompted=True
    )


def one_source(texts):
    return Answers(sources=("q",), references=((),), candidates=(tuple(texts),))


def made_up(seed, most=9):
    rng = random.Random(seed)
    texts = [" ".join(rng.choice(WORDS) for _ in range(rng.randint(0, 12))) for _ in range(rng.randint(3, most))]
    if seed % 3 == 0:
        texts[1] = texts[0]
    return texts


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("metric", [SelfBleu(), SelfBleu(order=2), Distinct(n=2, over="corpus"), Unique()])
def test_they_are_the_figure_of_one_source_and_leave_one_text_out(metric, seed):
    texts = made_up(seed)
    found = metric(unprompted(texts))
    assert found.value == pytest.approx(metric(one_source(texts)).value)
    without = np.array([metric(unprompted(texts[:i] + texts[i + 1 :])).value for i in range(len(texts))])
    assert (found.low, found.high) == pytest.approx(jackknife(found.value, without))
    assert value_of(found.per_source, found.signature) == pytest.approx(found.value)
    assert f"agg:jackknife|s:{len(texts)}|" in found.signature


@pytest.mark.parametrize("seed", range(6))
def test_vendi_of_one_source_and_its_influences(seed):
    texts = made_up(seed)
    found = Vendi()(unprompted(texts))
    assert found.value == pytest.approx(Vendi()(one_source(texts)).value)
    assert found.per_source.mean() == pytest.approx(found.value)
    kernel = np.cov(np.random.default_rng(seed).normal(size=(200, 400)))
    kernel = kernel / np.sqrt(np.outer(kernel.diagonal(), kernel.diagonal()))
    value, influence = vendi_influence(kernel)
    assert value == pytest.approx(vendi(kernel))
    moved = []
    for step in (1e-6, -1e-6):  # a little more and a little less of one text's weight
        weight = np.full(200, (1 - step) / 200)
        weight[7] += step
        moved.append(vendi(200 * kernel * np.sqrt(np.outer(weight, weight))))
    assert (moved[0] - moved[1]) / 2e-6 == pytest.approx(influence[7], rel=1e-4)


def test_counts_by_hand_and_with_empty_texts():
    texts = [["a", "b", "a"], [], ["b"], ["b", "a", "b", "a"]]
    one, two = gram_counts(texts, 2)
    assert (one.kinds, two.kinds) == (2, 2)
    assert one.sizes.tolist() == [3, 0, 1, 4]
    assert two.sizes.tolist() == [2, 0, 0, 3]
    assert sorted(one.held_by_G.tolist()) == [2, 3]
    assert two.alone.tolist() == [0, 0, 0, 0]
    vectors = np.array([[2, 1], [0, 0], [0, 1], [2, 2]], dtype=float)
    lengths = np.linalg.norm(vectors, axis=1)
    expected = vectors @ vectors.T / np.maximum(np.outer(lengths, lengths), 1e-30)
    np.fill_diagonal(expected, 1)
    assert cosines(one, width=1) == pytest.approx(expected)


@pytest.mark.parametrize("seed", range(6))
def test_counts_are_those_of_dictionaries(seed):
    texts = [text.split() for text in made_up(seed)]
    for n, counts in enumerate(gram_counts(texts, 4), start=1):
        held = [Counter(tuple(text[i : i + n]) for i in range(len(text) - n + 1)) for text in texts]
        assert counts.kinds == len(set().union(*held))
        for i, expected in enumerate(held):
            assert sorted(counts.count_M[counts.text_M == i].tolist()) == sorted(expected.values())
        alone = [sum(all(g not in other for other in held if other is not own) for g in own) for own in held]
        assert counts.alone.tolist() == alone


def test_differences_of_two_points_are_paired():
    texts = made_up(1, most=30)
    longer = [f"{text} the cat sat" for text in texts]
    for metric in (SelfBleu(), Vendi(), Unique(), Distinct(n=1, over="corpus")):
        a, b = metric(unprompted(longer)), metric(unprompted(texts))
        assert paired_difference(a, b).value == pytest.approx(a.value - b.value)


def test_what_is_refused():
    with pytest.raises(UserError, match="pool=sample of self_bleu is for several samples a source"):
        SelfBleu(pool="sample")(unprompted(["a b", "a c"]))
    with pytest.raises(UserError, match="at least 2 samples a source"):
        evaluate([SelfBleu()], unprompted(["a b"]))
    with pytest.raises(UserError, match="tokens of samples do not belong to these texts"):
        evaluate([Unique()], dataclasses.replace(unprompted(["a b", "c"]), ids=(((1,), (2,)), ((3,),))))
