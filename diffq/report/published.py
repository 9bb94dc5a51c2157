"""Published tables with what was measured beside them, cell by cell; what was not measured says which command would.

What is published stands in conf/paper/NAME.yaml. Measurements are plain records: likelihoods by model and data set, and
points with their dials and scores. A measurement stands beside a published figure only where all that the file asks for
is so. Knows no store.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from diffq.report.paper import UNPUBLISHED, Verdict
from diffq.report.tables import show_interval
from diffq.store.identity import show_value


@dataclass(frozen=True)
class Table:
    """Headings and cells, and what is said below them."""

    title: str
    heads: list[str]
    cells: list[list[str]]
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Measured:
    """All that was measured: rows of `diffq likelihood`, points as flat records with `scores`, the latency bench."""

    likelihoods: Sequence[Mapping[str, Any]] = ()
    points: Sequence[Mapping[str, Any]] = ()
    latency: Mapping[str, Any] | None = None


def tables(spec: Mapping[str, Any], measured: Measured) -> list[Table]:
    """Every table of a paper."""
    return [
        _likelihoods(spec["likelihoods"], measured.likelihoods),
        _figures(spec["figures"], measured.points),
        _claims(spec, measured),
    ]


def _likelihoods(spec: Mapping[str, Any], rows: Sequence[Mapping[str, Any]]) -> Table:
    cells, open_ = [], {}
    for row in spec["rows"]:
        line = [row["name"]]
        for column, published in zip(spec["columns"], row["published"], strict=True):
            if row["model"] is None:
                line.append(f"{published:g}\n–")
                continue
            wanted = spec["evaluated_on"].get(column, "own")
            found = [
                r
                for r in rows
                if (r["model"], r["dataset"], r["block"]) == (row["model"], column, spec["block"])
                and r["evaluated_on"] == wanted
            ]
            if found:
                best = max(found, key=lambda r: r["tokens"])
                line.append(f"{published:g}\n{best['perplexity']:.2f}")
            else:
                line.append(f"{published:g}\nopen")
                open_[row["model"]] = spec["commands"][row["model"]]
        cells.append(line)
    commands = [f"open, {model}: {command}" for model, command in open_.items()]
    heads = ["published\nmeasured", *spec["columns"]]
    return Table(spec["title"], heads, cells, (spec["note"], f"–: {spec['without']}", *commands))


def _figures(spec: Mapping[str, Any], points: Sequence[Mapping[str, Any]]) -> Table:
    cells, missing = [], False
    for row in spec["rows"]:
        score = _score(points, row["where"], spec["metric"], spec["needs"]) if row["where"] else None
        if row["where"] is None:
            shown = "–"
        elif score is None:
            shown, missing = f"needs {spec['needs'].partition(':')[2]}", True
        else:
            value, low, high = (
                None if score[k] is None else score[k] * spec["scale"] for k in ("value", "low", "high")
            )
            shown = f"{value:.3f}" if low is None or high is None else f"{value:.3f} [{low:.3f}, {high:.3f}]"
        cells.append([row["name"], f"{row['published']:g}", shown])
    notes = [f"–: {spec['without']}"] + ([f"to measure: {spec['command']}"] if missing else [])
    return Table(spec["title"], ["", "published", "measured"], cells, tuple(notes))


def _claims(spec: Mapping[str, Any], measured: Measured) -> Table:
    cells = []
    for claim in spec["claims"]:
        a, b = (_score(measured.points, claim[side], claim["metric"]) for side in ("less", "than"))
        if a is None or b is None:
            cells.append([claim["text"], UNPUBLISHED, "open", claim["command"]])
        else:
            shown = [show_interval(x["value"], x["low"], x["high"]) for x in (a, b)]
            cells.append([claim["text"], UNPUBLISHED, below(a, b), f"{shown[0]} against {shown[1]}"])
    latency = spec["latency"]
    cells.append([latency["text"], latency["published"], *_latency(latency, measured.latency)])
    return Table(spec["title"], ["claim", "published", "verdict", "measured"], cells, tuple(spec["footnotes"]))


def below(a: Mapping[str, Any], b: Mapping[str, Any]) -> Verdict:
    """Whether the first is lower: held or not where the intervals do not meet, else undecided."""
    if any(x is None for x in (a["low"], a["high"], b["low"], b["high"])):
        return "undecided"
    return "held" if a["high"] < b["low"] else "did not hold" if a["low"] > b["high"] else "undecided"


def _latency(spec: Mapping[str, Any], bench: Mapping[str, Any] | None) -> list[str]:
    """Another device than the published one decides nothing; what was seen there is told."""
    if bench is None:
        return ["open", spec["command"]]
    steps = [row for row in bench["rows"] if row["steps"]]
    fewest = min(steps, key=lambda row: row["steps"])
    said = (
        f"{1 / fewest['against_gpt2']:.2g} times lower at {fewest['steps']} steps, equal at"
        f" {bench['break_even_steps'] and round(bench['break_even_steps'])} steps; {bench['model']}, batch"
        f" {bench['batch']} × {bench['length']}, {bench['device']}"
    )
    return ["held" if "A100" in bench["device"] and fewest["against_gpt2"] < 1 / 4 else "undecided", said]


def _score(
    points: Sequence[Mapping[str, Any]], where: Mapping[str, Any], metric: str, needs: str = ""
) -> Mapping[str, Any] | None:
    """The score of the point of most samples that has these settings and a score of this name and kind."""
    fitting = [
        (point["samples"], score)
        for point in points
        if all(show_value(point.get(name)) == show_value(value) for name, value in where.items())
        for signature, score in point["scores"].items()
        if score["name"] == metric and needs in signature
    ]
    return max(fitting, key=lambda pair: pair[0])[1] if fitting else None
