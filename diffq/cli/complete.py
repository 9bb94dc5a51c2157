"""Shell completion: the scripts that `diffq completion SHELL` prints, and the candidates behind them.

Candidates come from file names and from the source text of components, so that neither Hydra nor torch is imported.
A user's plugins are not known here.
"""

from __future__ import annotations

import ast
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from diffq.cli.parsers import BENCHES, FORMATS, LAYOUTS, LISTED, RATING, TAKES_RUNS, VERBS, flags_of
from diffq.config.files import GROUPS, group_files, kind_of, search_dirs
from diffq.errors import UserError, unknown

_SHELLS = ("bash", "zsh", "fish")
_PACKAGES = {"model": "models", "dataset": "data", "sampler": "samplers", "metric": "metrics"}
_ASKING = ("--where", "--sort", "--columns")  # what stands behind them are names of columns
_SUBJECTS = {"ls": LISTED, "bench": BENCHES, "mos": RATING}
_SECTIONS = (*_PACKAGES, "trainer", "tracker")


def complete(words: Sequence[str]) -> list[str]:
    """What the last word may become, after the others; words are those after `diffq`."""
    *before, current = words or [""]
    try:
        return sorted(set(_candidates(list(before), current)))
    except UserError:
        return []


def _candidates(before: list[str], current: str) -> Iterator[str]:
    if not before:
        yield from (v for v in (*VERBS, "completion") if v.startswith(current))
        return
    verb = before[0]
    if verb == "completion":
        yield from (s for s in _SHELLS if s.startswith(current))
    if verb not in VERBS:
        return
    asking = f"{before[-1]}=" if before[-1] in _ASKING else current[: current.find("=") + 1]
    if asking[:-1] in _ASKING and asking[:-1] in flags_of(verb):
        prefix = "" if before[-1] in _ASKING else asking
        yield from (prefix + name for name in _columns(current.removeprefix(prefix)))
        return
    if current.startswith("-"):
        yield from (flag for flag in flags_of(verb) if flag.startswith(current))
        return
    if len(before) == 1 and verb in _SUBJECTS:
        yield from (w for w in _SUBJECTS[verb] if w.startswith(current))
        return
    key, equals, value = current.partition("=")
    folders = search_dirs(after for flag, after in itertools.pairwise(before) if flag == "--config-dir")
    if before[-1] == "--layout" or (verb == "report" and before[-1] in ("--format", "--x", "--y")):
        yield from _flag_values(before[-1], current, folders)
        return
    if equals:
        yield from _values(key, value, folders)
        return
    for name in _keys(verb, before, folders):
        if name.startswith(current) and ("." in current or "." not in name):
            yield f"{name}="
    if verb in TAKES_RUNS:
        yield from _paths(current, files=verb == "mos" and before[1:2] == ["import"])


def _columns(value: str) -> Iterator[str]:
    """Names of columns, dials and metrics, after what a comma list, or a condition, holds already."""
    from diffq.store.columns import COLUMNS

    last = value.replace(" ", ",").rpartition(",")[2]
    head = value[: len(value) - len(last)] + ("-" if last.startswith("-") else "")
    classes = read_classes(["samplers"])
    dials = [f for name, c in classes.items() if c.package == "samplers" for f in fields_of(name, classes)]
    names = (*COLUMNS, *dials, *group_files("metric", search_dirs()))
    yield from (head + name for name in names if name.startswith(last.lstrip("-")))


def _flag_values(flag: str, value: str, folders: Sequence[Path]) -> Iterator[str]:
    """Files after what a comma list holds already; layouts; metrics for an axis."""
    if flag == "--format":
        head, comma, last = value.rpartition(",")
        yield from (f"{head}{comma}{f}" for f in FORMATS if f.startswith(last) and f not in head.split(","))
    elif flag == "--layout":
        yield from (name for name in LAYOUTS if name.startswith(value))
    else:
        yield from (name for name in (*group_files("metric", folders), "mos") if name.startswith(value))


def _values(key: str, value: str, folders: Sequence[Path]) -> Iterator[str]:
    """The options of a group, after what a comma list holds already; folders for a checkpoint."""
    head, comma, last = value.rpartition(",")
    if key in GROUPS:
        taken = head.split(",")
        yield from (
            f"{key}={head}{comma}{n}" for n in group_files(key, folders) if n.startswith(last) and n not in taken
        )
    elif key in ("checkpoint", "outputs") or key.endswith(".path"):
        yield from (f"{key}={path}" for path in _paths(value))
    else:
        choices = {"split": ("train", "valid", "test"), "length": ("oracle", "normal", "uniform_", "fixed_")}
        choices |= {"device": ("auto", "cpu", "cuda", "mps"), "dtype": ("float32", "bfloat16", "float16", "float64")}
        yield from (f"{key}={head}{comma}{n}" for n in choices.get(key, ()) if n.startswith(last))


def _keys(verb: str, before: Sequence[str], folders: Sequence[Path]) -> Iterator[str]:
    from diffq.config.checks import ASKED, root_keys

    yield from root_keys()
    yield from () if verb == "train" else ASKED
    chosen = {k: v for k, equals, v in (w.partition("=") for w in before) if equals}
    classes = read_classes(
        [package for section, package in _PACKAGES.items() if section in chosen or section == "sampler"]
    )
    bare = "trainer" if verb == "train" else "sampler"
    for section in _SECTIONS:
        names = (
            _section_fields(section, classes)
            if section not in _PACKAGES
            else _option_fields(section, chosen.get(section), classes, folders)
        )
        for name in names:
            yield f"{section}.{name}"
            if section == bare:
                yield name


def _section_fields(section: str, classes: dict[str, _Class]) -> list[str]:
    return fields_of({"trainer": "TrainerSettings", "tracker": "TrackerSettings"}[section], classes)


def _option_fields(section: str, chosen: str | None, classes: dict[str, _Class], folders: Sequence[Path]) -> list[str]:
    """The fields of the chosen options; of every sampler where none is chosen, and of no other group."""
    if chosen is None and section != "sampler":
        return []
    files = group_files(section, folders)
    kinds = {kind_of(files[name]) for name in (chosen.split(",") if chosen else files) if name in files}
    package = _PACKAGES[section]
    found: list[str] = []
    for name, cls in classes.items():
        if cls.kind in kinds and cls.package == package:
            found += fields_of(name, classes)
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class _Class:
    """What the source of a class says: where it is, its bases, its fields, and the name it is registered under."""

    package: str
    bases: tuple[str, ...]
    fields: tuple[str, ...]
    kind: str


def read_classes(packages: Sequence[str] = tuple(_PACKAGES.values())) -> dict[str, _Class]:
    """The classes of component packages by name, read from their source text and not imported."""
    root = Path(__file__).parents[1]
    found: dict[str, _Class] = {}
    sources = [p for package in packages for p in sorted((root / package).rglob("*.py"))]
    for path in [*sources, root / "config" / "sections.py"]:
        text = path.read_text(encoding="utf-8")
        if "class " not in text or ("Settings" not in text and "register" not in text and "Sampler" not in text):
            continue
        package = path.relative_to(root).parts[0]
        for node in ast.parse(text).body:
            if isinstance(node, ast.ClassDef):
                found[node.name] = _read_class(node, package)
    return found


def _read_class(node: ast.ClassDef, package: str) -> _Class:
    kind = ""
    for decorator in node.decorator_list:
        if isinstance(decorator, ast.Call) and getattr(decorator.func, "attr", "") == "register":
            kind = str(getattr(decorator.args[0], "value", ""))
    fields = [
        item.target.id
        for item in node.body
        if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name)
        and not ast.unparse(item.annotation).startswith("ClassVar")
    ]  # fmt: skip
    bases = tuple(base.id for base in node.bases if isinstance(base, ast.Name))
    return _Class(package, bases, tuple(fields), kind)


def fields_of(name: str, classes: dict[str, _Class]) -> list[str]:
    """The dataclass fields of a class, those of its bases first, in the order in which `dataclasses` finds them."""
    order = reversed(_linear(name, classes))
    return list(dict.fromkeys(field for each in order for field in classes[each].fields))


def _linear(name: str, classes: dict[str, _Class]) -> list[str]:
    """A class and its bases in the order of resolution (C3), as far as they are known."""
    if name not in classes:
        return []
    bases = [base for base in classes[name].bases if base in classes]
    waiting = [*(_linear(base, classes) for base in bases), bases]
    found = [name]
    while waiting := [line for line in waiting if line]:
        ready = next(line[0] for line in waiting if not any(line[0] in other[1:] for other in waiting))
        found.append(ready)
        waiting = [[each for each in line if each != ready] for line in waiting]
    return found


def _paths(start: str, files: bool = False) -> Iterator[str]:
    folder, slash, name = start.rpartition("/")
    place = Path(folder + slash).expanduser() if slash else Path(".")
    if place.is_dir():
        for path in place.iterdir():
            if path.name.startswith(name) and path.is_dir() and (name or not path.name.startswith(".")):
                yield f"{folder}{slash}{path.name}/"
            elif files and path.name.startswith(name) and path.suffix == ".json":
                yield f"{folder}{slash}{path.name}"


def script(words: Sequence[str]) -> str:
    """The completion script of a shell. UserError for another shell than bash, zsh and fish."""
    if len(words) != 1:
        raise UserError(f"diffq completion takes the name of one shell: {', '.join(_SHELLS)}")
    if words[0] not in _SHELLS:
        raise unknown("completion script for the shell", words[0], _SHELLS)
    return {"bash": _BASH, "zsh": _ZSH, "fish": _FISH}[words[0]]


# `=` splits words in bash: the line is split at blanks again, and what stands before `=` is taken off the answers.
_BASH = r"""# For ~/.bashrc:  eval "$(diffq completion bash)"
_diffq() {
    local line="${COMP_LINE:0:COMP_POINT}" current prefix=""
    local -a words
    read -ra words <<< "$line"
    [[ "$line" == *[[:space:]] ]] && words+=("")
    current="${words[${#words[@]}-1]}"
    [[ "$current" == *=* && "$COMP_WORDBREAKS" == *=* ]] && prefix="${current%%=*}="
    local IFS=$'\n'
    COMPREPLY=($("${words[0]}" __complete "${words[@]:1}" 2>/dev/null))
    COMPREPLY=("${COMPREPLY[@]#"$prefix"}")
    [[ ${#COMPREPLY[@]} -eq 1 && "${COMPREPLY[0]}" == *[=/] ]] && compopt -o nospace
}
complete -F _diffq diffq
"""
_ZSH = r"""#compdef diffq
# For ~/.zshrc, after compinit:  eval "$(diffq completion zsh)"
_diffq() {
    local -a answers
    answers=("${(@f)$("${words[1]}" __complete "${(@)words[2,CURRENT]}" 2>/dev/null)}")
    compadd -Q -S '' -- ${answers:#}
}
compdef _diffq diffq
"""
_FISH = r"""# For ~/.config/fish/completions/diffq.fish:  diffq completion fish > ~/.config/fish/completions/diffq.fish
function __diffq_answers
    set -l words (commandline -opc) (commandline -ct)
    $words[1] __complete $words[2..-1] 2>/dev/null
end
complete -c diffq -f -a '(__diffq_answers)'
"""
