"""SOME: grammaticality, fluency and meaning of samples, by three regressors that a user gives."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePath
from typing import Any

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers
from diffq.metrics.classifiers import load, logits, missing
from diffq.metrics.encoders import digest_of
from diffq.metrics.style import PerSample
from diffq.registry import METRICS
from diffq.settings import setting

WEIGHTS = {"grammaticality": 0.55, "fluency": 0.43, "meaning": 0.02}
"""Of the published metric (Yoshimura et al. 2020)."""
LOWEST, HIGHEST = 1, 4
"""The grades that its regressors were trained on."""
LONGEST = 128
"""Tokens that its code reads at most."""


@METRICS.register("some")
@dataclass(frozen=True, kw_only=True)
class Some(PerSample):
    """SOME × 100 (Yoshimura et al. 2020): 0.55 · grammaticality + 0.43 · fluency + 0.02 · meaning, mean over samples.

    Each is the one output of a regressor that was trained on people's grades of 1 … 4, moved to 0 … 1 and not clipped;
    meaning reads the source and the sample, the others the sample alone. An empty sample scores 0. The regressors are
    the user's: folders of Hugging Face networks with one output.
    """

    grammaticality: str | None = setting(None, "folder of the regressor of grammaticality")
    fluency: str | None = setting(None, "folder of the regressor of fluency")
    meaning: str | None = setting(None, "folder of the regressor of meaning, which reads source and sample")
    tokenizer: str | None = setting(
        None,
        "folder or hub name of their tokenizer, where their folders have none (the published ones: bert-base-cased)",
    )

    def needs(self) -> frozenset[str]:
        return frozenset({"source"})

    def unavailable(self) -> str | None:
        for option in WEIGHTS:
            if reason := missing("some", option, getattr(self, option), f"a regressor of {option} (Hugging Face)"):
                return reason
        return super().unavailable()

    def fetch(self) -> None:
        """UserError where a regressor is missing or has another number of outputs than one."""
        super().fetch()
        for option in WEIGHTS:
            where = getattr(self, option)
            outputs = load(where, self.tokenizer).network.config.num_labels
            if outputs != 1:
                raise UserError(f"metric.some.{option}={where} has {outputs} outputs; a regressor has one")

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        held = {option: digest_of(getattr(self, option) or "") for option in WEIGHTS}
        if self.tokenizer is not None:
            named = digest_of(self.tokenizer)
            held["tokenizer"] = PurePath(self.tokenizer).name if named == "hub" else named
        return held | {"agg": "mean"}

    def of_samples(self, sources: Sequence[str], samples: Sequence[str]) -> np.ndarray:
        total = np.zeros(len(samples))
        for option, weight in WEIGHTS.items():
            first, second = (sources, samples) if option == "meaning" else (samples, None)
            grades = logits(getattr(self, option), first, second, self.tokenizer, LONGEST)[:, 0]
            total += weight * (grades - LOWEST) / (HIGHEST - LOWEST)
        return total
