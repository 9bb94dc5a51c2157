"""`diffq export CHECKPOINT --layout NAME --to FOLDER`: a model in the layout in which others have published theirs.

Knows no layout from within. The folder is there whole or not at all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from diffq.config import Request
from diffq.errors import UserError, unknown
from diffq.models.checkpoints import load
from diffq.models.published import resolve, write_published, written
from diffq.runs.export import writing_whole
from diffq.runs.selection import outputs_of
from diffq.store import Store

_OF_TABLES = ("where", "sort", "limit", "columns", "samples", "force")


def run(request: Request) -> int:
    """Writes the folder and says what it holds. Returns 0.

    UserError for a model that the layout cannot hold, for a folder that is there already, and for flags and words that
    mean a table.
    """
    layout, folder = _asked(request)
    named = request.flags.file.removeprefix("checkpoint=")  # as every other verb has it
    checkpoint = Store(outputs_of(request)).checkpoint(named) or resolve(named)
    loaded = load(checkpoint)
    with writing_whole(folder.absolute()) as temporary:
        write_published(loaded.model, loaded.tokenizer, temporary, layout)
    parameters = sum(p.numel() for p in loaded.model.parameters())
    if request.json:
        print(json.dumps({"folder": str(folder), "layout": layout, "parameters": parameters}, ensure_ascii=False))
    else:
        print(f"{folder}: {parameters:,} parameters in the layout of {written()[layout].name}")
    return 0


def _asked(request: Request) -> tuple[str, Path]:
    """The layout's name and the folder to write. UserError where they are not both given, or more is."""
    flags: Any = request.flags
    for flag in _OF_TABLES:
        if getattr(flags, flag):
            raise UserError(f"--{flag} is for tables; --layout writes a model, and takes --to and outputs= beside it")
    if not flags.layout:
        raise UserError(f"export --to writes a model and needs its layout: --layout {' or '.join(written())}")
    if not flags.to:
        raise UserError(f"export --layout {flags.layout[-1]} needs the folder to write: --to FOLDER")
    if flags.layout[-1] not in written():
        raise unknown("layout", flags.layout[-1], written())
    surplus = [*map(str, request.runs), *(w for w in request.overrides if not w.startswith("outputs="))]
    if surplus:
        raise UserError(f"export --layout writes one model; leave out {surplus[0]}")
    folder = Path(flags.to[-1]).expanduser()
    if folder.exists() and not (folder.is_dir() and not any(folder.iterdir())):
        raise UserError(f"{folder} is there already; name a folder that is not, or an empty one")
    if not folder.absolute().parent.is_dir():
        raise UserError(f"{folder} cannot be written: there is no folder {folder.parent}")
    return flags.layout[-1], folder
