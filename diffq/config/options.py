"""What there is to choose from: the options of every group, from YAML files, registries and plugins.

It gives plain mappings and classes; it does not know what was chosen.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from diffq import plugins
from diffq.config.checks import check_registered_dials
from diffq.config.files import GROUPS, check_group_folders, group_files, kind_of, read_mapping, search_dirs
from diffq.config.hydra import Fragments
from diffq.errors import UserError, did_you_mean, unknown
from diffq.registry import DATASETS, METRICS, MODELS, SAMPLERS

REGISTRIES = {"model": MODELS, "dataset": DATASETS, "sampler": SAMPLERS, "metric": METRICS}


class Options:
    """The options of every group. Each is read once."""

    def __init__(self, config_dirs: Sequence[Path | str] = ()):
        self.folders = search_dirs(config_dirs)
        check_group_folders(self.folders)
        self.fragments = Fragments(self.folders)
        self.plugins: tuple[str, ...] = ()
        self._config_dirs = tuple(config_dirs)
        self._names: dict[str, dict[str, Path | None]] = {}
        self._roots: list[tuple[Path, dict[str, Any]]] | None = None

    def names(self, group: str) -> dict[str, Path | None]:
        """The options of a group and their files, sorted; None for a registered component that no file configures."""
        if group not in self._names:
            found: dict[str, Path | None] = dict(group_files(group, self.folders))
            stored = plugins.stored_defaults(group)
            for name in stored:
                if name in found:
                    raise UserError(
                        f"the defaults of a plugin and {found[name]} are both {group}={name}; rename one of them"
                    )
            if group in REGISTRIES:
                configured = {kind_of(path) for path in found.values() if path}
                for name in REGISTRIES[group].names():
                    if name not in found and name not in configured:
                        stored.setdefault(name, {"kind": name})
            for name, node in stored.items():
                self.fragments.store(group, name, node)
                found[name] = None
            self._names[group] = dict(sorted(found.items()))
        return self._names[group]

    def has(self, group: str, name: str) -> bool:
        """Whether a name is an option of the group. A registered `…_k` is one for every number in the place of its k:
        pass_at_10 needs no file."""
        numbered = re.fullmatch(r"(\w+_)([1-9][0-9]*)", name)
        if name in self.names(group) or numbered is None:
            return name in self.names(group)
        kind = f"{numbered[1]}k"
        if group not in REGISTRIES or kind not in REGISTRIES[group].names():
            return False
        self.fragments.store(group, name, {"kind": kind, "k": int(numbered[2])})
        self.names(group)[name] = None
        return True

    def check(self, group: str, name: Any) -> str:
        """The name, if it is an option of the group. UserError with the nearest one otherwise."""
        known = self.names(group)
        if isinstance(name, float):  # paper=2503.10683 has been read as a number
            name = next((option for option in known if _reads_as(option, name)), name)
        if not isinstance(name, str):
            raise UserError(f"{group}={name} must be the name of a {group}; known: {', '.join(known)}")
        if not self.has(group, name):
            if (group, name) == ("metric", "mos"):
                raise UserError(
                    "mos is no metric that is computed: `diffq mos export` writes a page on which people rate, and"
                    " `diffq mos import` reads their ratings"
                )
            raise unknown(group, name, known, f"diffq ls {group}s" if group in REGISTRIES else "")
        return name

    def where(self, group: str, name: str) -> str:
        """The file of an option as a message names it."""
        path = self.names(group).get(name)
        return str(path) if path else f"{group}={name}"

    def component(self, group: str, name: str) -> Any:
        """The registered class behind an option."""
        kind = self.fragments(group, name).get("kind")
        if not isinstance(kind, str):
            raise UserError(
                f"{self.where(group, name)} must say `kind: NAME`, the registered {group} that it configures"
            )
        try:
            return REGISTRIES[group][kind]
        except UserError as error:
            raise UserError(f"{self.where(group, name)}: {error}") from error

    def roots(self) -> list[tuple[Path, dict[str, Any]]]:
        """What each folder's config.yaml holds, the built-in one first."""
        if self._roots is None:
            paths = [folder / "config.yaml" for folder in self.folders]
            self._roots = [(path, read_mapping(path)) for path in paths if path.is_file()]
        return self._roots

    def mapping(self, name: str) -> Mapping[str, str]:
        """`default_samplers` (by a model's kind, or its process) or `default_trainers` (by a model), of all folders."""
        merged: dict[str, str] = {}
        for path, held in self.roots():
            if not isinstance(held.get(name) or {}, dict):
                raise UserError(f"{path}: {name} must be a mapping")
            merged |= held.get(name) or {}
        return merged

    def experiment(self, name: str | None) -> dict[str, Any]:
        """What an experiment's file holds: `help`, `defaults` (a mapping of overrides), `grids` (a list of such)."""
        if name is None:
            return {}
        path = self.names("experiment")[self.check("experiment", name)]
        assert path is not None
        held = read_mapping(path)
        for key in held:
            if key not in ("help", "defaults", "grids"):
                near = did_you_mean(key, ("help", "defaults", "grids"))
                raise UserError(f"{path} has no key '{key}'{near}; an experiment has help, defaults and grids")
        if not isinstance(held.get("defaults") or {}, dict):
            raise UserError(f"{path}: defaults must be a mapping such as `dataset: qqp`")
        grids = held.get("grids") or []
        if not isinstance(grids, list) or not all(isinstance(g, dict) for g in grids):
            raise UserError(f"{path}: grids must be a list of mappings such as `{{sampler: cfg, scale: [1, 2]}}`")
        return held

    def load_plugins(self, given: Any, experiment: str | None) -> None:
        """Imports the plugins of every layer: they add up, none hides another."""
        sources = [held.get("plugins") for _, held in self.roots()]
        sources.append((self.experiment(experiment).get("defaults") or {}).get("plugins"))
        named: list[str] = []
        for source in (*sources, given):
            listed = [source] if isinstance(source, str) else source or []
            if not isinstance(listed, list) or not all(isinstance(m, str) for m in listed):
                raise UserError(f"plugins={source} must be a list of module names, for example plugins=[my_module]")
            named += listed
        modules = tuple(dict.fromkeys(named))
        if modules:
            for registry in REGISTRIES.values():
                registry.names()  # what is built in has its name first
        plugins.load(modules, self._config_dirs)
        if modules != self.plugins:
            self.plugins = modules
            self._names.clear()
        check_registered_dials()

    def glob(self, key: str) -> list[str]:
        """The names that a glob over a key chooses from."""
        if key not in GROUPS:
            raise UserError(
                f"{key}=glob(…) chooses among names, and '{key}' has none; globs are for {', '.join(GROUPS)}"
            )
        return list(self.names(key))


def _reads_as(option: str, number: float) -> bool:
    try:
        return float(option) == number
    except ValueError:
        return False
