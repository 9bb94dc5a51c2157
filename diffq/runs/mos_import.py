"""`diffq mos import`: ratings into scores of systems, their agreement, and `mos` among the metrics of the points."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from diffq.config import Request
from diffq.errors import UserError
from diffq.metrics.base import Score
from diffq.metrics.evaluate import to_json
from diffq.metrics.intervals import paired_difference
from diffq.report.tables import print_table, show_interval
from diffq.runs.mos_export import texts_of
from diffq.runs.mos_ratings import Key, Opinions, read_key, read_ratings
from diffq.runs.selection import outputs_of
from diffq.store import Point, Store
from diffq.store.identity import digest


def run(request: Request) -> int:
    """Prints what the ratings say and writes it to the points; 0, or 1 where a point had to be left out."""
    if len(request.runs) < 2:
        raise UserError("mos import needs the folder that mos export wrote, and files of ratings: FOLDER FILE …")
    folder, *files = request.runs
    key = read_key(folder)
    raters = read_ratings(files, key)
    store, said = Store(outputs_of(request)), Opinions(key, raters)
    places = [_place(store, key, number) for number in range(len(key.systems))]
    written = _write(places, said.scores)
    found = {
        "study": key.study,
        "signature": said.signature,
        "systems": _systems(key, said, places, written),
        "differences": _differences(key, said.scores),
        "agreement": said.agreement(),
        "raters": [
            {"name": r.name, "page": r.page, "rated": len(r.ratings), "of": r.asked,
             "mean": sum(r.ratings.values()) / len(r.ratings), "consistency": said.consistency(r)}
            for r in raters
        ],
    }  # fmt: skip
    if request.json:
        print(json.dumps(found, indent=1, ensure_ascii=False))
    else:
        _show(found)
    refused = [place for place in places if isinstance(place, str)]
    for reason in refused:
        print(f"diffq: {reason}", file=sys.stderr)
    return 1 if refused else 0


def _place(store: Store, key: Key, number: int) -> Point | str | None:
    """The point of a system if its texts are those that were rated, or why nothing is written there; None for the
    references."""
    system = key.systems[number]
    if not system["folder"]:
        return None
    place = Point(store.outputs / system["folder"])
    run = place.run()
    if not run:
        return f"{place.folder} is not there any more, so its mos is written nowhere; outputs=FOLDER says where it is"
    if run.get("key") != system["key"]:
        return f"{place.folder} is another point than the one that was rated; its mos is not written"
    texts = texts_of(place, key.indices)
    if texts is None or digest(texts) != system["texts"]:
        return f"{place.folder} has other samples than those that were rated; its mos is not written"
    return place


def _write(places: Sequence[Point | str | None], scores: Sequence[Score | None]) -> list[bool]:
    """Writes each score to its point, and says which were."""
    done = []
    for place, score in zip(places, scores, strict=True):
        there = isinstance(place, Point) and score is not None
        if isinstance(place, Point) and score is not None:
            rows = {} if score.per_source is None else {score.signature: score.per_source}
            place.write_metrics(to_json([score]), rows)
        done.append(there)
    return done


def _systems(
    key: Key, said: Opinions, places: Sequence[Point | str | None], written: Sequence[bool]
) -> list[dict[str, Any]]:
    counts = [0] * len(key.systems)
    for rater in said.raters:
        for item in rater.ratings:
            for system in key.items[item]["systems"] if not key.items[item]["repeats"] else ():
                counts[system] += 1
    return [
        {
            "name": system["name"],
            "folder": system["folder"],
            "mos": score.value if score else None,
            "low": score.low if score else None,
            "high": score.high if score else None,
            "ratings": count,
            "written": there,
        }
        for system, score, count, there in zip(key.systems, said.scores, counts, written, strict=True)
    ]


def _differences(key: Key, scores: Sequence[Score | None]) -> list[dict[str, Any]]:
    """Every two systems, paired over sources: first − second."""
    found = []
    for a, one in enumerate(scores):
        for b, other in enumerate(scores[:a]):
            if one is None or other is None or one.per_source is None or other.per_source is None:
                continue
            gap = paired_difference(one, other)
            names = {"system": key.systems[a]["name"], "minus": key.systems[b]["name"]}
            found.append(names | {"difference": gap.value, "low": gap.low, "high": gap.high, "above": gap.probability})
    return found


def _show(found: dict[str, Any]) -> None:
    systems = sorted(found["systems"], key=lambda s: -1e9 if s["mos"] is None else s["mos"], reverse=True)
    print_table(
        f"Mean opinion scores of study {found['study']}, 95 % over sources",
        ["system", "mos", "ratings", "written"],
        [
            [s["name"], "–" if s["mos"] is None else show_interval(s["mos"], s["low"], s["high"]), str(s["ratings"]),
             "yes" if s["written"] else "–"]
            for s in systems
        ],
    )  # fmt: skip
    first = found["systems"][0]["name"]
    gaps = [d for d in found["differences"] if d["minus"] == first]
    if gaps:
        print_table(
            f"Difference from {first}, paired over sources",
            ["system", "difference", "P above"],
            [[d["system"], show_interval(d["difference"], d["low"], d["high"]), f"{d['above']:.3f}"] for d in gaps],
        )
    print_table(
        "Agreement between raters: Krippendorff's α (1: all agree, 0: as by chance)",
        ["level", "α"],
        [[level, _alpha(entry)] for level, entry in found["agreement"].items()],
    )
    print_table(
        "Raters", ["rater", "rated", "mean", "rated twice: same, within one"], [_rater(r) for r in found["raters"]]
    )
    print(f"signature: {found['signature']}")
    if any(s["written"] for s in found["systems"]):
        print("mos is now a metric of these points: diffq report … --y mos")


def _alpha(entry: dict[str, float | None]) -> str:
    if entry["alpha"] is None:
        return "– (one rater, or all ratings alike)"
    shown = [f"{entry[name]:.3f}" for name in ("alpha", "low", "high") if entry[name] is not None]
    return shown[0] if len(shown) < 3 else f"{shown[0]} [{shown[1]}, {shown[2]}]"


def _rater(rater: dict[str, Any]) -> list[str]:
    twice = rater["consistency"]
    told = f"{twice['texts']}: {100 * twice['same']:.0f} %, {100 * twice['within_one']:.0f} %" if twice else "–"
    return [
        f"{rater['name']} (page {rater['page']})",
        f"{rater['rated']} of {rater['of']}",
        f"{rater['mean']:.2f}",
        told,
    ]
