"""report.html: one file that opens without a network, made of data, our own scripts and a plotting library.

What samples say is untrusted: it travels as JSON in which no character can end the block, and a Content-Security-Policy
lets only the scripts run whose hashes it names, and nothing be fetched. Knows no frontier and no store.
"""

from __future__ import annotations

import base64
import hashlib
import html
import json
import math
import re
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

ASSETS = Path(__file__).parent / "assets"
SCRIPTS = (
    "dom.js", "state.js", "front.js", "plot.js", "filters.js", "table.js", "words.js", "samples.js", "trace.js",
    "point.js", "main.js",
)  # fmt: skip
"""Our own scripts, in the order in which they are put together."""

LIBRARY = "plotly/package_data/plotly.min.js"

_DANGEROUS = re.compile("[<>&\u2028\u2029\ud800-\udfff]")


class LibraryMissing(Exception):
    """The plotting library is not installed."""


def build_page(title: str, data: Mapping[str, Any], parts: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page.

    data: what is read when the page opens; parts: what is read when it is first looked at, by a name such as a point's
    key. Raises LibraryMissing.
    """
    library, own = read_library(), own_script()
    blocks = [_block("data", data), *(_block(f"part-{name}", part) for name, part in parts.items())]
    holes = {
        "policy": html.escape(policy(library, own)),
        "title": html.escape(title),
        "style": _asset("page.css"),
        "data": "\n".join(blocks),
        "library": f"<script>{library}</script>",
        "own": f"<script>{own}</script>",
    }
    return re.sub(r"\{\{(\w+)\}\}", lambda hole: holes[hole[1]], _asset("page.html"))


def _block(name: str, value: Any) -> str:
    return f'<script type="application/json" id="{html.escape(name)}">{to_block(value)}</script>'


def to_block(value: Any) -> str:
    """JSON that is safe inside a `<script>` block: no tag, comment or entity can begin in it, and what JavaScript or
    UTF-8 would not take is escaped. NaN and infinity become null."""
    text = json.dumps(_finite(value), ensure_ascii=False, allow_nan=False, separators=(",", ":"))
    return _DANGEROUS.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def _finite(value: Any) -> Any:
    if isinstance(value, float):
        return float(value) if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def policy(*scripts: str) -> str:
    """The Content-Security-Policy under which these scripts run, no others, and nothing is fetched."""
    digests = (base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts)
    rules = {
        "default-src": "'none'",
        "script-src": " ".join(f"'sha256-{digest}'" for digest in digests),
        "style-src": "'unsafe-inline'",  # the library writes its own rules
        "img-src": "data: blob:",  # a picture of the plot to keep
        "base-uri": "'none'",
        "form-action": "'none'",
    }
    return "; ".join(f"{name} {value}" for name, value in rules.items())


def own_script() -> str:
    """Our scripts as one, in a scope of its own."""
    body = "\n".join(_asset(name) for name in SCRIPTS)
    return f'(() => {{\n"use strict";\n{body}\n}})();'


def read_library() -> str:
    """plotly.js, out of the Python package `plotly`, which is not imported for it. Raises LibraryMissing."""
    try:
        files = metadata.files("plotly") or []
    except metadata.PackageNotFoundError:
        files = []
    for file in files:
        if file.as_posix() == LIBRARY:
            text = Path(str(file.locate())).read_text(encoding="utf-8")
            if re.search(r"</script|<!--", text, re.IGNORECASE):
                raise LibraryMissing("the installed plotly.js cannot stand inside a page")
            return text
    raise LibraryMissing("the package plotly is not installed")


def _asset(name: str) -> str:
    return (ASSETS / name).read_text(encoding="utf-8")
