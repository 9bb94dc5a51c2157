"""A user's own modules: imported before anything is composed, so that what they register has a name.

    plugins: [my_module]        in a --config-dir's config.yaml or an experiment
    diffq sweep plugins=[my_module] sampler=my_sampler

The working folder and every `--config-dir` are looked in too. This file does not know what a module registers.
"""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from diffq.errors import UserError

_defaults: dict[tuple[str, str], dict[str, Any]] = {}


def defaults(group: str, name: str, values: Mapping[str, Any] | None = None, *, kind: str | None = None) -> None:
    """Makes `GROUP=NAME` a choice without a YAML file: `values` is what the file would hold.

    kind: the registered name, where it is not NAME. Whatever is registered is a choice under its own name anyway, with
    the defaults of its fields; this is for what has no defaults, and for a second set of them.
    """
    held = dict(values or {})
    if group != "metric" or "metrics" not in held:
        held = {"kind": kind or name} | held
    _defaults[group, name] = held


def stored_defaults(group: str) -> dict[str, dict[str, Any]]:
    """What `defaults` was given for a group, by name."""
    return {name: dict(values) for (g, name), values in _defaults.items() if g == group}


def load(modules: Iterable[str], config_dirs: Iterable[Path | str] = ()) -> None:
    """Imports modules by name. UserError in one sentence where one cannot be found, or fails while it is imported."""
    for folder in (Path.cwd(), *(Path(d).expanduser().resolve() for d in config_dirs)):
        if str(folder) not in sys.path:
            sys.path.append(str(folder))
    for module in modules:
        try:
            importlib.import_module(module)
        except UserError:
            raise
        except ModuleNotFoundError as error:
            if error.name is None or not (module == error.name or module.startswith(error.name + ".")):
                raise _failed(module, error) from error
            raise UserError(
                f"the plugin '{module}' was not found; it must be an installed module, or lie in {Path.cwd()}"
                " or in a --config-dir"
            ) from error
        except Exception as error:
            raise _failed(module, error) from error


def _failed(module: str, error: Exception) -> UserError:
    frame = traceback.extract_tb(error.__traceback__)[-1]
    return UserError(
        f"the plugin '{module}' cannot be imported: {type(error).__name__}: {error} ({frame.filename}:{frame.lineno})"
    )
