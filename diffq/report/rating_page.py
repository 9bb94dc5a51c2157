"""A page on which a person rates texts: one file that opens without a network and keeps ratings in the browser.

Texts are untrusted: they travel and are guarded as in report.html (`report/page.py`). Knows no study and no store, and
is not told who wrote a text.
"""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from diffq.report.page import ASSETS, policy, to_block

SCRIPTS = ("dom.js", "rate_store.js", "rate.js")
"""The page's scripts, in the order in which they are put together."""


def build_rating_page(data: Mapping[str, Any]) -> str:
    """The whole page. data: study, page, pages, question, scale [low, high], words (by grade) and items, a list of id,
    source and text in the order in which they are rated."""
    body = "\n".join((ASSETS / name).read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{body}\n}})();'
    holes = {
        "policy": html.escape(policy(script)),
        "style": (ASSETS / "rate.css").read_text(encoding="utf-8"),
        "data": f'<script type="application/json" id="data">{to_block(data)}</script>',
        "own": f"<script>{script}</script>",
    }
    page = (ASSETS / "rate.html").read_text(encoding="utf-8")
    return re.sub(r"\{\{(\w+)\}\}", lambda hole: holes[hole[1]], page)
