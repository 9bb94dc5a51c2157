"""How far raters agree: Krippendorff's alpha, from coincidences of their values, at three levels of measurement.

(Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability".) It knows no study and no file.

Shape suffixes: R raters, U units (what is rated), V values of the scale.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, get_args

import numpy as np

from diffq.metrics.intervals import aggregate

Level = Literal["nominal", "ordinal", "interval"]
LEVELS: tuple[Level, ...] = get_args(Level)


def coincidences(values_RU: np.ndarray, scale: tuple[int, int]) -> np.ndarray:
    """U × V × V: how often two raters gave a unit the values c and k, each ordered pair weighing 1 / (m_u − 1) where
    m_u raters rated the unit. A unit that one rater rated has none.

    values_RU: whole numbers of the scale [low, high]; NaN where a rater left a unit out.
    """
    low, high = scale
    counts_UV = np.stack([(values_RU == value).sum(axis=0) for value in range(low, high + 1)], axis=-1).astype(float)
    pairs_UVV = counts_UV[:, :, None] * counts_UV[:, None, :]
    pairs_UVV -= counts_UV[:, :, None] * np.eye(high - low + 1)  # nobody is paired with himself
    others_U = counts_UV.sum(axis=1) - 1
    return np.where(others_U[:, None, None] > 0, pairs_UVV / np.maximum(others_U, 1)[:, None, None], 0.0)


def alpha(pairs_VV: np.ndarray, level: Level) -> np.ndarray:
    """α = 1 − D_o / D_e of summed coincidences (… × V × V, any leading shape): 1 where all agree, 0 as by chance.

    NaN where there is no pair, or all pairs are of one value: then nothing could have disagreed.
    """
    sums_V = pairs_VV.sum(axis=-1)
    total = sums_V.sum(axis=-1)
    distance_VV = _distances(sums_V, level)
    observed = (pairs_VV * distance_VV).sum(axis=(-1, -2))
    expected = (sums_V[..., :, None] * sums_V[..., None, :] * distance_VV).sum(axis=(-1, -2))
    with np.errstate(divide="ignore", invalid="ignore"):
        found: np.ndarray = 1 - (total - 1) * observed / expected
    return np.where(expected > 0, found, np.nan)


def _distances(sums_V: np.ndarray, level: Level) -> np.ndarray:
    """δ² of every two values. Ordinal: how many values stand between them, their own counted half."""
    number = sums_V.shape[-1]
    grade = np.arange(number)
    if level == "nominal":
        return 1.0 - np.eye(number)
    if level == "interval":
        return (grade[:, None] - grade[None, :]).astype(float) ** 2
    middle = np.cumsum(sums_V, axis=-1) - sums_V / 2  # the mean rank of a value, but for a constant
    found: np.ndarray = (middle[..., :, None] - middle[..., None, :]) ** 2
    return found


def _of_rows(level: Level, sums: np.ndarray) -> np.ndarray:
    number = round(sums.shape[-1] ** 0.5)
    return alpha(sums.reshape(*sums.shape[:-1], number, number), level)


@aggregate("alpha_nominal")
def _nominal(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    return _of_rows("nominal", sums)


@aggregate("alpha_ordinal")
def _ordinal(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    return _of_rows("ordinal", sums)


@aggregate("alpha_interval")
def _interval(sums: np.ndarray, n: int, fields: Mapping[str, str]) -> np.ndarray:
    return _of_rows("interval", sums)
