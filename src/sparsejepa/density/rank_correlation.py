"""Spearman's rank correlation with a bootstrap interval, and what several properties explain."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sparsejepa.intervals import Interval


def rank_correlation(
    x: ArrayLike, y: ArrayLike, seed: int, level: float = 0.95, draws: int = 500
) -> Interval:
    """Spearman's rho of paired values, percentile bootstrap over pairs.

    Of a constant it is 0, as of anything that says nothing. Resamples use the ranks within the
    whole sample.

    Raises:
        ValueError: fewer than three pairs, different lengths, or values that are not finite.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 3:
        raise ValueError(f"A correlation needs 3 pairs or more, not shapes {a.shape}, {b.shape}.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("A correlation of NaN or infinite values is undefined; check the scores.")
    ranks = np.stack([stats.rankdata(values) for values in (a, b)])
    rows = np.random.default_rng(seed).integers(len(a), size=(draws, len(a)))
    resampled = _pearson(ranks[0][rows], ranks[1][rows])
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(_pearson(ranks[:1], ranks[1:])[0]), float(low), float(high), level)


def explained_share(
    score: ArrayLike,
    properties: Mapping[str, ArrayLike],
    seed: int,
    level: float = 0.95,
    draws: int = 500,
) -> Interval:
    """How much of the score's ranks a linear function of the properties' ranks explains.

    Adjusted R², so that properties which say nothing explain nothing on average; it may then be
    below 0. At 1 the score is a meter of these properties. The interval is a percentile bootstrap
    over images, of the ranks within the whole sample. Images drawn twice make resamples fit a
    little better than samples do: it is moved down by the mean of this excess.

    Of a constant nothing is left to explain: 0.

    Raises:
        ValueError: fewer images than properties and three, or values that are not finite.
    """
    if not all(np.isfinite(values).all() for values in (score, *properties.values())):
        raise ValueError("The score or a property is NaN or infinite; check the scores.")
    ranks = np.stack([stats.rankdata(values) for values in (score, *properties.values())])
    count, used = ranks.shape[1], len(properties)
    if count < used + 3:
        raise ValueError(f"{used} properties need {used + 3} images or more, not {count}.")
    value = _adjusted_r_squared(ranks)
    rng = np.random.default_rng(seed)
    resampled = np.array(
        [_adjusted_r_squared(ranks[:, rng.integers(count, size=count)]) for _ in range(draws)]
    )
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    excess = resampled.mean() - value
    return Interval(value, float(low - excess), float(high - excess), level)


def _adjusted_r_squared(rows: np.ndarray) -> float:
    """Of the first row as a linear function of the others."""
    count, used = rows.shape[1], len(rows) - 1
    if not np.ptp(rows[0]):
        return 0.0
    y, x = rows[0] - rows[0].mean(), (rows[1:] - rows[1:].mean(1, keepdims=True)).T
    left = y - x @ np.linalg.lstsq(x, y)[0]
    unexplained = (left @ left) / (y @ y)
    return float(1 - unexplained * (count - 1) / (count - used - 1))


def _pearson(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each row of a with that of b."""
    a = a - a.mean(1, keepdims=True)
    b = b - b.mean(1, keepdims=True)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.where(size > 0, (a * b).sum(1) / np.where(size > 0, size, 1), 0.0)
