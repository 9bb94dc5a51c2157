"""Metrics of meaning: MiniLM against sentence-transformers, BERTScore against loops over a random tiny encoder."""

from __future__ import annotations

import dataclasses
import shutil

import numpy as np
import pytest

from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.bertscore import BertScore
from diffq.metrics.encoders import minilm_folder, sentence_vectors, token_states
from diffq.metrics.minilm import MiniLm
from diffq.metrics.vendi import Vendi, vendi

TEXTS = ["how can i be a good geologist ?", "what makes a great geologist", "why ?", "", "is it raining in the north ?"]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random BERT of two layers over MiniLM's vocabulary."""
    import torch
    from transformers import BertConfig, BertModel

    where = tmp_path_factory.mktemp("encoders") / "tiny-bert"
    size = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(BertConfig(**size)).save_pretrained(where)
    for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
        shutil.copy(f"{minilm_folder()}/{name}", where / name)
    return str(where)


def test_minilm_vectors_are_those_of_sentence_transformers():
    from sentence_transformers import SentenceTransformer

    reference = SentenceTransformer(minilm_folder(), device="cpu").encode(TEXTS, normalize_embeddings=True)
    np.testing.assert_allclose(sentence_vectors(minilm_folder(), TEXTS), reference, atol=1e-5)


def test_minilm_and_its_vendi_score():
    answers = Answers(
        sources=("q", "q"),
        references=((TEXTS[0], TEXTS[4]), (TEXTS[1],)),
        candidates=((TEXTS[0], TEXTS[1]), (TEXTS[2], "")),
    )
    vectors = sentence_vectors(minilm_folder(), TEXTS)
    cosine = vectors @ vectors.T
    found = MiniLm()(answers)
    expected = [(1 + max(cosine[1, 0], cosine[1, 4])) / 2, cosine[2, 1] / 2]
    np.testing.assert_allclose(found.per_source[:, 0], 100 * np.array(expected), atol=1e-6)
    spread = [vendi(cosine[np.ix_(pair, pair)]) for pair in ([0, 1], [2, 3])]
    np.testing.assert_allclose(Vendi(kernel="minilm")(answers).per_source[:, 0], spread, atol=1e-6)


@pytest.mark.parametrize("layer", [None, 0, 1, 2])
def test_bertscore_is_greedy_matching(folder, layer):
    import torch
    from transformers import AutoModel, AutoTokenizer

    tokenizer, network = AutoTokenizer.from_pretrained(folder), AutoModel.from_pretrained(folder).eval()

    def states(text):
        with torch.no_grad():
            held = network(**tokenizer(text, return_tensors="pt"), output_hidden_states=True).hidden_states
        return held[2 if layer is None else layer][0].numpy()

    def cosine(u, v):
        return float(u @ v / np.linalg.norm(u) / np.linalg.norm(v))

    def f1(candidate, reference):
        if not candidate or not reference:
            return 0.0
        one, other = states(candidate), states(reference)
        precision = np.mean([max(cosine(u, v) for v in other) for u in one[1:-1]])
        recall = np.mean([max(cosine(u, v) for v in one) for u in other[1:-1]])
        return 2 * precision * recall / (precision + recall)

    answers = Answers(
        sources=("q", "q"),
        references=((TEXTS[0], TEXTS[2]), (TEXTS[4],)),
        candidates=((TEXTS[1], ""), (TEXTS[2], TEXTS[4])),
    )
    expected = [max(f1(TEXTS[1], TEXTS[0]), f1(TEXTS[1], TEXTS[2])) / 2, (f1(TEXTS[2], TEXTS[4]) + 1) / 2]
    found = BertScore(encoder=folder, layer=layer)(answers)
    np.testing.assert_allclose(found.per_source[:, 0], 100 * np.array(expected), atol=1e-4)
    assert found.signature.startswith("bertscore|model:tiny-bert|weights:")
    assert f"|layer:{'last' if layer is None else layer}|" in found.signature


def test_states_do_not_depend_on_what_is_batched_with_them(folder):
    together = token_states(folder, None, TEXTS[:3])
    for text, (states, own) in zip(TEXTS[:3], together, strict=True):
        alone, _ = token_states(folder, None, [text])[0]
        np.testing.assert_allclose(states, alone, atol=1e-5)
        assert list(own) == [False] + [True] * (len(states) - 2) + [False]


def test_all_empty_candidates_score_nothing(folder):
    answers = Answers(sources=("q",), references=((TEXTS[0],),), candidates=(("", " "),))
    assert BertScore(encoder=folder)(answers).value == 0
    assert MiniLm()(answers).value == 0


def test_encoders_that_are_not_there_are_refused(folder, tmp_path):
    answers = Answers(sources=("q",), references=(("a",),), candidates=(("a",),))
    assert "needs an encoder" in BertScore().unavailable()
    with pytest.raises(UserError, match="needs an encoder"):
        BertScore()(answers)
    with pytest.raises(UserError, match="neither a folder"):
        BertScore(encoder=str(tmp_path))(answers)
    with pytest.raises(UserError, match=r"layer=3 .* 0 \(embeddings\) … 2"):
        BertScore(encoder=folder, layer=3)(answers)


def test_two_encoders_of_one_name_have_two_signatures(folder, tmp_path):
    from transformers import BertConfig, BertModel

    other = tmp_path / "tiny-bert"
    size = {
        "hidden_size": 8,
        "num_attention_heads": 2,
        "num_hidden_layers": 1,
        "intermediate_size": 8,
        "vocab_size": 50,
    }
    BertModel(BertConfig(**size)).save_pretrained(other)
    answers = Answers(sources=("q",), references=(("a",),), candidates=(("a",),))
    one, two = BertScore(encoder=folder), BertScore(encoder=str(other))
    assert one.signature(answers) != two.signature(answers)
    assert one.signature(answers) == dataclasses.replace(one).signature(answers)
