"""`python -m diffq` is `diffq`."""

from __future__ import annotations

import os
import signal
import sys


def main() -> int:
    """The program: a signal that comes before the command line is loaded ends it without a word."""
    for number in (signal.SIGINT, signal.SIGTERM):
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, lambda number, frame: os._exit(128 + number))
    from diffq.cli import main

    return main()


if __name__ == "__main__":
    sys.exit(main())
