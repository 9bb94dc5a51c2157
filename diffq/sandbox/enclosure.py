"""The walls around a program: the command that starts an interpreter inside them.

Bubblewrap's own: new namespaces of processes, network, users and the rest; of the disk /usr and the interpreter, to be
read only, and a /tmp of a few MiB of memory; no environment, no rights. Started by root it keeps the right to become
another user, which `inside` uses at once, since limits on processes do not bind root; a user's own processes are in a
namespace of users, where they have no rights outside.
Knows no limits and runs nothing.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_TMP = 16 << 20  # bytes of /tmp
_FIRST_USER = 65000  # of programs that root starts: one for each that runs at a time, since limits are counted by user
_SYSTEM = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
ENVIRONMENT = {"PYTHONHASHSEED": "0", "PYTHONUTF8": "1"}
"""Hashes of texts are the same in every run, or the order of a set would decide about an answer."""


def interpreter() -> Path:
    """The interpreter that diffq itself runs on, without its virtual environment."""
    return Path(getattr(sys, "_base_executable", sys.executable)).resolve()


def interpreted() -> list[str]:
    """The command that runs `inside` in a fresh interpreter, without site packages."""
    text = Path(__file__).with_name("inside.py").read_text(encoding="utf-8")
    return [str(interpreter()), "-s", "-P", "-S", "-B", "-c", text]


@dataclass(frozen=True)
class Bubblewrap:
    """Bubblewrap where it lies. around: the processes of its own that it adds to those of a program."""

    path: str
    sized: bool  # whether it can bound a /tmp; an old one cannot, and there is none
    around: int = 2

    def command(self) -> list[str]:
        words = [self.path, "--die-with-parent", "--new-session", "--clearenv", "--cap-drop", "ALL"]
        if os.geteuid() == 0:
            words += ["--unshare-ipc", "--unshare-pid", "--unshare-net", "--unshare-uts", "--unshare-cgroup-try"]
            words += ["--cap-add", "CAP_SETUID", "--cap-add", "CAP_SETGID"]
        else:
            words += ["--unshare-all", "--uid", str(_FIRST_USER), "--gid", str(_FIRST_USER)]
        for name, value in ENVIRONMENT.items():
            words += ["--setenv", name, value]
        words += ["--ro-bind", "/usr", "/usr"]
        for name in _SYSTEM:
            if os.path.islink(name):
                words += ["--symlink", os.readlink(name), name]
            elif os.path.isdir(name):
                words += ["--ro-bind", name, name]
        home = Path(sys.base_prefix).resolve()
        above = [Path("/dev"), *([] if home.is_relative_to("/usr") else reversed(home.parents[:-1]))]
        for folder in above if self.sized else []:  # else they can be entered by root alone
            words += ["--perms", "0755", "--dir", str(folder)]
        if not home.is_relative_to("/usr"):
            words += ["--ro-bind", str(home), str(home)]
        for device in ("/dev/null", "/dev/zero", "/dev/urandom"):
            words += ["--dev-bind", device, device]
        if self.sized:
            words += ["--size", str(_TMP), "--perms", "1777", "--tmpfs", "/tmp"]
        return [*words, "--remount-ro", "/", "--chdir", "/tmp" if self.sized else "/", *interpreted()]

    def user(self, place: int) -> int:
        """Which user a program becomes inside, by its place among those that run at a time; −1: it stays who it is."""
        return _FIRST_USER + place if os.geteuid() == 0 else -1


@dataclass(frozen=True)
class Nothing:
    """No walls at all: limits hold, and that is all."""

    around: int = 0

    def command(self) -> list[str]:
        return interpreted()

    def user(self, place: int) -> int:
        return -1


@cache
def bubblewrap() -> Bubblewrap | None:
    """The bubblewrap of this machine, or None. Whether it works is another question."""
    path = shutil.which("bwrap")
    if path is None or not sys.platform.startswith("linux"):
        return None
    said = subprocess.run([path, "--help"], capture_output=True, text=True, check=False).stdout
    return Bubblewrap(path, "--size" in said and "--perms" in said)
