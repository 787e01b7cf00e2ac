"""Intervals: over the test images of one run, of the difference of two, and over seeds."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it."""

    value: float  # the mean, in the units of what was averaged
    low: float  # lower end, same units
    high: float  # upper end, same units
    level: float  # nominal coverage, between 0 and 1


def bootstrap_interval(
    values: ArrayLike,
    seed: int | np.random.Generator,
    level: float = 0.95,
    draws: int = 10_000,
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, ch. 13).

    It covers the choice of test images only, not the seed of training: for that, see
    `seed_interval`.

    Args:
        values: [N], one number an image, such as whether it was classified right.
        seed: an integer, or a numpy Generator to draw from.

    Raises:
        ValueError: fewer than two values, values that are not finite or not a list of numbers, or
            a level outside 0 to 1.
    """
    sample = _checked(values, level)
    distinct, counts = np.unique(sample, return_counts=True)
    rng = np.random.default_rng(seed)
    # Drawing N images with replacement is drawing how often each distinct value comes up: three
    # numbers instead of 10,000 for right, wrong and their difference.
    resampled = rng.multinomial(len(sample), counts / len(sample), size=(draws,))
    means = resampled @ distinct / len(sample)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(sample.mean()), float(low), float(high), level)


def paired_difference(
    correct_a: ArrayLike,
    correct_b: ArrayLike,
    seed: int | np.random.Generator,
    level: float = 0.95,
    draws: int = 10_000,
) -> Interval:
    """Bootstrap interval of mean(a) - mean(b), both measured on the same images in the same order.

    Images are drawn in pairs: what is hard for both methods cancels, and the interval is narrower
    than that of two independent test sets.

    Raises:
        ValueError: different lengths, or as `bootstrap_interval`.
    """
    a, b = np.asarray(correct_a, dtype=float), np.asarray(correct_b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"Paired values must be of the same images, not {a.shape} and {b.shape}.")
    return bootstrap_interval(a - b, seed, level, draws)


def seed_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student-t interval of the mean over independently seeded runs, which are few.

    Raises:
        ValueError: as `bootstrap_interval`.
    """
    sample = _checked(values, level)
    half = stats.t.ppf((1 + level) / 2, len(sample) - 1) * (
        sample.std(ddof=1) / np.sqrt(len(sample))
    )
    mean = float(sample.mean())
    return Interval(mean, float(mean - half), float(mean + half), level)


def _checked(values: ArrayLike, level: float) -> np.ndarray:
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or len(sample) < 2:
        raise ValueError(f"An interval needs a list of 2 values or more, not shape {sample.shape}.")
    if not np.isfinite(sample).all():
        raise ValueError("An interval of NaN or infinite values is undefined; check the run.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}.")
    return sample
