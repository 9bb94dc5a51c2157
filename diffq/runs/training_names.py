"""What a training is called: its `trainer.label`, behind the name of the data that it saw where others are asked for.

Known where a point is sampled, and kept in its run.json; of a training that is still there, what it is called now.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from diffq.errors import UserError
from diffq.store import Store
from diffq.store.files import read_yaml


def name_of(learnt: Mapping[str, Any], dataset: str) -> str:
    """`ens`, or `qqp ens` on another data set than qqp. learnt: the training's configuration as plain data."""
    label = (learnt.get("trainer") or {}).get("label") or ""
    seen = (learnt.get("choices") or {}).get("dataset") or dataset
    return label if seen == dataset else f"{seen} {label}".rstrip()


def names_in(store: Store) -> Callable[[Mapping[str, Any]], str]:
    """A function of a point's run.json: what its training is called now, or was when it was sampled."""

    @cache
    def learnt(folder: str) -> Mapping[str, Any] | None:
        place = store.checkpoint(folder)
        try:
            return None if place is None else read_yaml(place / "config.yaml")
        except (UserError, OSError):  # a published layout has none, and a report reads on past a damaged one
            return None

    def name(run: Mapping[str, Any]) -> str:
        folder = run.get("checkpoint_folder")
        config = learnt(folder) if isinstance(folder, str) else None
        return str(run.get("training") or "") if config is None else name_of(config, str(run.get("dataset", "")))

    return name
