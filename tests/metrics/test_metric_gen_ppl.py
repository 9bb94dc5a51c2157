"""The meanings of generative perplexity, each against its own project's arithmetic on a causal model of the library."""

from __future__ import annotations

import dataclasses
import json
import math
import re

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from diffq.config import compose
from diffq.config.files import group_files, read_mapping, search_dirs
from diffq.data.exact_tokenizers import characters
from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.evaluate import evaluate
from diffq.metrics.gen_ppl import PROTOCOLS, GenPpl
from diffq.metrics.judges import judge_name, judge_tokens, load_judge, text_states
from diffq.metrics.mauve import LEAST, Mauve, mauve, texts_digest
from diffq.settings import typed

TOKENIZER = characters(["abcdefgh "])
END = TOKENIZER.end
TEXTS = ("abba", "cab h", "defghabc", "bad")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A GPT-2 of the library with random weights, beside its tokenizer."""
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    config = GPT2Config(vocab_size=TOKENIZER.mask, n_positions=16, n_embd=16, n_layer=2, n_head=2,
                        bos_token_id=END, eos_token_id=END, initializer_range=0.6)  # fmt: skip
    place = tmp_path_factory.mktemp("judges") / "gpt2-large"
    GPT2LMHeadModel(config).save_pretrained(place)
    TOKENIZER.save(place)
    return place


@pytest.fixture(scope="module")
def nll(folder):
    """−log p of every token but the first, by the library."""
    from transformers import GPT2LMHeadModel

    model = GPT2LMHeadModel.from_pretrained(folder).eval()

    def losses(row):
        ids = torch.tensor([row])
        with torch.no_grad():
            logits = model(ids).logits
        return F.cross_entropy(logits[0, :-1], ids[0, 1:], reduction="none").double().numpy()

    return losses


def rows_of(*texts):
    """Texts as tokens; `|` is the end token."""
    return [[END if c == "|" else TOKENIZER.encode_target(c)[0] for c in text] for text in texts]


def answers_of(rows, spans=(), unprompted=True):
    texts = TOKENIZER.decode_batch(rows)
    n = len(rows)
    return Answers(
        sources=("" if unprompted else "a",) * n,
        references=((),) * n,
        candidates=tuple((text,) for text in texts),
        unprompted=unprompted,
        ids=tuple((tuple(row),) for row in rows),
        given_spans=spans,
        vocabulary=TOKENIZER.digest,
    )


def peer(name, folder):
    """The metric that its YAML asks for, under another judge."""
    held = read_mapping(group_files("metric", search_dirs(()))[f"gen_ppl_{name}"])
    del held["kind"]
    return typed(GenPpl, held | {"judge": str(folder)}, "metric")


ENDED = rows_of("abc|deab|cc|h", "|bad|", "hhhabcde")


def test_mdlm_counts_all_words_and_the_first_end_token(folder, nll):
    value = total = 0.0
    for row in ENDED:
        ids = np.array(row)
        first_end = np.cumsum(ids == END) == 1
        weight = (first_end | (ids != END))[1:]
        value, total = value + (nll(row) * weight).sum(), total + weight.sum()
    assert peer("mdlm", folder)(answers_of(ENDED)).value == pytest.approx(math.exp(value / total), rel=1e-5)


def test_sedd_means_perplexities_of_the_samples_own_tokens(folder, nll):
    expected = np.mean([math.exp(nll(row).mean()) for row in ENDED])
    assert peer("sedd", folder)(answers_of(ENDED)).value == pytest.approx(expected, rel=1e-5)


def test_sdtt_means_samples_and_begins_behind_the_prompt(folder, nll):
    expected = math.exp(np.mean([nll(row).mean() for row in ENDED]))
    assert peer("sdtt", folder)(answers_of(ENDED)).value == pytest.approx(expected, rel=1e-5)
    rows = rows_of("abcdefgh", "bbbbaaaa")
    expected = math.exp(np.mean([nll(row)[2:].mean() for row in rows]))  # three tokens were given
    prompted = answers_of(rows, spans=((0, 3),), unprompted=False)
    assert peer("sdtt", folder)(prompted).value == pytest.approx(expected, rel=1e-5)


def test_gidd_reads_text_without_its_end_tokens_from_the_start_token(folder, nll):
    rows = [[END, *(t for t in row if t != END)] for row in ENDED]
    losses = np.concatenate([nll(row) for row in rows])
    assert peer("gidd", folder)(answers_of(ENDED)).value == pytest.approx(math.exp(losses.mean()), rel=1e-5)


def test_a_judge_with_a_soft_cap_as_gidd_has(tmp_path):
    from transformers import Gemma2Config, Gemma2ForCausalLM

    torch.manual_seed(0)
    config = Gemma2Config(vocab_size=TOKENIZER.mask, hidden_size=16, intermediate_size=32, num_hidden_layers=2,
                          num_attention_heads=2, num_key_value_heads=1, head_dim=8, query_pre_attn_scalar=8,
                          final_logit_softcapping=0.5, max_position_embeddings=32, initializer_range=0.6,
                          pad_token_id=None, bos_token_id=END, eos_token_id=END)  # fmt: skip
    place = tmp_path / "gemma-2-9b"
    model = Gemma2ForCausalLM(config).eval()
    model.save_pretrained(place)
    TOKENIZER.save(place)
    row = rows_of("abcdefgh")[0]
    with torch.no_grad():
        logits = model(torch.tensor([[END, *row]])).logits[0, :-1]
    assert logits.abs().max() <= 0.5
    expected = math.exp(F.cross_entropy(logits, torch.tensor(row)))
    found = peer("gidd", place)(answers_of([row]))
    assert found.value == pytest.approx(expected, rel=1e-5)
    assert found.name == "gen_ppl_gidd_by_gemma-2-9b_2x16"


def test_ours_predicts_every_token_and_an_infill_counts_alone(folder, nll):
    rows = rows_of("abcdefgh", "bbbbaaaa")
    losses = [nll([END, *row]) for row in rows]
    ours = GenPpl(judge=str(folder))
    assert ours(answers_of(rows)).value == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)
    infill = answers_of(rows, spans=((0, 2), (6, 8)), unprompted=False)
    assert ours(infill).value == pytest.approx(math.exp(np.mean([x[2:6] for x in losses])), rel=1e-5)
    everything = dataclasses.replace(ours, scored="all")
    assert everything(infill).value == pytest.approx(math.exp(np.mean(losses)), rel=1e-5)


def test_names_never_take_one_figure_for_another(folder):
    by = "_by_gpt2-large_2x16"  # a folder of that name, and not that network
    assert judge_name(str(folder)) == "gpt2-large_2x16"
    named = {name: peer(name, folder).name for name in PROTOCOLS if name}
    assert named == {name: f"gen_ppl_{name}{by}" for name in named}
    assert GenPpl(judge="gpt2-large").name == "gen_ppl"
    assert GenPpl(judge="openai-community/gpt2-large").name == "gen_ppl"
    assert GenPpl(judge="gpt2").name == "gen_ppl_by_gpt2"
    for name, protocol in PROTOCOLS.items():
        assert GenPpl(judge=protocol.judge, **protocol.options).protocol == name
    gidd = dict(PROTOCOLS["gidd"].options)
    assert GenPpl(judge="google/gemma-2-9b", **gidd).name == "gen_ppl_gidd"
    assert GenPpl(judge="gpt2-large", **gidd).name == "gen_ppl_gidd_by_gpt2-large"
    assert GenPpl(judge="gpt2", aggregate="sample", max_tokens=9).name == "gen_ppl_sample_max9_by_gpt2"
    score = GenPpl(judge=str(folder))(answers_of(ENDED))
    assert score.signature.startswith(f"{score.name}|judge:gpt2-large_2x16@{load_judge(str(folder)).digest[:6]}|")
    assert "|dtype:float32|ids:own|end:keep|first:yes|over:answer|max:all|agg:ppl_token|s:3|v:1" in score.signature


def test_empty_samples_have_no_perplexity(folder):
    metric = GenPpl(judge=str(folder), aggregate="sample")
    rows = rows_of("abcd", "", "hh")
    full = metric(answers_of([rows[0], rows[2]]))
    assert metric(answers_of(rows)).value == pytest.approx(full.value), "an empty text is not a likely one"
    with pytest.raises(UserError, match="no sample has a token that counts"):
        metric(answers_of(rows_of("", "")))
    with pytest.raises(UserError, match="no sample has a token that counts"):
        GenPpl(judge=str(folder), after_end="remove")(answers_of(rows_of("||", "|")))


def test_what_no_judge_reads_is_refused(folder, tmp_path):
    metric = GenPpl(judge=str(folder))
    with pytest.raises(UserError, match=f"token {TOKENIZER.mask}, and judge gpt2-large_2x16 knows tokens 0 … "):
        metric(answers_of([[1, TOKENIZER.mask, 2]]))
    with pytest.raises(UserError, match="given tokens cannot be told from others; take scored=all"):
        dataclasses.replace(metric, retokenise=True)(answers_of(ENDED, spans=((0, 1),), unprompted=False))
    for where, said in ((tmp_path / "none", "does not exist"), (tmp_path, "is no model: it has neither config.yaml")):
        assert said in str(GenPpl(judge=str(where)).unavailable())
        with pytest.raises(UserError, match=said):
            evaluate([GenPpl(judge=str(where))], answers_of(ENDED))


def test_a_judge_that_cannot_be_had_is_known_before_anything_is_sampled(monkeypatch):
    from diffq.models import published
    from diffq.runs.score import check_available

    def unreachable(where):
        raise UserError(f"checkpoint={where} could not be fetched")

    monkeypatch.setattr(published, "resolve", unreachable)
    for metric in (GenPpl(judge="nobody/nothing"), Mauve(features="nobody/nothing")):
        with pytest.raises(UserError, match="nobody/nothing could not be fetched"):
            check_available([metric])


def test_entropy_always_stands_beside_it():
    chosen = ["dataset=tinyshakespeare", "metric=gen_ppl", "metric.gen_ppl.judge=gpt2-large"]
    suite = compose(chosen, verb="score").metric
    assert suite.names == ("gen_ppl", "unigram_entropy")
    assert (suite.x, suite.y) == ("unigram_entropy", "gen_ppl")
    suite = compose(["dataset=tinyshakespeare", "metric=gen_ppl_sedd,loops,unigram_entropy"], verb="score").metric
    assert suite.names == ("gen_ppl_sedd", "unigram_entropy", "loops")


def test_texts_states_do_not_depend_on_what_stands_beside_them(folder):
    from transformers import GPT2Model

    judge = load_judge(str(folder))
    rows = [judge_tokens(judge, text) for text in (*TEXTS, "")]
    last, mean = (text_states(judge, rows, over) for over in ("last", "mean"))
    model = GPT2Model.from_pretrained(folder).eval()
    for row, one, all_of_it in zip(rows, last, mean, strict=True):
        with torch.no_grad():
            states = model(torch.tensor([row or [END]])).last_hidden_state[0].double().numpy()
        assert one == pytest.approx(states[-1], abs=1e-5)
        assert all_of_it == pytest.approx(states.mean(0), abs=1e-5)


def test_mauve_on_causal_and_on_given_features(folder, tmp_path):
    generator = np.random.default_rng(0)
    texts = tuple("".join(generator.choice(list("abcdefgh"), size=6)) for _ in range(2 * LEAST))
    ours, real = texts[:LEAST], texts[LEAST:]
    answers = dataclasses.replace(answers_of(rows_of(*ours)), real=real)
    metric = Mauve(features=str(folder), max_tokens=4)
    score = metric(answers)
    judge = load_judge(str(folder))
    p, q = (text_states(judge, [judge_tokens(judge, text)[:4] for text in held], "last") for held in (ours, real))
    values = mauve(p, q)
    assert score.value == pytest.approx(values.mean())
    assert score.high - score.low == pytest.approx(4 * values.std(ddof=1))
    assert score.signature.startswith("mauve_by_gpt2-large_2x16|features:gpt2-large_2x16@")
    given = tmp_path / "mine"
    given.mkdir()
    np.save(given / f"{texts_digest(ours)}.npy", p)
    metric = Mauve(features=str(given))
    with pytest.raises(UserError, match=f"are looked for in .*{texts_digest(real)}.npy"):
        metric(answers)
    np.save(given / f"{texts_digest(real)}.npy", q[:-1])
    with pytest.raises(UserError, match=f"must hold {LEAST} rows of finite numbers"):
        metric(answers)
    np.save(given / f"{texts_digest(real)}.npy", q)
    assert metric(answers).value == pytest.approx(score.value)
    signature = metric(answers).signature
    assert re.match(r"mauve_by_mine\|features:mine\|of:[0-9a-f]{6}\|real:200\|", signature)
    np.save(given / f"{texts_digest(real)}.npy", q + 1)
    assert metric(answers).signature != signature, "other features are another figure"


def test_the_published_sizes_are_read_from_the_configuration(tmp_path):
    place = tmp_path / "gpt2-large"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({"n_layer": 36, "n_embd": 1280}))
    assert judge_name(str(place)) == judge_name(str(place / "model.safetensors")) == "gpt2-large"
    assert Mauve(features=str(place)).name == "mauve"


PAIRS = Answers(
    sources=("abba", "h b"),
    references=(("a",), ("b",)),
    candidates=(("cab", "bad h"), ("", "defg")),
)


def test_answers_beside_a_source_alone_and_behind_it(folder, nll):
    """Samples of pairs are read as text by any judge: the answer alone, and given its source."""
    rows = {text: [END, *TOKENIZER.encode_target(text)] for group in PAIRS.candidates for text in group}
    alone = np.concatenate([nll(row) for row in rows.values() if len(row) > 1])
    text = peer("text", folder)
    assert text(PAIRS).value == pytest.approx(math.exp(alone.mean()), rel=1e-5)
    assert text.name == "gen_ppl_text_by_gpt2-large_2x16"
    behind = []
    for source, group in zip(PAIRS.sources, PAIRS.candidates, strict=True):
        head = [END, *TOKENIZER.encode_target(source + "e")]
        behind += [nll([*head, *TOKENIZER.encode_target(t)])[len(head) - 1 :] for t in group if t]
    given = dataclasses.replace(peer("given", folder), between="e")
    assert given(PAIRS).value == pytest.approx(math.exp(np.concatenate(behind).mean()), rel=1e-5)
    assert sum(map(len, behind)) == sum(map(len, (t for g in PAIRS.candidates for t in g)))
    assert given.name == "gen_ppl_given_by_gpt2-large_2x16"
    assert '|over:answer|given:source|between:"e"|max:all|agg:ppl_token|s:2|v:1' in given.signature(PAIRS)
    assert given(PAIRS).value != pytest.approx(text(PAIRS).value)


def test_blanks_between_are_read_with_the_answer(folder, nll):
    given = dataclasses.replace(peer("given", folder), between=" ")
    losses = []
    for source, group in zip(PAIRS.sources, PAIRS.candidates, strict=True):
        head = [END, *TOKENIZER.encode_target(source)]
        losses += [nll([*head, *TOKENIZER.encode_target(" " + t)])[len(head) - 1 :] for t in group if t]
    assert given(PAIRS).value == pytest.approx(math.exp(np.concatenate(losses).mean()), rel=1e-5)
    cut = dataclasses.replace(given, max_tokens=2)
    assert cut(PAIRS).value == pytest.approx(math.exp(np.concatenate([x[:2] for x in losses]).mean()), rel=1e-5)


def test_a_source_as_context_has_its_conditions(folder):
    with pytest.raises(UserError, match=r"needs gen_ppl\.retokenise=true too"):
        GenPpl(judge=str(folder), context="source")
    metric = dataclasses.replace(peer("given", folder), scored="all")
    with pytest.raises(UserError, match="stands in their own text"):
        metric(dataclasses.replace(answers_of(ENDED, spans=((0, 1),), unprompted=False)))
    with pytest.raises(UserError, match="needs sources with words in them"):
        evaluate([peer("given", folder)], answers_of(ENDED))
    suite = compose(["dataset=grammar", "metric=gen_ppl_given", f"metric.gen_ppl_given.judge={folder}"], verb="score")
    assert suite.metric.names == ("gen_ppl_given", "unigram_entropy")
