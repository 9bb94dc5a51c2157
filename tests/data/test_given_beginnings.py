"""Pairs with several references, and stories to be gone on with: splits, columns, sentences; and the real files."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from diffq.data.references import References
from diffq.data.stories import Stories, begin_and_rest, sentences
from diffq.errors import UserError
from diffq.registry import DATASETS
from diffq.settings import typed

CONF = Path(__file__).parents[2] / "conf" / "dataset"


def dataset(name: str, **changed: Any) -> Any:
    values = yaml.safe_load((CONF / f"{name}.yaml").read_text()) | changed
    return typed(DATASETS[values.pop("kind")], values, "dataset")


def made_up(path: Path, count: int = 400) -> Path:
    """A file as ParaDetox's: quotation marks that mean nothing, empty cells, short rows."""
    lines = ["toxic\tneutral1\tneutral2\tneutral3"]
    for i in range(count):
        lines.append(f'"bad {i}\tgood {i}\tfine {i}\t' if i % 2 else f"bad {i}\tgood {i}\t good {i} \twell {i}")
    lines += ['half a row"', "", "no pair\t\t\t", "short\tbrief"]
    path.write_text("\n".join(lines) + "\n")
    return path


def test_training_has_each_pair_and_the_others_each_source(tmp_path: Path) -> None:
    corpus = dataset("paradetox", path=str(made_up(tmp_path / "paradetox.tsv"))).open()
    train, valid, test = (corpus.split(name) for name in ("train", "valid", "test"))
    assert all(len(e.references) == 1 for e in train)
    assert all(len(e.references) == 2 for e in (*valid, *test))  # equal references are one
    sources = [{e.source for e in part} for part in (train, valid, test)]
    assert sum(map(len, sources)) == len(sources[0] | sources[1] | sources[2]) == 401
    assert len(valid) == len(sources[1])
    assert len(train) == 2 * len(sources[0]) - ("short" in sources[0])
    assert [e.index for e in train] == list(range(len(train)))
    # 401 sources: 5.5 standard deviations of a binomial on either side.
    for part in sources[1:]:
        assert abs(len(part) - 20) < 5.5 * (401 * 0.05 * 0.95) ** 0.5
    assert '"bad 1' in sources[0] | sources[1] | sources[2]
    assert "no pair" not in sources[0]


def test_the_split_is_that_of_the_source_alone(tmp_path: Path) -> None:
    few = dataset("paradetox", path=str(made_up(tmp_path / "few.tsv", 100))).open()
    many = dataset("paradetox", path=str(made_up(tmp_path / "many.tsv", 300))).open()
    for name in ("train", "valid", "test"):
        assert {e.source for e in few.split(name)} <= {e.source for e in many.split(name)}


def write_duties(folder: Path, name: str, count: int) -> None:
    with open(folder / name, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["label", "scenario", "excuse"])
        for i in range(count):
            writer.writerows([[1, f"Duty {i}, {name}?", f"No, because {i}."], [0, f"Duty {i}, {name}?", "No, bananas."],
                              [1, f"Duty {i}, {name}?", f"But {i} was done."]])  # fmt: skip


def test_a_split_without_a_file_is_a_part_of_train(tmp_path: Path) -> None:
    write_duties(tmp_path, "deontology_train.csv", 200)
    write_duties(tmp_path, "deontology_test.csv", 7)
    corpus = dataset("deontology", path=str(tmp_path)).open()
    train, valid, test = (corpus.split(name) for name in ("train", "valid", "test"))
    assert len(test) == 7
    assert test[0].references == ("No, because 0.", "But 0 was done.")
    assert len(train) // 2 + len(valid) == 200
    assert not {e.source for e in train} & {e.source for e in valid}
    # 5.5 standard deviations of a binomial; none of the training rows falls to the test, which has its own file.
    assert 0 < len(valid) < 10 + 5.5 * (200 * 0.05 * 0.95) ** 0.5
    assert "bananas" not in {word for e in (*train, *valid, *test) for r in e.references for word in r.split()}


def test_the_hubs_columns_and_splits(monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    asked = []

    def load(name: str, config: str | None, split: str) -> list[dict[str, str]]:
        asked.append((name, config, split))
        return [{"en_toxic_comment": f"bad {i // 2}", "en_neutral_comment": f"good {i}"} for i in range(400)]

    monkeypatch.setattr(datasets, "load_dataset", load)
    monkeypatch.delenv("DIFFQ_DATA", raising=False)
    corpus = dataset("paradetox").open()
    test, train = corpus.split("test"), corpus.split("train")
    assert set(asked) == {("s-nlp/paradetox", None, "train")}
    assert all(len(e.references) == 2 for e in test)
    assert all(len(e.references) == 1 for e in train)
    assert test[0].references[0].startswith("good ")


@pytest.mark.parametrize("name", ["paradetox", "rocstories", "deontology", "question_generation"])
def test_where_it_was_looked_for_is_said(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import datasets

    def offline(*_: object, **__: object) -> None:
        raise OSError("no network")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    monkeypatch.setenv("DIFFQ_DATA", str(tmp_path))
    settings = dataset(name)
    kept = getattr(settings, "kept", name)
    with pytest.raises(
        UserError, match=rf"looked in dataset\.path \(not given\), {tmp_path}/{kept} .*{settings.hub}|null"
    ):
        settings.open().split("test")
    if name != "question_generation":
        with pytest.raises(UserError, match="nowhere does not exist"):
            dataset(name, path="nowhere").open()


@pytest.mark.parametrize(
    ("header", "said"),
    [("a\tneutral1", "no column 'toxic or en_toxic_comment'"), ("toxic\tb", "no column 'neutral1 or en_neutral")],
)
def test_missing_columns_are_named(header: str, said: str, tmp_path: Path) -> None:
    (tmp_path / "x.tsv").write_text(f"{header}\n1\t2\n")
    with pytest.raises(UserError, match=said):
        dataset("paradetox", path=str(tmp_path / "x.tsv")).open().split("test")


def test_settings_that_name_nothing_are_refused() -> None:
    with pytest.raises(UserError, match="others than dataset"):
        References(name="x", models={}, kept="x", source="a", targets=("a",))
    with pytest.raises(UserError, match="not 'label'"):
        References(name="x", models={}, kept="x", only=("label",))
    with pytest.raises(UserError, match="1 … 4"):
        Stories(name="x", models={}, given_sentences=5)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("A b. C d! E f? G h... I j.", ["A b.", "C d!", "E f?", "G h...", "I j."]),
        ("Mr. Lee met Dr. Fox. They ran.", ["Mr. Lee met Dr. Fox.", "They ran."]),
        ('"Stop!" he said. (It was late.) he left.', ['"Stop!"', "he said.", "(It was late.)", "he left."]),
        ("At 5 p.m. we ate. At 6 p.m. Tom left.", ["At 5 p.m. we ate.", "At 6 p.m.", "Tom left."]),
        ("It cost 3.50 in all.  ", ["It cost 3.50 in all."]),
        ("No stop here She ran.", ["No stop here She ran."]),
        ("it ended. suddenly it began.", ["it ended.", "suddenly it began."]),
    ],
)
def test_sentences(text: str, found: list[str]) -> None:
    assert sentences(text) == found


def test_a_story_is_cut_behind_the_given_sentences() -> None:
    story = ["A b.", "C.", "D.", "E.", "F."]
    assert begin_and_rest(story, 1) == ("A b.", "C. D. E. F.")
    assert begin_and_rest(story, 4) == ("A b. C. D. E.", "F.")
    assert begin_and_rest(["one two three four five six seven eight nine ten"], 2) == (
        "one two three four",
        "five six seven eight nine ten",
    )
    assert begin_and_rest(["A b.", "c d."], 3) == ("A b.", "c d.")  # a fallback that never leaves nothing
    assert begin_and_rest(["one two"], 4) == ("one", "two")
    with pytest.raises(UserError, match="cannot be cut"):
        begin_and_rest(["one"], 1)


def stories(path: Path, count: int, shape: str = "list") -> Path:
    made: list[Any] = [[f"Story {i} begins. It goes on. It goes far. It slows. It ends."] for i in range(count)]
    if shape == "text":
        made = [{"text": row[0]} for row in made]
    if shape == "columns":
        made = [{"title": "x"} | {f"sentence{n}": f"Story {i}, {n}. Yes." for n in range(1, 6)} for i in range(count)]
    path.write_text("\n".join(map(json.dumps, made)))
    return path


@pytest.mark.parametrize("shape", ["list", "text", "columns"])
def test_one_file_of_stories_is_cut_in_order(shape: str, tmp_path: Path) -> None:
    file = stories(tmp_path / "all.jsonl", 50, shape)
    parts = {n: dataset("rocstories", path=str(file)).open().split(n) for n in ("train", "valid", "test")}
    assert [len(part) for part in parts.values()] == [40, 5, 5]
    assert parts["valid"][0].source.startswith("Story 40")
    two = dataset("rocstories", path=str(file), given_sentences=2).open().split("test")[4]
    if shape == "columns":
        assert (two.source, two.references[0][:14]) == ("Story 49, 1. Yes. Story 49, 2. Yes.", "Story 49, 3. Y")
    else:
        assert two.source == "Story 49 begins. It goes on."
        assert two.references == ("It goes far. It slows. It ends.",)


def test_the_one_file_serves_where_a_folder_has_no_train(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFQ_DATA", str(tmp_path))
    (tmp_path / "rocstories").mkdir()
    stories(tmp_path / "rocstories/roc_valid.jsonl", 50)
    assert len(dataset("rocstories").open().split("train")) == 40
    for name, count in (("train", 9), ("valid", 3), ("test", 2)):
        stories(tmp_path / f"rocstories/{name}.jsonl", count)
    corpus = dataset("rocstories").open()
    assert [len(corpus.split(name)) for name in ("train", "valid", "test")] == [9, 3, 2]


def test_rows_that_are_no_stories_are_refused(tmp_path: Path) -> None:
    for row, said in (([1], "a list of texts"), ({"a": "b"}, "column text or story"), ([" "], "not empty")):
        (tmp_path / "x.jsonl").write_text(json.dumps(row))
        with pytest.raises(UserError, match=said):
            dataset("rocstories", path=str(tmp_path / "x.jsonl")).open().split("test")


@pytest.mark.data
def test_real_paradetox(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFQ_DATA", str(data_dir))
    corpus = dataset("paradetox").open()
    parts = [corpus.split(name) for name in ("train", "valid", "test")]
    assert [len({e.source for e in part}) for part in parts] == [10_735, 569, 625]  # 11,929 sources with a pair
    assert len(parts[0]) == 17_289
    assert max(len(e.references) for e in parts[2]) == 3


@pytest.mark.data
def test_real_stories(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIFFQ_DATA", str(data_dir))
    corpus = dataset("rocstories").open()
    assert [len(corpus.split(name)) for name in ("train", "valid", "test")] == [4_000, 500, 500]
    lines = (data_dir / "rocstories/roc_valid.jsonl").read_text().splitlines()
    counts = [len(sentences(json.loads(line)[0])) for line in lines]
    assert [counts.count(n) for n in range(1, 6)] == [5, 1, 8, 49, 4_937]
