"""From one command to the points of a sweep: lists, ranges, globs, and an experiment's list of grids.

Every point is typed and checked before the first is given out. Knows nothing of stores, checkpoints and launchers.
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.config import Config, identity
from diffq.config.checks import dials_of
from diffq.config.composer import Composer
from diffq.config.hydra import is_launcher_key, parse_argument, quoted
from diffq.errors import UserError

# One sweep has one of each of these: they say nothing about a point's samples.
_NOT_SWEPT = (
    "outputs", "plugins", "device", "batch_tokens", "num_samples", "experiment", "paper", "trainer", "tracker",
    "metric", "trace", "energy", "energy_potential",
)  # fmt: skip

Axes = dict[str, list[Any]]  # canonical key -> the values it takes, the first key slowest


@dataclass(frozen=True)
class GridPoint:
    """One point of a sweep, and the words that compose it alone."""

    overrides: tuple[str, ...]
    config: Config


def expand(
    overrides: Sequence[str],
    *,
    verb: str = "sweep",
    config_dirs: Sequence[Path | str] = (),
    composer: Composer | None = None,
) -> list[GridPoint]:
    """Every point of the grid, each once, in the order in which it was written (the first key slowest).

    Two points of one sampler that ask for the same samples (`2` and `2.0`) are one, the first; under two names (`cfg`
    and `dpmpp` at one scale) both stay, since each is part of its sampler's line, and the store keeps them once.
    Words for Hydra's launchers are passed over. UserError before anything is given out where one point does not fit.
    """
    composer = composer or Composer(verb=verb, config_dirs=config_dirs)
    words = [o for o in overrides if not is_launcher_key(o.partition("=")[0])]
    arguments = composer.layers.arguments(words)
    for a in arguments:
        if a.swept:
            _refuse_axis(a.key, a.text)
    said: Axes = {a.key: [a.values] if a.key == "metric" else list(a.values) for a in arguments}
    experiment = said.get("experiment", [None])[0]
    points: dict[str, GridPoint] = {}
    for axes in _grids(composer, said, experiment):
        _check_dials(composer, axes)
        for values in itertools.product(*axes.values()):
            chosen = dict(zip(axes, values, strict=True))
            config = composer.point(chosen)
            key = json.dumps([config.choices.sampler, identity(config)], sort_keys=True)
            if key not in points:
                points[key] = GridPoint(tuple(written(k, v) for k, v in chosen.items()), config)
    return list(points.values())


def _grids(composer: Composer, said: Axes, experiment: str | None) -> list[Axes]:
    """The command line's grid, or an experiment's grids with the command line over each of them."""
    held = composer.options.experiment(experiment).get("grids") or []
    grids = [_read_grid(composer, grid, f"experiment '{experiment}', grid {i + 1}") for i, grid in enumerate(held)]
    if not grids:
        return [said]
    if "sampler" not in said:
        return [grid | said for grid in grids]
    chosen = []
    for sampler in said["sampler"]:
        own = [grid | said | {"sampler": [sampler]} for grid in grids if sampler in grid.get("sampler", [])]
        chosen += own or [said | {"sampler": [sampler]}]
    return chosen


def _read_grid(composer: Composer, grid: Mapping[str, Any], where: str) -> Axes:
    axes: Axes = {}
    for key, value in composer.layers.read(grid, where).items():
        _refuse_axis(key, f"{where}: {key}")
        if isinstance(value, str):
            axes[key] = list(parse_argument(f"{key}={value}", composer.options.glob).values)
        else:
            axes[key] = list(value) if isinstance(value, list) else [value]
        if not axes[key]:
            raise UserError(f"{where}: {key} is an empty list; give it at least one value")
    return axes


def _refuse_axis(key: str, text: str) -> None:
    head = key.partition(".")[0]
    if head in _NOT_SWEPT and key != "metric":
        raise UserError(f"{text} cannot be swept: one sweep has one {head}")


def _check_dials(composer: Composer, axes: Axes) -> None:
    """UserError for a dial that only some of a grid's samplers have: dropping it for the others would lie."""
    samplers = [composer.options.check("sampler", s) for s in axes.get("sampler", []) if s is not None]
    composer.options.fragments.prepare([("sampler", s) for s in samplers])
    dials = {s: dials_of(composer.options.component("sampler", s)) for s in samplers}
    for key in axes:
        section, _, dial = key.partition(".")
        lacking = [s for s in samplers if section == "sampler" and dial not in dials[s]]
        if lacking and len(lacking) < len(samplers):
            having = [s for s in samplers if s not in lacking]
            raise UserError(
                f"'{dial}' is a dial of {_joined(having)} but not of {_joined(lacking)}; sweep one after the other,"
                " or write an experiment with a list of grids (conf/experiment/, `grids:`)"
            )


def _joined(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def written(key: str, value: Any) -> str:
    """`key=value` as the command line would take it, quoted where it must be."""
    if key == "metric":
        names: Iterable[Any] = [value] if isinstance(value, str) else value
        flat = [n for entry in names for n in (entry if isinstance(entry, list) else [entry])]
        return f"metric={','.join(flat)}"
    if isinstance(value, str) and (key in ("checkpoint", "outputs") or key.endswith((".path", ".folder", ".file"))):
        return f"{key}={value}"
    return f"{key}={_literal(value)}"


def _literal(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, list | tuple):
        return "[" + ",".join(_literal(v) for v in value) + "]"
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_literal(str(k))}:{_literal(v)}" for k, v in value.items()) + "}"
    if isinstance(value, str):
        plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./-]*", value)
        if plain and value.lower() not in ("null", "true", "false", "nan", "inf"):
            return value
        return quoted(value)
    return repr(value)
