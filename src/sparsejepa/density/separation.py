"""How well a score separates outliers from the data: AUROC, AUPR, FPR95, with intervals."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

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
