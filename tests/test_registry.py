"""Names: collisions are refused, typos answered, built-in members found by themselves."""

from __future__ import annotations

import pytest

from diffq.config.checks import dial_owners, root_keys
from diffq.errors import UserError
from diffq.registry import DATASETS, METRICS, MODELS, SAMPLERS, Registry


def test_a_taken_name_is_refused_and_a_reload_is_not() -> None:
    registry: Registry = Registry("thing", "diffq.store")

    def make(module: str) -> type:
        return type("Thing", (), {"__module__": module})

    registry.register("a")(make("one"))
    registry.register("a")(make("one"))
    with pytest.raises(UserError, match=r"thing name 'a' is taken by one\.Thing; two\.Thing needs another"):
        registry.register("a")(make("two"))


def test_an_unknown_name_gets_the_nearest() -> None:
    with pytest.raises(UserError, match=r"no sampler 'dpmp' \(did you mean 'dpmpp'\?\); known: "):
        SAMPLERS["dpmp"]


@pytest.mark.parametrize(
    ("registry", "names"),
    [
        (MODELS, {"gaussian", "causal_seq2seq"}),
        (DATASETS, {"grammar", "pairs"}),
        (SAMPLERS, {"ddim", "dpmpp", "cfg", "clamp_before_cfg"}),
        (METRICS, {"bleu", "self_bleu"}),
    ],
)
def test_built_in_members_are_found(registry: Registry, names: set[str]) -> None:
    assert names <= set(registry.names())
    assert all(registry[name].kind == name for name in registry.names())
    assert all((registry[name].__doc__ or "").strip() for name in registry.names())


def test_root_names_are_no_dials() -> None:
    assert not set(dial_owners()) & set(root_keys())
