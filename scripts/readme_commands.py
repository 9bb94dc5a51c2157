"""The commands of a Markdown page, as CI runs them.

A block fenced as `sh` is run, in order and from the repository's root; every other block is only shown. A command on
the real data is made small by words of its own, and left out where there are none.

    python scripts/readme_commands.py README.md > commands.sh
"""

from __future__ import annotations

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

REAL = ("dataset=qqp",)
SMALL = "model=gaussian_tiny trainer.max_steps=20"


def commands(page: str) -> Iterator[str]:
    """The commands of the page's `sh` blocks, each in one line, without comments."""
    for block in re.findall(r"^```sh\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
        for line in block.replace("\\\n", " ").splitlines():
            command = re.sub(r"\s+#\s.*$", "", line).strip()
            if command and not command.startswith("#"):
                yield re.sub(r"\s+", " ", command)


def on_real_data(command: str) -> bool:
    """Whether a command reads files that do not come with the repository."""
    return any(word in REAL for word in shlex.split(command))


def as_run(command: str) -> str:
    """The command with what makes it small, where it is on real data."""
    return f"{command} {SMALL}" if on_real_data(command) else command


def script(page: str, has_data: bool) -> str:
    """A bash script that runs the page's commands and stops at the first that fails."""
    lines = ["set -euo pipefail"]
    for command in commands(page):
        if on_real_data(command) and not has_data:
            lines.append(f"echo {shlex.quote(f'--- not run, DIFFQ_DATA is not set: {command}')}")
        else:
            lines += [f"echo {shlex.quote(f'--- {as_run(command)}')}", as_run(command)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(script(Path(sys.argv[1]).read_text(encoding="utf-8"), bool(os.environ.get("DIFFQ_DATA"))), end="")
