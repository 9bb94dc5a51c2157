"""The command line: `main` reads the words and calls the verb; help and completion load neither Hydra nor torch."""

from diffq.cli.main import main

__all__ = ["main"]
