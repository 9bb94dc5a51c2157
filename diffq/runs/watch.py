"""The canvas denoising in the terminal: what `diffq sample --watch` shows.

Where there is no terminal, plain lines. It reads drafts through `on_step` and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from diffq.diffusion.contracts import Step, source_of

_SHOWN = 8
_PAUSE = 0.06  # seconds a step stays on the screen at least, so that an eye can follow


class Watch:
    """A context manager whose `on_step` draws the first rows of a batch after each step.

    sources: the text of each source by its index.
    A word that changed in this step is bright, the others are plain. Only the first batch is shown.
    """

    def __init__(self, tokenizer: Any, sources: Mapping[int, str], console: Console | None = None):
        self.tokenizer, self.sources = tokenizer, sources
        self.console = console or Console()
        self._live = Live(console=self.console, auto_refresh=False, transient=False)
        self._before: list[list[str]] = []
        self._is_over = False

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def on_step(self, step: Step) -> None:
        if self._is_over:
            return
        self._is_over = step.index + 1 == step.total
        tokens_BL = step.draft()[:_SHOWN].cpu()
        valid_BL = step.canvas.valid_BL[:_SHOWN].cpu()
        words = [
            [self.tokenizer.token(t) for t in tokens[valid].tolist()]
            for tokens, valid in zip(tokens_BL, valid_BL, strict=True)
        ]
        if self.console.is_terminal:
            self._live.update(self._picture(step, words), refresh=True)
            time.sleep(_PAUSE)
        else:
            texts = self.tokenizer.decode_batch(t[v].tolist() for t, v in zip(tokens_BL, valid_BL, strict=True))
            self.console.print(f"step {step.index + 1}/{step.total}  {texts[0]}", markup=False, highlight=False)
        self._before = words

    def _picture(self, step: Step, words: list[list[str]]) -> Group:
        table = Table(box=None, padding=(0, 1), show_header=False)
        table.add_column(style="dim", max_width=44, no_wrap=True, overflow="ellipsis")
        table.add_column(ratio=1)
        for i, (row_id, row) in enumerate(zip(step.canvas.row_B.tolist(), words, strict=False)):
            source = self.sources[source_of(row_id)]
            before = self._before[i] if i < len(self._before) else []
            line = Text()
            for k, word in enumerate(row):
                same = k < len(before) and before[k] == word
                line.append(word + " ", style="" if same else "bold cyan")
            table.add_row(source, line)
        done = step.index + 1
        filled = int(30 * done / step.total)
        bar = Text(f"step {done}/{step.total}  t {float(step.time_B[0]):.2f}  ", style="dim")
        bar.append("━" * filled, style="cyan")
        bar.append("━" * (30 - filled), style="dim")
        return Group(bar, table)
