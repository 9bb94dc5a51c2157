"""Scoring as a whole: every YAML, golden signatures, refusals, costs, and what is written and read back."""

from __future__ import annotations

import dataclasses
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import yaml

from diffq.data.task import Verdict
from diffq.errors import UserError
from diffq.metrics.base import Answers, Metric
from diffq.metrics.bleu import Bleu
from diffq.metrics.evaluate import (
    Suite,
    available,
    evaluate,
    from_json,
    refusal,
    to_json,
    usable,
)
from diffq.metrics.intervals import paired_difference, scored, value_of
from diffq.metrics.mbr import MbrBleu
from diffq.metrics.rouge import Rouge
from diffq.metrics.self_bleu import SelfBleu
from diffq.metrics.world import Validity
from diffq.registry import METRICS
from diffq.settings import typed
from diffq.store import Point

FILES = sorted((Path(__file__).parents[2] / "conf" / "metric").glob("*.yaml"))
HELD = {path.stem: yaml.safe_load(path.read_text()) for path in FILES}
SINGLE = sorted(name for name, held in HELD.items() if "kind" in held)
SUITES = sorted(set(HELD) - set(SINGLE))
COST = {"nfe_calls": 30, "nfe_rows": 720, "seconds": 2.0, "tokens": 90, "peak_memory_bytes": 3 * 2**20}

GOLDEN = {
    "bleu": "bleu|refs:1|n:4|case:mixed|tok:13a|smooth:exp|eff:no|agg:corpus_bleu|s:3|v:1",
    "source_bleu": "source_bleu|refs:source|n:4|case:mixed|tok:13a|smooth:exp|eff:no|agg:corpus_bleu|s:3|v:1",
    "ibleu": "ibleu|alpha:0.9|refs:1|n:4|case:mixed|tok:13a|smooth:exp|eff:no|agg:corpus_ibleu|s:3|v:1",
    "self_bleu": "self_bleu|refs:others|n:4|case:mixed|tok:13a|smooth:exp|eff:no|pool:source|agg:mean|s:3|v:1",
    "sentence_bleu": "sentence_bleu|refs:1|n:4|tok:split|smooth:nltk-method4|agg:mean|s:3|v:1",
    "sentence_bleu_1": "sentence_bleu_1|refs:1|n:1|tok:split|smooth:nltk-method4|agg:mean|s:3|v:1",
    "rouge_l": "rouge_l|refs:1|stem:no|of:f1|agg:mean|s:3|v:1",
    "minilm": "minilm|model:all-MiniLM-L6-v2|refs:1|agg:mean|s:3|v:1",
    "distinct_2": "distinct_2|n:2|tok:13a|over:source|agg:mean|s:3|v:1",
    "distinct_1_sample": "distinct_1_sample|n:1|tok:13a|over:sample|agg:mean|s:3|v:1",
    "distinct_1_corpus": "distinct_1_corpus|n:1|tok:13a|over:corpus|agg:jackknife|s:3|v:1",
    "div_4": "div_4|n:4|tok:split|over:source|agg:mean|s:3|v:1",
    "unique": "unique|over:source|agg:mean|s:3|v:1",
    "vendi_ngram": "vendi_ngram|kernel:ngram|n:1,2|tok:13a|q:1|over:source|agg:mean|s:3|v:1",
    "vendi_ngram_4": "vendi_ngram_4|kernel:ngram|n:1,2,3,4|tok:13a|q:1|over:source|agg:mean|s:3|v:1",
    "vendi_minilm": "vendi_minilm|kernel:minilm|model:all-MiniLM-L6-v2|q:1|over:source|agg:mean|s:3|v:1",
    "mbr_bleu_3": "mbr_bleu_3|mbr:3|utility:sentence_bleu|refs:1|n:4|case:mixed|tok:13a|smooth:exp|eff:no|"
    "agg:corpus_bleu|s:3|v:1",
    "validity": "validity|agg:mean|s:3|v:1",
    "coverage": "coverage|agg:mean|s:3|v:1",
    "mass": "mass|agg:mean|s:3|v:1",
    "total_variation": "total_variation|agg:mean|s:3|v:1",
    "total_variation_floor": "total_variation_floor|agg:mean|s:3|v:1",
    "kl": "kl|leak:0.01|unit:nat|agg:mean|s:3|v:1",
    "kl_floor": "kl_floor|leak:0.01|unit:nat|agg:mean|s:3|v:1",
    "nfe_calls": "nfe_calls|unit:calls|s:3|v:1",
    "nfe_rows": "nfe_rows|unit:rows/sample|s:3|v:1",
    "seconds": "seconds|unit:s|s:3|v:1",
    "tokens_per_second": "tokens_per_second|unit:tokens/s|s:3|v:1",
    "peak_memory": "peak_memory|unit:MiB|s:3|v:1",
    "unigram_entropy": "unigram_entropy|tok:own|unit:nats|over:sample|agg:mean|s:3|v:1",
    "repetition_4": "repetition_4|n:4|tok:own|over:sample|agg:mean|s:3|v:1",
    "loops": "loops|longest:16|times:3|tok:own|over:sample|agg:mean|s:3|v:1",
    "pass_at_1": "pass_at_1|k:1|grader:math_verify_0.9.0_5s_v2|agg:mean|s:3|v:1",
    "pass_at_n": "pass_at_n|grader:math_verify_0.9.0_5s_v2|agg:mean|s:3|v:1",
    "majority": "majority|grader:math_verify_0.9.0_5s_v2|agg:mean|s:3|v:1",
    "distinct_solutions": "distinct_solutions|grader:math_verify_0.9.0_5s_v2|agg:mean|s:3|v:1",
    "distinct_answers": "distinct_answers|grader:math_verify_0.9.0_5s_v2|agg:mean|s:3|v:1",
    "answer_entropy": "answer_entropy|grader:math_verify_0.9.0_5s_v2|agg:mean|s:3|v:1",
    "unanswered": "unanswered|grader:math_verify_0.9.0_5s_v2|agg:mean|s:3|v:1",
    "cut_off": "cut_off|grader:math_verify_0.9.0_5s_v2|agg:mean|s:3|v:1",
    "keyword_coverage": "keyword_coverage|of:own|case:fold|agg:share|s:3|v:1",
    "keyword_coverage_null": "keyword_coverage_null|of:next|case:fold|agg:share|s:3|v:1",
    "mauve": "mauve_by_minilm|features:all-MiniLM-L6-v2|real:0|scale:5|seeds:5|agg:seeds|s:3|v:1",
}
JUDGED = sorted(name for name in SINGLE if HELD[name]["kind"] == "gen_ppl")  # their signatures name a model
NETWORKS = ("some", "sta", "sim", "fl", "joint", "vendi_emb")  # a user names their networks: test_metric_style.py


def made(name: str) -> Metric:
    held = dict(HELD[name])
    return typed(METRICS[held.pop("kind")], held, "metric")


@pytest.fixture
def answers() -> Answers:
    return Answers(
        sources=("how are you ?", "who is it ?"),
        references=(("how do you do ?",), ("who might that be ?",)),
        candidates=(("how do you do ?", "how are you now ?", "x"), ("who is that ?", "who is that ?", "")),
        truth=({"how do you do ?": 0.5, "how are you now ?": 0.5}, {"who is that ?": 1.0}),
        cost=COST,
        grading=lambda: VERDICTS,
        grader="math_verify_0.9.0_5s_v2",
        keywords=((("do",),) * 3, (("who",),) * 3),
    )


VERDICTS = (
    (Verdict("passed", "1"), Verdict("failed", "2"), Verdict("timed out")),
    (Verdict("failed", "3"), Verdict("failed", ""), Verdict("passed", "4")),
)


@pytest.mark.parametrize("name", [name for name in SINGLE if name not in JUDGED])
def test_every_yaml_makes_the_metric_of_its_name(answers, name):
    metric = made(name)
    assert metric.name == ("mauve_by_minilm" if name == "mauve" else name)
    assert metric.axis in ("quality", "diversity", "cost")
    assert metric.signature(answers).split("|")[0] == metric.name
    assert METRICS[metric.kind].__doc__


@pytest.mark.parametrize("name", sorted(GOLDEN))
def test_signatures_are_stable(answers, name):
    assert made(name).signature(answers) == GOLDEN[name]


def test_every_registered_metric_has_a_yaml_and_every_yaml_a_known_signature():
    ours = {kind for kind in METRICS.names() if METRICS[kind].__module__.startswith("diffq.")}
    assert ours == {HELD[name]["kind"] for name in SINGLE}
    others = {"bertscore", "mbr_bleu_10", *JUDGED, *NETWORKS} | {
        n for n in SINGLE if n[-1].isdigit() or n.endswith("_corpus")
    }
    assert set(SINGLE) <= set(GOLDEN) | others


@pytest.mark.parametrize("name", SUITES)
def test_every_suite_names_metrics_that_exist_and_two_axes(name):
    suite = typed(Suite, HELD[name], "metric")
    assert set(suite.metrics) <= set(SINGLE)
    assert len(set(suite.metrics)) == len(suite.metrics)
    if name != "cost":
        assert made(suite.x).axis == "diversity"
        assert made(suite.y).axis == "quality"


def test_default_suites_need_little():
    """sacrebleu and numpy alone, but for ROUGE-L in `paraphrase`, which is left out visibly where it is not there."""
    allowed = {"sacrebleu"}
    for name in ("text", "world", "paraphrase"):
        for metric in map(made, HELD[name]["metrics"]):
            assert set(metric.packages()) <= allowed | ({"rouge_score"} if metric.name == "rouge_l" else set())


@pytest.mark.parametrize("name", ["text", "world", "paraphrase", "cost"])
def test_default_suites_score(answers, name):
    scores = evaluate([made(metric) for metric in HELD[name]["metrics"]], answers)
    assert [score.name for score in scores] == HELD[name]["metrics"]
    for score in scores:
        assert np.isfinite(score.value)
        assert score.n == 2
        if score.per_source is not None:
            assert score.low <= score.high
            assert score.per_source.shape[0] == 2
            assert value_of(score.per_source, score.signature) == score.value


def test_a_suite_checks_its_axes():
    with pytest.raises(UserError, match="y=bleu is not among"):
        Suite(metrics=("unique",), x="unique", y="bleu")


@pytest.mark.parametrize("empty_all", [True, False])
@pytest.mark.parametrize("s", [1, 3])
def test_empty_texts_and_single_samples_are_defined(answers, empty_all, s):
    texts = tuple(tuple("" if empty_all else t for t in group[:s]) for group in answers.candidates)
    given = dataclasses.replace(answers, candidates=texts)
    ids = tuple(tuple(tuple(range(len(text))) for text in group) for group in texts)
    given = dataclasses.replace(given, ids=ids, grading=lambda: tuple(group[:s] for group in VERDICTS))
    given = dataclasses.replace(given, keywords=tuple(group[:s] for group in answers.keywords))
    left_out = ("bertscore", "minilm", "vendi_minilm", "mauve", *JUDGED, *NETWORKS)
    names = [n for n in SINGLE if n not in left_out and not n.startswith("mbr")]
    metrics = [metric for metric in map(made, names) if s >= metric.least_samples()]
    assert len(metrics) >= 25
    assert all(np.isfinite(score.value) for score in evaluate(metrics, given))


def test_costs_are_in_their_units(answers):
    values = {s.name: s.value for s in evaluate([made(n) for n in HELD["cost"]["metrics"]], answers)}
    assert values == {"nfe_calls": 30, "nfe_rows": 120, "seconds": 2, "tokens_per_second": 45, "peak_memory": 3}


def test_a_missing_cost_is_refused(answers):
    with pytest.raises(UserError, match="'peak_memory_bytes', and the point has: seconds"):
        evaluate([made("peak_memory")], dataclasses.replace(answers, cost={"seconds": 1.0}))
    with pytest.raises(UserError, match="more than 0"):
        evaluate([made("tokens_per_second")], dataclasses.replace(answers, cost=COST | {"seconds": 0.0}))


def test_refusals_are_one_sentence_and_come_first(answers):
    class Forbidden(Bleu):
        def __call__(self, answers):
            raise AssertionError("computed before the refusal")

    one = dataclasses.replace(answers, candidates=tuple(texts[:1] for texts in answers.candidates), truth=None, cost={})
    for metric, why in (
        (SelfBleu(), "at least 2 samples a source, not 1"),
        (MbrBleu(n=10), "at least 10 samples a source, not 1"),
        (Validity(), "a world that knows its right answers"),
        (made("seconds"), "the cost of sampling"),
        (made("bertscore"), "needs an encoder"),
    ):
        with pytest.raises(UserError, match=why):
            evaluate([Forbidden(order=3), metric], one)
    assert refusal(SelfBleu(), {"references"}, 2) is None
    assert refusal(made("source_bleu"), {"references"}, 3) == (
        "source_bleu needs sources with words in them; choose another metric"
    )


def test_a_missing_package_is_named_and_left_out_visibly(monkeypatch, answers):
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *rest: None if name == "rouge_score" else real(name, *rest)
    )
    reason = "rouge_l needs the package rouge-score, which is not installed: pip install rouge-score"
    assert available(Rouge()) == reason
    assert available(Bleu()) is None
    kept, lines = usable([Bleu(), Rouge(), MbrBleu()], answers.given(), answers.samples)
    assert [metric.name for metric in kept] == ["bleu"]
    assert lines == [
        f"left out rouge_l: {reason}",
        "left out mbr_bleu_10: mbr_bleu_10 needs at least 10 samples a source, not 3; raise num_samples",
    ]
    with pytest.raises(UserError, match="rouge-score"):
        evaluate([Bleu(), Rouge()], answers)


def test_answers_that_do_not_belong_together_are_refused(answers):
    with pytest.raises(UserError, match="nothing to score"):
        evaluate([Bleu()], Answers(sources=(), references=(), candidates=()))
    with pytest.raises(UserError, match="source 1 has 2 samples and source 0 has 3"):
        evaluate([Bleu()], dataclasses.replace(answers, candidates=(answers.candidates[0], answers.candidates[1][:2])))
    with pytest.raises(UserError, match="references of 1 sources"):
        evaluate([Bleu()], dataclasses.replace(answers, references=answers.references[:1]))
    with pytest.raises(UserError, match="a reference for every source"):
        evaluate([Bleu()], dataclasses.replace(answers, references=(("a",), ())))
    with pytest.raises(UserError, match="twice"):
        evaluate([Bleu(), Bleu()], answers)


def test_scores_come_back_from_their_files(answers, tmp_path):
    scores = evaluate([Bleu(), SelfBleu(), made("ibleu"), made("distinct_1_corpus")], answers)
    point = Point(tmp_path)
    point.write_metrics(to_json(scores), {s.signature: s.per_source for s in scores if s.per_source is not None})
    held = point.metrics()
    assert list(held[scores[0].signature]) == ["name", "value", "low", "high", "n", "direction"]
    back = from_json(held, point.per_source())
    for before, after in zip(scores, back, strict=True):
        assert dataclasses.replace(before, per_source=None) == dataclasses.replace(after, per_source=None)
        if before.per_source is not None:
            np.testing.assert_array_equal(before.per_source, after.per_source)
            assert paired_difference(before, after).value == 0
    assert all(score.per_source is None for score in from_json(held))


def test_the_page_on_metrics_shows_every_metric_and_the_true_signatures():
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    for signature in GOLDEN.values():
        assert f"    {signature}\n" in page
    for name in (*SUITES, *METRICS.names()):
        assert name in page


def test_the_page_s_own_metric_works(answers):
    page = (Path(__file__).parents[2] / "docs" / "metrics.md").read_text()
    code = page.split("```python\n")[1].split("```")[0].replace('@METRICS.register("words")\n', "")
    scope = {"dataclass": dataclasses.dataclass, "Metric": Metric, "Answers": Answers, "np": np, "scored": scored}
    exec("from diffq.metrics.base import Score\n" + code, scope)
    found = scope["Words"]()(answers)
    assert found.value == pytest.approx(((5 + 5 + 1) / 3 + (4 + 4 + 0) / 3) / 2)
