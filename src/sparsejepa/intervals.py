"""Intervals: Student over seeds from `SEEDS_NEEDED` on, else the bootstrap over test images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

# Two seeds give a Student interval 13 times as wide as their spread, one seed none.
SEEDS_NEEDED = 3

Seed = int | np.random.Generator  # a generator is drawn from
Bounds = tuple[int | float, int | float] | None  # least and largest value that a mean can have
BySeed = Mapping[int, ArrayLike]  # seed of a run -> a number for each test image


@dataclass(frozen=True)
class Interval:
    """An estimate and the interval around it."""

    value: float  # the mean, in the units of what was averaged
    low: float  # the ends, in the same units
    high: float
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
        what = "" if self.seeds >= SEEDS_NEEDED else "test images, "
        return f"over {what}{self.seeds} seed{'s' * (self.seeds > 1)}"


def bootstrap_interval(
    values: ArrayLike, seed: Seed, level: float = 0.95, draws: int = 10_000
) -> Interval:
    """Percentile bootstrap interval of the mean (Efron & Tibshirani 1993, ch. 13).

    Of values [N], a number an image, it covers the choice of images only. ValueError: no list of
    two or more finite values, or a level outside 0 to 1.
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
    correct_a: ArrayLike, correct_b: ArrayLike, seed: Seed, level: float = 0.95, draws: int = 10_000
) -> Interval:
    """Bootstrap interval of mean(a) - mean(b): what is hard for both on the same images cancels."""
    return bootstrap_interval(_difference(correct_a, correct_b), seed, level, draws)


def seed_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Student-t interval of the mean over independently seeded runs, which are few."""
    sample = _checked(values, level)
    error = sample.std(ddof=1) / np.sqrt(len(sample))
    half, mean = stats.t.ppf((1 + level) / 2, len(sample) - 1) * error, sample.mean()
    return Interval(float(mean), float(mean - half), float(mean + half), level)


def over_runs(values: ArrayLike, seed: Seed, within: Bounds = None) -> Estimate:
    """The mean over runs of a table [runs, images] of numbers; ragged ones are a ValueError.

    Below `SEEDS_NEEDED` runs the bootstrap draws from each image's mean over the runs.
    """
    table = np.asarray(values, dtype=float)
    if len(table) >= SEEDS_NEEDED:
        return _estimate(seed_interval(table.mean(axis=1)), len(table), within)
    return _estimate(bootstrap_interval(table.mean(axis=0), seed), len(table), within)


def over_intervals(runs: Sequence[Interval], within: Bounds = None) -> Estimate:
    """The mean of several runs, where of each only its interval over test images is known.

    Below `SEEDS_NEEDED` runs its ends are the means of the runs' ends. That covers at least as
    often as they say, whether the runs saw the same images or not.
    """
    ends = np.mean([(run.value, run.low, run.high) for run in runs], axis=0)
    found = Interval(*ends, runs[0].level)
    if len(runs) >= SEEDS_NEEDED:
        found = seed_interval([run.value for run in runs], found.level)
    return _estimate(found, len(runs), within)


def estimate(correct: BySeed, seed: int) -> Estimate:
    """Accuracy over runs, given which test images each got right."""
    return over_runs([correct[s] for s in sorted(correct)], seed, within=(0, 1))


def paired_estimate(a: BySeed, b: BySeed, seed: int) -> Estimate | None:
    """Accuracy of `a` minus that of `b`, of common seeds and the same images; None without any."""
    if not (common := sorted(a.keys() & b.keys())):
        return None
    return over_runs([_difference(a[s], b[s]) for s in common], seed, within=(-1, 1))


def _difference(a: ArrayLike, b: ArrayLike) -> np.ndarray:
    a, b = np.asarray(a, dtype=float), np.asarray(b, dtype=float)
    if a.shape != b.shape:
        raise ValueError(f"Paired values must be of the same images, not {a.shape} and {b.shape}.")
    return a - b


def _estimate(found: Interval, seeds: int, within: Bounds) -> Estimate:
    low, high = np.clip([found.low, found.high], *(within or (None, None)))
    return Estimate(float(found.value), float(low), float(high), found.level, seeds)


def _checked(values: ArrayLike, level: float) -> np.ndarray:
    sample = np.asarray(values, dtype=float)
    if sample.ndim != 1 or len(sample) < 2 or not np.isfinite(sample).all():
        what = f"shape {sample.shape}, {(~np.isfinite(sample)).sum()} of them NaN or infinite"
        raise ValueError(f"An interval needs a list of 2 finite values or more, not {what}.")
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1, not {level}.")
    return sample
