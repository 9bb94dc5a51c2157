"""`python -m diffq` is `diffq`."""

from __future__ import annotations

import sys

from diffq.cli import main

if __name__ == "__main__":
    sys.exit(main())
