"""The two things that diffq takes from Hydra: its override grammar, and the composition of YAML fragments.

Everything that leaves this file is plain Python data, and every exception is a UserError: nobody sees Hydra's own.
It does not know what a key means.
"""

from __future__ import annotations

import functools
import os
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from diffq.config.files import builtin_dir
from diffq.errors import UserError, unknown

PATH_KEYS = ("checkpoint", "outputs")
PATH_ENDINGS = (".path", ".folder", ".file")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*([./-][A-Za-z0-9_-]+)*$")


@dataclass(frozen=True)
class Argument:
    """One `key=value` of the command line.

    values  what it stands for; more than one, or one written as a list of its own (`range(0,1)`), is a sweep
    swept   whether it was written as a sweep
    text    as it was written
    """

    key: str
    values: tuple[Any, ...]
    swept: bool
    text: str


def parse_argument(text: str, options: Callable[[str], Sequence[str]]) -> Argument:
    """Reads an argument in Hydra's override grammar: `a=1`, `a=1,2`, `a=range(0,5)`, `a=[1,2]`, `a=glob(x*)`.

    options: the names that a glob over a key chooses from.
    A value that the grammar cannot read is text, and so are paths, in which `=`, `~` and spaces need no quotes.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise UserError(f"'{text}' is neither a file or folder nor an assignment; write key=value, for example seed=1")
    if key[:1] in ("+", "~"):
        bare = text.lstrip("+~")
        raise UserError(f"'{text}': every key is known, so none is added or dropped; write {bare}")
    if not _KEY.match(key):
        raise UserError(f"'{key}' in '{text}' is no key; a key is a name such as seed or trainer.max_steps")
    if (key in PATH_KEYS or key.endswith(PATH_ENDINGS)) and not value.startswith(("'", '"', "glob(", "choice(")):
        paths = _split_paths(value)
        return Argument(key, tuple(None if p == "null" else p for p in paths), len(paths) > 1, text)
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        override = OverridesParser.create().parse_override(f"x={value}")
    except HydraException:
        return Argument(key, (value,), False, text)
    values, swept = _values(key, override, options)
    if not values:
        raise UserError(
            f"'{text}' stands for no value at all; a range goes from its start up to, and not including, its end"
        )
    return Argument(key, values, swept, text)


def _values(key: str, override: Any, options: Callable[[str], Sequence[str]]) -> tuple[tuple[Any, ...], bool]:
    from hydra.core.override_parser.types import Glob, IntervalSweep, Transformer

    raw = override._value
    if isinstance(raw, IntervalSweep):
        raise UserError(f"{key}=interval(…) has no list of values; write {key}=range(START,STOP,STEP) or a comma list")
    if isinstance(raw, Glob):
        names = raw.filter(list(options(key)))
        if not names:
            raise UserError(
                f"{key}=glob({','.join(raw.include)}) matches nothing; known: {', '.join(options(key)) or 'none'}"
            )
        return tuple(names), True
    if override.is_sweep_override():
        return tuple(_plain(v) for v in override.sweep_iterator(transformer=Transformer.identity)), True
    return (_plain(raw),), False


def _plain(value: Any) -> Any:
    """Without Hydra's own types; a float of a range loses its rounding error (0.1·7 is 0.7)."""
    from hydra.core.override_parser.types import QuotedString

    if isinstance(value, QuotedString):
        return value.text
    if isinstance(value, float):
        return float(f"{value:.12g}") if abs(value) < 1e300 else value
    if isinstance(value, Mapping):
        return {str(_plain(k)): _plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def _split_paths(value: str) -> list[str]:
    """A path may hold commas: it is several only where it does not exist as one and every part looks like a path."""
    parts = [os.path.expanduser(part) for part in value.split(",")]
    whole = os.path.expanduser(value)
    if len(parts) > 1 and not os.path.exists(whole) and all("/" in p or os.path.exists(p) for p in parts):
        return parts
    return [whole]


def version_base() -> dict[str, str]:
    """The argument that Hydra wants below 1.4 and warns about from 1.4 on."""
    import hydra

    major, minor = (int(part) for part in hydra.__version__.split(".")[:2])
    return {"version_base": "1.3"} if (major, minor) < (1, 4) else {}


class Fragments:
    """Group options composed by Hydra, each once: YAML files with their `defaults:` lists, and stored nodes.

    folders: the built-in one first.
    """

    def __init__(self, folders: Sequence[Path]):
        self._folders = tuple(folders)
        self._made: dict[tuple[str, str], dict[str, Any]] = {}

    def store(self, group: str, name: str, node: Mapping[str, Any]) -> None:
        """Offers a node as an option that has no file, through Hydra's ConfigStore."""
        from hydra.core.config_store import ConfigStore

        ConfigStore.instance().store(group=group, name=name, node=dict(node), provider="diffq")
        self._made.pop((group, name), None)

    def prepare(self, wanted: Sequence[tuple[str, str]]) -> None:
        """Composes the options that are not composed yet in one call (it takes 50 ms, most of it Hydra's own)."""
        missing = [w for w in dict.fromkeys(wanted) if w not in self._made]
        if not missing:
            return
        overrides = [f"+{group}@part_{i}={quoted(name)}" for i, (group, name) in enumerate(missing)]
        parts = compose_yaml(self._folders, overrides, f"{', '.join(f'{g}={n}' for g, n in missing)}")
        for i, key in enumerate(missing):
            self._made[key] = {str(k): v for k, v in (parts.get(f"part_{i}") or {}).items()}

    def __call__(self, group: str, name: str) -> dict[str, Any]:
        """What one option holds, as a fresh mapping of plain data."""
        self.prepare([(group, name)])
        return _copied(self._made[group, name])


def _copied(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {k: _copied(v) for k, v in value.items()}
    return [_copied(v) for v in value] if isinstance(value, list) else value


def quoted(text: str) -> str:
    """A text as Hydra's grammar reads it again: backslashes are doubled, but only those that stand before a quote."""
    escaped = re.sub(r"(\\*)'", lambda m: m[1] * 2 + "\\'", text)
    return "'" + re.sub(r"\\+$", lambda m: m[0] * 2, escaped) + "'"


def compose_yaml(folders: Sequence[Path], overrides: Sequence[str], what: str) -> dict[str, Any]:
    """Plain data of an empty configuration with these overrides in Hydra's own form.

    what: how a message calls that which could not be composed.
    """
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        with _SearchPath(folders[1:]), initialize_config_dir(str(folders[0]), **version_base()):
            composed = compose(overrides=list(overrides))
        plain = OmegaConf.to_container(composed, resolve=True)
    except (HydraException, OmegaConfBaseException) as error:
        first = next(
            (line.strip() for line in str(error.__cause__ or error).splitlines() if line.strip()), "no reason given"
        )
        raise UserError(f"the YAML of {what} cannot be composed: {first}") from error
    except Exception as error:
        import yaml

        if not isinstance(error, yaml.YAMLError):
            raise
        raise UserError(f"the YAML of {what} cannot be read: {' '.join(str(error).split())}") from error
    assert isinstance(plain, dict)
    return {str(k): v for k, v in plain.items()}


class _SearchPath:
    """Adds folders to Hydra's search path while it is open. (`hydra.searchpath` would not reach every look-up.)"""

    active: tuple[Path, ...] = ()

    def __init__(self, folders: Sequence[Path]):
        self._folders = tuple(folders)

    def __enter__(self) -> None:
        self._register()
        _SearchPath.active = self._folders

    def __exit__(self, *_: object) -> None:
        _SearchPath.active = ()

    @staticmethod
    def _register() -> None:
        from hydra.core.plugins import Plugins
        from hydra.plugins.search_path_plugin import SearchPathPlugin

        # Asked each time: a launcher that runs a job in this process puts back a copy of Hydra's registry.
        if _search_path_plugin() not in Plugins.instance().discover(SearchPathPlugin):
            Plugins.instance().register(_search_path_plugin())


@functools.cache
def _search_path_plugin() -> Any:
    from hydra.plugins.search_path_plugin import SearchPathPlugin

    class ConfigDirs(SearchPathPlugin):
        def manipulate_search_path(self, search_path: Any) -> None:
            for folder in _SearchPath.active:
                search_path.append("diffq --config-dir", f"file://{folder}")

    return ConfigDirs


def is_launcher_key(key: str) -> bool:
    """Whether a word is for Hydra's launchers: `hydra/launcher=joblib`, `hydra.launcher.n_jobs=4`."""
    return key == "hydra/launcher" or key.startswith("hydra.launcher.")


def launcher_config(overrides: Sequence[str], sweep_dir: Path) -> Any:
    """Hydra's own configuration with the chosen launcher and without its side effects, to instantiate a launcher with.

    overrides: the words of a command; those that are not for launchers are passed over.
    sweep_dir: the folder that a launcher may write its own files to.
    UserError for a launcher that is not installed, and for a setting that it does not have.
    """
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    words = [o for o in overrides if is_launcher_key(o.partition("=")[0])]
    fixed = [
        "hydra/job_logging=none",
        "hydra/hydra_logging=none",
        "hydra.output_subdir=null",
        "hydra.job.chdir=false",
        "hydra.mode=MULTIRUN",
        f"hydra.sweep.dir={quoted(str(sweep_dir))}",
        f"hydra.run.dir={quoted(str(sweep_dir))}",
    ]
    with initialize_config_dir(str(builtin_dir()), **version_base()):
        known = GlobalHydra.instance().config_loader().get_group_options("hydra/launcher")
        named = [o.partition("=")[2] for o in words if o.startswith("hydra/launcher=")]
        for name in named:
            if name not in known:
                raise unknown("launcher", name, known)
        try:
            return compose(overrides=[*fixed, *words], return_hydra_config=True)
        except (HydraException, OmegaConfBaseException) as error:
            first = str(error).strip().splitlines()[0]
            raise UserError(f"{' '.join(words)} does not fit a launcher: {first}") from error
