"""What a score is worth, with bootstrap intervals: separation of outliers, and rank correlation."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse, stats

from sparsejepa.intervals import Interval

LEVEL = 0.95  # nominal coverage of all intervals
ENDS = [(1 - LEVEL) / 2, (1 + LEVEL) / 2]


@dataclass(frozen=True)
class Separation:
    """Quality of a score that is high for data and low for outliers.

    The intervals are over the images, not over training seeds or a detector's training images.
    """

    auroc: Interval  # P(an image scores above an outlier), ties count half; 0.5 is chance
    aupr: Interval  # average precision of finding outliers; chance is their share
    fpr95: Interval  # share of outliers that pass where 95 % of the data pass; 0.95 is chance


def separation(data: ArrayLike, outliers: ArrayLike, seed: int, draws: int = 1000) -> Separation:
    """Separation of data scores [N] from outlier scores [M], percentile bootstrap of both.

    ValueError: fewer than two scores of either kind, or scores that are not finite.
    """
    kinds = [_finite(scores, 2) for scores in (data, outliers)]
    point = _measures(*kinds, *(np.ones((1, len(x))) for x in kinds))
    draw, counts = np.random.default_rng(seed).multinomial, [len(x) for x in kinds]
    drawn = _measures(*kinds, *(draw(n, np.full(n, 1 / n), size=draws) for n in counts))
    # An outlier drawn twice is a tie with itself, which raises a resample's average precision.
    drawn[1] -= drawn[1].mean() - point[1, 0]
    cells = np.stack([point[:, 0], *np.quantile(drawn, ENDS, axis=1).clip(0, 1)], axis=1)
    return Separation(*(Interval(*cell, LEVEL) for cell in cells.tolist()))


def _measures(
    positive: np.ndarray, negative: np.ndarray, keep_p: np.ndarray, keep_n: np.ndarray
) -> np.ndarray:
    """[3, R]: AUROC, AUPR and FPR95 for R weightings of the scores."""
    values, index = np.unique(np.concatenate([positive, negative]), return_inverse=True)
    # [images, distinct scores]: which score an image has.
    has = sparse.csr_array((np.ones(len(index)), index, np.arange(len(index) + 1)))
    at_p, at_n = keep_p @ has[: len(positive)], keep_n @ has[len(positive) :]
    # Cumulative sums: shares of the data and of the outliers at or below each distinct score.
    below_p = at_p.cumsum(1) / keep_p.sum(1, keepdims=True)
    below_n = at_n.cumsum(1) / keep_n.sum(1, keepdims=True)
    share_p = np.diff(below_p, axis=1, prepend=0.0)
    share_n = np.diff(below_n, axis=1, prepend=0.0)
    auroc = (share_p * (below_n - share_n / 2)).sum(1)
    precision = at_n.cumsum(1) / np.maximum((at_n + at_p).cumsum(1), 1e-300)
    aupr = (share_n * precision).sum(1)
    # The largest threshold that at least 95 % of the data reach; outliers that reach it pass.
    reached, passing = 1 - below_p + share_p, 1 - below_n + share_n
    threshold = (reached >= 0.95 - 1e-12).cumsum(1).argmax(1)
    fpr95 = passing[np.arange(len(passing)), threshold]
    return np.stack([auroc, aupr, fpr95])


def _finite(values: ArrayLike, least: int) -> np.ndarray:
    found = np.asarray(values, dtype=float)
    if found.shape[-1] < least or not np.isfinite(found).all():
        raise ValueError(
            f"{least} images or more with finite scores are needed, not {found.shape[-1]} with "
            f"{np.count_nonzero(~np.isfinite(found))} NaN or infinite: check the encoder."
        )
    return found


def rank_correlation(x: ArrayLike, y: ArrayLike, seed: int, draws: int = 500) -> Interval:
    """Spearman's rho of paired values, percentile bootstrap over pairs; 0 of a constant.

    ValueError: fewer than three pairs, different lengths, or values that are not finite.
    """
    value, drawn = _bootstrap(_spearman, _finite(np.stack([x, y]), 3), seed, draws)
    return Interval(value, *np.quantile(drawn, ENDS).tolist(), LEVEL)


def explained_share(
    score: ArrayLike, properties: Mapping[str, ArrayLike], seed: int, draws: int = 500
) -> Interval:
    """How much of the score's ranks a linear function of the properties' ranks explains.

    Adjusted R²: 0 on average where the properties say nothing, 1 where they say all, 0 of a
    constant. The interval is a percentile bootstrap over images, moved down by the mean excess of
    the resamples (images drawn twice make them fit better), and cut to the range of an adjusted R².
    ValueError: fewer images than properties and three, or values not finite.
    """
    used = len(properties)
    values = _finite(np.stack([score, *properties.values()]), used + 3)
    value, drawn = _bootstrap(_adjusted_r_squared, values, seed, draws)
    ends = np.quantile(drawn, ENDS) - (drawn.mean() - value)
    ends = ends.clip(-used / (values.shape[1] - used - 1), 1)
    return Interval(value, *ends.tolist(), LEVEL)


def _bootstrap(
    measure: Callable[[np.ndarray], float], values: np.ndarray, seed: int, draws: int
) -> tuple[float, np.ndarray]:
    """A measure of the rows' centred ranks, in all columns and in resamples of them.

    Each resample is ranked anew, or the margins' share of the variance would be left out.
    """
    count = values.shape[1]
    resamples = np.random.default_rng(seed).integers(count, size=(draws, count))
    ranks = (stats.rankdata(values[:, rows], axis=1) for rows in [np.arange(count), *resamples])
    value, *drawn = (float(measure(r - r.mean(1, keepdims=True))) for r in ranks)
    return value, np.array(drawn)


def _spearman(ranks: np.ndarray) -> float:
    a, b = ranks
    size = np.sqrt((a**2).sum() * (b**2).sum())
    return (a * b).sum() / size if size > 0 else 0.0


def _adjusted_r_squared(ranks: np.ndarray) -> float:
    """Of the first row as a linear function of the others."""
    y, x = ranks[0], ranks[1:].T
    if not y.any():
        return 0.0
    left = y - x @ np.linalg.lstsq(x, y)[0]
    unexplained = (left @ left) / (y @ y)
    return 1 - unexplained * (len(y) - 1) / (len(y) - x.shape[1] - 1)
