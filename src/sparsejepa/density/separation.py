"""What a score is worth, with bootstrap intervals: separation of outliers, and rank correlation."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from sparsejepa.intervals import Interval

# Resamples whose weights are held at once: 16 MB for 2,000 scores.
CHUNK = 1000


@dataclass(frozen=True)
class Separation:
    """Quality of a score that is high for data and low for outliers; intervals over the images.

    The intervals say nothing of the training seed of the encoder, nor of how a detector's own
    training images were drawn.
    """

    auroc: Interval  # P(an image scores above an outlier), ties count half; 0.5 is chance
    aupr: Interval  # average precision of finding outliers; chance is their share
    fpr95: Interval  # share of outliers that pass where 95 % of the data pass; 0.95 is chance


def separation(
    data: ArrayLike,
    outliers: ArrayLike,
    seed: int,
    level: float = 0.95,
    draws: int = 1000,
) -> Separation:
    """Separation of data scores [N] from outlier scores [M], percentile bootstrap of both.

    The interval of the average precision is moved by the mean excess of its resamples.

    Raises:
        ValueError: fewer than two scores of either kind, or scores that are not finite.
    """
    positive, negative = _checked(data, "data"), _checked(outliers, "outlier")
    rng = np.random.default_rng(seed)
    point = _measures(positive, negative, np.ones((1, len(positive))), np.ones((1, len(negative))))
    resampled = []
    for start in range(0, draws, CHUNK):
        count = min(CHUNK, draws - start)
        weights = [
            rng.multinomial(len(x), np.full(len(x), 1 / len(x)), size=count)
            for x in (positive, negative)
        ]
        resampled.append(_measures(positive, negative, *weights))
    drawn = np.concatenate(resampled, axis=1)
    # An outlier drawn twice is a tie with itself, which raises a resample's average precision.
    drawn[1] -= drawn[1].mean() - point[1, 0]
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2], axis=1).clip(0, 1)
    return Separation(
        *(
            Interval(float(value), float(a), float(b), level)
            for value, a, b in zip(point[:, 0], low, high, strict=True)
        )
    )


def _measures(
    positive: np.ndarray, negative: np.ndarray, keep_p: np.ndarray, keep_n: np.ndarray
) -> np.ndarray:
    """[3, R]: AUROC, AUPR and FPR95 for R weightings of the scores.

    All are read from the weight of each kind at or below every distinct score.
    """
    values, index = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    at_p = _at_values(index[: len(positive)], keep_p, len(values))
    at_n = _at_values(index[len(positive) :], keep_n, len(values))
    # Cumulative sums: shares of the data and of the outliers at or below each distinct score.
    below_p = at_p.cumsum(1) / keep_p.sum(1, keepdims=True)
    below_n = at_n.cumsum(1) / keep_n.sum(1, keepdims=True)
    share_p = np.diff(below_p, axis=1, prepend=0.0)
    share_n = np.diff(below_n, axis=1, prepend=0.0)
    auroc = (share_p * (below_n - share_n / 2)).sum(1)
    caught, alarms = at_n.cumsum(1), (at_n + at_p).cumsum(1)
    precision = caught / np.maximum(alarms, 1e-300)
    aupr = (share_n * precision).sum(1)
    # The largest threshold that at least 95 % of the data reach; outliers that reach it pass.
    reached = 1 - below_p + share_p
    threshold = (reached >= 0.95 - 1e-12).cumsum(1).argmax(1)
    passing = 1 - below_n + share_n
    fpr95 = passing[np.arange(len(passing)), threshold]
    return np.stack([auroc, aupr, fpr95])


def _at_values(index: np.ndarray, weights: np.ndarray, size: int) -> np.ndarray:
    """[R, size]: the weight at each distinct score."""
    order = np.argsort(index, kind="stable")
    starts = np.searchsorted(index[order], np.arange(size))
    total = np.concatenate([np.zeros((len(weights), 1)), weights[:, order].cumsum(1)], axis=1)
    return np.diff(total[:, np.append(starts, len(index))], axis=1)


def _checked(values: ArrayLike, kind: str) -> np.ndarray:
    scores = np.asarray(values, dtype=float)
    if scores.ndim != 1 or len(scores) < 2:
        raise ValueError(f"Separation needs 2 {kind} scores or more, not shape {scores.shape}.")
    if not np.isfinite(scores).all():
        raise ValueError(f"The {kind} scores contain NaN or infinity; check the encoder.")
    return scores


def rank_correlation(
    x: ArrayLike, y: ArrayLike, seed: int, level: float = 0.95, draws: int = 500
) -> Interval:
    """Spearman's rho of paired values, percentile bootstrap over pairs.

    Of a constant it is 0, as of anything that says nothing. Each resample is ranked anew: ranks
    within the whole sample would leave out the share of the variance that the margins have.

    Raises:
        ValueError: fewer than three pairs, different lengths, or values that are not finite.
    """
    a, b = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    if a.shape != b.shape or a.ndim != 1 or len(a) < 3:
        raise ValueError(f"A correlation needs 3 pairs or more, not shapes {a.shape}, {b.shape}.")
    if not (np.isfinite(a).all() and np.isfinite(b).all()):
        raise ValueError("A correlation of NaN or infinite values is undefined; check the scores.")
    rows = np.random.default_rng(seed).integers(len(a), size=(draws, len(a)))
    resampled = _spearman(a[rows], b[rows])
    low, high = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(_spearman(a[None], b[None])[0]), float(low), float(high), level)


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
    over images, ranked anew in each resample. Images drawn twice make resamples fit a little
    better than samples do: it is moved down by the mean of this excess, and cut to what an adjusted
    R² can be.

    Of a constant nothing is left to explain: 0.

    Raises:
        ValueError: fewer images than properties and three, or values that are not finite.
    """
    if not all(np.isfinite(values).all() for values in (score, *properties.values())):
        raise ValueError("The score or a property is NaN or infinite; check the scores.")
    values = np.array([score, *properties.values()], dtype=float)
    count, used = values.shape[1], len(properties)
    if count < used + 3:
        raise ValueError(f"{used} properties need {used + 3} images or more, not {count}.")
    value = _adjusted_r_squared(stats.rankdata(values, axis=1))
    rng = np.random.default_rng(seed)
    resampled = np.array(
        [
            _adjusted_r_squared(stats.rankdata(values[:, rng.integers(count, size=count)], axis=1))
            for _ in range(draws)
        ]
    )
    excess = resampled.mean() - value
    ends = np.quantile(resampled, [(1 - level) / 2, (1 + level) / 2]) - excess
    low, high = ends.clip(-used / (count - used - 1), 1)
    return Interval(value, float(low), float(high), level)


def _adjusted_r_squared(rows: np.ndarray) -> float:
    """Of the first row as a linear function of the others."""
    count, used = rows.shape[1], len(rows) - 1
    if not np.ptp(rows[0]):
        return 0.0
    y, x = rows[0] - rows[0].mean(), (rows[1:] - rows[1:].mean(1, keepdims=True)).T
    left = y - x @ np.linalg.lstsq(x, y)[0]
    unexplained = (left @ left) / (y @ y)
    return float(1 - unexplained * (count - 1) / (count - used - 1))


def _spearman(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Of each row of a with that of b."""
    a, b = stats.rankdata(a, axis=1), stats.rankdata(b, axis=1)
    a = a - a.mean(1, keepdims=True)
    b = b - b.mean(1, keepdims=True)
    size = np.sqrt((a**2).sum(1) * (b**2).sum(1))
    return np.where(size > 0, (a * b).sum(1) / np.where(size > 0, size, 1), 0.0)
