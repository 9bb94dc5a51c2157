"""The command line: reads the words, says what is wrong with them in one sentence, and calls the verb.

Exit status: what the verb returns, 2 for a UserError, 130 for Ctrl-C, 143 for SIGTERM.
It imports nothing heavy: help and completion need no Hydra and no torch.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from diffq.cli.parsers import TAKES_RUNS, VERBS, overview, parser_for
from diffq.config import Config, Request
from diffq.errors import UserError, unknown
from diffq.interrupts import Interrupts, Stopped, unmasked

_LISTS = ("sweep", "likelihood")  # the verbs that take several values of a key


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit status."""
    words = list(sys.argv[1:] if argv is None else argv)
    with Interrupts(final=argv is None) as interrupts:
        interrupts.status = _status(words, interrupts)
        return interrupts.status


def _status(words: list[str], interrupts: Interrupts) -> int:
    try:
        with unmasked():
            status = _main(words)
            sys.stdout.flush()
        return status
    except UserError as error:
        print(f"diffq: {error}", file=sys.stderr)
        return 2
    except Stopped as stop:
        if os.environ.get("RANK", "0") == "0":  # of the processes of one training, the first speaks
            interrupts.say(stop)
        return 128 + stop.number
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        # Whoever read our output has gone: what Python flushes at its end must not complain either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141


def _main(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(overview())
        return 0
    verb, *rest = words
    if verb == "--version":
        from diffq import __version__

        print(f"diffq {__version__}")
        return 0
    if verb == "__complete":
        from diffq.cli.complete import complete

        print("\n".join(complete(rest)))
        return 0
    if verb == "completion":
        from diffq.cli.complete import script

        print(script(rest), end="")
        return 0
    if verb not in VERBS:
        raise unknown("verb", verb, [*VERBS, "completion"])
    parser = parser_for(verb)
    if "-h" in rest or "--help" in rest:
        parser.print_help()
        return 0
    request = read_request(parser, verb, rest)
    if request.flags.cfg:
        return _print_config(request)
    return importlib.import_module(f"diffq.runs.{verb}").run(request)


def read_request(parser: argparse.ArgumentParser, verb: str, words: Sequence[str]) -> Request:
    """What the words ask for. A word that exists on disk is a run, one with `=` an override, others are names."""
    flags = parser.parse_intermixed_args(list(words))
    overrides: list[str] = []
    runs: list[Path] = []
    names: list[str] = []
    outputs = next((w.partition("=")[2] for w in reversed(flags.words) if w.startswith("outputs=")), "outputs")
    for word in flags.words:
        members = verb == "ls" and flags.subject != "runs"  # which of the samplers, models, … are shown
        run = _run_path(word, Path(outputs)) if verb in TAKES_RUNS and not members else None
        if run is not None:
            runs.append(run)
        elif "=" in word:
            overrides.append(word)
        elif verb == "mos" and flags.subject == "import":
            raise UserError(f"there is no '{word}' here; import takes the folder with key.json, and files of ratings")
        elif verb == "bench" or members:
            names.append(word)
        elif verb in TAKES_RUNS:
            raise UserError(
                f"there is no run '{word}': it is no folder here or under {outputs}/, and no key=value either"
            )
        else:
            raise UserError(f"'{word}' is no key=value; write for example seed=1, or see `diffq {verb} --help`")
    flags.names = names
    return Request(
        verb=verb,
        overrides=tuple(overrides),
        runs=tuple(runs),
        json=flags.json,
        config_dirs=tuple(Path(d) for d in flags.config_dir),
        flags=flags,
    )


def _run_path(word: str, outputs: Path) -> Path | None:
    path = os.path.expanduser(word)
    if os.path.exists(path):
        return Path(path)
    places = [] if "=" in word else [outputs / word, outputs / "sweeps" / word, outputs / "points" / word]
    return next((place for place in places if os.path.exists(place)), None)


def _print_config(request: Request) -> int:
    """Prints the composed, typed configuration, as the verb would have it; of lists each one's."""
    import json

    from diffq.settings import as_mapping

    configs = _composed(request)
    plain = [as_mapping(config) for config in configs]
    if request.json:
        print(json.dumps(plain if request.verb in _LISTS else plain[0], indent=2, ensure_ascii=False))
        return 0
    import yaml

    print("---\n".join(yaml.safe_dump(p, sort_keys=False, allow_unicode=True) for p in plain), end="")
    return 0


def _composed(request: Request) -> list[Config]:
    """What a verb makes of its words."""
    if request.verb in _LISTS:
        from diffq.runs.grid import expand

        points = expand(request.overrides, verb=request.verb, config_dirs=request.config_dirs)
        return [point.config for point in points]
    if request.verb in ("sample", "harness"):
        return [importlib.import_module(f"diffq.runs.{request.verb}").composed(request)]
    from diffq.config import compose

    return [compose(request.overrides, verb=request.verb, config_dirs=request.config_dirs)]


if __name__ == "__main__":
    sys.exit(main())
