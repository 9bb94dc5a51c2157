"""Metrics of running text: generative perplexity under a judge whose probabilities are known, entropy, repetition,
MAUVE."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from diffq.data.exact_tokenizers import characters
from diffq.diffusion.contracts import TiledSession
from diffq.errors import UserError
from diffq.metrics import gen_ppl, judges
from diffq.metrics.base import Answers
from diffq.metrics.evaluate import evaluate, usable
from diffq.metrics.gen_ppl import GenPpl
from diffq.metrics.intervals import paired_difference
from diffq.metrics.mauve import LEAST, Mauve, mauve
from diffq.metrics.nulls import corrupt
from diffq.metrics.repetition import Loops, Repetition, UnigramEntropy

TOKENIZER = characters(["abc "])
A, B, C = (TOKENIZER.encode_target(c)[0] for c in "abc")
END, WORDS = TOKENIZER.end, TOKENIZER.mask


class Bigrams:
    """A causal denoiser: p(next | last) from a table."""

    process, guidable, max_length = "causal", False, 12
    start = end = END
    vocab_size = WORDS

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.log_VV = torch.randn(WORDS, WORDS, generator=generator).log_softmax(-1)

    def open(self, canvas, branches=("cond",)):
        return _Session(self)


class _Session(TiledSession):
    def __init__(self, denoiser):
        self.denoiser, self.words = denoiser, WORDS

    def run(self, tokens_BK, noise_B=None):
        return tokens_BK[..., None].double()

    def scores(self, hidden, positions_N):
        table = self.denoiser.log_VV[hidden.flatten(0, 1)[positions_N].long().squeeze(1)]
        return lambda part, first, last: table[part, first:last]

    def select(self, rows_K):
        raise AssertionError("a judge reads every row once")


JUDGE = judges.Judge("bigrams", "abcdef123456", TOKENIZER, Bigrams(), torch.device("cpu"))


@pytest.fixture(autouse=True)
def judged(monkeypatch):
    monkeypatch.setattr(gen_ppl, "load_judge", lambda where: JUDGE)


def answers_of(*rows, real=("abc",), spans=(), unprompted=True):
    """Every row a sample of an unprompted text, or a source with one sample."""
    texts = TOKENIZER.decode_batch(rows)
    return Answers(
        sources=("",) * len(rows) if unprompted else ("a",) * len(rows),
        references=((),) * len(rows),
        candidates=tuple((text,) for text in texts),
        unprompted=unprompted,
        real=real,
        ids=tuple((tuple(row),) for row in rows),
        given_spans=spans,
        vocabulary=TOKENIZER.digest,
    )


def loss(row, start=True):
    pairs = list(zip([END, *row[:-1]] if start else row[:-1], row if start else row[1:], strict=True))
    return [-float(JUDGE.denoiser.log_VV[a, b]) for a, b in pairs]


ROWS = ([A, B, C, A], [B, B], [C, A, A, A, B, C, END, A])


def test_the_three_aggregates_by_hand():
    answers = answers_of(*ROWS)
    losses = [loss(row) for row in ROWS]
    expected = {
        "token": math.exp(sum(map(sum, losses)) / sum(map(len, losses))),
        "sample": math.exp(np.mean([np.mean(x) for x in losses])),
        "mean_ppl": np.mean([math.exp(np.mean(x)) for x in losses]),
    }
    for how, value in expected.items():
        score = GenPpl(judge="x", aggregate=how)(answers)
        assert score.value == pytest.approx(value, rel=1e-6)
        assert (score.n, len(score.per_source)) == (3, 3)
        assert score.low < score.value < score.high
        assert score.name == {"token": "gen_ppl_by_x"}.get(how, f"gen_ppl_{how}_by_x")
        assert "judge:bigrams@abcdef" in score.signature
        assert "|s:3|" in score.signature, "s is the number of samples"


def test_what_is_counted():
    row = list(ROWS[2])
    answers = answers_of(row, row)
    whole = loss(row)
    assert GenPpl(judge="x", first_token=False)(answers).value == pytest.approx(math.exp(np.mean(whole[1:])), rel=1e-6)
    cut = GenPpl(judge="x", after_end="drop")(answers).value
    assert cut == pytest.approx(math.exp(np.mean(whole[:7])), rel=1e-6), "the end token itself is counted"
    assert GenPpl(judge="x", max_tokens=3)(answers).value == pytest.approx(math.exp(np.mean(whole[:3])), rel=1e-6)
    prompted = answers_of(row, row, spans=((0, 2),), unprompted=False)
    found = GenPpl(judge="x", scored="answer")(prompted).value
    assert found == pytest.approx(math.exp(np.mean(whole[2:])), rel=1e-6)
    found = GenPpl(judge="x", scored="answer", first_token=False)(prompted).value
    assert found == pytest.approx(math.exp(np.mean(whole[2:])), rel=1e-6)


def test_retokenising_reads_the_text_with_its_end_tokens():
    answers = answers_of(*ROWS)
    own, text = (GenPpl(judge="x", retokenise=flag)(answers) for flag in (False, True))
    assert own.value == pytest.approx(text.value), "the judge's tokenizer is the samples' here"
    assert "ids:own" in own.signature
    assert "ids:retokenised" in text.signature
    with pytest.raises(UserError, match="are not those of judge bigrams"):
        GenPpl(judge="x")(dataclasses.replace(answers, vocabulary="another"))


def test_a_text_that_is_too_long_and_a_judge_that_is_none():
    with pytest.raises(UserError, match="at most 12 tokens and a text has 13; give max_tokens=12"):
        GenPpl(judge="x")(answers_of([A] * 13))
    kept, left_out = usable([GenPpl()], answers_of([A]).given(), 1)
    assert not kept
    assert "needs gpt2-large or another judge" in left_out[0]


def test_probabilities_that_are_no_numbers_are_refused(monkeypatch):
    broken = Bigrams()
    broken.log_VV = torch.full((WORDS, WORDS), math.nan)
    other = JUDGE._replace(digest="no number", denoiser=broken)
    monkeypatch.setattr(gen_ppl, "load_judge", lambda where: other)
    with pytest.raises(UserError, match="judge bigrams gives probabilities that are no numbers"):
        GenPpl(judge="x")(answers_of(*ROWS))


def test_what_was_judged_is_not_judged_again(monkeypatch):
    judge, read = JUDGE._replace(digest="counted"), []
    monkeypatch.setattr(gen_ppl, "load_judge", lambda where: judge)
    open_ = judge.denoiser.open
    monkeypatch.setattr(judge.denoiser, "open", lambda canvas: read.append(len(canvas.tokens_BL)) or open_(canvas))
    first = GenPpl(judge="x")(answers_of(*ROWS, ROWS[0]))
    assert sum(read) == 3, "equal texts once"
    again = GenPpl(judge="x", aggregate="mean_ppl")(answers_of(*ROWS, ROWS[0], [A, A]))
    assert sum(read) == 4
    assert (first.n, again.n) == (4, 5)
    assert GenPpl(judge="x", first_token=False)(answers_of(*ROWS)).value > 0
    assert sum(read) == 7, "another context is another loss"


def test_two_points_over_the_same_rows_are_paired():
    one, two = answers_of(*ROWS), answers_of(*(row[::-1] for row in ROWS))
    metric = GenPpl(judge="x")
    difference = paired_difference(metric(one), metric(two))
    assert difference.value == pytest.approx(metric(one).value - metric(two).value)


def test_entropy_repetition_and_loops_by_hand():
    answers = answers_of([A, A, B, B], [A] * 9, [A, B, C, A, B, C, A, B, C], [A, B, C, B, A, C, C, A, B])
    entropy = UnigramEntropy()(answers)
    third = math.log(3)
    assert entropy.value == pytest.approx((math.log(2) + 0 + third + third) / 4)
    repeated = Repetition(n=2)(answers).per_source[:, 0]
    assert repeated.tolist() == pytest.approx([0, 100 * (1 - 1 / 8), 100 * (1 - 3 / 8), 100 * (1 - 7 / 8)])
    assert Loops()(answers).per_source[:, 0].tolist() == [0, 100, 100, 0]
    prompted = answers_of([A, A, A, B], [A, A, A, C], spans=((0, 3),), unprompted=False)
    assert UnigramEntropy()(prompted).value == 0, "what was given is not the sample's"


def test_corrupted_text_is_less_likely_and_keeps_its_prompt():
    rows = [[A, B, C, A, B, C]] * 40
    answers = answers_of(*rows, spans=((0, 2),), unprompted=False)
    changed = corrupt(answers, 1.0)
    assert all(group[0][:2] == (A, B) for group in changed.ids)
    assert {group[0][2:] for group in changed.ids} != {(C, A, B, C)}
    assert corrupt(answers, 0.0).ids == answers.ids


def test_mauve_tells_laws_apart_and_refuses_too_few():
    generator = np.random.default_rng(0)
    p, q, far = (generator.normal(size=(300, 8)) + shift for shift in (0.0, 0.0, 3.0))
    same, apart = mauve(p, q, seeds=(1, 2)), mauve(p, far, seeds=(1, 2))
    assert same.min() > 80
    assert apart.max() < 20
    few = answers_of(*ROWS)
    with pytest.raises(UserError, match=f"of 3 texts is mostly bias; it needs {LEAST}"):
        evaluate([Mauve()], few)
    many = answers_of(*([A, B],) * LEAST)
    with pytest.raises(UserError, match="against 1 real texts"):
        Mauve()(many)
