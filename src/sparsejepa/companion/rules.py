"""The rules by which numbers decide a claim: a closed set, each of a few lines.

Every rule asks on which side of one threshold, written down before, a quantity lies. A rule over
seeds also gives the p value of the quantity lying exactly on the threshold; `verdicts` adjusts it
for how many such comparisons the ledger makes.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Literal

import numpy as np
from scipy import stats

from sparsejepa.intervals import SEEDS_NEEDED, seed_interval

SeedRule = Literal["mean_above", "mean_below", "difference_above", "difference_within"]
# Of a mean over seeds that a run reports itself.
IntervalRule = Literal["interval_above", "interval_below"]
ExactRule = Literal["equal_within", "at_least", "at_most", "order_correlation"]
# These compare two series of numbers.
PAIRED = ("difference_above", "difference_within", "order_correlation")

LEVEL = 0.95  # nominal coverage of every interval
Numbers = Sequence[float]


@dataclass(frozen=True)
class Finding:
    """What one rule finds, before it is known how many comparisons are made."""

    holds: bool  # whether the estimate is on the claim's side of the threshold
    estimate: float
    seeds: int = 0  # 0 for numbers in which nothing was trained
    interval: tuple[float, float] | None = None  # Student's, from `SEEDS_NEEDED` seeds on
    p: float | None = None  # two-sided, of the threshold being the truth; None as `interval`


def mean_above(values: Numbers, threshold: float) -> Finding:
    """The mean over seeds is above the threshold."""
    mean, seeds = fmean(values), len(values)
    if seeds < SEEDS_NEEDED:
        return Finding(mean > threshold, mean, seeds)
    if min(values) == max(values):
        # Exactly, where the mean may be off by a rounding.
        return interval_above(values[0], values[:1] * 2, seeds, threshold)
    over = seed_interval(values, LEVEL)
    return interval_above(mean, (over.low, over.high), seeds, threshold)


def mean_below(values: Numbers, threshold: float) -> Finding:
    """The mean over seeds is below the threshold."""
    found = mean_above(values, threshold)
    return replace(found, holds=found.estimate < threshold)


def difference_above(values: Numbers, than: Numbers, threshold: float) -> Finding:
    """The mean of `values` minus `than`, pair by pair of the same seed, is above the threshold."""
    return mean_above([a - b for a, b in zip(values, than, strict=True)], threshold)


def difference_within(values: Numbers, than: Numbers, threshold: float) -> Finding:
    """That mean lies between minus and plus the threshold: the two are as good as equal.

    p is of the mean lying on the nearer end, as in two one-sided tests (Schuirmann 1987).
    """
    if threshold <= 0:
        raise ValueError(f"difference_within needs a threshold above 0, not {threshold}.")
    at_top = difference_above(values, than, threshold)
    if at_top.estimate >= 0:
        return replace(at_top, holds=at_top.estimate < threshold)
    return difference_above(values, than, -threshold)


def interval_above(value: float, interval: Numbers, seeds: int, threshold: float) -> Finding:
    """A mean that a run reports with its 95 % Student interval over `seeds` is above the threshold.

    p is what the interval implies: its half width is the standard error times Student's quantile.
    """
    low, high = interval
    holds = bool(value > threshold)
    if seeds < SEEDS_NEEDED:
        return Finding(holds, value, seeds)
    error = (high - low) / 2 / stats.t.ppf((1 + LEVEL) / 2, seeds - 1)
    # Seeds that agree to the last digit leave nothing to chance.
    p = 2 * stats.t.sf(abs((value - threshold) / error), seeds - 1) if error else value == threshold
    return Finding(holds, value, seeds, (low, high), float(p))


def interval_below(value: float, interval: Numbers, seeds: int, threshold: float) -> Finding:
    """That mean is below the threshold."""
    return replace(interval_above(value, interval, seeds, threshold), holds=value < threshold)


# Rules for numbers in which nothing was trained and chance plays no part that matters: closed
# forms, quadrature, estimates from many draws of a known law.


def equal_within(values: Numbers, threshold: float, tolerance: float) -> Finding:
    """No value is further than `tolerance` from the threshold. The estimate is the worst value."""
    worst = max(values, key=lambda value: abs(value - threshold))
    return Finding(abs(worst - threshold) <= tolerance, worst)


def at_least(values: Numbers, threshold: float) -> Finding:
    """No value is below the threshold. The estimate is the smallest."""
    return Finding(min(values) >= threshold, min(values))


def at_most(values: Numbers, threshold: float) -> Finding:
    """No value is above the threshold. The estimate is the largest."""
    return Finding(max(values) <= threshold, max(values))


def order_correlation(values: Numbers, than: Numbers, threshold: float) -> Finding:
    """Kendall's tau-a of two lists is at least the threshold; 1: in the same order.

    Ties count as neither in order nor out of it, so that a constant list has 0. scipy has tau-b
    alone, which is undefined there, and which rounds below 1 for some lists in the same order.
    """
    count = len(values)
    if count != len(than) or count < 2:
        raise ValueError(
            f"order_correlation needs two lists of the same length, 2 or more, not of {count} and "
            f"{len(than)}."
        )
    one, two = (np.sign(np.subtract.outer(x, x)) for x in (values, than))
    correlation = float((one * two).sum() / (count * (count - 1)))
    return Finding(correlation >= threshold, correlation)
