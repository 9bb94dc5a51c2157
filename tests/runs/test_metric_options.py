"""What a sweep's metrics were told goes with the sweep: into its scores, its plan, and reports of later days."""

from __future__ import annotations

import pytest

from diffq.config import compose
from diffq.errors import UserError
from diffq.runs.planned import metric_options

DATA = ["dataset=wikitext2", "num_samples=300"]


@pytest.mark.parametrize(
    ("words", "options"),
    [
        (["metric=bleu,distinct_2", "dataset=grammar"], ("metric.x=distinct_2", "metric.y=bleu")),
        (
            ["metric=unigram_entropy,distinct_2_corpus,repetition_4", *DATA, "metric.repetition_4.n=3",
             "metric.distinct_2_corpus.tokenizer=split", "metric.x=distinct_2_corpus"],
            ("metric.x=distinct_2_corpus", "metric.y=repetition_4", "metric.distinct_2_corpus.tokenizer=split",
             "metric.repetition_4.n=3"),
        ),
    ],
)  # fmt: skip
def test_the_words_say_what_differs_from_the_metrics_own_files(words, options):
    config = compose(words)
    assert metric_options(config) == options
    bare = [word for word in words if not word.startswith("metric.")]
    assert compose([*bare, *options]).metric == config.metric


def test_what_an_experiment_says_of_its_metrics_is_among_them(tmp_path):
    (tmp_path / "experiment").mkdir()
    held = "defaults: {dataset: wikitext2, metric: [repetition_4, unigram_entropy], metric.repetition_4.n: 2}\n"
    (tmp_path / "experiment/mine.yaml").write_text(f"help: mine\n{held}grids: [{{sampler: ancestral, steps: 4}}]\n")
    config = compose(["experiment=mine"], verb="sweep", config_dirs=[tmp_path])
    assert "metric.repetition_4.n=2" in metric_options(config, [tmp_path])


def test_a_report_reads_scores_that_this_machine_could_not_compute():
    with pytest.raises(UserError, match="generative perplexity needs gpt2-large or another judge"):
        compose(["metric=gen_ppl,unigram_entropy", *DATA], verb="score")
    suite = compose(["metric=gen_ppl,unigram_entropy", *DATA], verb="report").metric
    assert (suite.names, suite.x, suite.y) == (("gen_ppl", "unigram_entropy"), "unigram_entropy", "gen_ppl")
