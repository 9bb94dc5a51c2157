"""What a fresh interpreter inside the sandbox is told to do: give up its rights, run one program, say how it ended.

It is handed over as text (`python -c`), so it imports nothing of this package. Standard input holds the word that it
reports with, a line, and the program; the arguments, which a program can read (`sys.orig_argv`), are the descriptor of
the report, the user to become (-1: stays), and the limits. It imports what is quick to import: a program has this to
wait for. Knows not what it is enclosed by.
"""

import os
import resource
import sys
import types


def give_up(user: int, seconds: int, memory: int, processes: int) -> None:
    """Becomes another user, and takes limits that nobody without rights can lift."""
    if user >= 0:
        os.setgroups([])
        os.setresgid(user, user, user)
        os.setresuid(user, user, user)
    for what, soft, hard in (
        (resource.RLIMIT_CPU, seconds, seconds + 1),  # a signal that says so, then the end
        (resource.RLIMIT_AS, memory, memory),
        (resource.RLIMIT_NPROC, processes, processes),
        (resource.RLIMIT_FSIZE, 1 << 20, 1 << 20),
        (resource.RLIMIT_NOFILE, 64, 64),
        (resource.RLIMIT_CORE, 0, 0),
    ):
        limit(what, soft, hard)


def limit(what: int, soft: int, hard: int) -> None:
    try:
        resource.setrlimit(what, (soft, hard))
    except (ValueError, OSError):  # a lower limit holds already, or the system has none
        return


def run(program: bytes) -> tuple[str, str]:
    """The outcome of a program, and why, in a few words."""
    module = types.ModuleType("answer")  # not __main__: what stands under `if __name__ == "__main__"` is no test
    sys.modules["answer"] = module
    try:
        code = compile(program, "answer.py", "exec", dont_inherit=True)
    except BaseException as error:
        return "failed", type(error).__name__
    try:
        exec(code, module.__dict__)
        return "passed", ""
    except MemoryError:
        module.__dict__.clear()
        return "memory", "MemoryError"
    except BaseException as error:
        return "failed", words_of(error)


def words_of(error: BaseException) -> str:
    """What an error says of itself, where it can."""
    try:
        return f"{type(error).__name__}: {error}"[:200]
    except BaseException:
        return type(error).__name__[:200]


def main() -> None:
    say, user, seconds, memory, processes = map(int, sys.argv[1:])
    head, _, program = sys.stdin.buffer.read().partition(b"\n")
    word, me = head.decode(), os.getpid()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)  # input() finds the end of the file instead of waiting
    sys.argv = ["answer.py"]
    give_up(user, seconds, memory, processes)
    os.write(say, f"{word} begun\n".encode())
    outcome, note = run(program)
    if os.getpid() == me:  # a child that came out of the program as well has nothing to say
        os.write(say, f"{word} {outcome}\n{note}\n".encode("utf-8", "replace"))
    os._exit(0)


if __name__ == "__main__":
    main()
