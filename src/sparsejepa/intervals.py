"""Intervals: over the test images of one run, of the difference of two, and over seeds.

One rule for all chapters: Student over the seeds from `SEEDS_NEEDED` on, else the bootstrap over
test images.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

# Two seeds give a Student interval 13 times as wide as their spread, one seed none.
SEEDS_NEEDED = 3

Seed = int | np.random.Generator  # a generator is drawn from
Bounds = tuple[int | float, int | float] | None  # least and largest value that a mean can have


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it."""

    value: float  # the mean, in the units of what was averaged
    low: float  # lower end, same units
    high: float  # upper end, same units
    level: float  # nominal coverage, between 0 and 1

    def percent(self, signed: bool = False) -> str:
        """As "12.3 [11.8, 12.9]", in per cent or points."""
        form = "{:+.1f} [{:+.1f}, {:+.1f}]" if signed else "{:.1f} [{:.1f}, {:.1f}]"
        return form.format(100 * self.value, 100 * self.low, 100 * self.high)

    def clear(self) -> bool:
        """For a difference: the interval does not contain zero."""
        return self.low > 0 or self.high < 0


@dataclass(frozen=True)
class Estimate(Interval):
    """An interval for the mean of one method's runs, a run a seed."""

    seeds: int  # how many runs are averaged

    @property
    def basis(self) -> str:
        """What the interval resamples: seeds or test images."""
        if self.seeds >= SEEDS_NEEDED:
            return f"over {self.seeds} seeds"
        return f"over test images, {self.seeds} seed{'s' * (self.seeds > 1)}"


def bootstrap_interval(
    values: ArrayLike, seed: Seed, level: float = 0.95, draws: int = 10_000, within: Bounds = None
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, ch. 13).

    It covers the choice of test images only; for the seed of training, see `seed_interval`.

    Args:
        values: [N], one number an image, such as whether it was classified right.
        within: the ends are clipped to these bounds.

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
    return _clipped(sample.mean(), low, high, level, within)


def paired_difference(
    correct_a: ArrayLike, correct_b: ArrayLike, seed: Seed, level: float = 0.95, draws: int = 10_000
) -> Interval:
    """Bootstrap interval of mean(a) - mean(b), both measured on the same images in the same order.

    Images are drawn in pairs: what is hard for both methods cancels, and the interval is narrower
    than that of two independent test sets.
    """
    a, b = np.asarray(correct_a, dtype=float), np.asarray(correct_b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"Paired values must be of the same images, not {a.shape} and {b.shape}.")
    return bootstrap_interval(a - b, seed, level, draws)


def seed_interval(values: ArrayLike, level: float = 0.95, within: Bounds = None) -> Interval:
    """Student-t interval of the mean over independently seeded runs, which are few."""
    sample = _checked(values, level)
    error = sample.std(ddof=1) / np.sqrt(len(sample))
    half, mean = stats.t.ppf((1 + level) / 2, len(sample) - 1) * error, sample.mean()
    return _clipped(mean, mean - half, mean + half, level, within)


def over_runs(values: ArrayLike, seed: Seed, within: Bounds = None) -> Estimate:
    """The mean of several runs from a table [runs, images] of each run's number for each image.

    From `SEEDS_NEEDED` runs on the interval is Student's over their means; below, it is the
    bootstrap over test images of each image's mean over the runs. Runs of other images than each
    other's are a ValueError.
    """
    table = np.asarray(values, dtype=float)
    if len(table) >= SEEDS_NEEDED:
        found = seed_interval(table.mean(axis=1), within=within)
    else:
        found = bootstrap_interval(table.mean(axis=0), seed, within=within)
    return Estimate(found.value, found.low, found.high, found.level, len(table))


def over_intervals(runs: Sequence[Interval], within: Bounds = None) -> Estimate:
    """The mean of several runs, where of each only its interval over test images is known.

    From `SEEDS_NEEDED` runs on the interval is Student's over their values; below, its ends are the
    means of the runs' ends. That covers at least as often as they say, whether the runs saw the
    same images or not.
    """
    ends = np.mean([(run.value, run.low, run.high) for run in runs], axis=0)
    found = _clipped(*ends, runs[0].level, within)
    if len(runs) >= SEEDS_NEEDED:
        found = seed_interval([run.value for run in runs], found.level, within)
    return Estimate(found.value, found.low, found.high, found.level, len(runs))


def estimate(correct: Mapping[int, ArrayLike], seed: int) -> Estimate:
    """Accuracy over runs, given for each run's seed which test images were right."""
    runs = [np.asarray(correct[s], dtype=float) for s in sorted(correct)]
    return over_runs(runs, seed, within=(0, 1))


def paired_estimate(
    a: Mapping[int, ArrayLike], b: Mapping[int, ArrayLike], seed: int
) -> Estimate | None:
    """Accuracy of `a` minus that of `b`, of common seeds and the same images; None without any."""
    if not (common := sorted(a.keys() & b.keys())):
        return None
    one, two = (np.array([side[s] for s in common], dtype=float) for side in (a, b))
    if one.shape != two.shape:
        raise ValueError(f"Runs must be tested on the same images, not {one.shape}, {two.shape}.")
    return over_runs(one - two, seed, within=(-1, 1))


def _clipped(value: float, low: float, high: float, level: float, within: Bounds) -> Interval:
    low, high = np.clip([low, high], *(within or (None, None)))
    return Interval(float(value), float(low), float(high), level)


def _checked(values: ArrayLike, level: float) -> np.ndarray:
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        raise ValueError(
            f"An interval needs a list of 2 finite values or more, not shape {sample.shape}, "
            f"{(~np.isfinite(sample)).sum()} of them NaN or infinite."
        )
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}.")
    return sample
