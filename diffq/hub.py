"""The Hugging Face hub, asked only where it can be reached.

Its libraries retry for 20 seconds to a minute, file by file, where a machine has no network. A look at whether the
hub's host has an address tells it in milliseconds.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from diffq.errors import in_short


def missing_host() -> str | None:
    """The hub's host where it has no address here; None where it has one, or a proxy would look it up."""
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    if getproxies():
        return None
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return host
    return None


def why(error: Exception) -> str:
    """What kept something of the hub from being fetched, in a few words."""
    if isinstance(error, OSError) and (host := missing_host()):  # connections and files that are not there are both
        return f"{host} has no address here, and this machine holds no copy"
    return f"{type(error).__name__}: {in_short(error, 160)}"


@contextmanager
def no_vain_retries(name: str = "") -> Iterator[None]:
    """Inside it nothing is asked of a hub without an address: what this machine holds is read, or the error comes at
    once. (The libraries read HF_HUB_OFFLINE once, where they are imported.) name: what is read; for a folder here no
    address is looked up."""
    from huggingface_hub import constants

    if (name and Path(name).is_dir()) or missing_host() is None:
        yield
        return
    flags: list[Any] = [constants]
    if "datasets.config" in sys.modules:
        flags.append(sys.modules["datasets.config"])
    held = [flag.HF_HUB_OFFLINE for flag in flags]
    for flag in flags:
        flag.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for flag, value in zip(flags, held, strict=True):
            flag.HF_HUB_OFFLINE = value


def split_of(name: str) -> str:
    """What the hub calls a split of ours."""
    return "validation" if name == "valid" else name


def load(name: str, config: str | None, split: str, **more: Any) -> Any:
    """`datasets.load_dataset`. Whatever it raises: no network, no package, no such name or split, each another."""
    import datasets

    with no_vain_retries():
        return datasets.load_dataset(name, config, split=split, **more)
