"""The README's commands are what CI runs: every one composes, every target and file that it names is there."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path

import pytest

from diffq.cli.main import read_request
from diffq.cli.parsers import VERBS, parser_for
from diffq.config import compose
from diffq.runs.grid import expand

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])

spec = importlib.util.spec_from_file_location("readme_commands", ROOT / "scripts/readme_commands.py")
assert spec is not None
assert spec.loader is not None
readme_commands = importlib.util.module_from_spec(spec)
spec.loader.exec_module(readme_commands)

COMMANDS = list(readme_commands.commands(README))


def test_the_two_commands_come_first_and_every_verb_but_the_longest_is_run() -> None:
    assert COMMANDS[:2] == ["make demo", "make test"]
    shown = {command.split()[1] for command in COMMANDS if command.startswith("diffq ")}
    assert shown == set(VERBS) - {"bench", "harness"}
    assert "diffq bench" in README
    assert "diffq harness" in README


@pytest.mark.parametrize("command", [c for c in COMMANDS if c.startswith("diffq ")])
def test_a_shown_command_is_a_valid_one(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    verb, *words = shlex.split(readme_commands.as_run(command))[1:]
    if verb in ("score", "report", "rerun", "mos"):  # the sweeps that they name are made by the commands before
        words = [word for word in words if not word.startswith("outputs/sweeps/")]
    request = read_request(parser_for(verb), verb, words)
    if verb == "sweep":
        assert expand(request.overrides)
    elif verb in ("train", "sample", "score"):
        assert compose(request.overrides, verb=verb)


def shown_in(page: Path) -> list[str]:
    """The diffq commands of the page's blocks that are only shown."""
    blocks = re.findall(r"^```console\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.splitlines() if line.startswith("diffq ")]


@pytest.mark.parametrize("command", [line for page in PAGES for line in shown_in(page)])
def test_a_command_that_is_only_shown_is_valid_too(command: str) -> None:
    verb, *words = shlex.split(command)[1:]
    request = read_request(parser_for(verb), verb, [word for word in words if not word.startswith("outputs/sweeps/")])
    if verb == "sweep":
        assert expand(request.overrides)
    elif verb in ("train", "sample"):
        assert compose(request.overrides, verb=verb)


def test_sweeps_that_are_scored_or_reported_are_made_before() -> None:
    made: set[str] = set()
    for command in COMMANDS:
        words = shlex.split(command)
        used = [word.removeprefix("outputs/sweeps/") for word in words if word.startswith("outputs/sweeps/")]
        assert set(used) <= made, command
        if words[:2] == ["diffq", "sweep"] and not any(word.startswith("dataset=") for word in words):
            made |= {f"grammar-{word.partition('=')[2]}" for word in words if word.startswith("sampler=")}
    assert made


def test_commands_on_real_data_are_made_small_and_left_out_without_data() -> None:
    real = [c for c in COMMANDS if readme_commands.on_real_data(c)]
    assert real
    assert all(readme_commands.as_run(c) == f"{c} model=gaussian_tiny trainer.max_steps=20" for c in real)
    assert all(f"\n{readme_commands.as_run(c)}\n" in readme_commands.script(README, has_data=True) for c in real)
    assert not any(f"\n{c}" in readme_commands.script(README, has_data=False) for c in real)


def test_a_block_is_read_without_its_comments_and_with_its_long_lines_whole() -> None:
    page = "```sh\n# said\nmake a   # why\ndiffq b \\\n    c=d\n```\n```console\nnot run\n```\n"
    assert list(readme_commands.commands(page)) == ["make a", "diffq b c=d"]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_and_every_make_target_of_a_page_exists(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
    for link in re.findall(r"\]\(([^)#]+)[^)]*\)", prose):
        if not link.startswith(("http:", "https:", "mailto:")):
            assert (page.parent / link).exists(), link
    targets = re.findall(r"^([a-z0-9.-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)
    for target in re.findall(r"`make ([a-z0-9.-]+)", text) + re.findall(r"^make ([a-z0-9.-]+)", text, re.MULTILINE):
        assert target in targets, target


def test_the_questions_of_the_readme_are_those_of_the_file() -> None:
    shown = re.search(r"^```json\n(.*?)\n```", README, re.DOTALL | re.MULTILINE)
    assert shown
    assert (ROOT / "docs/examples/questions.jsonl").read_text(encoding="utf-8").startswith(shown[1] + "\n")
