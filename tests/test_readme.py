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


# Indented commands that cannot be composed as they stand, each with its reason.
NOT_COMPOSED = {
    "my_plugin": "the module is the page's own example, which tests/test_plugins.py runs",
    "my_conf": "the folder is the reader's own; its experiment is composed below",
    "mos import": "it wants the files that raters have sent",
    "…": "the reader fills in what it is for",
}


def shown_in(page: Path) -> list[str]:
    """The diffq commands of the page that are only shown: in `console` blocks, and indented."""
    text = page.read_text(encoding="utf-8")
    blocks = re.findall(r"^```console\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    found = [line for block in blocks for line in block.splitlines() if line.startswith("diffq ")]
    plain = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE).replace("\\\n", " ")
    found += re.findall(r"^    (diffq [a-z].*)$", plain, re.MULTILINE)
    return [line for line in found if not any(word in line for word in NOT_COMPOSED)]


@pytest.mark.parametrize("command", [line for page in PAGES for line in shown_in(page)])
def test_a_command_that_is_only_shown_is_valid_too(command: str) -> None:
    verb, *words = shlex.split(command, comments=True)[1:]
    places = ("outputs/sweeps/", "outputs/points/")  # what they name is made by other commands
    words = [word for word in words if not word.startswith(places) and word != "RUN"]
    request = read_request(parser_for(verb), verb, words)
    if verb == "sweep":
        assert expand(request.overrides)
    elif verb in ("train", "sample"):
        assert compose(request.overrides, verb=verb)


def test_the_experiment_of_a_page_is_one(tmp_path: Path) -> None:
    page = (ROOT / "docs/sweeping.md").read_text(encoding="utf-8")
    written = re.search(r"^```yaml\n# my_conf/(\S+)\n(.*?)^```", page, re.DOTALL | re.MULTILINE)
    assert written
    (tmp_path / written[1]).parent.mkdir()
    (tmp_path / written[1]).write_text(written[2], encoding="utf-8")
    name = Path(written[1]).stem
    assert len(expand([f"experiment={name}"], config_dirs=[tmp_path])) == 8
    assert len(expand([f"experiment={name}", "sampler=cfg"], config_dirs=[tmp_path])) == 3


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
