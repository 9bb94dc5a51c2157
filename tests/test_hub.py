"""The hub: nobody retries where its host has no address."""

from __future__ import annotations

import socket
from collections.abc import Callable

import datasets
import huggingface_hub
import pytest
import transformers
from huggingface_hub import constants

from diffq import hub
from diffq.data import cut_tokenizers, exact_tokenizers, tokenizers
from diffq.errors import UserError
from diffq.metrics import classifiers, encoders
from diffq.models import published


@pytest.fixture
def look_up(monkeypatch) -> Callable[[bool], None]:
    """Sets whether the hub's host has an address."""

    def set_to(address: bool) -> None:
        def answer(host: str, _: object) -> None:
            assert host == "hub.example"
            if not address:
                raise socket.gaierror(-2, "Name or service not known")

        monkeypatch.setattr(socket, "getaddrinfo", answer)

    monkeypatch.setattr(constants, "ENDPOINT", "https://hub.example")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(hub, "getproxies", dict)
    return set_to


@pytest.mark.parametrize(
    ("address", "proxies", "offline"),
    [(False, {}, True), (True, {}, False), (False, {"https": "http://there"}, False)],
    ids=["no address", "an address", "behind a proxy"],
)
def test_the_libraries_are_offline_where_the_hub_has_no_address(monkeypatch, look_up, address, proxies, offline):
    def load(*asked: object, **more: object) -> object:
        return asked, more, constants.is_offline_mode(), datasets.config.HF_HUB_OFFLINE

    look_up(address)
    monkeypatch.setattr(hub, "getproxies", lambda: proxies)
    monkeypatch.setattr(datasets, "load_dataset", load)
    asked = ("a/b", "c"), {"split": "test", "streaming": True}
    assert hub.load("a/b", "c", "test", streaming=True) == (*asked, offline, offline)
    assert not constants.is_offline_mode()
    assert not datasets.config.HF_HUB_OFFLINE


def test_a_folder_s_host_is_not_looked_up(monkeypatch, tmp_path):
    def look_up(*_: object) -> None:
        raise AssertionError("asked for an address")

    monkeypatch.setattr(hub, "getproxies", dict)
    monkeypatch.setattr(socket, "getaddrinfo", look_up)
    with hub.no_vain_retries(str(tmp_path)):
        assert not constants.is_offline_mode()


@pytest.mark.parametrize(
    ("address", "error", "said"),
    [
        (False, ConnectionError("a b"), "hub.example has no address here, and this machine holds no copy"),
        (False, ImportError("a b"), "ImportError: a b"),
        (True, ConnectionError("a b"), "ConnectionError: a b"),
    ],
)
def test_it_is_said_why_nothing_came(look_up, address, error, said):
    look_up(address)
    assert hub.why(error) == said


@pytest.mark.parametrize(
    "read",
    [
        lambda: tokenizers.build_tokenizer("bert", None),
        lambda: exact_tokenizers.gpt2_tokenizer(),
        lambda: cut_tokenizers.roberta_tokenizer(),
        lambda: encoders.load.__wrapped__("a/b"),
        lambda: classifiers.load.__wrapped__("a/b"),
        lambda: published.resolve("a/b"),
    ],
    ids=["BERT's", "GPT-2's", "RoBERTa's", "an encoder", "a classifier", "a checkpoint"],
)
def test_nothing_that_is_read_from_the_hub_is_tried_for_long(monkeypatch, look_up, read):
    states = []

    def asked(*_: object, **__: object) -> None:
        states.append(constants.is_offline_mode())
        raise OSError("nothing there")

    look_up(False)
    monkeypatch.delenv("DIFFQ_DATA", raising=False)
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", asked)
    monkeypatch.setattr(huggingface_hub, "snapshot_download", asked)
    with pytest.raises(UserError):
        read()
    assert states == [True]
