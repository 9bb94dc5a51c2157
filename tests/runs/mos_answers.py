"""Files of ratings as a rating page would save them."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


def page_data(page: Path) -> dict[str, Any]:
    """What a rating page holds."""
    text = page.read_text()
    return json.loads(text.partition('<script type="application/json" id="data">')[2].partition("</script>")[0])


def ratings(data: Mapping[str, Any], rate: Callable[[Mapping[str, Any]], int | None], rater: str = "ann") -> dict:
    """The file of a rater who gives each item what `rate` says; None leaves it out."""
    given = {item["id"]: rate(item) for item in data["items"]}
    found = {own: {"rating": value, "at": "2020-01-01T00:00:00Z"} for own, value in given.items() if value is not None}
    head = {"format": "diffq-ratings", "version": 1, "rater": rater, "items": len(data["items"]), "rated": len(found)}
    return head | {name: data[name] for name in ("study", "page", "scale")} | {"ratings": found}


def save(file: Path, held: Any) -> str:
    file.write_text(json.dumps(held))
    return str(file)
