"""Prints a page of docs/ whose tables have long cells, such as docs/results/*/paper-*.md, as a terminal shows tables:
python scripts/show_tables.py PAGE"""

from __future__ import annotations

import itertools
import re
import signal
import sys
from pathlib import Path

from diffq.report.tables import print_table


def cells(line: str) -> list[str]:
    """The cells of a row of a Markdown table, their lines apart."""
    found = re.split(r"(?<!\\)\|", line.strip())[1:-1]
    return [cell.strip().replace("\\|", "|").replace("<br>", "\n") for cell in found]


def main(page: Path) -> None:
    """Tables are laid out; all other lines are printed as they are."""
    lines = page.read_text(encoding="utf-8").splitlines()
    for is_table, block in itertools.groupby(lines, key=lambda line: line.startswith("|")):
        if is_table:
            heads, _, *rows = map(cells, block)
            print_table("", heads, rows)
        else:
            print("\n".join(block), flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGPIPE, signal.SIG_DFL)  # `| head` ends it quietly
    main(Path(sys.argv[1]))
