"""The canvas denoising in the terminal: what `diffq sample --watch` shows.

Where there is no terminal, plain lines. It reads drafts through `on_step` and changes nothing.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from diffq.diffusion.contracts import Step

_SHOWN = 8
_PAUSE = 0.06  # seconds a step stays on the screen at least, so that an eye can follow


class Watch:
    """A context manager whose `on_step` draws the first rows of a batch after each step.

    A word that changed in this step is bright; one that has stood for a while is plain.
    """

    def __init__(self, tokenizer: Any, sources: Sequence[str], console: Console | None = None):
        self.tokenizer, self.sources = tokenizer, list(sources)[:_SHOWN]
        self.console = console or Console()
        self._live = Live(console=self.console, auto_refresh=False, transient=False)
        self._before: list[list[str]] = []

    def __enter__(self) -> Watch:
        if self.console.is_terminal:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.console.is_terminal:
            self._live.stop()

    def on_step(self, step: Step) -> None:
        tokens_BL = step.draft()[: len(self.sources)].cpu()
        valid_BL = step.canvas.valid_BL[: len(self.sources)].cpu()
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
        for i, (source, row) in enumerate(zip(self.sources, words, strict=True)):
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
