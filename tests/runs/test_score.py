"""Saved samples are scored without a network, in the spelling of the model's tokenizer, and never twice."""

from __future__ import annotations

import json
import shutil

import pytest
from made_up_store import SAMPLES, SOURCES, make_store

from diffq.config import Request
from diffq.errors import Undefined, UserError
from diffq.metrics.bleu import Bleu
from diffq.metrics.evaluate import evaluate
from diffq.runs import score
from diffq.runs.judging import Judges
from diffq.runs.selection import select
from diffq.store import Store
from diffq.store.files import write_json


@pytest.fixture
def store(tmp_path):
    return make_store(tmp_path)[0]


def request(store: Store, *words: str, runs=(), json: bool = True) -> Request:
    return Request(verb="score", overrides=(f"outputs={store.outputs}", *words), runs=tuple(runs), json=json)


def test_a_sweep_is_scored_with_its_suite(store, capsys):
    assert score.run(request(store)) == 0
    rows = json.loads(capsys.readouterr().out)
    assert len(rows) == 6
    for row in rows:
        held = json.loads((store.outputs / row["folder"] / "metrics.json").read_text())
        assert held == row["metrics"]
        assert {"validity", "self_bleu", "total_variation"} <= {m["name"] for m in held.values()}
        assert all(m["n"] == SOURCES for m in held.values())
        assert all(f"|s:{SAMPLES}|" in signature for signature in held)
    assert (store.outputs / rows[0]["folder"] / "per_source.npz").exists()


def test_scores_merge_and_are_not_computed_twice(store, monkeypatch):
    selection = select(store, [])
    judges = Judges(store)
    config = score.config_for(request(store, "metric=bleu,self_bleu"), selection, judges)
    first = score.score_points(selection, config.metric.metrics, judges)
    assert [s.new for s in first] == [2] * 6
    calls = []
    monkeypatch.setattr(score, "evaluate", lambda metrics, *more: calls.append(metrics) or evaluate(metrics, *more))
    more = score.config_for(request(store, "metric=bleu,distinct_2"), selection, judges)
    again = score.score_points(selection, more.metric.metrics, judges)
    assert [s.new for s in again] == [1] * 6
    assert all(len(metrics) == 1 for metrics in calls)
    held = again[0].point.metrics()
    assert {m["name"] for m in held.values()} == {"bleu", "self_bleu", "distinct_2"}
    assert set(again[0].point.per_source()) == set(held)
    assert held | first[0].scores == held


def test_statistics_that_were_not_kept_are_added(store):
    """Points of an older version have set-valued figures without them."""
    selection, judges = select(store, []), Judges(store)
    metrics = score.config_for(request(store, "metric=bleu,distinct_2_corpus"), selection, judges)
    first = score.score_points(selection, metrics.metric.metrics, judges)[0]
    (corpus,) = [s for s in first.scores if "agg:jackknife" in s]
    rows = first.point.per_source()
    first.point.scores.write_statistics({s: array for s, array in rows.items() if s != corpus})
    again = score.score_points(selection, metrics.metric.metrics, judges)
    assert [s.new for s in again] == [1, 0, 0, 0, 0, 0]
    assert again[0].scores == first.scores
    assert (again[0].point.per_source()[corpus] == rows[corpus]).all()


def test_references_of_pairs_are_the_real_texts_and_few_of_them_are_no_law(store):
    selection, judges = select(store, []), Judges(store)
    answers = judges.answers(next(iter(selection.points)))
    assert answers.real == tuple(text for group in answers.references for text in group) != ()
    with pytest.raises(UserError, match=f"texts beside {SOURCES} real ones is mostly bias; it needs 200 of each"):
        score.config_for(request(store, "metric=mauve"), selection, judges)
    suite = score.config_for(request(store, "metric=continuation"), selection, judges).metric
    assert "mauve" not in suite.names
    assert any("'mauve'" in reason and "raise num_sources" in reason for reason in suite.left_out)


def test_predictions_and_references_are_spelled_alike(store):
    """A point whose samples are its references decodes to BLEU 100 and validity 100."""
    selection = select(store, [])
    judges = Judges(store)
    point = selection.points[0]
    answers = judges.answers(point)
    rows = [json.loads(line) for line in point.samples_file.read_text().splitlines()]
    for row in rows:
        row["text"] = answers.references[sorted({r["source"] for r in rows}).index(row["source"])][0]
    point.samples_file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = score.config_for(request(store, "metric=bleu,validity"), selection, judges)
    values = {m["name"]: m["value"] for m in score._score(point, config.metric.metrics, judges, 0).scores.values()}
    assert values == {"bleu": pytest.approx(100), "validity": pytest.approx(100)}
    assert sum(answers.truth[0].values()) == pytest.approx(1)


def test_fewer_samples_have_signatures_of_their_own(store):
    point = select(store, []).points[0]
    judges = Judges(store)
    answers = judges.answers(point, 2)
    assert (answers.samples, len(answers.sources), dict(answers.cost)) == (2, SOURCES, {})
    assert judges.answers(point).cost["nfe_calls"] == 30


def test_what_cannot_be_scored_is_refused(store):
    with pytest.raises(UserError, match="did you mean 'bleu'"):
        score.run(request(store, "metric=blue"))
    with pytest.raises(UserError, match="no run"):
        select(store, [store.outputs / "nothing"])
    with pytest.raises(UserError, match="no sweep"):
        select(Store(store.outputs / "empty"), [])
    point = select(store, []).points[0]
    run = json.loads((point.folder / "run.json").read_text())
    write_json(point.folder / "run.json", run | {"sources_digest": "0" * 64})
    with pytest.raises(UserError, match="other sources or references than when it was sampled"):
        Judges(store).answers(point)
    write_json(point.folder / "run.json", run)
    lines = point.samples_file.read_bytes().splitlines(keepends=True)
    point.samples_file.write_bytes(b"".join(lines[:-1]))
    with pytest.raises(UserError, match="59 of the 60 rows"):
        Judges(store).answers(point)
    point.samples_file.write_bytes(b"".join(lines))
    shutil.rmtree(store.train)
    with pytest.raises(UserError, match="is gone"):
        Judges(store).answers(point, 2)


def test_a_point_that_fails_keeps_no_other_from_being_scored(store, capsys):
    whole = select(store, [])
    (whole.points[2].folder / "metrics.json").write_text("{")
    assert score.run(request(store, "metric=bleu")) == 1
    said = capsys.readouterr()
    assert len(json.loads(said.out)) == 5
    assert f"{whole.points[2].folder}/metrics.json is not JSON" in said.err
    with pytest.raises(UserError, match="is not JSON"):
        score.run(request(store, "metric=bleu", runs=[whole.points[2].folder]))


def test_a_metric_without_a_value_is_told_and_left_out(store, capsys, monkeypatch):
    def no_value(self, answers):
        raise Undefined("bleu: no sample has a token that counts")

    monkeypatch.setattr(Bleu, "__call__", no_value)
    assert score.run(request(store, "metric=bleu,self_bleu")) == 0
    said = capsys.readouterr()
    assert all([m["name"] for m in row["metrics"].values()] == ["self_bleu"] for row in json.loads(said.out))
    assert said.err.count("bleu: no sample has a token that counts") == 6


def test_runs_are_named_in_many_ways(store):
    sweep = store.newest_sweep()
    whole = select(store, [sweep])
    assert len(whole.points) == 6
    assert (whole.folder, whole.metric) == (sweep, "world")
    assert select(store, [whole.points[0].folder]).folder is None
    assert len(select(store, [store.points / "grammar"]).points) == 6
    assert len(select(Store("elsewhere"), [sweep]).points) == 6  # a plan's folders lie beside it
    (whole.points[0].folder / "run.json").unlink()
    done, left_out = whole.finished()
    assert (len(done.chosen), left_out) == (5, 1)


def test_the_table(store, capsys):
    assert score.run(request(store, "metric=bleu", json=False)) == 0
    out = capsys.readouterr().out
    assert "grammar/gaussian_tiny/clamp_before_cfg/scale3-" in out
    assert "bleu" in out


def test_answers_to_sources_have_a_perplexity_alone_and_given_their_source(store, tmp_path):
    """Pairs have tokens of their own, so that the companion of perplexities is computed; the judge reads text."""
    import string

    import torch
    from transformers import GPT2Config, GPT2LMHeadModel

    from diffq.data.exact_tokenizers import characters

    tokenizer = characters([string.ascii_lowercase + string.digits + " ?'.,-\n"])
    size = {"n_positions": 400, "n_embd": 8, "n_layer": 1, "n_head": 1}
    ends = {"bos_token_id": tokenizer.end, "eos_token_id": tokenizer.end}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        GPT2LMHeadModel(GPT2Config(vocab_size=tokenizer.mask, **size, **ends)).save_pretrained(tmp_path / "judge")
    tokenizer.save(tmp_path / "judge")
    judged = [f"metric.{name}.judge={tmp_path / 'judge'}" for name in ("gen_ppl_text", "gen_ppl_given")]
    selection, judges = select(store, []), Judges(store)
    config = score.config_for(request(store, "metric=gen_ppl_text,gen_ppl_given", *judged), selection, judges)
    values = {
        m["name"]: m["value"]
        for m in score._score(selection.points[0], config.metric.metrics, judges, 0).scores.values()
    }
    assert set(values) == {"gen_ppl_text_by_judge", "gen_ppl_given_by_judge", "unigram_entropy"}
    assert 1 < values["gen_ppl_text_by_judge"] != values["gen_ppl_given_by_judge"] > 1
    config = score.config_for(
        request(store, "metric=gen_ppl", f"metric.gen_ppl.judge={tmp_path / 'judge'}"), selection, judges
    )
    with pytest.raises(UserError, match=r"metric\.gen_ppl\.retokenise=true has it read their text"):
        score._score(selection.points[0], config.metric.metrics, judges, 0)
