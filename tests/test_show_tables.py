"""Kept tables are printed for people, not as Markdown."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]


def test_lines_of_a_cell_stand_below_one_another(tmp_path):
    page = tmp_path / "page.md"
    page.write_text("## A title\n\n| claim | measured |\n| --- | --- |\n| a \\| b | held<br>+1.00 |\n\n- a note\n")
    command = [sys.executable, "scripts/show_tables.py", str(page)]
    shown = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    words = [line.split() for line in shown.splitlines() if line.strip() and "─" not in line]
    assert words == [
        ["##", "A", "title"],
        ["claim", "measured"],
        ["a", "|", "b", "held"],
        ["+1.00"],
        ["-", "a", "note"],
    ]
