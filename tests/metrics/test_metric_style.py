"""SOME and ParaDetox's figures, on tiny random networks, against the library one text at a time."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
import torch

from diffq.config import compose
from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.encoders import digest_of, minilm_folder, pooled_vectors, sentence_vectors
from diffq.metrics.evaluate import evaluate
from diffq.metrics.some import Some
from diffq.metrics.style import Fluency, Joint, Similarity, StyleAccuracy
from diffq.metrics.vendi import Vendi, vendi

SIZE = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 32}
GIVEN = Answers(
    sources=("you are a fool", "this is a stupid idea , no ?"),
    references=((), ()),
    candidates=(("you are wrong .", "", "you are a fool"), ("this is not good , no ?", "a ( bad ) idea !", "no")),
)
FLAT = [(s, t) for s, group in zip(GIVEN.sources, GIVEN.candidates, strict=True) for t in group]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Tiny BERTs over MiniLM's vocabulary: a plain encoder, three regressors, two classifiers of two classes."""
    from transformers import BertConfig, BertForSequenceClassification, BertModel

    root = tmp_path_factory.mktemp("networks")
    heads = {"grammaticality": 1, "fluency": 1, "meaning": 1, "style": 2, "cola": 2}
    names = {"style": {0: "neutral", 1: "toxic"}}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for name, outputs in heads.items():
            config = BertConfig(**SIZE, num_labels=outputs, initializer_range=0.7)
            if name in names:
                config.id2label, config.label2id = names[name], {v: k for k, v in names[name].items()}
            BertForSequenceClassification(config).save_pretrained(root / name)
        BertModel(BertConfig(**SIZE)).save_pretrained(root / "encoder")
        BertModel(BertConfig(**SIZE), add_pooling_layer=False).save_pretrained(root / "poolerless")
    for place in root.iterdir():
        for name in ("tokenizer.json", "tokenizer_config.json", "vocab.txt", "special_tokens_map.json"):
            shutil.copy(f"{minilm_folder()}/{name}", place / name)
    return {place.name: str(place) for place in root.iterdir()}


def one(folder, *texts):
    """The logits of one text, or one pair, by the library."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    network = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        return network(**tokenizer(*texts, return_tensors="pt")).logits[0].double().numpy()


def by_source(values):
    return 100 * np.array(values).reshape(2, 3).mean(axis=1)


def some_of(folders, **more):
    return Some(**{name: folders[name] for name in ("grammaticality", "fluency", "meaning")}, **more)


def joint_of(folders, **more):
    return Joint(style=folders["style"], style_label="neutral", encoder=folders["encoder"], fluency=folders["cola"],
                 fluency_label="0", **more)  # fmt: skip


def test_some_is_the_weighted_sum_of_grades_moved_to_0_1(folders):
    def score(source, text):
        if not text:
            return 0.0
        grades = [
            one(folders["grammaticality"], text),
            one(folders["fluency"], text),
            one(folders["meaning"], source, text),
        ]
        return sum(w * (g[0] - 1) / 3 for w, g in zip((0.55, 0.43, 0.02), grades, strict=True))

    found = some_of(folders)(GIVEN)
    np.testing.assert_allclose(found.per_source[:, 0], by_source([score(s, t) for s, t in FLAT]), atol=1e-4)
    assert found.signature.startswith(f"some|grammaticality:{digest_of(folders['grammaticality'])}|fluency:")
    assert found.direction == "higher"


def test_a_tokenizer_of_another_kind_is_another_figure(folders, tmp_path):
    own, apart = shutil.copytree(folders["fluency"], tmp_path / "own"), tmp_path / "apart"
    apart.mkdir()
    for file in own.glob("*tokenizer*"):
        shutil.copy(file, apart)
    plain, other = some_of(folders).signature(GIVEN), some_of(folders, tokenizer=str(apart)).signature(GIVEN)
    assert other == plain.replace("|agg:", f"|tokenizer:{digest_of(str(apart))}|agg:")
    (own / "README.md").write_text("says nothing of values")
    assert digest_of(str(own)) == digest_of(folders["fluency"])
    cased = shutil.copytree(own, tmp_path / "cased")
    (cased / "tokenizer_config.json").write_text("{}")
    assert digest_of(str(cased)) != digest_of(str(own))


def test_regressors_are_asked_for_and_looked_at(folders):
    assert "some needs a regressor of grammaticality" in Some().unavailable()
    assert "metric.some.grammaticality=FOLDER" in Some().unavailable()
    with pytest.raises(UserError, match=r"metric\.some\.meaning=FOLDER"):
        evaluate([Some(grammaticality=folders["fluency"], fluency=folders["fluency"])], GIVEN)
    two = Some(grammaticality=folders["style"], fluency=folders["fluency"], meaning=folders["meaning"])
    with pytest.raises(UserError, match="has 2 outputs; a regressor has one"):
        two(GIVEN)
    headless = Some(grammaticality=folders["encoder"], fluency=folders["fluency"], meaning=folders["meaning"])
    with pytest.raises(UserError, match="no weights for classifier"):
        headless(GIVEN)
    assert some_of(folders).signature(GIVEN) != Some(
        grammaticality=folders["fluency"], fluency=folders["grammaticality"], meaning=folders["meaning"]
    ).signature(GIVEN), "networks of one size are told apart by their weights"


@pytest.mark.parametrize("soft", [False, True])
def test_style_accuracy_and_fluency(folders, soft):
    def share(folder, text, wanted):
        found = one(folder, text)
        return float(torch.softmax(torch.tensor(found), 0)[wanted]) if soft else float(found.argmax() == wanted)

    sta = StyleAccuracy(classifier=folders["style"], label="toxic", soft=soft)
    expected = [share(folders["style"], t, 1) if t else 0 for _, t in FLAT]
    np.testing.assert_allclose(sta(GIVEN).per_source[:, 0], by_source(expected), atol=1e-4)
    other = StyleAccuracy(classifier=folders["style"], label=0, soft=soft)(GIVEN)
    assert sta(GIVEN).value + other.value == pytest.approx(100 * 5 / 6), "the classes share all samples but the empty"
    assert f"|weights:{digest_of(folders['style'])}|label:1|soft:{'yes' if soft else 'no'}|" in sta.signature(GIVEN)
    joined = {"you are wrong .": "you are wrong.", "this is not good , no ?": "this is not good, no?",
              "a ( bad ) idea !": "a (bad) idea!"}  # fmt: skip
    fl = Fluency(classifier=folders["cola"], label="LABEL_1", soft=soft)
    expected = [share(folders["cola"], joined.get(t, t), 1) if t else 0 for _, t in FLAT]
    np.testing.assert_allclose(fl(GIVEN).per_source[:, 0], by_source(expected), atol=1e-4)


def test_similarity_is_the_cosine_with_the_source(folders):
    for pooling, vectors in (("mean", sentence_vectors), ("pooler", pooled_vectors)):
        expected = []
        for source, text in FLAT:
            pair = vectors(folders["encoder"], [source, text])
            expected.append(pair[0] @ pair[1] if text else 0)
        found = Similarity(encoder=folders["encoder"], pooling=pooling)(GIVEN)
        np.testing.assert_allclose(found.per_source[:, 0], by_source(expected), atol=1e-4)
    assert found.per_source[0, 0] > 100 / 3, "a copy has 1"


def test_joint_is_the_mean_of_products_and_not_the_product_of_means(folders):
    joint = joint_of(folders, soft=True)
    parts = [factor.of_samples(*zip(*FLAT, strict=True)) for factor in joint.factors]
    expected = [float(np.prod([part[i] for part in parts])) if t else 0 for i, (_, t) in enumerate(FLAT)]
    np.testing.assert_allclose(joint(GIVEN).per_source[:, 0], by_source(expected), atol=1e-6)
    means = [factor(GIVEN).value / 100 for factor in joint.factors]
    assert joint(GIVEN).value != pytest.approx(100 * np.prod(means), abs=0.01)
    hard = joint_of(folders)(GIVEN)
    assert {name in hard.signature for name in ("style@", "encoder@", "cola@")} == {True}


def test_a_class_must_be_named_since_projects_number_them_differently(folders):
    assert "sta needs a classifier of style" in StyleAccuracy().unavailable()
    said = StyleAccuracy(classifier=folders["style"]).unavailable()
    assert said.endswith("none is named: metric.sta.label= one of neutral (0), toxic (1)")
    assert "has no class 2" in StyleAccuracy(classifier=folders["style"], label="2").unavailable()
    assert "fl needs a classifier of acceptable sentences (CoLA)" in Fluency().unavailable()
    assert "metric.sim.encoder=FOLDER" in Similarity().unavailable()
    assert "metric.joint.style=FOLDER" in Joint().unavailable()
    assert (
        "metric.joint.fluency=FOLDER"
        in Joint(style=folders["style"], style_label="toxic", encoder=folders["encoder"]).unavailable()
    )
    with pytest.raises(UserError, match=r"no folder with a config\.json"):
        evaluate([StyleAccuracy(classifier="nowhere", label="0")], GIVEN)


def test_the_suite_leaves_out_what_has_no_network(folders):
    words = ["dataset=grammar", "metric=detox", "metric.sta.label=neutral", f"metric.sta.classifier={folders['style']}"]
    suite = compose(words, verb="score").metric
    assert "sta" in suite.names
    assert {line.split()[0] for line in suite.left_out} == {"joint", "sim", "fl"}
    with pytest.raises(UserError, match="needs a regressor of grammaticality"):
        compose(["dataset=grammar", "metric=some"], verb="score")


def test_vs_emb_is_the_vendi_score_of_pooler_outputs(folders):
    from transformers import AutoModel, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folders["encoder"])
    network = AutoModel.from_pretrained(folders["encoder"]).eval()

    def pooled(text):
        with torch.no_grad():
            found = network(**tokenizer(text, return_tensors="pt")).pooler_output[0].double().numpy()
        return found / np.linalg.norm(found)

    expected = []
    for group in GIVEN.candidates:
        vectors = np.stack([pooled(text) for text in group])
        expected.append(vendi(vectors @ vectors.T))
    metric = Vendi(kernel="emb", encoder=folders["encoder"])
    found = metric(GIVEN)
    np.testing.assert_allclose(found.per_source[:, 0], expected, atol=1e-4)
    assert found.name == "vendi_emb_by_encoder"
    assert f"|kernel:emb|model:encoder|weights:{digest_of(folders['encoder'])}|of:pooler|" in found.signature
    assert Vendi(kernel="emb").name == "vendi_emb"
    assert Vendi(kernel="emb").encoder == "princeton-nlp/unsup-simcse-roberta-base"
    with pytest.raises(UserError, match="without the weights of its pooler"):
        Vendi(kernel="emb", encoder=folders["poolerless"])(GIVEN)
