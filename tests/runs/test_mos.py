"""Rating pages are blind and balanced, what raters say comes back to the right points, and what does not belong is
refused."""

from __future__ import annotations

import itertools
import json
import re
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from made_up_store import SOURCES, make_store
from mos_answers import page_data, ratings, save

from diffq.cli import main
from diffq.cli.complete import complete
from diffq.errors import UserError
from diffq.runs.mos_study import GRADES, Question, Study, System, choose_sources
from diffq.store import Point, Store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return make_store(tmp_path)[0]


def export(store: Store, to: Path, *words: str) -> int:
    return main(["mos", "export", "grammar-made-up", f"outputs={store.outputs}", "--to", str(to), *words])


def made_up(systems: int = 4, sources: int = 10, raters: int = 2, repeats: int = 0, seed: int = 0, same: bool = False):
    """A study of systems that all write something else, or of two that write the same."""
    who = [System(f"s{n}", f"f{n}", f"k{n}", tuple(f"{n % 2 if same else n}-{at}" for at in range(sources)))
           for n in range(systems)]  # fmt: skip
    names = tuple(f"source {at}" for at in range(sources))
    return Study(tuple(who), names, tuple(range(sources)), Question("Good?", 1, 5), raters, repeats, seed)


def order_of(study: Study, rater: int) -> list[tuple[int, tuple[int, ...]]]:
    """(source, systems) in the order of a page."""
    return [(study.texts[n][0], study.texts[n][2]) for _, n, _ in study.pages[rater]]


@pytest.mark.parametrize(("systems", "sources"), [(2, 7), (4, 10), (5, 5), (7, 3), (3, 12)])
def test_each_rater_sees_every_system_on_every_source_once_and_any_beginning_is_balanced(systems, sources):
    study = made_up(systems, sources, raters=3)
    orders = [order_of(study, rater) for rater in range(3)]
    for order in orders:
        assert sorted(order) == sorted((at, (n,)) for at in range(sources) for n in range(systems))
        seen: Counter[int] = Counter(dict.fromkeys(range(systems), 0))
        for _, (system,) in order:
            seen[system] += 1
            # A round leaves out systems only in its last, smaller block.
            assert max(seen.values()) - min(seen.values()) <= 2 + (sources % systems > 0)
        assert all(a[0] != b[0] for a, b in itertools.pairwise(order)), "texts of one source do not follow each other"
    assert len({tuple(order) for order in orders}) == 3, "raters have orders of their own"


def test_who_follows_whom_is_no_pattern():
    """Over many blocks every system follows every other: the pattern of a square does not repeat."""
    order = [who[0] for _, who in order_of(made_up(4, 60, raters=1), 0)]
    after = Counter(itertools.pairwise(order))
    assert {(a, b) for a in range(4) for b in range(4) if a != b} <= set(after)


def test_what_several_systems_wrote_is_rated_once_and_counts_for_each():
    study = made_up(4, 6, same=True)
    assert len(study.texts) == 12
    assert {who for _, _, who in study.texts} == {(0, 2), (1, 3)}
    assert all(len(page) == 12 for page in study.pages)


def test_the_draws_are_keyed():
    one, same, other = made_up(seed=1), made_up(seed=1), made_up(seed=2)
    assert one.pages == same.pages
    assert one.hash == same.hash
    assert one.pages != other.pages
    assert one.hash != other.hash
    more = made_up(seed=1, raters=5)
    assert [order_of(more, r) for r in range(2)] == [order_of(one, r) for r in range(2)], "more raters change no order"
    assert choose_sources(5, 100, 3) == choose_sources(5, 100, 3) != choose_sources(5, 100, 4)


def test_repeats_come_long_after_under_another_number():
    study = made_up(4, 10, raters=3, repeats=6)
    every = [own for page in study.pages for own, _, _ in page]
    assert len(set(every)) == 40 + 3 * 6, "raters share the numbers of texts, and have their own of repeats"
    for page in study.pages:
        place = {own: at for at, (own, _, _) in enumerate(page)}
        again = [(own, n, first) for own, n, first in page if first]
        assert len(again) == 6
        for own, n, first in again:
            assert page[place[first]][1] == n
            assert place[own] - place[first] >= 10
    with pytest.raises(UserError, match="give at most 10, or more --items"):
        _ = made_up(4, 10, repeats=11).pages


def test_pages_say_nothing_of_who_wrote_what(store, tmp_path, capsys):
    to = tmp_path / "study"
    assert export(store, to, "--items", "8", "--raters", "2", "--with-references", "--repeats", "3", "--json") == 0
    said = json.loads(capsys.readouterr().out)
    assert said["pages"] == [str(to / "rater-1.html"), str(to / "rater-2.html")]
    assert (said["systems"], said["sources"]) == (7, 8)
    key = json.loads((to / "key.json").read_text())
    secrets = [text for s in key["systems"] for text in (s["name"], s["folder"], s["key"], s["texts"]) if text]
    for n in (1, 2):
        page = (to / f"rater-{n}.html").read_text()
        data = page_data(to / f"rater-{n}.html")
        assert set(data) == {"study", "page", "pages", "question", "scale", "words", "items"}
        assert {frozenset(item) for item in data["items"]} == {frozenset({"id", "source", "text"})}
        assert [item["id"] for item in data["items"]] == key["pages"][n - 1]
        for secret in [*secrets, "human", "dpmpp", "clamp_before_cfg", "autoregressive", str(store.outputs)]:
            assert secret not in page
        assert not re.search(r"(src|href)=|https?://|@import|url\(", page), "nothing outside the file"
        assert "default-src &#x27;none&#x27;" in page
    assert [word for _, word in sorted(data["words"].items())] == list(GRADES)
    numbers = sorted(key["items"])
    assert len({len(number) for number in numbers}) == 1
    by_system = [[int(i) for i, about in key["items"].items() if n in about["systems"]] for n in range(7)]
    assert all(
        np.corrcoef([0] * len(a) + [1] * len(b), a + b)[0, 1] ** 2 < 0.5 for a, b in itertools.pairwise(by_system)
    )


def test_texts_are_the_first_samples_of_the_same_sources(store, tmp_path):
    assert export(store, tmp_path / "s", "--items", "5") == 0
    key, data = json.loads((tmp_path / "s/key.json").read_text()), page_data(tmp_path / "s/rater-1.html")
    shown = {item["id"]: item for item in data["items"]}
    for number, system in enumerate(key["systems"]):
        rows = [
            json.loads(line) for line in (store.outputs / system["folder"] / "samples.jsonl").read_text().splitlines()
        ]
        first = {row["source"]: row["text"] for row in rows if row["sample"] == 0}
        own = [
            (key["sources"][about["source"]], shown[i]["text"])
            for i, about in key["items"].items()
            if number in about["systems"]
        ]
        assert sorted(own) == sorted((index, first[index]) for index in key["sources"])
    by_source = {about["source"]: shown[i]["source"] for i, about in key["items"].items()}
    assert len(set(by_source.values())) == 5


def rated(store: Store, to: Path, capsys, *words: str) -> tuple[dict, list[dict]]:
    """A study of all points with references: its key, and the data of its pages."""
    assert export(store, to, "--items", "10", "--with-references", *words) == 0
    capsys.readouterr()
    pages = sorted(to.glob("*.html"))
    return json.loads((to / "key.json").read_text()), [page_data(page) for page in pages]


def system_of(key: dict, item: dict) -> int:
    return min(key["items"][item["id"]]["systems"])


def test_ratings_come_back_to_the_systems_and_into_reports(store, tmp_path, capsys):
    to = tmp_path / "study"
    key, pages = rated(store, to, capsys, "--raters", "2", "--repeats", "4")
    files = [
        save(tmp_path / f"{n}.json", ratings(page, lambda item, n=n: 1 + system_of(key, item) % 4 + n, f"rater {n}"))
        for n, page in enumerate(pages)
    ]
    assert main(["mos", "import", str(to), *files, f"outputs={store.outputs}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    first = {i: about for i, about in key["items"].items() if not about["repeats"]}
    for number, system in enumerate(found["systems"]):
        grades = [
            1 + min(about["systems"]) % 4 + n for about in first.values() if number in about["systems"] for n in (0, 1)
        ]
        assert system["mos"] == pytest.approx(np.mean(grades))
        assert system["ratings"] == len(grades) == 20
        assert system["low"] <= system["mos"] <= system["high"]
        assert system["written"] == (system["name"] != "human")
    assert [r["consistency"]["same"] for r in found["raters"]] == [1, 1]
    assert found["raters"][0]["consistency"]["texts"] == 4
    assert found["agreement"]["interval"]["alpha"] < 1
    gap = next(d for d in found["differences"] if d["minus"] == found["systems"][0]["name"])
    values = {s["name"]: s["mos"] for s in found["systems"]}
    assert gap["difference"] == pytest.approx(values[gap["system"]] - values[gap["minus"]])
    point = Point(store.outputs / found["systems"][0]["folder"])
    held = point.metrics()[found["signature"]]
    assert (held["name"], held["direction"], held["n"]) == ("mos", "higher", 10)
    assert held["value"] == pytest.approx(found["systems"][0]["mos"])
    assert point.per_source()[found["signature"]].shape == (10, 2)
    assert re.fullmatch(
        rf"mos\|study:{key['study']}\|ratings:[0-9a-f]{{6}}\|raters:2\|sources:10\|items:{key['texts']}\|scale:1-5"
        r"\|sample:first\|agg:mos\|v:1", found["signature"],
    )  # fmt: skip
    assert main(["score", "metric=self_bleu", f"outputs={store.outputs}"]) == 0
    assert (
        main(["report", f"outputs={store.outputs}", "--y", "mos", "--x", "self_bleu", "--json", "--format", "csv"]) == 0
    )
    report = json.loads(capsys.readouterr().out.partition("\n{")[2].join(("{", "")))
    assert report["y"] == "mos"
    assert len(report["points"]) == 6
    assert main(["ls", "runs", f"outputs={store.outputs}", "--where", "mos > 0", "--json"]) == 0


def test_half_filled_files_are_taken_as_they_are(store, tmp_path, capsys):
    _, (page,) = rated(store, tmp_path / "study", capsys)
    half = [item["id"] for item in page["items"][: len(page["items"]) // 2]]
    file = save(tmp_path / "half.json", ratings(page, lambda item: 3 if item["id"] in half else None))
    assert main(["mos", "import", str(tmp_path / "study"), file, f"outputs={store.outputs}"]) == 0
    shown = capsys.readouterr().out
    assert f"{len(half)} of {len(page['items'])}" in shown
    assert "– (one rater, or all ratings alike)" in shown
    assert "3.00" in shown


def test_raters_who_agree_have_alpha_one_and_differences_are_paired(store, tmp_path, capsys):
    key, pages = rated(store, tmp_path / "study", capsys, "--raters", "2")
    hard = {0: 1, 1: 2, 2: 3}

    def grade(item):
        about = key["items"][item["id"]]
        return hard[about["source"] % 3] + (6 in about["systems"])  # one better on every source: the references

    files = [save(tmp_path / f"{n}.json", ratings(page, grade, str(n))) for n, page in enumerate(pages)]
    assert main(["mos", "import", str(tmp_path / "study"), *files, f"outputs={store.outputs}", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {level: entry["alpha"] for level, entry in found["agreement"].items()} == {
        "nominal": 1, "ordinal": 1, "interval": 1,
    }  # fmt: skip
    alone = [n for n in range(6) if not any({n, 6} <= set(a["systems"]) for a in key["items"].values())]
    for n in alone:
        gap = next(
            d for d in found["differences"] if (d["system"], d["minus"]) == ("human", found["systems"][n]["name"])
        )
        assert (gap["difference"], gap["low"], gap["high"]) == pytest.approx((1, 1, 1)), "what is hard is hard for both"


def test_points_that_changed_or_are_gone_are_named_and_the_others_written(store, tmp_path, capsys):
    key, (page,) = rated(store, tmp_path / "study", capsys)
    file = save(tmp_path / "r.json", ratings(page, lambda item: 2))
    changed, gone = (store.outputs / key["systems"][n]["folder"] for n in (0, 1))
    text = (changed / "samples.jsonl").read_text()
    rows = [json.loads(line) for line in text.splitlines()]
    for row in rows:
        row["text"] += " !"
    (changed / "samples.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (gone / "run.json").rename(gone / "run.old")
    assert main(["mos", "import", str(tmp_path / "study"), file, f"outputs={store.outputs}"]) == 1
    told = capsys.readouterr().err.splitlines()
    assert len(told) == 2
    assert f"{changed} has other samples than those that were rated" in told[0]
    assert f"{gone} is not there any more" in told[1]
    held = [
        any(m["name"] == "mos" for m in Point(store.outputs / s["folder"]).metrics().values())
        for s in key["systems"][:6]
    ]
    assert held == [False, False, True, True, True, True]


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"study": "0" * 12}, "holds ratings of the study 000000000000, and this is the study"),
        ({"format": "else"}, "is no file of ratings"),
        ({"page": 2}, "is of page 2, and the study has the pages 1 … 1"),
        ({"ratings": {}}, "holds no rating; leave it out"),
        ({"ratings": {"nothing": {"rating": 3}}}, "rates a text nothing, which page 1 does not have"),
        (6, "with 6; the scale is 1 … 5"),
        (0, "with 0; the scale is 1 … 5"),
        (2.5, "with 2.5; the scale is 1 … 5, in ones"),
        (True, "with true; the scale"),
        ("3", 'with "3"; the scale'),
    ],
)  # fmt: skip
def test_files_that_do_not_belong_are_refused(store, tmp_path, capsys, change, told):
    _, (page,) = rated(store, tmp_path / "study", capsys)
    held = ratings(page, lambda item: 3)
    if isinstance(change, dict):
        held |= change
    else:
        held["ratings"][page["items"][0]["id"]]["rating"] = change
    file = save(tmp_path / "r.json", held)
    assert main(["mos", "import", str(tmp_path / "study"), file, f"outputs={store.outputs}"]) == 2
    said = capsys.readouterr().err
    assert said.startswith(f"diffq: {file} ")
    assert told in said
    assert not list(store.points.glob("**/metrics.json"))


def test_a_rater_counts_once(store, tmp_path, capsys):
    _, (page,) = rated(store, tmp_path / "study", capsys)
    files = [save(tmp_path / f"{n}.json", ratings(page, lambda item: 3, name)) for n, name in enumerate(["Ann", "ann"])]
    words = ["mos", "import", str(tmp_path / "study"), f"outputs={store.outputs}"]
    assert main([*words, *files]) == 2
    assert "are both of ann (page 1); give the later one alone" in capsys.readouterr().err
    other = save(tmp_path / "bob.json", ratings(page, lambda item: 4, "bob"))
    assert main([*words, files[0], other, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)["raters"]) == 2


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["export", "RUN"], "needs to know where the pages go: --to FOLDER"),
        (["export", "RUN", "--to", "x.html", "--raters", "2"], "is one page, and --raters 2 need one each"),
        (["export", "RUN", "--to", "x", "--items", "21"], f"have answered {SOURCES} sources; give at most {SOURCES}"),
        (["export", "RUN", "--to", "x", "--items", "none"], "--items none must be a whole number"),
        (["export", "RUN", "--to", "x", "--question", " "], "--question is empty; ask something"),
        (["export", "RUN", "--to", "x", "--scale", "5-1"], "--scale 5-1 must be two whole numbers of 0 … 10"),
        (["export", "RUN", "--to", "x", "--repeats", "99"], "would come too soon"),
        (["export", "ONE", "--to", "x"], "one system alone is rated against nothing"),
        (["export", "RUN", "--to", "x", "scale=2"], "only outputs= can be given"),
        (["export", "nowhere", "--to", "x"], "no run 'nowhere'"),
        (["import", "nowhere"], "there is no 'nowhere' here; import takes the folder with key.json"),
        (["import"], "needs the folder that mos export wrote"),
        (["import", ".", "."], "key.json cannot be read"),
        ([], "mos needs to know what to do: export"),
        (["exprt"], "did you mean 'export'?"),
    ],
)
def test_mistakes_are_one_sentence_and_status_2(store, tmp_path, monkeypatch, capsys, words, told):
    monkeypatch.chdir(tmp_path)
    one = str(next(store.points.glob("**/run.json")).parent)
    given = {"RUN": "grammar-made-up", "ONE": one}
    assert main(["mos", *(given.get(w, w) for w in words), *([f"outputs={store.outputs}"] if words else [])]) == 2
    said = capsys.readouterr().err
    assert told in said
    assert said.count("\n") == 1
    assert not (tmp_path / "x").exists()


def test_a_folder_keeps_the_key_that_its_ratings_need(store, tmp_path, capsys):
    assert export(store, tmp_path / "s", "--items", "5") == 0
    assert export(store, tmp_path / "s", "--items", "5") == 0, "the same study is written again"
    before = (tmp_path / "s/key.json").read_bytes()
    capsys.readouterr()
    assert export(store, tmp_path / "s", "--items", "6") == 2
    assert "whose ratings could not be read without it" in capsys.readouterr().err
    assert (tmp_path / "s/key.json").read_bytes() == before


def test_points_of_other_sources_are_not_rated_together(store, tmp_path, capsys):
    run = next(store.points.glob("grammar/*/dpmpp/*/run.json"))
    run.write_text(json.dumps(json.loads(run.read_text()) | {"sources_digest": "0"}))
    assert export(store, tmp_path / "s") == 2
    assert "has answered other sources than" in capsys.readouterr().err


def test_a_scale_of_other_grades_has_words_at_its_ends(store, tmp_path, capsys):
    assert export(store, tmp_path / "page.html", "--items", "4", "--scale", "0-10", "--question", "<b>?") == 0
    data = page_data(tmp_path / "page.html")
    assert (data["scale"], data["words"], data["question"]) == ([0, 10], {"0": "worst", "10": "best"}, "<b>?")
    assert "<b>?" not in (tmp_path / "page.html").read_text()


def test_completion_knows_the_words(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "ann.json").write_text("{}")
    assert complete(["mos", "ex"]) == ["export"]
    assert complete(["mos", "import", "an"]) == ["ann.json"]
    assert "--with-references" in complete(["mos", "export", "--w"])
    assert complete(["report", "--y", "mo"]) == ["mos"]
