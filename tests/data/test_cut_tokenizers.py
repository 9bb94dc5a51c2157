"""Cut byte-level BPEs: what is kept, that training texts are encoded as before, and that every text comes back."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
import yaml

from diffq.data.cut_tokenizers import cut, is_roberta
from diffq.data.task import Example
from diffq.data.tokenizers import Tokenizer, build_tokenizer
from diffq.errors import UserError
from diffq.registry import DATASETS
from diffq.settings import typed

CONF = Path(__file__).parents[2] / "conf"
ROBERTA = ("<s>", "<pad>", "</s>", "<unk>")
MERGES = ["t h", "th e", "Ġ the", "s t", "o r", "st or", "stor m", "Ġ storm", "b o", "a t", "bo at", "Ġ boat", "Ġ th",
          "Ġth at", "m a", "ma t"]  # fmt: skip


class Texts:
    """A corpus of given texts."""

    def __init__(self, *texts: str):
        self.texts = texts

    def split(self, name: str) -> list[Example]:
        assert name == "train"
        return [Example(i, text, (text,)) for i, text in enumerate(self.texts)]

    def truth(self, source: str) -> None:
        return None


def folder_of(path: Path, before: tuple[str, ...] = ROBERTA, after: tuple[str, ...] = ("<mask>",)) -> Path:
    """A byte-level BPE in two files, as GPT-2 and RoBERTa are published."""
    from tokenizers import pre_tokenizers

    tokens = [*before, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    tokens += dict.fromkeys(merge.replace(" ", "") for merge in MERGES)
    path.mkdir(exist_ok=True)
    (path / "vocab.json").write_text(json.dumps({token: i for i, token in enumerate((*tokens, *after))}))
    (path / "merges.txt").write_text("\n".join(["#version: 0.2", *MERGES, ""]), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def roberta(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("bpe") / "roberta")


@pytest.fixture(scope="module")
def gpt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return folder_of(tmp_path_factory.mktemp("bpe") / "gpt", (), ("<|endoftext|>",))


def spelled(tokenizer: Tokenizer, text: str) -> list[str]:
    return [tokenizer.token(i) for i in tokenizer.encode_target(text)]


def test_what_is_merged_is_kept_with_its_parts_and_no_more(roberta: Path) -> None:
    made = build_tokenizer(f"cut:{roberta}", Texts("the storm"))
    tokens = [made.token(i) for i in range(made.size)]
    pieces = [token for token in tokens[:-1] if len(token) > 1 and token not in ROBERTA]
    assert pieces == ["th", "the", "st", "or", "stor", "storm", "Ġstorm"]  # in the published order
    assert made.size == 256 + len(ROBERTA) + len(pieces) + 1
    assert tuple(tokens[:4]) == ROBERTA
    assert (made.start, made.pad, made.end, made.unk, made.mask) == (0, 1, 2, 3, made.size - 1)
    assert made.encode_source("the")[:1] == [0]
    assert made.encode_source("the")[-1:] == [2]


def test_the_whole_tokenizer_has_robertas_roles_and_the_mask_last(roberta: Path) -> None:
    whole = build_tokenizer(str(roberta), Texts())
    assert is_roberta(roberta)
    assert (whole.start, whole.pad, whole.end, whole.unk, whole.mask) == (0, 1, 2, 3, whole.size - 1)
    assert spelled(whole, " the boat that") == ["the", "Ġboat", "Ġthat"]


def test_gpts_kind_keeps_its_end_and_every_space(gpt: Path) -> None:
    assert not is_roberta(gpt)
    whole, made = (build_tokenizer(spec, Texts(" the boat ")) for spec in (str(gpt), f"cut:{gpt}"))
    assert whole.exact
    assert made.exact
    assert made.start == made.end == made.pad == made.size - 2
    assert made.mask == made.size - 1
    assert made.decode(made.encode_target(" the boat ")) == " the boat "
    assert spelled(made, " the boat ") == spelled(whole, " the boat ") == ["Ġthe", "Ġboat", "Ġ"]


def test_texts_that_were_cut_for_are_encoded_as_before(roberta: Path) -> None:
    """Random texts of the letters that merges are about: every tokenisation is the whole one's."""
    draw = random.Random(0)
    texts = ["".join(draw.choices("theormsboa  that", k=draw.randint(1, 40))) for _ in range(300)]
    whole = build_tokenizer(str(roberta), Texts())
    for number in (1, 3, 30, 300):
        made = cut(whole, texts[:number])
        assert [spelled(made, text) for text in texts[:number]] == [spelled(whole, text) for text in texts[:number]]
        assert made.size <= whole.size


def test_any_text_comes_back_and_none_is_unknown(roberta: Path) -> None:
    made = build_tokenizer(f"cut:{roberta}", Texts("a"))
    for text in ("the storm that", "Ünïcode 東京 🙂", "<s> <mask> </s> <pad>", "tab\tand\nline", "\x00\x7f\u200b"):
        ids = made.encode_target(text)
        assert not set(ids) & set(made.specials)
        assert made.decode(ids) == text.strip()
    assert made.decode([made.start, *made.encode_target("the"), made.end, made.pad, made.mask]) == "the"


def test_it_is_a_function_of_the_pieces(roberta: Path, tmp_path: Path) -> None:
    one = build_tokenizer(f"cut:{roberta}", Texts("the storm", "a boat"))
    two = build_tokenizer(f"cut:{roberta}", Texts("a boat", "the storm", "the storm"))
    assert one.digest == two.digest
    assert build_tokenizer(f"cut:{roberta}", Texts("the storm")).digest != one.digest
    one.save(tmp_path / "saved")
    again = Tokenizer.load(tmp_path / "saved")
    assert again.digest == one.digest
    assert (again.size, again.mask, again.exact) == (one.size, one.mask, one.exact)
    assert again.encode_source("the storm that") == one.encode_source("the storm that")


def test_other_tokenizers_are_not_cut(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="only byte-level BPEs can be cut"):
        build_tokenizer("cut:words", Texts("a"))
    with pytest.raises(UserError, match="neither a known kind nor a path"):
        build_tokenizer("cut:no_such", Texts("a"))
    with pytest.raises(UserError, match="neither a known kind nor a path"):
        build_tokenizer("cut:", Texts("a"))


def test_no_roberta_tells_where_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, roberta: Path) -> None:
    import transformers

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", offline)
    monkeypatch.setenv("DIFFQ_DATA", str(tmp_path))
    with pytest.raises(UserError, match=r"tokenizers/roberta-base nor on the hub.*dataset\.tokenizer=PATH"):
        build_tokenizer("cut:roberta", Texts("a"))
    home = tmp_path / "tokenizers" / "roberta-base"
    home.parent.mkdir()
    folder_of(home)
    whole = build_tokenizer("roberta", Texts("a"))
    assert whole.digest == build_tokenizer(str(roberta), Texts()).digest
    (home / "merges.txt").rename(tmp_path / "merges.txt")
    with pytest.raises(UserError, match=r"no merges\.txt beside its vocab\.json"):
        build_tokenizer("roberta", Texts("a"))
    (tmp_path / "tokenizers" / "gpt2").mkdir()
    (tmp_path / "merges.txt").rename(tmp_path / "tokenizers" / "gpt2" / "merges.txt")
    assert build_tokenizer("roberta", Texts("a")).digest == whole.digest


def test_from_the_hub_it_is_the_same(roberta: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The hub's folder adds its special tokens to the backend; what is read is the vocabulary and the merges."""
    import tokenizers
    import transformers

    backend = tokenizers.Tokenizer(
        tokenizers.models.BPE.from_file(str(roberta / "vocab.json"), str(roberta / "merges.txt"))
    )
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.add_special_tokens([*ROBERTA, "<mask>"])
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=backend, mask_token="<mask>")
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *_, **__: fast)
    monkeypatch.delenv("DIFFQ_DATA", raising=False)
    assert build_tokenizer("roberta", Texts()).digest == build_tokenizer(str(roberta), Texts()).digest


@pytest.mark.data
@pytest.mark.parametrize("spec", ["roberta", "gpt2"])
def test_real_stories(spec: str, data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFQ_DATA", str(data_dir))
    values = yaml.safe_load((CONF / "dataset/rocstories.yaml").read_text())
    corpus = typed(DATASETS[values.pop("kind")], values, "dataset").open()
    whole, made = build_tokenizer(spec, corpus), build_tokenizer(f"cut:{spec}", corpus)
    assert whole.size == {"roberta": 50_265, "gpt2": 50_258}[spec]
    assert made.size == {"roberta": 14_555, "gpt2": 14_552}[spec]
    assert made.mask == made.size - 1
    texts = [text for e in corpus.split("train")[:500] for text in (e.source, *e.references)]
    assert [spelled(made, text) for text in texts] == [spelled(whole, text) for text in texts]
    unseen = [text for e in corpus.split("test") for text in (e.source, *e.references)]
    ids = made.encode_targets(unseen)
    assert made.decode_batch(ids) == unseen
    assert not {i for row in ids for i in row} & set(made.specials)


@pytest.mark.data
def test_real_roberta_has_its_published_ids(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFQ_DATA", str(data_dir))
    tokenizer = build_tokenizer("roberta", Texts())
    assert (tokenizer.start, tokenizer.pad, tokenizer.end, tokenizer.unk, tokenizer.mask) == (0, 1, 2, 3, 50_264)
    assert tokenizer.encode_source("Hello world") == [0, 31414, 232, 2]
