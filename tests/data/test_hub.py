"""Data sets of the hub: nobody retries where its host has no address."""

from __future__ import annotations

import socket

import datasets
import pytest
from huggingface_hub import constants

from diffq.data import hub


@pytest.mark.parametrize(
    ("address", "proxies", "offline"),
    [(False, {}, True), (True, {}, False), (False, {"https": "http://there"}, False)],
    ids=["no address", "an address", "behind a proxy"],
)
def test_the_libraries_are_offline_where_the_hub_has_no_address(monkeypatch, address, proxies, offline):
    def look_up(host: str, _: object) -> None:
        assert host == "hub.example"
        if not address:
            raise socket.gaierror(-2, "Name or service not known")

    def load(*asked: object, **more: object) -> object:
        return asked, more, constants.is_offline_mode(), datasets.config.HF_HUB_OFFLINE

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", lambda: proxies)
    monkeypatch.setattr(datasets, "load_dataset", load)
    asked = ("a/b", "c"), {"split": "test", "streaming": True}
    assert hub.load("a/b", "c", "test", streaming=True) == (*asked, offline, offline)
    assert not constants.is_offline_mode()
    assert not datasets.config.HF_HUB_OFFLINE


def test_without_address_and_copy_it_is_said_why(monkeypatch):
    def look_up(*_: object) -> None:
        raise socket.gaierror(-2, "Name or service not known")

    def load(*_: object, **__: object) -> None:
        raise ConnectionError("OfflineModeIsEnabled")

    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(datasets, "load_dataset", load)
    with pytest.raises(ConnectionError, match="has no address here, and this machine holds no copy"):
        hub.load("a/b", None, "test")
