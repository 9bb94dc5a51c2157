"""Data sets of the Hugging Face hub, through the package `datasets`.

Where the hub's host has no address, the library's minute of retries is left out: what this machine holds is read, or
the error comes at once.
"""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit
from urllib.request import getproxies

from diffq.data.task import Split


def split_of(name: Split) -> str:
    """What the hub calls a split of ours."""
    return "validation" if name == "valid" else name


def load(name: str, config: str | None, split: str, **more: Any) -> Any:
    """`datasets.load_dataset`. Whatever it raises: no network, no package, no such name or split, each another."""
    import datasets
    from huggingface_hub import constants

    host = urlsplit(constants.ENDPOINT).hostname
    if getproxies() or _has_address(host):  # a proxy looks addresses up itself
        return datasets.load_dataset(name, config, split=split, **more)
    with _offline():
        try:
            return datasets.load_dataset(name, config, split=split, **more)
        except ConnectionError as error:
            raise ConnectionError(f"{host} has no address here, and this machine holds no copy") from error


def _has_address(host: str | None) -> bool:
    try:
        socket.getaddrinfo(host, None)
    except OSError:
        return False
    return True


@contextmanager
def _offline() -> Iterator[None]:
    """Inside it nothing is asked of the hub: the libraries read HF_HUB_OFFLINE once, where they are imported."""
    import datasets
    from huggingface_hub import constants

    flags: tuple[Any, ...] = (constants, datasets.config)
    held = [flag.HF_HUB_OFFLINE for flag in flags]
    for flag in flags:
        flag.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        for flag, value in zip(flags, held, strict=True):
            flag.HF_HUB_OFFLINE = value
