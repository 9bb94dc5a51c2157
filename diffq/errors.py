"""The one exception that a user is meant to read."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """What the user asked for cannot be done; the message is one sentence that says why and what would be allowed.

    The command line prints it without a traceback and exits with 2.
    """


class Undefined(UserError):
    """A metric has no value for the answers that it was given, such as a perplexity of empty texts."""


def in_short(error: BaseException, most: int = 200) -> str:
    """What an error of a library says, on one line of so many characters at most, cut between words."""
    said = " ".join(str(error).split())
    return said if len(said) <= most else said[: most - 1].rpartition(" ")[0] + " …"


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """` (did you mean 'scale'?)`, or nothing where no known name is near."""
    near = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f" (did you mean '{near[0]}'?)" if near else ""


_MANY = 40


def unknown(what: str, name: str, known: Iterable[str], shown_by: str = "") -> UserError:
    """The error for a name that is not among the known ones. shown_by: the command that lists them, where they are too
    many for a sentence."""
    known = sorted(str(k) for k in known)
    listed = f"known: {', '.join(known) or 'none'}"
    if shown_by and len(known) > _MANY:
        listed = f"`{shown_by}` shows the {len(known)} that there are"
    return UserError(f"there is no {what} '{name}'{did_you_mean(name, known)}; {listed}")
