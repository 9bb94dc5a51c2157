"""The sandbox against programs that mean ill, or go wrong as badly as if they did.

Each must end with the verdict it is given here, in the time it is given, and leave nothing behind.
"""

from __future__ import annotations

import http.server
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hostile import HOSTILE

from diffq.errors import UserError
from diffq.sandbox import Ended, Limits, Sandbox
from diffq.sandbox import box as box_module
from diffq.sandbox.enclosure import Nothing, bubblewrap
from diffq.sandbox.usage import descendants, usage_of

WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw"))
# Two seconds, since filling 256 MiB takes a slow machine one; other workers' processes have other limits.
LIMITS = Limits(seconds=2, memory=256 + WORKER, processes=8, output=64)
LONGEST = LIMITS.clock + 3  # seconds by the clock that any program may take, on a machine that is busy with tests


@pytest.fixture(scope="module")
def box() -> Sandbox:
    if bubblewrap() is None:
        pytest.skip("needs bubblewrap: apt-get install bubblewrap")
    return Sandbox.find(LIMITS)


def test_programs_pass_or_fail_on_their_own_word(box: Sandbox) -> None:
    programs = {
        "assert 1 + 1 == 2": "passed",
        "assert 1 + 1 == 3": "failed",
        "import math, re, json, collections, itertools, heapq, datetime; assert math.pi > 3": "passed",
        "a b": "failed",
        "raise SystemExit(0)": "failed",  # it left before its tests were over
        "import os; os._exit(0)": "failed",
        "if __name__ == '__main__':\n    raise ValueError": "passed",
        "from dataclasses import dataclass\n@dataclass\nclass A:\n    x: 'int' = 1\nassert A().x == 1": "passed",
        "input()": "failed",
        "\udc80": "refused",
        "#" * (2 << 20): "refused",
        "x = 1\x00": "failed",
        "print('ä' * 10)": "passed",
        "": "passed",
    }
    endings = box.run_all(list(programs), jobs=2)
    assert [e.outcome for e in endings] == list(programs.values())
    assert endings[1].note == "AssertionError: "


def test_sets_of_texts_have_one_order(box: Sandbox) -> None:
    program = "raise ValueError(list({'one', 'two', 'three', 'four', 'five', 'six'}))"
    assert len({box.run(program) for _ in range(4)}) == 1


def test_hostile_programs_end_as_they_must_and_slow_nobody(box: Sandbox) -> None:
    """All at once, with harmless ones between them: these must pass beside such neighbours."""
    harmless = "assert sorted([3, 1, 2]) == [1, 2, 3]"
    programs = [text for program, _ in HOSTILE.values() for text in (program, harmless)]
    began = time.monotonic()
    endings = box.run_all(programs, jobs=4)
    took = time.monotonic() - began
    for (name, (_, expected)), ended in zip(HOSTILE.items(), endings[::2], strict=True):
        assert ended.outcome in expected, (name, ended)
    assert {e.outcome for e in endings[1::2]} == {"passed"}
    assert took < LONGEST * len(HOSTILE) / 4 + 5, took
    assert_nothing_is_left()


def assert_nothing_is_left() -> None:
    """What is killed takes a moment to be gone."""
    deadline = time.monotonic() + 10
    while left := _left_behind():
        assert time.monotonic() < deadline, left
        time.sleep(0.05)


def _left_behind() -> list[str]:
    """Command lines of interpreters with these limits that are still there, below this process or gone astray."""
    limit = str(LIMITS.memory << 20).encode()
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            said = path.read_bytes()
            state = path.with_name("stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            continue
        if limit in said.split(b"\0") and state != "Z":
            found.append(said.decode(errors="replace")[:200])
    return found


ESCAPES = {
    "the home folder": "import os; os.listdir(os.environ['REAL_HOME'])",
    "the home folder, by name": "open({home!r} + '/.profile').read()",
    "the tree of diffq": "open({tree!r}).read()",
    "passwords": "open('/etc/shadow').read()",
    "users": "open('/etc/passwd').read()",
    "its own process": "open('/proc/self/environ').read()",
    "another process": "import os; os.kill({process}, 0)",
    "the network": "import socket; socket.create_connection(('127.0.0.1', {port}), timeout=2)",
    "names": "import socket; socket.getaddrinfo('localhost.example', 80)",
    "a raw socket": "import socket; socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_ICMP)",
    "writing to /": "open('/x', 'w').write('x')",
    "writing to /usr": "open('/usr/x', 'w').write('x')",
    "writing to /dev": "open('/dev/x', 'w').write('x')",
    "writing to the home folder": "open({home!r} + '/x', 'w').write('x')",
    "writing to the interpreter": "import os; open(os.path.dirname(os.__file__) + '/x.py', 'w').write('x')",
    "a large file": "open('/tmp/x', 'w').write('x' * (64 << 20))",
    "many files": "for i in range(64): open(f'/tmp/{{i}}', 'w').write('x' * (1 << 19))",
    "a device": "import os, stat; os.mknod('/tmp/sda', 0o600 | stat.S_IFBLK, os.makedev(8, 0)); open('/tmp/sda')",
    "becoming root": "import os; os.setuid(0)",
    "lifting its limits": "import resource; resource.setrlimit(resource.RLIMIT_NPROC, (4096, 4096))",
    "mounting": "import ctypes, os; assert ctypes.CDLL(None).mount(b'none', b'/tmp', b'tmpfs', 0, None) == 0",
    "tracing its parent": "import ctypes; assert ctypes.CDLL(None).ptrace(16, 1, None, None) == 0",
    "the packages of diffq": "import numpy",
    "diffq": "import diffq",
}


@pytest.mark.parametrize("what", ESCAPES)
def test_nothing_gets_out(what: str, box: Sandbox, tmp_path: Path) -> None:
    """Each tries something that would work outside; it must raise, and what it would have touched is as it was."""
    secret = tmp_path / ".profile"
    secret.write_text("secret")
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        known = {"home": str(tmp_path), "tree": __file__, "process": os.getpid(), "port": server.server_port}
        ended = box.run(ESCAPES[what].format(**known))
    assert ended.outcome == "failed", ended
    assert [p.name for p in tmp_path.iterdir()] == [".profile"]
    assert "SyntaxError" not in ended.note


def test_what_is_tried_would_work_outside(tmp_path: Path) -> None:
    """The escapes are real: without walls the harmless ones of them succeed."""
    (tmp_path / ".profile").write_text("secret")
    bare = Sandbox(LIMITS, Nothing())
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.SimpleHTTPRequestHandler) as server:
        known = {"home": str(tmp_path), "tree": __file__, "process": os.getpid(), "port": server.server_port}
        for what in ("the home folder, by name", "the tree of diffq", "users", "the network", "another process",
                     "writing to the home folder"):  # fmt: skip
            assert bare.run(ESCAPES[what].format(**known)).outcome == "passed", what


def test_a_run_that_is_stopped_does_not_wait(box: Sandbox) -> None:
    sleeper = Sandbox(LIMITS.replace(seconds=300), box.walls)
    began = time.monotonic()

    def interrupt(done: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sleeper.run_all(["", "import time; time.sleep(999)", "import time; time.sleep(999)"], 2, interrupt)
    assert time.monotonic() - began < 10
    assert_nothing_is_left()


def test_programs_end_with_whoever_runs_them(box: Sandbox) -> None:
    """A process that is killed while a program runs takes it along."""
    code = (
        "from diffq.sandbox import Limits, Sandbox\n"
        "print('begun', flush=True)\n"
        f"Sandbox.find(Limits(seconds=300, memory={LIMITS.memory})).run('import time; time.sleep(999)')"
    )
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.readline()
    deadline = time.monotonic() + 20
    while not _left_behind():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.wait()
    process.stdout.close()
    assert_nothing_is_left()


def test_without_bubblewrap_nothing_runs_unless_that_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box_module, "bubblewrap", lambda: None)
    with pytest.raises(UserError, match=r"not installed.*allow_unsafe_execution=true"):
        Sandbox.find(LIMITS)
    bare = Sandbox.find(LIMITS, unsafe=True)
    assert isinstance(bare.walls, Nothing)
    assert bare.run("assert True").outcome == "passed"
    assert bare.run("assert False") == Ended("failed", "AssertionError: ")
    assert bare.run("while True: pass").outcome == "timed out"
    assert bare.run("while True: print('x' * 1000)").outcome == "output"


def test_programs_without_walls_are_warned_of_once(box: Sandbox, capsys: pytest.CaptureFixture[str]) -> None:
    box_module._warn.cache_clear()
    for _ in range(2):
        Sandbox(LIMITS, Nothing()).run_all(["", ""])
    assert capsys.readouterr().err.count("allow_unsafe_execution=true, and bubblewrap does not work here") == 1
    box_module._warn.cache_clear()
    box.run_all([""])
    assert capsys.readouterr().err == ""


def test_walls_that_do_not_hold_are_none(box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    class Leaky(Nothing):
        pass

    monkeypatch.setattr(box_module, "bubblewrap", Leaky)
    box_module._holes.cache_clear()
    try:
        with pytest.raises(UserError, match="does not hold here"):
            Sandbox.find(LIMITS)
    finally:
        box_module._holes.cache_clear()


def test_a_sandbox_that_does_not_start_is_no_verdict(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(Nothing):
        def command(self) -> list[str]:
            return [sys.executable, "-c", "raise SystemExit('no namespaces here')"]

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    with pytest.raises(UserError, match="no namespaces here"):
        Sandbox(LIMITS, Broken()).run("assert True")


def test_usage_counts_a_tree() -> None:
    code = "import os, time\nos.fork()\nx = bytearray(32 << 20)\nx[:] = b'x' * len(x)\nwhile True: pass"
    process = subprocess.Popen([sys.executable, "-c", code])
    try:
        deadline = time.monotonic() + 30
        while True:
            used = usage_of(process.pid)
            if used.processes == 2 and used.seconds > 0.3 and used.memory > 2 * (32 << 20):
                break
            assert time.monotonic() < deadline, used
            time.sleep(0.05)
    finally:
        for one in list(descendants(process.pid)):
            os.kill(one, signal.SIGKILL)
        process.wait()


def test_limits_say_what_they_are() -> None:
    assert str(Limits(seconds=1.5, memory=256, processes=8, output=64)) == "1.5s_256mb_8p_64kb"
    with pytest.raises(UserError, match="seconds=0"):
        Limits(seconds=0)
