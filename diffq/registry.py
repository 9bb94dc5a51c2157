"""Names for things that a user chooses by name: models, datasets, samplers, metrics.

A registry finds its built-in members by importing every module of one package, so adding a member touches no list.
It does not know what its members are.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable
from typing import Generic, TypeVar

from diffq.errors import UserError, unknown

T = TypeVar("T")


class Registry(Generic[T]):
    """A dictionary from name to class that refuses collisions and answers a typo with the nearest name."""

    def __init__(self, what: str, package: str):
        self.what = what
        self._package = package
        self._members: dict[str, type[T]] = {}
        self._discovered = False

    def register(self, name: str) -> Callable[[type[T]], type[T]]:
        """A class decorator; raises UserError if another class has the name already."""

        def add(cls: type[T]) -> type[T]:
            other = self._members.get(name)
            if other is not None and (other.__module__, other.__qualname__) != (cls.__module__, cls.__qualname__):
                raise UserError(
                    f"the {self.what} name '{name}' is taken by {other.__module__}.{other.__qualname__};"
                    f" {cls.__module__}.{cls.__qualname__} needs another"
                )
            self._members[name] = cls
            cls.kind = name  # type: ignore[attr-defined]
            return cls

        return add

    def __getitem__(self, name: str) -> type[T]:
        """The class of that name; raises UserError with the nearest known name."""
        self._discover()
        if name not in self._members:
            raise unknown(self.what, name, self._members)
        return self._members[name]

    def __contains__(self, name: object) -> bool:
        self._discover()
        return name in self._members

    def names(self) -> list[str]:
        """Every known name, sorted."""
        self._discover()
        return sorted(self._members)

    def _discover(self) -> None:
        if self._discovered:
            return
        self._discovered = True
        package = importlib.import_module(self._package)
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            importlib.import_module(module.name)


MODELS: Registry = Registry("model", "diffq.models")
DATASETS: Registry = Registry("dataset", "diffq.data")
SAMPLERS: Registry = Registry("sampler", "diffq.samplers")
METRICS: Registry = Registry("metric", "diffq.metrics")
