"""`diffq mos`: people rate what points have written; `export` makes their pages, `import` reads their ratings."""

from __future__ import annotations

from diffq.config import Request
from diffq.errors import UserError


def run(request: Request) -> int:
    """Does what its first word says, and returns the exit status."""
    from diffq.runs import mos_export, mos_import

    for word in request.overrides:
        if word.partition("=")[0] != "outputs":
            raise UserError(f"mos {request.flags.subject} takes {word} for a setting, and only outputs= can be given")
    return (mos_export if request.flags.subject == "export" else mos_import).run(request)
