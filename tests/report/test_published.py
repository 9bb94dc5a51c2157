"""Published tables: every figure as the papers have it, measurements only beside what they measure, commands for the
rest."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from diffq.report.published import Measured, below, tables
from diffq.runs.paper_tables import markdown

SPEC = yaml.safe_load((Path(__file__).parents[2] / "conf/paper/2406.11473.yaml").read_text())


def likelihood(**changes):
    row = {"model": "sedd-small", "dataset": "wikitext2", "block": 1024, "evaluated_on": "train", "perplexity": 41.5,
           "tokens": 1000}  # fmt: skip
    return row | changes


def point(value, low=None, high=None, name="gen_ppl", signature="gen_ppl|judge:gpt2-large@1|s:9|v:1", **where):
    return {"samples": 9, **where, "scores": {signature: {"name": name, "value": value, "low": low, "high": high}}}


def test_without_measurements_every_cell_is_open_and_names_a_command():
    zero_shot, figures, claims = tables(SPEC, Measured())
    shown = {row[0]: row[1:] for row in zero_shot.cells}
    assert shown["SEDD absorb small"][0] == "50.92\nopen"
    assert shown["D3PM small"][1] == "77.28\n–"
    assert any("checkpoint=louaaron/sedd-small" in note for note in zero_shot.notes)
    assert [row[1] for row in figures.cells] == ["0.955", "0.802", "0.957", "0.942", "0.919", "0.312"]
    assert figures.cells[0][2] == "needs gpt2-large"
    assert all(row[2] == "open" and "diffq" in row[3] for row in claims.cells)
    assert [row[1] for row in claims.cells] == ["not published here"] * (len(claims.cells) - 1) + ["4.5 times lower"]


def test_a_likelihood_stands_only_beside_its_own_protocol():
    def cell(row):
        table = tables(SPEC, Measured([row]))[0]
        return next(line for line in table.cells if line[0] == "SEDD absorb small")[2]

    assert cell(likelihood()) == "41.84\n41.50"
    for other in ({"block": 256}, {"evaluated_on": "own"}, {"model": "sedd_mini"}, {"dataset": "ptb"}):
        assert cell(likelihood(**other)) == "41.84\nopen"


def test_a_score_by_another_judge_never_stands_beside_a_published_figure():
    where = {"model": "sedd-medium", "sampler": "analytic", "dataset.prefix": 50, "dataset.block": 100}
    ours = point(90.0, 89.0, 91.0, "mauve", "mauve|features:all-MiniLM-L6-v2|s:9|v:1", **where)
    assert tables(SPEC, Measured(points=[ours]))[1].cells[2][2] == "needs gpt2-large"
    theirs = point(95.2, 94.8, 95.6, "mauve", "mauve|features:gpt2-large@abc|s:9|v:1", **where)
    assert tables(SPEC, Measured(points=[ours, theirs]))[1].cells[2][2] == "0.952 [0.948, 0.956]"


@pytest.mark.parametrize(
    ("low", "high", "verdict"), [(10.0, 20.0, "held"), (40.0, 50.0, "did not hold"), (20.0, 40.0, "undecided")]
)
def test_a_claim_is_judged_by_its_intervals(low, high, verdict):
    sedd = point(15.0, low, high, model="sedd-small", sampler="analytic", steps=32)
    gpt2 = point(30.0, 25.0, 35.0, model="gpt2", temperature=1.0, top_p=1.0, top_k=0)
    claims = tables(SPEC, Measured(points=[sedd, gpt2]))[2]
    assert claims.cells[0][2] == verdict
    assert claims.cells[1][2] == "open"
    assert below({"low": None, "high": None}, gpt2["scores"].popitem()[1]) == "undecided"


def test_latency_on_another_device_decides_nothing():
    rows = [{"name": "diffusion", "steps": n, "against_gpt2": n / 100} for n in (16, 256)]
    bench = {"rows": rows, "break_even_steps": 100.2, "model": "mdlm_mini", "batch": 8, "length": 256}
    for device, verdict in (("cpu, 2 threads", "undecided"), ("NVIDIA A100-SXM4-40GB", "held")):
        cells = tables(SPEC, Measured(latency=bench | {"device": device}))[2].cells[-1]
        assert cells[2] == verdict
        assert "6.2 times lower at 16 steps, equal at 100 steps" in cells[3]


def test_the_page_has_every_table():
    page = markdown(tables(SPEC, Measured()))
    assert page.count("\n| ---") == 3
    assert "50.92<br>open" in page
