"""Running text: places, splits, detokenising, exact tokenizers, the cache, windows, batches that need no history."""

from __future__ import annotations

import gzip
import json
import os

import numpy as np
import pytest

from diffq.data.detokenise import lambada, lm1b, ptb, wikitext
from diffq.data.exact_tokenizers import characters, gpt2_tokenizer
from diffq.data.text import Text
from diffq.data.tokenizers import Tokenizer
from diffq.data.windows import TextBatches, TextQuestions, chosen_windows, spans_of, text_questions, tokenise_text
from diffq.errors import UserError
from diffq.runs.questions import plan_samples

LETTERS = "abcdefghij klmnopqrst\n"
TOKENIZER = characters([LETTERS])


def dataset(**changes):
    return Text(**({"name": "mine", "tokenizer": "characters", "models": {}, "metric": "text", "block": 8} | changes))


def written(tmp_path, **files):
    tmp_path.mkdir(exist_ok=True)
    for name, text in files.items():
        path = tmp_path / name.replace("__", ".")
        path.write_text(text) if not path.name.endswith(".gz") else path.write_bytes(gzip.compress(text.encode()))
    return str(tmp_path)


@pytest.mark.parametrize(
    ("function", "tokens", "text"),
    [
        (wikitext, ' He said " yes , sir " in 1 @,@ 200 @-@ odd words .', 'He said "yes, sir" in 1,200-odd words.'),
        (wikitext, " = = Early life = = ", "= = Early life = ="),
        (wikitext, "Teddy 's friends did n't ( ever ) pay 3 @.@ 5 % .", "Teddy's friends didn't (ever) pay 3.5%."),
        (ptb, "it 's $ N a share , they do n't say", "it's $N a share, they don't say"),
        (lm1b, 'the " big " one , isn \'t it ?', 'the "big" one, isn\'t it?'),
        (lambada, "“ no , ” she ‘ said ’ ", "\" no , \" she ' said '"),
        (wikitext, "plain text, as it is.", "plain text, as it is."),
    ],
)
def test_tokens_are_made_into_text(function, tokens, text):
    assert function(tokens) == text


def test_each_split_has_its_file_and_a_missing_one_is_said(tmp_path):
    path = written(tmp_path, train__txt__gz="one\n\ntwo\nthree\n", valid__jsonl='{"text": "four"}\n\n{"text": " "}\n')
    corpus = dataset(path=path).open()
    assert list(corpus.documents("train")) == ["one", "two", "three"], "blank documents are left out"
    assert list(corpus.documents("valid")) == ["four"]
    with pytest.raises(UserError, match=r"no file of the split 'test'; expected test\.txt"):
        list(corpus.documents("test"))
    assert list(dataset(path=path, evaluated_on="valid").open().documents("test")) == ["four"]
    with pytest.raises(UserError, match="did you mean 'train'"):
        list(corpus.documents("trian"))


def test_one_file_and_a_folder_of_texts_are_cut_into_consecutive_parts(tmp_path):
    lines = [f"line {i}" for i in range(40)]
    (tmp_path / "all.txt").write_text("\n".join(lines))
    corpus = dataset(path=str(tmp_path / "all.txt"), documents="row").open()
    parts = [list(corpus.documents(s)) for s in ("train", "valid", "test")]
    assert parts == [lines[:36], lines[36:38], lines[38:]]
    folder = tmp_path / "folder"
    folder.mkdir()
    for i, line in enumerate(lines):
        (folder / f"{i:02}.txt").write_text(line)
    corpus = dataset(path=str(folder), documents="file").open()
    assert [list(corpus.documents(s)) for s in ("train", "valid", "test")] == parts
    whole = dataset(path=str(tmp_path / "all.txt"), documents="file").open()
    assert "".join("".join(whole.documents(s)) for s in ("train", "valid", "test")) == "\n".join(lines)


def test_a_folder_of_one_text_is_cut_like_its_file(tmp_path):
    """Its splits share no document; a folder whose file is named for a split has no others."""
    path = written(tmp_path / "novel", novel__txt="\n".join(f"line {i}" for i in range(100)))
    corpus = dataset(path=path, documents="row").open()
    parts = [list(corpus.documents(name)) for name in ("train", "valid", "test")]
    assert [len(part) for part in parts] == [90, 5, 5]
    assert [line for part in parts for line in part] == [f"line {i}" for i in range(100)]
    alone = written(tmp_path / "two", novel__txt="sun\nmoon")
    assert "sun\nm" in next(iter(dataset(path=alone, documents="row", valid_fraction=0.2).open().documents("train")))


def test_articles_parts_and_shares_of_the_training_text(tmp_path):
    articles = [f" = A{i} = \n body {i}\n = = part = = \n more\n" for i in range(8)]
    path = written(tmp_path, train__txt="".join(articles))
    found = list(dataset(path=path, documents="article").open().documents("train"))
    assert found == articles
    halves = [list(dataset(path=path, documents="article", part=f"{k}/2").open().documents("train")) for k in (1, 2)]
    assert halves == [articles[:4], articles[4:]]
    for wrong in ("3/2", "0/2", "half"):
        with pytest.raises(UserError, match="must be all or K/N"):
            dataset(part=wrong)


def test_rows_are_texts_lists_of_texts_or_have_a_column_of_either(tmp_path):
    rows = ["one", ["two", "three"], {"text": "four"}, {"text": ["five", "six"]}, "valid", "test"]
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    corpus = dataset(path=str(file), valid_fraction=1 / 6, test_fraction=1 / 6).open()
    assert list(corpus.documents("train")) == ["one", "two three", "four", "five six"]
    file.write_text(json.dumps(["one", 2]))
    with pytest.raises(UserError, match=r"row 1: expected a text in column 'text'"):
        list(dataset(path=str(file)).open().documents("train"))


def test_nothing_to_read_is_said_with_the_places(tmp_path, monkeypatch):
    monkeypatch.delenv("DIFFQ_DATA", raising=False)
    with pytest.raises(UserError, match=r"no hub data set is named; give dataset\.path"):
        dataset(kept="text/mine").open()
    with pytest.raises(UserError, match="does not exist"):
        dataset(path=str(tmp_path / "nowhere")).open()
    with pytest.raises(UserError, match="holds no text"):
        list(dataset(path=str(tmp_path)).open().documents("train"))
    path = written(tmp_path, train__txt="\n \n")
    with pytest.raises(UserError, match="has no text"):
        list(dataset(path=path).open().documents("train"))
    (tmp_path / "valid.jsonl").write_text(json.dumps({"story": "x"}))
    with pytest.raises(UserError, match=r"row 1: expected a text in column 'text'"):
        list(dataset(path=path).open().documents("valid"))


def test_canvases_that_leave_nothing_free_are_refused():
    with pytest.raises(UserError, match="leave nothing free"):
        dataset(prefix=5, suffix=3)
    with pytest.raises(UserError, match="are 0 … 7"):
        dataset(keep=(2, 8))
    assert dataset(prefix=2, suffix=1, keep=(4,)).given == (0, 1, 4, 7)
    assert spans_of((0, 1, 4, 7)) == [(0, 2), (4, 5), (7, 8)]


def test_characters_come_back_and_special_spellings_are_text(tmp_path):
    text = "  a b\n\nc  "
    assert TOKENIZER.decode(TOKENIZER.encode_target(text)) == text
    assert TOKENIZER.mask == TOKENIZER.size - 1
    spelled = characters(["<|endoftext|>[MASK]"])
    ids = spelled.encode_target("[MASK]<|endoftext|>")
    assert spelled.mask not in ids
    assert spelled.end not in ids
    assert spelled.decode([*ids, spelled.end]) == "[MASK]<|endoftext|><|endoftext|>"
    spelled.save(tmp_path)
    again = Tokenizer.load(tmp_path)
    assert again.digest == spelled.digest
    assert again.encode_target("[MASK]") == spelled.encode_target("[MASK]")


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("DIFFQ_DATA"), reason="DIFFQ_DATA is not set")
def test_gpt2_has_its_ids_and_gives_text_back():
    tokenizer = gpt2_tokenizer()
    assert (tokenizer.mask, tokenizer.size, tokenizer.end) == (50257, 50258, 50256)
    assert tokenizer.encode_target("Hello world") == [15496, 995]
    for text in (" two  spaces\n\n\ttab ", "naïve — 日本語 🙂", "<|endoftext|>"):
        assert tokenizer.decode(tokenizer.encode_target(text)) == text


@pytest.mark.data
@pytest.mark.skipif(not os.environ.get("DIFFQ_DATA"), reason="DIFFQ_DATA is not set")
def test_wikitext_is_articles_without_the_marks_of_its_tokens():
    data = {"kept": "text/wikitext-2", "documents": "article", "detokenise": "wikitext"}
    documents = list(dataset(**data).open().documents("test"))
    assert len(documents) == 62
    assert not any(mark in text for text in documents for mark in (" @-@ ", " @,@ ", " , ", " n't"))


def text_of(tmp_path, count=60):
    path = written(tmp_path, train__txt="\n".join("abcdefghij"[: 3 + i % 7] for i in range(count)))
    return dataset(path=path).open()


def test_documents_stand_behind_each_other_with_their_ends_and_are_kept(tmp_path):
    corpus = text_of(tmp_path)
    plain, cached = tokenise_text(corpus, "train", TOKENIZER), tokenise_text(corpus, "train", TOKENIZER, tmp_path / "c")
    assert np.array_equal(plain.ids, cached.ids)
    assert cached.ids.dtype == np.uint16
    assert isinstance(cached.ids, np.memmap)
    again = tokenise_text(corpus, "train", TOKENIZER, tmp_path / "c")
    assert (again.digest, again.words) == (cached.digest, cached.words)
    documents = list(corpus.documents("train"))
    for i in (0, 17, 59):
        row = cached.ids[cached.starts[i] : cached.starts[i + 1]].tolist()
        assert row == [*TOKENIZER.encode_target(documents[i]), TOKENIZER.end]
    (tmp_path / "train.txt").write_text("another text")
    assert tokenise_text(corpus, "train", TOKENIZER, tmp_path / "c").digest != cached.digest


def test_a_batch_is_known_without_those_before_it_and_an_epoch_has_every_window_once(tmp_path):
    text = tokenise_text(text_of(tmp_path), "train", TOKENIZER)
    batches = TextBatches(text, 8, 5, seed=3)
    steps = -(-len(batches) * 2 // 5)
    seen = [batches.global_rows(i) for i in range(steps)]
    rows = np.concatenate([r for r, _ in seen])[: 2 * len(batches)]
    assert sorted(rows[: len(batches)]) == sorted(rows[len(batches) :]) == list(range(len(batches)))
    assert rows[: len(batches)].tolist() != rows[len(batches) :].tolist()
    fresh = TextBatches(text, 8, 5, seed=3)
    assert np.array_equal(fresh.global_rows(7)[0], seen[7][0])
    batch = fresh.collate(*seen[2])
    assert batch.tokens == 40
    assert batch.tokens_BL[1].tolist() == text.ids[seen[2][0][1] * 8 :][:8].tolist()
    assert batch.take(np.array([2, 0])).row_B.tolist() == [seen[2][0][2], seen[2][0][0]]
    with pytest.raises(UserError, match=r"fewer than one window of dataset\.block=9000"):
        TextBatches(text, 9000, 5, seed=0)


def test_windows_are_spread_over_the_text_or_begin_with_documents(tmp_path):
    corpus = text_of(tmp_path)
    text = tokenise_text(corpus, "train", TOKENIZER)
    packed = chosen_windows(text, dataset(windows=4))
    assert packed.shape == (4, 8)
    assert packed[2].tolist() == text.ids[text.windows(8) * 2 // 4 * 8 :][:8].tolist()
    long = chosen_windows(text, dataset(starts="document", windows=3))
    assert all(TOKENIZER.decode(row).startswith("abcdefgh") for row in long.tolist())
    with pytest.raises(UserError, match="not one document of 11 tokens"):
        chosen_windows(text, dataset(starts="document", block=11))


def test_what_is_asked(tmp_path):
    corpus = text_of(tmp_path)
    free = text_questions(corpus, "train", TOKENIZER)
    (example,) = free.examples
    assert (example.source, len(example.references)) == ("", len(free.windows))
    asked = TextQuestions(dataset(prefix=2, suffix=1), free.windows, TOKENIZER)
    first, text = asked.examples[3], TOKENIZER.decode(free.windows[3].tolist())
    assert first.references == (text,)
    assert asked.given_ids(3) == [*free.windows[3][:2], free.windows[3][7]]
    assert asked.spans == [(0, 2), (7, 8)]


def test_more_samples_append_rows_and_change_no_batch():
    few, many = plan_samples(10, 8, 32), plan_samples(23, 8, 32)
    assert [(*b.rows, *b.beyond) for b in few] == [(*b.rows, *b.beyond) for b in many[: len(few)]]
    assert [r.sample for b in many for r in b.rows] == list(range(23))
    assert [b.first for b in many] == [0, 4, 8, 12, 16, 20]
