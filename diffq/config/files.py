"""Where the YAML lies, and what each group offers: found by looking at folders, without Hydra.

The built-in folder is `conf/` inside an installed wheel and `conf/` at the top of a checkout; `--config-dir` adds more.
This file does not know what the YAML means.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from diffq.errors import UserError, did_you_mean

GROUPS = ("model", "dataset", "sampler", "metric", "trainer", "tracker", "experiment", "paper")


def builtin_dir() -> Path:
    """The folder of the YAML that travels with diffq."""
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "conf", package.parent / "conf"):
        if (folder / "config.yaml").is_file():
            return folder
    raise UserError(
        f"diffq's configuration is missing: there is no conf/config.yaml in {package} or beside it; reinstall"
    )


def search_dirs(config_dirs: Iterable[Path | str] = ()) -> tuple[Path, ...]:
    """The built-in folder and then the given ones, absolute. UserError for a folder that is not there."""
    folders = [builtin_dir()]
    for given in config_dirs:
        folder = Path(given).expanduser().resolve()
        if not folder.is_dir():
            raise UserError(f"--config-dir {given} is no folder; it holds groups such as sampler/ with YAML files")
        if folder not in folders:
            folders.append(folder)
    return tuple(folders)


def group_files(group: str, folders: Sequence[Path]) -> dict[str, Path]:
    """The YAML file of each option of a group. UserError where two folders have the same: neither hides the other."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in sorted((folder / group).glob("*.yaml")):
            if path.stem in found:
                raise UserError(f"{path} and {found[path.stem]} are both {group}={path.stem}; rename one of them")
            found[path.stem] = path
    return found


def kind_of(path: Path) -> str:
    """The registered name that a file configures, found without parsing it; the file's own name where it says none."""
    found = re.search(r"^kind:\s*['\"]?([\w.-]+)", path.read_text(encoding="utf-8"), re.MULTILINE)
    return found[1] if found else path.stem


def check_group_folders(folders: Sequence[Path]) -> None:
    """UserError for a folder of YAML in a --config-dir whose name is no group."""
    for folder in folders[1:]:
        for path in sorted(folder.iterdir()):
            if path.is_dir() and path.name not in GROUPS and any(path.glob("*.yaml")):
                near = did_you_mean(path.name, GROUPS)
                raise UserError(f"{path} is no group of diffq{near}; groups: {', '.join(GROUPS)}")


def read_mapping(path: Path) -> dict[str, Any]:
    """The mapping in a YAML file, interpolations resolved (`1e-4` is a number). UserError names file and line."""
    import yaml
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    try:
        value = OmegaConf.to_container(OmegaConf.load(path), resolve=True)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise UserError(f"{path}{line} is not YAML: {getattr(error, 'problem', None) or 'cannot be read'}") from error
    except OmegaConfBaseException as error:
        raise UserError(f"{path}: {str(error).splitlines()[0]}") from error
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror or 'it holds no mapping'}") from error
    if not isinstance(value, dict):
        raise UserError(f"{path} must hold a mapping, `key: value` lines")
    return {str(k): v for k, v in value.items()}
