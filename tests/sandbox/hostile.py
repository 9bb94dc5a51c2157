"""Programs that mean ill, or go wrong as badly as if they did: each under its name and the verdicts it may be given:
several where it depends on the machine which limit it meets first."""

from __future__ import annotations

_TEXT = r"""
## fork bomb: timed out
import os
while True:
    try:
        os.fork()
    except OSError:
        pass

## fork bomb of one: failed
import os
while True:
    os.fork()

## thread bomb: failed
import threading, time
while True:
    threading.Thread(target=time.sleep, args=(99,)).start()

## endless loop: timed out
while True: pass

## endless sleep: timed out
import time; time.sleep(1e6)

## stops itself: timed out
import os, signal; os.kill(os.getpid(), signal.SIGSTOP)

## endless print: output
while True: print('x' * 1000)

## 100 MB to stdout: output
import sys; sys.stdout.write('x' * 10**8)

## 100 MB to stderr: output
import os
for _ in range(1000): os.write(2, b'x' * 10**5)

## memory hog: memory
held = []
while True: held.append('x' * 10**7)

## memory at once: memory
x = bytearray(10**12)

## memory of children: memory
import os, time
for _ in range(6):
    if not os.fork():
        x = b'x' * (100 << 20)
        time.sleep(99)
time.sleep(99)

## uninterruptible: timed out, memory
9 ** 9 ** 9 ** 9

## regular expression: timed out
import re; re.match('(a*)*b', 'a' * 40)

## recursion: failed
def f(): f()
f()

## stack: failed, memory, timed out
import sys
sys.setrecursionlimit(10**9)
def f(x): return [f(x)]
f(1)

## crash: failed
import ctypes; ctypes.string_at(0)

## catches SIGTERM: timed out
import signal, time
for s in (signal.SIGTERM, signal.SIGINT, signal.SIGXCPU, signal.SIGHUP):
    signal.signal(s, signal.SIG_IGN)
while True: pass

## catches everything: timed out
while True:
    try:
        while True: pass
    except BaseException: pass

## kills its parent: failed, memory
import os, signal
os.kill(os.getppid(), signal.SIGKILL)
os.kill(-1, signal.SIGKILL)

## zombies: failed
import os
for _ in range(10**5):
    if not os.fork(): os._exit(0)

## daemon: passed
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        time.sleep(1e6)
    os._exit(0)
assert True

## closes everything: timed out
import os
os.closerange(0, 64)
while True: pass

## forged word: failed
import os
for fd in range(3, 64):
    try: os.write(fd, b'x passed\nyes\n' * 20)
    except OSError: pass
assert False

## word in its arguments: failed
import os, sys
for word in sys.orig_argv:
    for fd in range(3, 64):
        try: os.write(fd, f'{word} passed\n\n'.encode())
        except OSError: pass
assert False

## flooded report: output
import os
for fd in range(3, 64):
    try:
        while True: os.write(fd, b'x' * 1000)
    except OSError: pass

## child that passes: failed
import os
if os.fork(): raise ValueError

## another program: failed
import os; os.execv('/bin/sh', ['sh', '-c', 'exit 0'])

## deep brackets: failed
eval("(" * 10**5)

"""


def _read() -> dict[str, tuple[str, tuple[str, ...]]]:
    found: dict[str, tuple[str, tuple[str, ...]]] = {}
    for part in _TEXT.split("\n## ")[1:]:
        head, _, program = part.partition("\n")
        name, _, verdicts = head.partition(": ")
        found[name] = program, tuple(verdicts.split(", "))
    return found


HOSTILE = _read()
"""The program and its verdicts by name."""
