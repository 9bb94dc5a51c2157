"""Keys are stable, and names can be read and can be written on any disk."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diffq.settings import Settings, setting
from diffq.store import Identity, Store, digest_files, digest_sources
from diffq.store.identity import canonical_json


@dataclass(frozen=True, kw_only=True)
class Toy(Settings):
    """A made-up sampler."""

    scale: float = setting(1.0)
    temperature: float = setting(0.0)
    steps: int = setting(30)
    solver: str = setting("ddim")
    tile: int = setting(64, in_key=False)


Toy.kind = "toy"


@dataclass(frozen=True, kw_only=True)
class OtherName(Toy):
    """A second name for the same algorithm."""

    def canonical(self) -> Toy:
        return Toy(scale=self.scale)


OtherName.kind = "other_name"


def identity(**changes) -> Identity:
    base = Identity(
        dataset="qqp",
        dataset_key={"kind": "pairs", "max_source": 126},
        sources=digest_sources([(0, "what is love", ("what does love mean",)), (1, "ñ", ("n",))]),
        process="gaussian",
        model="gaussian_small",
        checkpoint="c" * 64,
        sampler=Toy(scale=2, temperature=0.5),
        seed=0,
        dtype="float32",
        length="oracle",
    )
    return replace(base, **changes)


def test_the_key_is_the_one_that_stored_points_have():
    assert identity().key == "28ddb512fe9c7d2888dae543fbedcdfb9e82d539ed7f9757c5edff85a886701b"
    assert identity().folder() == "qqp/gaussian_small/toy/scale2_temperature0.5-" + identity().key[:6]


def test_only_what_determines_samples_is_in_the_key():
    key = identity().key
    assert identity(dataset="renamed", model="renamed").key == key
    assert identity(sampler=Toy(scale=2.0, temperature=0.5, tile=8)).key == key
    assert identity(extra={"known": None}).key == key
    assert identity(dataset_key={"max_source": 126.0, "kind": "pairs"}).key == key
    assert identity(sampler=OtherName(scale=2)).key == identity(sampler=Toy(scale=2)).key
    changes = [
        {"seed": 1}, {"dtype": "bfloat16"}, {"length": "fixed_9"}, {"checkpoint": "d" * 64}, {"process": "causal"},
        {"sampler": Toy(scale=2.5, temperature=0.5)}, {"sampler": Toy(scale=2, temperature=0.5, solver="dpmpp")},
        {"sources": digest_sources([(0, "what is love", ("what does love mean",))])}, {"extra": {"known": "x"}},
        {"dataset_key": {"kind": "pairs", "max_source": 125}},
    ]  # fmt: skip
    keys = {identity(**change).key for change in changes}
    assert len(keys) == len(changes)
    assert key not in keys


def test_a_dial_that_is_no_number_is_refused():
    with pytest.raises(ValueError, match="JSON"):
        canonical_json({"scale": float("inf")})


names = st.text(min_size=0, max_size=80)


@given(dataset=names, model=names, solver=names, scale=st.floats(allow_nan=False, allow_infinity=False))
def test_names_are_short_and_plain(dataset, model, solver, scale):
    one = identity(dataset=dataset, model=model, sampler=Toy(scale=scale, solver=solver))
    for digits in (6, 12, 24):
        folder = one.folder(digits)
        parts = folder.split("/")
        assert len(folder) <= 120
        assert len(parts) == 4
        assert all(re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]*", part) for part in parts)
        assert folder.endswith("-" + one.key[:digits])


def test_defaults_have_a_name_too():
    assert identity(sampler=Toy()).folder().split("/")[-1].startswith("defaults-")
    assert "solver-dpmpp_" not in identity(sampler=Toy(solver="dpmpp")).folder()
    assert "/solver-dpmpp-" in identity(sampler=Toy(solver="dpmpp")).folder()


def test_a_taken_name_is_lengthened(tmp_path):
    store = Store(tmp_path)
    first = store.point(identity())
    (first.folder).mkdir(parents=True)
    (first.folder / "run.json").write_text('{"key": "another"}')
    second = store.point(identity())
    assert second.folder.name == first.folder.name + identity().key[6:12]


def test_the_digest_of_files_depends_on_names_and_bytes(tmp_path):
    made = []
    for folder, name, text in [("a", "x", "1"), ("b", "x", "1"), ("c", "y", "1"), ("d", "x", "2")]:
        (tmp_path / folder).mkdir()
        path = tmp_path / folder / name
        path.write_text(text)
        made.append(digest_files([path]))
    assert made[0] == made[1]
    assert len(set(made)) == 3
