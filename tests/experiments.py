"""The words that choose an experiment of conf/experiment, with a value for each of those that it leaves to the user."""

from __future__ import annotations

from diffq.config.composer import Composer


def words_of(name: str) -> list[str]:
    held = Composer().options.experiment(name).get("defaults") or {}
    return [f"experiment={name}", *(f"{key}=here" for key, value in held.items() if value == "???")]
