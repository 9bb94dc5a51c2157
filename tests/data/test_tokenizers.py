"""Tokenizers: round trips, their special tokens, and that the same texts give the same one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from diffq.data.exact_tokenizers import characters
from diffq.data.grammar import Grammar
from diffq.data.task import Example
from diffq.data.tokenizers import SPECIAL_TOKENS, Tokenizer, build_tokenizer
from diffq.errors import UserError


class Texts:
    """A corpus of given texts."""

    def __init__(self, texts: list[str]):
        self.texts = texts

    def split(self, name: str) -> list[Example]:
        return [Example(i, text, (text,)) for i, text in enumerate(self.texts)]

    def truth(self, source: str) -> None:
        return None


SENTENCES = ["How can I be a good geologist?", "Don't they know it's Christmas, really!", "Ünïcode wörds — 東京 naïve"]


@pytest.fixture(scope="module")
def bert_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("bert") / "vocab.txt"
    words = [
        *SPECIAL_TOKENS,
        "how",
        "can",
        "i",
        "un",
        "##aff",
        "##able",
        "don",
        "'",
        "t",
        "it",
        "s",
        ",",
        "?",
        "-",
        ".",
    ]
    file.write_text("\n".join(words) + "\n")
    return file


def many_texts() -> list[str]:
    """Texts with far more characters than the alphabet keeps, most of them equally rare."""
    draw = random.Random(0)
    letters = [chr(c) for c in range(0x410, 0x450)] + [chr(c) for c in range(0x3B1, 0x3C9)] + list("abcdefghij")
    return ["".join(draw.choices(letters, k=5)) + " " + "".join(draw.choices("abcdef", k=6)) for _ in range(800)]


def test_words_cover_the_world_and_come_back() -> None:
    corpus = Grammar(name="grammar", models={}, size=50).open()
    tokenizer = build_tokenizer("words", corpus)
    assert tokenizer.size == len(SPECIAL_TOKENS) + len(corpus.words)
    assert (tokenizer.pad, tokenizer.unk, tokenizer.start, tokenizer.end, tokenizer.mask) == (0, 1, 2, 3, 4)
    texts = [e.source for e in corpus.split("test")]
    ids = tokenizer.encode_sources(texts)
    assert tokenizer.decode_batch(ids) == texts
    assert all(x[0] == tokenizer.start and x[-1] == tokenizer.end for x in ids)
    assert not {i for x in tokenizer.encode_targets(texts) for i in x} & set(tokenizer.specials)
    assert [len(x) for x in tokenizer.encode_targets(texts)] == [len(text.split(" ")) for text in texts]


def test_words_of_texts_are_ordered_by_frequency() -> None:
    tokenizer = build_tokenizer("words", Texts(["b a a", "A b c!"]))
    assert [tokenizer.token(i) for i in range(tokenizer.size)] == [*SPECIAL_TOKENS, "a", "b", "!", "c"]
    assert tokenizer.decode(tokenizer.encode_source("a unseen B")) == "a [UNK] b"


@pytest.mark.parametrize("spec", ["words", "wordpiece:60", "bert file"])
def test_saved_and_loaded_it_is_the_same(spec: str, tmp_path: Path, bert_file: Path) -> None:
    made = build_tokenizer(str(bert_file) if spec == "bert file" else spec, Texts(SENTENCES))
    made.save(tmp_path / "tokenizer")
    again = Tokenizer.load(tmp_path / "tokenizer")
    assert again.digest == made.digest
    assert (again.size, again.specials, again.mask) == (made.size, made.specials, made.mask)
    for text in SENTENCES:
        assert again.encode_source(text) == made.encode_source(text)
        assert again.decode(again.encode_target(text)) == made.decode(made.encode_target(text))
    assert build_tokenizer(str(tmp_path / "tokenizer"), Texts([])).digest == made.digest


def test_one_way_and_batch_way_agree(bert_file: Path) -> None:
    tokenizer = Tokenizer.load(bert_file.parent)
    assert [tokenizer.encode_source(text) for text in SENTENCES] == tokenizer.encode_sources(SENTENCES)
    assert [tokenizer.encode_target(text) for text in SENTENCES] == tokenizer.encode_targets(SENTENCES)
    assert tokenizer.encode_target("") == []
    assert tokenizer.encode_source(" ") == [tokenizer.start, tokenizer.end]
    assert tokenizer.decode([]) == ""


def test_bert_spelling(bert_file: Path) -> None:
    """As transformers 4 decoded: punctuation and clitics close up, sub-words join, special tokens go."""
    tokenizer = build_tokenizer(str(bert_file), Texts([]))
    ids = tokenizer.encode_source("Don't UNAFFABLE , it's?  ")
    assert [tokenizer.token(i) for i in ids[:5]] == ["[CLS]", "don", "'", "t", "un"]
    assert tokenizer.decode([*ids, tokenizer.pad, tokenizer.mask]) == "don't unaffable, it's?"
    assert tokenizer.unk in tokenizer.encode_target("zebra")
    # Special tokens written in a text are text: no user can put padding or an end into the middle of a source.
    assert tokenizer.mask not in tokenizer.encode_target("[MASK]")


def test_decoding_is_stable(bert_file: Path) -> None:
    """decode ∘ encode is idempotent, so references that went through it compare with predictions that did."""
    known = SENTENCES[:2]
    for spec, texts in (("words", known), ("wordpiece:200", known), (str(bert_file), ["don't", "it's unaffable?"])):
        tokenizer = build_tokenizer(spec, Texts(SENTENCES))
        for text in texts:
            once = tokenizer.decode(tokenizer.encode_target(text))
            assert "[UNK]" not in once
            assert tokenizer.decode(tokenizer.encode_target(once)) == once


def test_wordpiece_is_a_function_of_its_texts(tmp_path: Path) -> None:
    """The trainer's hash tables differ from one to the next; 4 trainings with 100 equally rare characters must not."""
    texts = Texts(many_texts())
    made = [build_tokenizer("wordpiece:300", texts) for _ in range(3)]
    made.append(build_tokenizer("wordpiece:300", texts, tmp_path))
    assert len({tokenizer.digest for tokenizer in made}) == 1
    assert made[0].size == 300
    assert made[0].pad == 0
    assert build_tokenizer("wordpiece:300", Texts([*texts.texts, "more"])).digest != made[0].digest


def test_wordpiece_is_trained_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import diffq.data.word_tokenizers as module

    texts = Texts(many_texts())
    first = build_tokenizer("wordpiece:200", texts, tmp_path)
    monkeypatch.setattr(module, "_train_wordpiece", lambda *_: pytest.fail("trained again"))
    assert build_tokenizer("wordpiece:200", texts, tmp_path).digest == first.digest
    assert [p.name for p in (tmp_path / "tokenizers").iterdir()] == [
        next((tmp_path / "tokenizers").glob("wordpiece200-*")).name
    ]


def test_a_hugging_face_folder_without_our_roles(tmp_path: Path) -> None:
    """A GPT-like folder: one end-of-text token is start and end, padding and mask are added behind the vocabulary."""
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer(
        tokenizers.models.WordLevel({"<|end|>": 0, "hi": 1, "you": 2, "?": 3}, unk_token="?")
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, bos_token="<|end|>", eos_token="<|end|>")
    fast.save_pretrained(tmp_path / "gpt")
    tokenizer = build_tokenizer(str(tmp_path / "gpt"), Texts([]))
    assert tokenizer.start == tokenizer.end == 0
    assert tokenizer.encode_source("hi you") == [0, 1, 2, 0]
    assert {tokenizer.pad, tokenizer.unk, tokenizer.mask} == {4, 5, 6}
    assert tokenizer.size == 7
    tokenizer.save(tmp_path / "ours")
    assert Tokenizer.load(tmp_path / "ours").digest == tokenizer.digest
    assert transformers.AutoTokenizer.from_pretrained(tmp_path / "ours").pad_token_id == tokenizer.pad


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("wordpiece", "SIZE in wordpiece:SIZE"),
        ("wordpiece:six", "SIZE in wordpiece:SIZE"),
        ("wordpiece:3", "SIZE in wordpiece:SIZE"),
        ("bpe", "neither a known kind nor a path that exists; allowed: words"),
        ("/no/such/folder", "neither a known kind nor a path"),
    ],
)
def test_refuses_other_specs(spec: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        build_tokenizer(spec, Texts(SENTENCES))


def test_refuses_files_that_are_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\nhow\n")
    with pytest.raises(UserError, match=r"no BERT vocabulary file: it has no \[MASK\]"):
        build_tokenizer(str(tmp_path / "vocab.txt"), Texts([]))
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhow\nhow\n")
    with pytest.raises(UserError, match="stands in it twice"):
        build_tokenizer(str(tmp_path), Texts([]))
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="holds no tokenizer that can be read"):
        build_tokenizer(str(tmp_path / "empty"), Texts([]))


def test_no_bert_tells_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import transformers

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", offline)
    monkeypatch.setenv("DIFFQ_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"tokenizers/bert-base-uncased nor on the hub.*dataset\.tokenizer=PATH"):
        build_tokenizer("bert", Texts([]))


@pytest.mark.data
def test_real_bert(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFQ_DATA", str(data_dir))
    tokenizer = build_tokenizer("bert", Texts([]))
    assert tokenizer.size == 30_522
    assert (tokenizer.pad, tokenizer.unk, tokenizer.start, tokenizer.end, tokenizer.mask) == (0, 100, 101, 102, 103)
    assert tokenizer.encode_source("How can I?") == [101, 2129, 2064, 1045, 1029, 102]


def test_ids_are_the_same_however_their_cutting_is_written_down(tmp_path: Path) -> None:
    """Hugging Face's file of a tokenizer says more than ours of the same one."""
    made = characters(["ab "])
    made.save(tmp_path)
    held = json.loads((tmp_path / "tokenizer.json").read_text())
    held["post_processor"] = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    (tmp_path / "tokenizer.json").write_text(json.dumps(held))
    read = Tokenizer.load(tmp_path)
    assert read.digest != made.digest
    assert read.same_ids(made)
    assert not characters(["abc "]).same_ids(made)
