"""What report.html is made of: data that cannot end its block, a policy for its scripts alone, figures of any axes."""

from __future__ import annotations

import base64
import csv
import hashlib
import html
import io
import json
import re
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_up_page import TRACES, frontier, make_page, many_points
from synthetic import figure, frontier_points, point

from diffq.report import page
from diffq.report.frontier import build_frontier
from diffq.report.page import ASSETS, SCRIPTS, LibraryMissing, build_page, own_script, policy, read_library, to_block
from diffq.report.page_data import SYMBOLS, page_data
from diffq.report.plot import MARKERS, colour_of, marker_of
from diffq.report.rating_page import SCRIPTS as RATING_SCRIPTS
from diffq.report.tables import ReportTable, frontier_rows, table, to_csv, to_latex, to_markdown

HOSTILE = [
    "</script><script>alert(1)</script>",
    "<!--<script>",
    "<img src=x onerror=alert(1)>",
    "&lt;b&gt;",
    "\u2028\u2029",
]


class Blocks(HTMLParser):
    """What stands in each <script>, as a browser would cut the page."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[tuple[dict[str, str | None], str]] = []
        self.metas: list[dict[str, str | None]] = []
        self._inside = False

    def handle_starttag(self, tag, attrs):
        self._inside = tag == "script"
        if tag == "script":
            self.found.append((dict(attrs), ""))
        if tag == "meta":
            self.metas.append(dict(attrs))

    def handle_endtag(self, tag):
        self._inside = self._inside and tag != "script"

    def handle_data(self, text):
        if self._inside:
            attributes, before = self.found[-1]
            self.found[-1] = (attributes, before + text)


@pytest.mark.parametrize("text", HOSTILE)
def test_text_cannot_leave_its_block(text):
    block = to_block({text: [text]})
    assert not re.search("[<>&\u2028\u2029]", block)
    assert json.loads(block) == {text: [text]}


@given(st.text(st.characters(codec=None)))
def test_every_text_survives_and_can_be_written(text):
    block = to_block([text])
    block.encode()
    assert not re.search("[<>&]", block)
    # A pair of surrogates is one character in JSON; text from files never has one.
    assert json.loads(block)[0].encode("utf-16", "surrogatepass") == text.encode("utf-16", "surrogatepass")


def test_numbers_that_json_lacks_become_null():
    assert to_block({"a": float("nan"), "b": [float("inf"), 1.5], "c": (2,)}) == '{"a":null,"b":[null,1.5],"c":[2]}'


def test_a_page_is_cut_into_its_blocks_whatever_its_samples_say(tmp_path):
    texts = {(0, n): text for n, text in enumerate(HOSTILE[:3])}
    notes = ["</script><script>alert(1)</script>"]
    data = make_page(tmp_path / "a.html", texts=texts, notes=notes, traces=TRACES)
    blocks = Blocks()
    blocks.feed((tmp_path / "a.html").read_text())
    held = [(a, text) for a, text in blocks.found if a.get("type") == "application/json"]
    scripts = [text for a, text in blocks.found if "type" not in a]
    assert len(held) == 1 + len(data["asked"]) + 1
    assert json.loads(held[0][1])["notes"] == notes
    key = next(iter(data["asked"]))
    part = next(json.loads(text) for a, text in held if a["id"] == f"part-{key}")
    assert part["samples"][0] == HOSTILE[:3]
    # The policy names exactly the two scripts that are there, and lets nothing be fetched.
    said = next(m["content"] for m in blocks.metas if m.get("http-equiv") == "Content-Security-Policy")
    rules = dict(rule.split(" ", 1) for rule in said.split("; "))
    digests = {f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in scripts}
    assert len(scripts) == 2
    assert set(rules["script-src"].split()) == digests
    assert rules["default-src"] == "'none'"
    assert set(rules) == {"default-src", "script-src", "style-src", "img-src", "base-uri", "form-action"}


def test_the_title_is_escaped():
    made = build_page("<b>&", {}, {})
    assert f"<title>{html.escape('<b>&')}</title>" in made


def test_nothing_in_our_own_files_reaches_for_the_network_or_reads_text_as_html():
    for path in ASSETS.iterdir():
        text = path.read_text()
        text = text.replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?://|@import|url\(", text), path
        for name in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
            assert name not in text, f"{path}: {name}"
    assert {p.name for p in ASSETS.glob("*.js")} == {*SCRIPTS, *RATING_SCRIPTS}


def test_our_scripts_are_short_and_run_in_a_scope_of_their_own():
    for name in SCRIPTS:
        text = (ASSETS / name).read_text()
        assert text.startswith("//"), f"{name} says at its head what it does"
        assert len(text.splitlines()) <= 400
        assert max(map(len, text.splitlines())) <= 120
    assert own_script().startswith('(() => {\n"use strict";')


def test_without_the_library_it_is_said(monkeypatch):
    monkeypatch.setattr(page.metadata, "files", lambda name: None)
    with pytest.raises(LibraryMissing, match="plotly is not installed"):
        read_library()

    def missing(name):
        raise page.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(page.metadata, "files", missing)
    with pytest.raises(LibraryMissing, match="plotly is not installed"):
        read_library()


def test_the_library_is_not_imported():
    import subprocess
    import sys

    code = """
import sys
from diffq.report.page import read_library
assert len(read_library()) > 10**6
print("plotly" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_policies_differ_with_the_script():
    assert policy("a") != policy("b")


def test_points_lines_and_strands_fit_together():
    seen = frontier()
    data = page_data(seen, ["rouge_l"], [], [])
    assert [m["name"] for m in data["metrics"][:3]] == ["bleu", "self_bleu", "rouge_l"]
    assert [m["sign"] for m in data["metrics"][:2]] == [1, -1]
    assert len(data["points"]) == len(seen.points) + len(seen.nulls)
    for number, line in enumerate(data["lines"]):
        runs = [range(*strand) for strand in line["strands"]]
        assert [n for run in runs for n in run] == [n for n, p in enumerate(data["points"]) if p["line"] == number]
    assert {p["id"] for p in data["points"] if p["front"]} == {
        f"{p.sampler}:{p.key[:12]}" for p in seen.points if p.key in seen.front
    }
    one = seen.lines[0].points[0]
    f = one.figures["bleu"]
    assert data["points"][0]["figures"]["bleu"] == [f.value, f.low, f.high, None]


def test_colours_and_markers_are_those_of_the_picture():
    data = page_data(frontier(), [], [], [])
    shown = [(line["colour"], line["symbol"]) for line in data["lines"] if not line["null"]]
    assert shown == [(colour_of(n), SYMBOLS[marker_of(n)]) for n in range(len(shown))]
    assert len(set(SYMBOLS.values())) == len(MARKERS)


def test_costs_are_axes_an_answer():
    points = [replace(p, costs={"nfe_rows": 600.0, "seconds": 3.0, "rows": 30.0}) for p in many_points(4)]
    data = page_data(build_frontier(points, [], "self_bleu", "bleu"), [], [], [])
    costs = [m for m in data["metrics"] if m["cost"]]
    assert [m["name"] for m in costs] == ["cost:nfe", "cost:seconds", "cost:run_seconds"]
    assert all(m["sign"] == -1 for m in costs)
    assert data["points"][0]["figures"]["cost:nfe"] == [20.0, None, None, None]
    assert data["points"][0]["figures"]["cost:seconds"][0] == pytest.approx(0.1)


def test_what_samplers_say_of_themselves_is_an_axis_on_which_neither_end_is_better():
    points = many_points(4)
    points[0] = replace(points[0], records={"acceptance": 0.75})
    data = page_data(build_frontier(points, [], "self_bleu", "bleu"), [], [], [])
    (axis,) = [m for m in data["metrics"] if m["name"].startswith("record:")]
    assert (axis["name"], axis["sign"], axis["cost"]) == ("record:acceptance", 0, False)
    assert [p["figures"].get("record:acceptance") for p in data["points"]].count([0.75, None, None, None]) == 1
    assert "record_acceptance" in data["exports"]["csv"]["before"]


def test_figures_of_another_signature_are_left_out_with_a_note():
    points = many_points(6)
    other = replace(figure("rouge_l", 50.0, 1.0), signature="rouge_l|s:9|v:1")
    points[0] = replace(points[0], figures={**points[0].figures, "rouge_l": other})
    data = page_data(build_frontier(points, [], "self_bleu", "bleu"), [], [], [])
    assert sum("rouge_l" in p["figures"] for p in data["points"]) == 5
    assert data["notes"] == ["rouge_l of 1 point left out of report.html: it has another signature there"]


def test_copies_are_the_rows_of_the_files():
    points, nulls = frontier_points()
    seen = build_frontier(points, nulls, "self_bleu", "bleu")
    exports = page_data(seen, ["rouge_l"], [], [])["exports"]
    heads, cells = table(seen, ["rouge_l"])
    whole = {name: held["before"] + "".join(held["rows"]) + held["after"] for name, held in exports.items()}
    assert whole["markdown"] == to_markdown(heads, cells)
    assert whole["latex"] == to_latex(heads, cells)
    ours = list(csv.DictReader(io.StringIO(whole["csv"])))
    theirs = list(csv.DictReader(io.StringIO(to_csv(frontier_rows(seen)))))
    assert sorted(row["key"] for row in ours) == sorted(row["key"] for row in theirs)
    assert {row["key"]: row for row in ours} == {row["key"]: row for row in theirs}
    assert [row["sampler"] for row in ours] == [p["sampler"] for p in page_data(seen, [], [], [])["points"]]


def test_seeds_are_parts_of_a_point():
    points = [replace(point("cfg", 40 + s, 20 - s, scale=2), key=f"k{s}", seed=s) for s in range(3)]
    data = page_data(build_frontier(points, [], "self_bleu", "bleu"), [], [], [])
    (one,) = data["points"]
    assert [part["seed"] for part in one["parts"]] == [0, 1, 2]
    assert one["parts"][1]["figures"]["bleu"] == 19
    assert one["figures"]["bleu"][3] == pytest.approx(1.0)


def test_tables_travel_as_they_are():
    shown = ReportTable("a title", ("x", "y"), (("1", "2\n3"),), ("a note",))
    data = page_data(frontier(), [], [shown], [])
    assert data["tables"] == [{"title": "a title", "heads": ["x", "y"], "cells": [["1", "2\n3"]], "notes": ["a note"]}]


def test_assets_are_in_the_package():
    assert ASSETS.is_relative_to(Path(page.__file__).parent)
    assert (ASSETS / "page.html").exists()
