"""The BLEU family against sacrebleu and NLTK on random texts, and by hand."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import sacrebleu
from nltk.translate.bleu_score import SmoothingFunction, sentence_bleu

from diffq.errors import UserError
from diffq.metrics import ngrams
from diffq.metrics.base import Answers
from diffq.metrics.bleu import Bleu, SourceBleu
from diffq.metrics.ibleu import IBleu
from diffq.metrics.mbr import MbrBleu, choose
from diffq.metrics.self_bleu import SelfBleu
from diffq.metrics.sentence_bleu import SentenceBleu

SEEDS = range(6)


def oracle(hypotheses, references):
    """sacrebleu's corpus_bleu for segments with unequal numbers of references."""
    most = max(len(r) for r in references)
    streams = [[r[i] if i < len(r) else None for r in references] for i in range(most)]
    return sacrebleu.corpus_bleu(hypotheses, streams).score


def segments(answers):
    pairs = zip(answers.candidates, answers.references, strict=True)
    return [(text, list(refs)) for texts, refs in pairs for text in texts]


@pytest.mark.parametrize("seed", SEEDS)
def test_bleu_is_sacrebleu_over_all_samples(random_answers, seed):
    answers = random_answers(seed, longest=3 + 2 * seed)
    texts, refs = zip(*segments(answers), strict=True)
    assert Bleu()(answers).value == pytest.approx(oracle(list(texts), list(refs)), abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_effective_order_is_sacrebleus(random_answers, seed):
    answers = random_answers(seed, n=2, s=1, longest=3)
    texts, refs = zip(*segments(answers), strict=True)
    metric = sacrebleu.BLEU(effective_order=True)
    streams = [[r[i] if i < len(r) else None for r in refs] for i in range(max(map(len, refs)))]
    expected = metric.corpus_score(list(texts), streams).score
    assert Bleu(effective_order=True)(answers).value == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("seed", SEEDS)
def test_source_bleu_and_ibleu(random_answers, seed):
    answers = random_answers(seed)
    texts, refs = zip(*segments(answers), strict=True)
    sources = [source for source, group in zip(answers.sources, answers.candidates, strict=True) for _ in group]
    gain, copied = oracle(list(texts), list(refs)), oracle(list(texts), [[source] for source in sources])
    assert SourceBleu()(answers).value == pytest.approx(copied, abs=1e-9)
    assert IBleu()(answers).value == pytest.approx(0.9 * gain - 0.1 * copied, abs=1e-9)
    assert IBleu(alpha=0.7)(answers).value == pytest.approx(0.7 * gain - 0.3 * copied, abs=1e-9)
    by_sentence = [
        0.8 * sacrebleu.sentence_bleu(text, group).score - 0.2 * sacrebleu.sentence_bleu(text, [source]).score
        for text, group, source in zip(texts, refs, sources, strict=True)
    ]
    found = IBleu(alpha=0.8, level="sentence")(answers)
    assert found.value == pytest.approx(np.mean(by_sentence), abs=1e-9)


def test_a_copy_of_the_source_is_paid_by_bleu_and_charged_by_ibleu():
    source, reference = "how can i become a good geologist ?", "what should i do to become a good geologist ?"
    copied = Answers(sources=(source,), references=((reference,),), candidates=((source,),))
    assert SourceBleu()(copied).value == pytest.approx(100)
    assert Bleu()(copied).value > 30
    assert IBleu(alpha=0.5)(copied).value < 0


@pytest.mark.parametrize("order", [1, 2, 3, 4])
@pytest.mark.parametrize("seed", SEEDS)
def test_sentence_bleu_is_nltks_method4(random_answers, seed, order):
    answers = random_answers(seed, longest=2 + 2 * seed)
    weights = (1 / order,) * order
    expected = [
        sentence_bleu([r.split() for r in refs], text.split(), weights, SmoothingFunction().method4)
        for text, refs in segments(answers)
    ]
    metric = SentenceBleu(order=order)
    assert metric(answers).value == pytest.approx(100 * np.mean(expected), abs=1e-11)
    assert metric.name == ("sentence_bleu" if order == 4 else f"sentence_bleu_{order}")


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("s", [2, 3, 7])
def test_self_bleu_is_sacrebleu_against_all_others(random_answers, seed, s):
    answers = random_answers(seed, s=s, longest=3 + 2 * seed)
    pooled, single = [], []
    for texts in answers.candidates:
        others = [[*texts[:i], *texts[i + 1 :]] for i in range(s)]
        pooled.append(oracle(list(texts), others))
        single.append(np.mean([oracle([text], [refs]) for text, refs in zip(texts, others, strict=True)]))
    np.testing.assert_allclose(SelfBleu()(answers).per_source[:, 0], pooled, rtol=0, atol=1e-9)
    np.testing.assert_allclose(SelfBleu(pool="sample")(answers).per_source[:, 0], single, rtol=0, atol=1e-9)


def test_self_bleu_of_equal_and_of_unrelated_samples():
    def answers(*texts):
        return Answers(sources=("q",), references=(("r",),), candidates=(texts,))

    assert SelfBleu()(answers("a b c d e", "a b c d e")).value == pytest.approx(100)
    assert SelfBleu()(answers("a b c d e", "f g h i j")).value == 0
    assert SelfBleu()(answers("", "")).value == 0
    # sacrebleu's corpus_bleu has no 4-grams here and gives 0 to equal texts; so do we, and docs/metrics.md says it.
    assert (
        SelfBleu()(answers("a b c", "a b c")).value == sacrebleu.corpus_bleu(["a b c"] * 2, [["a b c"] * 2]).score == 0
    )


@pytest.mark.parametrize("seed", SEEDS)
def test_mbr_chooses_by_summed_sentence_bleu(random_answers, seed):
    answers = random_answers(seed, n=8, s=6)
    for n in (2, 5):
        chosen = []
        for texts in answers.candidates:
            total = [sum(sacrebleu.sentence_bleu(a, [b]).score for b in texts[:n]) for a in texts[:n]]
            picked = int(np.flatnonzero(np.array(total) >= max(total) - 1e-7)[0])
            assert choose(texts[:n]) == picked
            chosen.append(texts[picked])
        found = MbrBleu(n=n)(answers)
        assert found.value == pytest.approx(oracle(chosen, [list(r) for r in answers.references]), abs=1e-9)
        assert found.name == f"mbr_bleu_{n}"
        assert f"|mbr:{n}|" in found.signature
        assert f"|s:{n}|" in found.signature


def test_mbr_of_too_few_samples_is_refused(random_answers):
    with pytest.raises(UserError, match="num_samples=10"):
        MbrBleu()(random_answers(0, s=4))


@pytest.mark.parametrize("metric", [Bleu(), SourceBleu(), IBleu(), SentenceBleu()])
def test_empty_and_single_samples_are_defined(random_answers, metric):
    answers = random_answers(0, s=1)
    empty = dataclasses.replace(answers, candidates=tuple(("",) for _ in answers.sources))
    found = metric(empty)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    one = dataclasses.replace(
        answers, sources=answers.sources[:1], references=answers.references[:1], candidates=answers.candidates[:1]
    )
    assert metric(one).low is None
    assert metric(one).high is None
    assert np.isfinite(metric(one).value)


def test_an_empty_reference_is_defined():
    answers = Answers(sources=("q",), references=(("",),), candidates=(("a b c d", ""),))
    assert Bleu()(answers).value == 0
    assert SentenceBleu()(answers).value == 0


def test_tokens_and_counts_by_hand():
    assert ngrams.words("it's 3.5, (so)", "13a") == ["it's", "3.5", ",", "(", "so", ")"]
    assert ngrams.words("it's 3.5, (so)", "split") == ["it's", "3.5,", "(so)"]
    counted = ngrams.grams(["a", "a", "b"], 2)
    assert counted == (3, {("a",): 2, ("b",): 1, ("a", "a"): 1, ("a", "b"): 1})
    assert ngrams.closest(5, [7, 3, 4, 6]) == 4
