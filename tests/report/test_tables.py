"""The table says the same in every form."""

from __future__ import annotations

import csv
import io
import json
import sys
from dataclasses import replace

from rich.console import Console
from synthetic import frontier_points, point

from diffq.report.frontier import at_equal_diversity, build_frontier, reference_line, volumes
from diffq.report.tables import (
    fitting,
    frontier_rows,
    level_table,
    print_table,
    show_interval,
    table,
    to_csv,
    to_json,
    to_latex,
    to_markdown,
    to_rich,
)


def made():
    points, nulls = frontier_points()
    return build_frontier(points, nulls, "self_bleu", "bleu")


def test_csv_says_what_trainings_are_called_where_one_has_a_name():
    points, nulls = frontier_points()
    assert all("training" not in row for row in frontier_rows(made()))
    named = build_frontier([replace(points[0], training="ens"), *points[1:]], nulls, "self_bleu", "bleu")
    assert [row["training"] for row in frontier_rows(named)][:2] == ["ens", ""]


def test_csv_holds_every_point_dial_and_figure():
    frontier = made()
    rows = list(csv.DictReader(io.StringIO(to_csv(frontier_rows(frontier)))))
    assert len(rows) == len(frontier.points) + len(frontier.nulls)
    first = rows[0]
    fixed = "kind sampler model length s n on_front nfe_rows seconds key folder"
    measured = "dial_scale dial_temperature dial_q bleu bleu_low bleu_high self_bleu_low"
    assert set(fixed.split()) | set(measured.split()) <= set(first)
    assert {row["key"] for row in rows if row["on_front"] == "true"} == frontier.front
    assert {row["kind"] for row in rows} == {"point", "null"}
    one = next(row for row in rows if row["sampler"] == "cfg" and row["dial_scale"] == "2")
    point = next(p for p in frontier.points if p.key == one["key"])
    assert float(one["bleu"]) == point.figures["bleu"].value
    assert float(one["self_bleu_high"]) == point.figures["self_bleu"].high
    assert one["dial_top_p"] == ""


def test_json_is_plain_and_whole():
    frontier = made()
    found, box = volumes(frontier)
    levels = at_equal_diversity(frontier)
    value = json.loads(json.dumps(to_json(frontier, found, box, levels, "causal"), allow_nan=False))
    assert value["signatures"] == {"self_bleu": "self_bleu|s:3|v:1", "bleu": "bleu|s:3|v:1"}
    assert value["front"] == sorted(frontier.front)
    assert len(value["equal_diversity"]["levels"]) == len(levels)


def test_tables_for_people(capsys, monkeypatch):
    frontier = made()
    heads, cells = table(frontier)
    assert len(cells) == len(frontier.points) + len(frontier.nulls)
    brief = table(frontier, brief=True)[1]
    assert len(brief) == len(frontier.points)
    assert all("oracle" in row or "free" in row for row in brief)  # which length model was used is always shown
    assert {len(row) for row in cells} == {len(heads)}
    markdown = to_markdown(heads, cells)
    assert markdown.count("\n") == len(cells) + 2
    latex = to_latex(heads, cells)
    assert r"clamp\_before\_cfg" in latex
    assert r"\bottomrule" in latex
    levels = level_table(frontier, at_equal_diversity(frontier), reference_line(frontier).label)
    print_table("a [title]", *levels)
    assert "a [title]" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "rich.console", None)
    print_table("plain", heads, cells)
    assert markdown.splitlines()[0] in capsys.readouterr().out


def test_figures_are_written_short():
    assert show_interval(None) == "–"
    assert show_interval(21.44, 20.61, 22.28) == "21.4 [20.6, 22.3]"
    assert show_interval(0.5) == "0.50"
    assert show_interval(2.0, 1.0, 3.0, signed=True) == "+2.00 [+1.00, +3.00]"


def test_a_narrow_terminal_loses_columns_of_numbers_from_the_right():
    heads, cells = ["sampler", "bleu", "note", "nfe", "seconds"], [["cfg", "12.5 [1, 2]", "a note", "30", "1.2"]]
    assert fitting(heads, cells, 100) == [0, 1, 2, 3, 4]
    assert fitting(heads, cells, 45) == [0, 1, 2, 3]
    assert fitting(heads, cells, 39) == [0, 1, 2]
    assert fitting(heads, cells, 5) == [0, 1, 2]  # text folds
    assert fitting(heads, [], 5) == [0, 1, 2, 3, 4]
    assert fitting(heads, cells, 5, least=2) == [0, 1, 2, 3]


def test_what_fits_is_not_folded(capsys):
    heads, cells = ["sampler", "bleu", "nfe"], [["cfg", "12.5 [11.0, 12.9]", "30"]]
    for width in range(38, 46):
        shown = [heads[at] for at in fitting(heads, cells, width)]
        Console(width=width).print(to_rich(shown, [cells[0][: len(shown)]]))
        assert "12.5 [11.0, 12.9]" in capsys.readouterr().out, width


def test_the_axes_come_first_and_stay():
    heads, cells = table(made(), metrics=("rouge_l",), brief=True)
    assert heads[3:5] == ["bleu", "self_bleu"]
    kept = [heads[at] for at in fitting(heads, cells, 20, least=2)]
    assert kept == ["", "sampler", "dials", "bleu", "self_bleu", "length"]


def test_where_nothing_varies_the_samplers_own_dials_are_said():
    imh = point("imh", 20, 30, scale=1.0, alpha=4.0, chain=8, steps=0)
    plain = point("low_confidence", 25, 28, scale=1.0, temperature=1.0, steps=0)
    points = [replace(imh, changed=("chain",), own=frozenset({"alpha", "chain"})), replace(plain, changed=())]
    assert [row[2] for row in table(build_frontier(points, [], "self_bleu", "bleu"))[1]] == ["alpha 4, chain 8", ""]
