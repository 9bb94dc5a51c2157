"""The rules of the house: sizes, one-way imports, an owner for every YAML, a word on every dial, no foreign paths."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
import yaml

from diffq.registry import DATASETS, METRICS, MODELS, SAMPLERS
from diffq.settings import Settings

ROOT = Path(__file__).parent.parent
CODE = sorted([*(ROOT / "diffq").rglob("*.py"), *(ROOT / "scripts").glob("*.py"), *(ROOT / "tests").rglob("*.py")])
CONF = sorted((ROOT / "conf").glob("*/*.yaml"))
SAMPLERS_PAGE = (ROOT / "docs/samplers.md").read_text(encoding="utf-8")

# From the top of the house to its cellar. A room imports rooms of lower floors, never one of its own floor.
FLOORS = (
    ("cli", "__main__"),
    ("runs",),
    ("samplers", "metrics", "report", "models", "data"),
    ("diffusion", "store", "sandbox"),
    ("config", "plugins", "rng", "registry", "resamples", "settings", "errors", "hub", "interrupts", "__init__"),
)
FLOOR_OF = {room: len(FLOORS) - number for number, floor in enumerate(FLOORS) for room in floor}
# They name components for their types alone, and the verbs by their names.
FREE = {"config/schema.py", "config/composer.py", "cli/main.py"}
# Each with its reason: neighbours that may know one another.
NEIGHBOURS = {
    ("data/batches.py", "models.base"): "what a batch holds is the models' contract",
    ("models/checkpoints.py", "data.tokenizers"): "a checkpoint holds its tokenizer",
    ("models/guidediffuseq.py", "data.tokenizers"): "and so does the paper's",
    ("data/windows.py", "models.base"): "and so is what a batch of running text holds",
    ("data/forms.py", "models.base"): "and of forms",
    ("data/laid_out.py", "models.base"): "and of pairs on one canvas",
    ("models/hf_causal.py", "data.exact_tokenizers"): "a published checkpoint holds its tokenizer too",
    ("models/dit_layouts.py", "data.exact_tokenizers"): "likewise",
    ("models/dit_layouts.py", "data.tokenizers"): "likewise",
    ("models/llm_layouts.py", "data.chat"): "likewise",
    ("models/hf_masked.py", "data.tokenizers"): "likewise",
    ("metrics/judges.py", "models.checkpoints"): "a judge of texts is a checkpoint",
    ("metrics/judges.py", "models.published"): "or one that others have published",
    ("config/checks.py", "data.lengths"): "a length model is refused in the words of its own parser",
}


def lines_of(path: Path) -> list[str]:
    return path.read_text(encoding="utf-8").splitlines()


def reason_at_head(path: Path) -> bool:
    return "long because" in "\n".join(lines_of(path)[:15]).lower()


@pytest.mark.parametrize("path", CODE, ids=lambda p: str(p.relative_to(ROOT)))
def test_files_have_at_most_400_lines_and_functions_60(path: Path) -> None:
    if reason_at_head(path):
        return
    assert len(lines_of(path)) <= 400
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            assert (node.end_lineno or 0) - node.lineno + 1 <= 60, f"{node.name}, line {node.lineno}"


def imported(path: Path, module_level: bool) -> Iterator[tuple[str, int]]:
    """What a file imports, and where; with module_level without what is inside functions or for types alone."""

    def visit(nodes: list[ast.stmt]) -> Iterator[tuple[str, int]]:
        for node in nodes:
            if isinstance(node, ast.Import):
                yield from ((alias.name, node.lineno) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                module = node.module or ""
                yield from ((f"{module}.{a.name}" if module == "diffq" else module, node.lineno) for a in node.names)
            elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test):
                yield from visit(node.orelse)
            elif not (module_level and isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)):
                yield from visit([n for n in ast.iter_child_nodes(node) if isinstance(n, ast.stmt | ast.ExceptHandler)])

    return visit(ast.parse(path.read_text(encoding="utf-8")).body)


def room(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


@pytest.mark.parametrize(
    "path", sorted((ROOT / "diffq").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT / "diffq"))
)
def test_imports_go_one_way(path: Path) -> None:
    own = room(".".join(path.relative_to(ROOT).with_suffix("").parts))
    for module, line in imported(path, module_level=False):
        if module.split(".")[0] != "diffq" or str(path.relative_to(ROOT / "diffq")) in FREE:
            continue
        if (str(path.relative_to(ROOT / "diffq")), module.removeprefix("diffq.")) in NEIGHBOURS:
            continue
        other = room(module)
        assert other in FLOOR_OF, f"line {line}: {module} has no floor in this test"
        same_cellar = FLOOR_OF[other] == FLOOR_OF[own] == 1 or FLOOR_OF[own] == len(FLOORS)
        assert other == own or same_cellar or FLOOR_OF[other] < FLOOR_OF[own], f"line {line}: {own} imports {module}"


@pytest.mark.parametrize(
    "path",
    sorted(p for name in ("store", "report", "metrics") for p in (ROOT / "diffq" / name).rglob("*.py")),
    ids=lambda p: str(p.relative_to(ROOT / "diffq")),
)
def test_store_report_and_metrics_do_not_load_torch(path: Path) -> None:
    assert not [line for module, line in imported(path, module_level=True) if module.split(".")[0] == "torch"]


HEAVY = ("datasets", "pyarrow", "duckdb", "wandb", "rouge_score", "transformers", "matplotlib", "nltk", "sacrebleu")


@pytest.mark.parametrize(
    "path", sorted((ROOT / "diffq").rglob("*.py")), ids=lambda p: str(p.relative_to(ROOT / "diffq"))
)
def test_heavy_packages_are_imported_where_they_are_used(path: Path) -> None:
    found = [(module, line) for module, line in imported(path, module_level=True) if module.split(".")[0] in HEAVY]
    assert not found


OWNERS = {"model": MODELS, "dataset": DATASETS, "sampler": SAMPLERS, "metric": METRICS}


@pytest.mark.parametrize("path", CONF, ids=lambda p: f"{p.parent.name}/{p.stem}")
def test_every_yaml_has_an_owner(path: Path) -> None:
    held = yaml.safe_load(path.read_text(encoding="utf-8"))
    group = path.parent.name
    if group in OWNERS and "metrics" not in held:
        cls = OWNERS[group][held["kind"]]
        own = {f.name for f in fields(cls)} | {"kind"}
        assert set(held) <= own, set(held) - own
    else:
        assert group in ("metric", "trainer", "tracker", "experiment", "paper", "harness")


def bullets() -> dict[tuple[str, str], str]:
    """Each bullet of docs/samplers.md by (sampler, dial): a `For:` line says whose dials follow."""
    found: dict[tuple[str, str], str] = {}
    whose: list[str] = []
    for block in re.split(r"\n\n", SAMPLERS_PAGE):
        if block.startswith("For: "):
            whose = re.findall(r"`(\w+)`", block)
        elif block.startswith("#"):
            whose = []
        for dial, text in re.findall(r"^- `(\w+)` (\(.*?)(?=^- |\Z)", block, re.DOTALL | re.MULTILINE):
            found |= {(name, dial): " ".join(text.split()) for name in whose}
    return found


def test_every_dial_of_every_sampler_has_its_bullet_and_no_bullet_is_of_nothing() -> None:
    known = {
        (name, f.name): f
        for name in SAMPLERS.names()
        if SAMPLERS[name].__module__.startswith("diffq.")
        for f in fields(SAMPLERS[name])
    }
    said = bullets()
    assert set(said) == set(known)
    for (name, dial), field in known.items():
        text = said[name, dial]
        default = str(field.default).lower() if isinstance(field.default, bool) else field.default
        default = f"{default:g}" if isinstance(default, float | int) else default
        assert re.search(rf"default.*\b{re.escape(str(default))}\b", text), f"{name} {dial}: {text}"
        for bound in ("low", "high", "above"):
            if (value := field.metadata.get(bound)) is not None:
                assert f"{value:g}" in text.split(",")[0], f"{name} {dial}: {text}"


def test_every_settings_class_says_what_its_fields_are_for() -> None:
    def below(cls: type) -> Iterator[type]:
        for sub in cls.__subclasses__():
            yield sub
            yield from below(sub)

    for registry in OWNERS.values():
        registry.names()
    silent = [
        f"{cls.__module__}.{cls.__name__}.{f.name}"
        for cls in below(Settings)
        if cls.__module__.startswith("diffq.")
        for f in fields(cls)
        if "help" in f.metadata and not f.metadata["help"]
    ]
    # The sections of a Config and of a suite are explained in their classes' docstrings.
    assert [name for name in silent if ".config." not in name] == []


def test_no_path_of_a_machine_and_no_data_is_in_the_tree() -> None:
    done = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip("not a git checkout")
    tracked = [ROOT / name for name in done.stdout.split("\0") if name]
    assert not [path for path in tracked if path.is_relative_to(ROOT / "outputs")]
    machine = re.compile(r"/(work|home|root|Users)/\w|\.\./sh" + "ared")
    for path in tracked:
        if path.suffix in (".py", ".md", ".yaml", ".toml", ".txt", ".sh", ".csv") and path.exists():
            assert not machine.search(path.read_text(encoding="utf-8")), path
