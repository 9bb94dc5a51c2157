"""`diffq mos export`: rating pages of points, and the key to them."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from diffq.config import Request
from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.report.rating_page import build_rating_page
from diffq.runs.flags import whole_number
from diffq.runs.judging import Judges
from diffq.runs.mos_study import HUMAN, Question, Study, System, choose_sources
from diffq.runs.selection import outputs_of, select
from diffq.store import Point, Store
from diffq.store.files import read_json, write_atomic, write_json

QUESTION = "How good is this text?"
BESIDE_A_SOURCE = "How good is this text as an answer to the given one?"
ITEMS = 20
KEY = "key.json"


def run(request: Request) -> int:
    """Writes the pages and the key, and says where. Returns 0."""
    folder, names = _places(request)
    study = plan(request)
    key = folder / KEY
    held = read_json(key) if key.exists() else None
    if held is not None and held.get("study") != study.hash:
        raise UserError(
            f"{key} is of the study {held.get('study')}, whose ratings could not be read without it; name another"
            " --to for this one"
        )
    files = [folder / name for name in names]
    for rater, file in enumerate(files):
        write_atomic(file, build_rating_page(study.page(rater)).encode("utf-8", "backslashreplace"))
    write_json(key, study.key())
    slots = len(study.pages[0])
    if request.json:
        said = {"study": study.hash, "pages": [str(f) for f in files], "key": str(key), "systems": len(study.systems),
                "sources": len(study.sources), "texts": len(study.texts), "items": slots}  # fmt: skip
        print(json.dumps(said, indent=1, ensure_ascii=False))
        return 0
    again = f", {study.repeats} of them twice" if study.repeats else ""
    print(
        f"study {study.hash}: {len(study.systems)} systems on {len(study.sources)} sources, {len(study.texts)} texts to"
        f" each rater{again}"
    )
    for file in files:
        print(file)
    print(
        f"{key} says who wrote what: keep it, and keep it from the raters; the pages hold numbers of texts and nothing"
        " of who wrote them"
    )
    print(f"then: diffq mos import {folder} RATINGS.json …")
    return 0


def _places(request: Request) -> tuple[Path, list[str]]:
    """The folder, and the names of the pages in it. UserError where --to is missing or fits no such pages."""
    raters = whole_number(request.flags, "raters", 1)
    if not request.flags.to:
        raise UserError("mos export needs to know where the pages go: --to FOLDER, or --to FILE.html for one rater")
    to = Path(request.flags.to[-1]).expanduser()
    if to.suffix == ".html":
        if raters > 1:
            raise UserError(f"--to {to} is one page, and --raters {raters} need one each; name a folder")
        return to.parent, [to.name]
    if to.is_file():
        raise UserError(f"--to {to} is a file; name a folder, or a file that ends in .html")
    return to, [f"rater-{n}.html" for n in range(1, raters + 1)]


def plan(request: Request) -> Study:
    """The study that the words ask for. UserError for points that did not answer the same sources, or not enough."""
    flags = request.flags
    selection = select(Store(outputs_of(request)), request.runs)
    unfinished = [c.point for c in selection.chosen if not c.done]
    if unfinished:
        raise UserError(f"{unfinished[0].folder} is not sampled to its end; diffq sample finishes it, or leave it out")
    judges, points, store = Judges(selection.store, request.config_dirs), selection.points, selection.store
    _same_sources(points, store)
    answers = judges.answers(points[0], 0 if _unprompted(points[0]) else 1)
    wanted, seed = whole_number(flags, "items", None), whole_number(flags, "seed", 0, least=0)
    texts = [_texts(point, answers.unprompted) for point in points]
    there = min(map(len, texts))
    if wanted is not None and wanted > there:
        raise UserError(f"--items {wanted}: these points have answered {there} sources; give at most {there}")
    chosen = choose_sources(wanted or min(ITEMS, there), there, seed)
    systems = [
        System(store.relative(p.folder).removeprefix("points/"), store.relative(p.folder), str(p.run().get("key", "")),
               tuple(list(own.values())[at] for at in chosen))
        for p, own in zip(points, texts, strict=True)
    ]  # fmt: skip
    if flags.with_references:
        systems.append(System(HUMAN, "", "", _references(answers, chosen)))
    if len(systems) < 2:
        raise UserError("one system alone is rated against nothing; name more points, or add --with-references")
    low, high = _scale(flags.scale)
    shown = tuple(answers.sources[at] for at in chosen)
    beside = any(shown) and judges.config(points[0]).dataset.task != "text"  # a text goes on from what is given
    if flags.question and not flags.question[-1].strip():
        raise UserError("--question is empty; ask something, or leave it out")
    asked = flags.question[-1] if flags.question else BESIDE_A_SOURCE if beside else QUESTION
    indices = list(texts[0])
    return Study(
        tuple(systems), shown, tuple(indices[at] for at in chosen), Question(asked, low, high),
        whole_number(flags, "raters", 1), whole_number(flags, "repeats", 0, least=0), seed,
    )  # fmt: skip


def _same_sources(points: Sequence[Point], store: Store) -> None:
    first = points[0].run().get("sources_digest")
    for point in points[1:]:
        if point.run().get("sources_digest") != first:
            raise UserError(
                f"{store.relative(point.folder)} has answered other sources than {store.relative(points[0].folder)};"
                " systems are rated on the same sources: name points of one sweep"
            )


def _unprompted(point: Point) -> bool:
    row = next(iter(point.rows()), {})
    return "prompt_at" in row and not row["prompt_at"]


def _texts(point: Point, unprompted: bool) -> dict[int, str]:
    """What is rated of a point: its first sample of each source by the source's index, sources rising; of texts
    without a prompt each sample, by its number."""
    found = {
        row["sample" if unprompted else "source"]: row["text"]
        for row in point.rows()
        if unprompted or row["sample"] == 0
    }
    return dict(sorted(found.items()))


def texts_of(point: Point, indices: Sequence[int]) -> list[str] | None:
    """The rated texts of a point as they are now; None where one is missing."""
    held = _texts(point, _unprompted(point))
    return [held[at] for at in indices] if all(at in held for at in indices) else None


def _references(answers: Answers, chosen: Sequence[int]) -> tuple[str, ...]:
    """The first reference of each chosen source; real texts for texts without a source."""
    own = answers.real if answers.unprompted else [group[0] if group else None for group in answers.references]
    found = [own[at] if at < len(own) else None for at in chosen]
    if None in found:
        raise UserError("--with-references: not every source here has a reference; leave it out")
    return tuple(text for text in found if text is not None)


def _scale(said: Sequence[str]) -> tuple[int, int]:
    """`1-5` → (1, 5). UserError for what no row of keys can give."""
    parts = re.fullmatch(r"(\d+)-(\d+)", said[-1]) if said else None
    low, high = (int(parts[1]), int(parts[2])) if parts else (1, 5)
    if said and (parts is None or not low < high <= 10):
        raise UserError(f"--scale {said[-1]} must be two whole numbers of 0 … 10, the lower first, such as 1-5")
    return low, high
