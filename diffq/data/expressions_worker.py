"""A process that compares mathematical expressions with math-verify, one pair a line, for `expressions`.

It is run as a script, so that its time-outs are its own: an alarm of the system interrupts what sympy is doing, which
works in the main thread of a process and nowhere else. Knows nothing of diffq.

In: {"right": LaTeX, "answer": LaTeX}. Out: {"outcome": passed | failed | timed out | memory, "answer": a spelling}.
"""

import json
import logging
import os
import resource
import signal
import sys
from typing import Any


class Late(BaseException):
    """The alarm has gone off. No Exception: math-verify and sympy catch those."""


def ring(number: int, frame: Any) -> None:
    raise Late


def judge(right: str, answer: str, seconds: float) -> dict[str, str]:
    """The verdict on one answer, and a spelling of it in which equal answers are mostly equal."""
    from math_verify import parse, verify

    spelling = answer
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        gold, found = (parse(f"\\boxed{{{text}}}", parsing_timeout=None) for text in (right, answer))
        same = bool(gold and found) and verify(gold, found, timeout_seconds=None)
        outcome = "passed" if same else "failed"
        spelling = spell(found[0]) if found else ""
    except Late:
        outcome = "timed out"
    except MemoryError:
        outcome = "memory"
    except Exception:  # what cannot be read or compared is not equal
        outcome = "failed"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
    return {"outcome": outcome, "answer": spelling}


def spell(expression: Any) -> str:
    """An expression multiplied out; a number by its digits; of x = 5 the 5."""
    import sympy

    if isinstance(expression, sympy.Equality) and expression.lhs.is_Symbol:
        expression = expression.rhs
    if isinstance(expression, sympy.Expr):
        expression = expression.doit()  # 2^100 as the whole number that it is
        if expression.is_number and not expression.is_Integer and expression.is_real:
            value = sympy.N(expression, 15)
            return f"{float(value):.10g}" if abs(value) < sys.float_info.max else str(value)
        expression = sympy.expand(expression)
    return str(expression)


def main() -> None:
    replies = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no reply
    seconds, memory = float(sys.argv[1]), int(sys.argv[2]) << 20
    resource.setrlimit(resource.RLIMIT_AS, (memory, memory))
    logging.disable(logging.CRITICAL)
    import math_verify  # noqa: F401 - before the first pair, whose seconds it would take

    signal.signal(signal.SIGALRM, ring)
    print("ready", file=replies, flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        try:
            reply = judge(asked["right"], asked["answer"], seconds)
        except Late:  # it rang between two lines of `judge`
            reply = {"outcome": "timed out", "answer": asked["answer"]}
        print(json.dumps(reply), file=replies, flush=True)


if __name__ == "__main__":
    main()
