"""Questions in SQL: names mean what is documented, mistakes are one sentence, and no file can be reached."""

from __future__ import annotations

from datetime import datetime
from pathlib import Path

import pytest
from many_points import put, put_training

from diffq.errors import UserError
from diffq.store import PlanRow, Store, SweepFolder
from diffq.store.columns import COLUMNS, Names, columns_of, flat
from diffq.store.query import Answer, Question, ask


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    made = Store(tmp_path_factory.mktemp("asked"))
    put(made, "a", 1, 10.0)
    put(made, "b", 2.5, 20.0, seed=1, dials={"temperature": 0.5, "order": "l2r"})
    put(made, "c", 3, None, sampler="clamp", status="partial", dials={"temperature": None, "clip": True})
    more = {"bleu|s:1|v:1": {"name": "bleu", "value": 99.0, "low": None, "high": None, "n": 9, "direction": "higher"},
            "seconds|s:3": {"name": "seconds", "value": 7.0, "low": None, "high": None, "n": 9, "direction": "lower"},
            "scale|s:3": {"name": "scale", "value": 0.1, "low": None, "high": None, "n": 9, "direction": "higher"},
            "of another version": {"value": 4.0}, "of none": 3}  # fmt: skip
    put(made, "d", 4.0, 20.0, metrics=more, sampler="it's")
    put_training(made, "t")
    return made


def keys(store: Store, where: str | None = None, *sort: str, limit: int | None = None) -> str:
    """The keys of the points (or `t` of the training) that an answer holds, one letter each."""
    answer = ask(store, Question(where, sort, limit), ["folder"])
    return "".join(folder[-1] for (folder,) in answer.rows)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        (None, "abdct"),  # by folder: cfg/a, cfg/b, clamp/c, its/d, then trainings
        ("sampler='cfg' and bleu > 10", "b"),
        ("bleu >= 10", "abd"),
        ("bleu > 50", ""),  # d's bleu is the one over its own three samples
        ("BLEU between 5 and 15 or Status = 'partial'", "ac"),
        ("dial_scale > 2", "bdc"),
        ("metric_bleu_low = 9", "a"),
        ("bleu_high = 21", "bd"),
        ("metric_seconds = 7", "d"),
        ("seconds = 7", ""),  # the run's own column goes before the metric
        ("temperature is null", "adct"),
        ("clip", "c"),
        ("\"order\" = 'l2r'", "b"),
        ("dial_order = 'l2r'", "b"),
        ("kind = 'training'", "t"),
        ("loss < 3", "t"),
        ("sampler = 'it''s'", "d"),
        ("sampler like 'c%' -- and a remark", "abc"),
        ("finished > '2026-01-01 12:00'", "abdc"),
        ("started = '2026-01-01'", "t"),
        ("commit = 'abc' and torch like '2.%'", "abdc"),
        ("bleu > (select avg(bleu) from runs)", "bd"),
        ("solver in ('ddim', 'euler') and seed = 1", "b"),
    ],
)
def test_conditions(store, where, found):
    assert sorted(keys(store, where)) == sorted(found)


def test_orders(store):
    assert keys(store, None, "-bleu", "dial_scale") == "bdact"  # no value comes last
    assert keys(store, "bleu > 0", "-bleu", "-dial_scale") == "dba"
    assert keys(store, None, "bleu", limit=2) == "ab"
    assert keys(store, None, "-folder") == "tdcba"
    assert keys(store, "bleu = 20", "-bleu") == "bd"  # equal ones by their folder
    assert keys(store, None, limit=0) == ""


@pytest.mark.parametrize(
    ("where", "told"),
    [
        ("blue > 1", "there is no column 'blue' (did you mean 'bleu'?); columns: kind, folder"),
        ("scale > 1", "'scale' is a dial and a metric here; write dial_scale or metric_scale"),
        ("sampler = cfg", "a text is written in single quotes: 'cfg'"),
        ('sampler = "cfg"', "a text is written in single quotes: 'cfg'"),
        ("order = 'l2r'", "'order' is a word of SQL; write dial_order"),
        ("bleu >", "syntax error"),
        ("bleu > 'many'", "Could not convert string 'many'"),
        ("bleu > 1; drop table stored", "one expression"),
        ("bleu > 1) union select (1", "syntax error"),
        ("1=1) union all (select folder from runs", "syntax error"),
        ("bleu, seed", "single expression"),
        ("select 1", "syntax error"),
        ("copy runs to '/tmp/x'", "syntax error"),
        ("bleu > 1 order by bleu", "evaluated"),
        ("max(bleu) > 1", "aggregates"),
        ("nofunction(bleu)", "does not exist"),
        ("  ", "--where is empty"),
        ("_stamp != ''", "no column '_stamp'"),
        ("", "--where is empty"),
        ("'", "evaluated"),
        ("((bleu > 1)", "evaluated"),
    ],
)
def test_mistakes_are_one_sentence(store, where, told):
    with pytest.raises(UserError) as error:
        ask(store, Question(where), ["folder"])
    assert told in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    "where",
    [
        "exists(select * from read_csv('{file}'))",
        "exists(select * from read_text('{file}'))",
        "exists(select * from read_blob('{file}'))",
        "exists(select * from read_parquet('{index}'))",
        "exists(select * from '{file}')",
        "exists(select * from '{index}')",
        "exists(select * from glob('{folder}/*'))",
        "exists(from read_json('{file}'))",
        "exists(select * from sniff_csv('{file}'))",
        "exists(select * from read_csv('https://example.org/x.csv'))",
        "exists(select * from parquet_metadata('{index}'))",
        "exists(select * from answer)",
        "exists(select * from store)",
        "getenv('HOME') != ''",
        "copy (select 1) to '{file}'",
        "attach '{file}'",
        "install httpfs",
        "load '{file}'",
        "set enable_external_access=true",
        "pragma version",
        "exists(select set_config('enable_external_access', 'true'))",
    ],
)
def test_no_file_and_no_setting_can_be_reached(store, tmp_path, where):
    secret = tmp_path / "secret.csv"
    secret.write_text("a,b\n1,2\n")
    index = store.outputs / "index.parquet"
    ask(store, Question())
    filled = where.format(file=secret, index=index, folder=tmp_path)
    with pytest.raises(UserError) as error:
        ask(store, Question(filled), ["folder"])
    assert "\n" not in str(error.value)
    assert secret.read_text() == "a,b\n1,2\n"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["secret.csv"]


def test_columns_have_types_and_the_names_that_were_asked_for(store):
    answer = ask(store, Question("key = 'b'"), ["dial_scale", "BLEU", "finished", "samples"])
    assert answer.rows == [(2.5, 20.0, datetime(2026, 1, 2, 3, 4, 5), 3)]
    assert answer.types == ("DOUBLE", "DOUBLE", "TIMESTAMP", "BIGINT")
    assert [answer.names.written[c] for c in answer.columns] == ["dial_scale", "bleu", "finished", "samples"]
    with pytest.raises(UserError, match=r"no column 'sampels' \(did you mean 'samples'\?\)"):
        ask(store, Question(), ["sampels"])
    with pytest.raises(UserError, match=r"no column 'blue'"):
        ask(store, Question(sort=("-blue",)))
    everything = ask(store, Question())
    assert everything.columns[: len(COLUMNS)] == tuple(COLUMNS)


def test_named_folders_are_asked_wherever_they_lie(store, tmp_path):
    elsewhere = put(Store(tmp_path), "z", 9.0, 90.0)
    folders = [store.points / "grammar/tiny/cfg/a", elsewhere]
    answer = ask(store, Question("bleu > 0", ("-bleu",)), ["folder", "scale"], folders)
    assert answer.rows == [(str(elsewhere), 9.0), ("points/grammar/tiny/cfg/a", 1.0)]


def test_an_empty_store_has_no_columns_and_no_mistakes(tmp_path):
    assert ask(Store(tmp_path / "none"), Question("bleu > 1", ("-bleu",))) == Answer((), (), [], Names.of(COLUMNS))
    assert not (tmp_path / "none").exists()


def test_a_dial_of_several_kinds_is_text():
    rows = [flat("point", str(n), {"dials": {"k": v}}, {}) for n, v in enumerate([1, True, "x", None, 2.5, [1, 2]])]
    assert columns_of(rows)["dial_k"] == ["1", "true", "x", None, "2.5", "[1, 2]"]
    numbers = [flat("point", str(n), {"dials": {"k": v}}, {}) for n, v in enumerate([1, 2.5])]
    assert columns_of(numbers)["dial_k"] == [1.0, 2.5]
    large = [flat("point", "0", {"dials": {"k": 2**70}, "seed": 2**70}, {})]
    assert columns_of(large)["dial_k"] == [2.0**70]
    assert columns_of(large)["seed"] == [None]


def test_names_that_differ_in_case_alone_are_kept_apart():
    columns = columns_of([flat("point", "0", {"dials": {"K": 1, "k": 2}}, {})])
    assert (columns["dial_K"], columns["dial_k_2"]) == ([1], [2])


def test_a_metric_is_the_one_over_the_points_own_samples_that_was_written_last():
    def score(value: float) -> dict:
        return {"name": "m", "value": value, "low": None, "high": None, "n": 1, "direction": "higher"}

    metrics = {"m|s:3|v:1": score(1.0), "m|s:3|v:2": score(2.0), "m|s:8|v:1": score(3.0)}
    assert flat("point", "0", {"samples": 3}, metrics)["metric_m"] == 2.0
    assert flat("point", "0", {"samples": 8}, metrics)["metric_m"] == 3.0
    assert flat("point", "0", {"samples": 5}, {"m|s:3|v:1": score(1.0)})["metric_m"] == 1.0


def test_the_store_is_only_read(store, tmp_path, monkeypatch):
    """No working folder, home or temporary folder of DuckDB's appears."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    keys(store, "bleu > 1", "-bleu")
    assert list(Path(tmp_path).iterdir()) == []


def test_a_point_goes_by_every_name_that_it_was_asked_for_by(tmp_path):
    made = Store(tmp_path)
    put(made, "a", 1.0, 10.0, sampler="dpmpp")
    put(made, "b", 2.0, 20.0, sampler="dpmpp", asked="cfg")
    put(made, "c", 3.0, 30.0, sampler="dpmpp", asked="dpmpp")
    rows = [PlanRow("a", "points/grammar/tiny/dpmpp/a", name) for name in ("cfg", "dpmpp", "guided")]
    for name in ("one", "two"):
        SweepFolder(made.sweeps / name).write([*rows, PlanRow("z", "points/gone", "cfg")])

    def named(where: str | None) -> list[tuple]:
        return ask(made, Question(where), ["key", "sampler"]).rows

    assert named(None) == [("a", "dpmpp"), ("b", "dpmpp"), ("c", "dpmpp")]
    assert named("sampler = 'cfg'") == [("a", "cfg"), ("b", "cfg")]
    assert named("sampler in ('guided', 'cfg') and bleu < 15") == [("a", "cfg")]
    assert named("sampler = 'dpmpp'") == named(None)
    assert ask(made, Question("sampler = 'cfg'", ("-bleu",), 1), ["bleu"]).rows == [(20.0,)]
    (made.sweeps / "one" / "plan.jsonl").write_text(
        '{"key": "a", "folder": "points/x"}\n{broken\n{"key": "b", "folder": "points/y"}\n'
    )
    assert "line 2 is not a JSON mapping" in ask(made, Question("sampler = 'cfg'")).broken[0]
