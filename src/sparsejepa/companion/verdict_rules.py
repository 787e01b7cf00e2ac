"""The rules by which numbers decide a claim: a closed set, each of a few lines.

Plain Python, without scipy: the book judges its claims with the `[book]` extra alone. Every rule
asks on which side of one threshold, written down before, a quantity lies. A rule over seeds also
gives the p value of the quantity lying exactly on the threshold; `adjusted_p_values` then takes
into account how many such comparisons the ledger makes.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

SeedRule = Literal["mean_above", "mean_below", "difference_above", "difference_within"]
# Of a mean over seeds that a run reports itself.
IntervalRule = Literal["interval_above", "interval_below"]
ExactRule = Literal["equal_within", "at_least", "at_most", "order_correlation"]

LEVEL = 0.95  # nominal coverage of every interval
# Two seeds give a Student interval 13 times as wide as their spread, one seed none.
SEEDS_NEEDED = 3


@dataclass(frozen=True)
class Finding:
    """What one rule finds, before it is known how many comparisons are made."""

    holds: bool  # whether the estimate is on the claim's side of the threshold
    estimate: float
    interval: tuple[float, float] | None  # Student's, over seeds; None without, and for few seeds
    seeds: int  # 0 for numbers in which nothing was trained
    p: float | None  # two-sided, of the threshold being the truth; None as `interval`


def mean_above(values: Sequence[float], threshold: float) -> Finding:
    """The mean over seeds is above the threshold."""
    return _over_seeds(values, threshold, above=True)


def mean_below(values: Sequence[float], threshold: float) -> Finding:
    """The mean over seeds is below the threshold."""
    return _over_seeds(values, threshold, above=False)


def difference_above(values: Sequence[float], than: Sequence[float], threshold: float) -> Finding:
    """The mean of `values` minus `than`, pair by pair of the same seed, is above the threshold.

    Raises:
        ValueError: the lists are not of one length.
    """
    return _over_seeds(_differences(values, than), threshold, above=True)


def difference_within(values: Sequence[float], than: Sequence[float], threshold: float) -> Finding:
    """That mean lies between minus and plus the threshold: the two are as good as equal.

    p is of the mean lying on the nearer end, as in two one-sided tests (Schuirmann 1987).

    Raises:
        ValueError: as `difference_above`, or a threshold that is not above 0.
    """
    if threshold <= 0:
        raise ValueError(f"difference_within needs a threshold above 0, not {threshold}.")
    differences = _differences(values, than)
    nearer = math.copysign(threshold, math.fsum(differences))
    return _over_seeds(differences, nearer, above=nearer < 0)


def interval_above(
    value: float, interval: Sequence[float], seeds: int, threshold: float
) -> Finding:
    """A mean that a run reports with its 95 % Student interval over `seeds` is above the threshold.

    p is what the interval implies: its half width is the standard error times Student's quantile.
    """
    low, high = interval
    if seeds < SEEDS_NEEDED:
        return Finding(value > threshold, value, None, seeds, None)
    error = (high - low) / 2 / student_quantile(LEVEL, seeds - 1)
    p = _two_sided(value - threshold, error, seeds)
    return Finding(value > threshold, value, (low, high), seeds, p)


def interval_below(
    value: float, interval: Sequence[float], seeds: int, threshold: float
) -> Finding:
    """That mean is below the threshold."""
    found = interval_above(value, interval, seeds, threshold)
    return replace(found, holds=value < threshold)


def equal_within(values: Sequence[float], threshold: float, tolerance: float) -> Finding:
    """No value is further than `tolerance` from the threshold. The estimate is the worst value.

    Like the three rules below, for numbers in which nothing was trained and chance plays no part
    that matters: closed forms, quadrature, estimates from many draws of a known law.

    Raises:
        ValueError: there are no values.
    """
    worst = max(_some(values), key=lambda value: abs(value - threshold))
    return _exact(abs(worst - threshold) <= tolerance, worst)


def at_least(values: Sequence[float], threshold: float) -> Finding:
    """No value is below the threshold. The estimate is the smallest.

    Raises:
        ValueError: there are no values.
    """
    worst = min(_some(values))
    return _exact(worst >= threshold, worst)


def at_most(values: Sequence[float], threshold: float) -> Finding:
    """No value is above the threshold. The estimate is the largest.

    Raises:
        ValueError: there are no values.
    """
    worst = max(_some(values))
    return _exact(worst <= threshold, worst)


def order_correlation(values: Sequence[float], than: Sequence[float], threshold: float) -> Finding:
    """Kendall's rank correlation of two lists is at least the threshold; 1: in the same order.

    Ties count as neither in order nor out of it, so that a constant list has 0.

    Raises:
        ValueError: the lists are not of one length, or shorter than 2.
    """
    if len(values) != len(than) or len(values) < 2:
        raise ValueError(
            f"order_correlation needs two lists of the same length, 2 or more, not of "
            f"{len(values)} and {len(than)}."
        )
    agreeing = sum(
        _sign(values[i] - values[j]) * _sign(than[i] - than[j])
        for i in range(len(values))
        for j in range(i)
    )
    correlation = agreeing / (len(values) * (len(values) - 1) / 2)
    return _exact(correlation >= threshold, correlation)


def adjusted_p_values(p_values: Mapping[str, float]) -> dict[str, float]:
    """Benjamini & Hochberg (1995): of what is called at adjusted p <= q, a share q is wrong.

    In expectation, and at most; for comparisons that are independent or depend positively.
    """
    adjusted, smallest = {}, 1.0
    ascending = sorted(p_values, key=lambda name: p_values[name])
    for rank in range(len(ascending), 0, -1):
        name = ascending[rank - 1]
        smallest = min(smallest, p_values[name] * (len(ascending) / rank))
        adjusted[name] = smallest
    return adjusted


def student_tail(t: float, degrees: int) -> float:
    """P(|T| >= |t|) of Student's t, in closed form (Abramowitz & Stegun 26.7.3, 26.7.4)."""
    angle = math.atan(abs(t) / math.sqrt(degrees))
    cosine, odd = math.cos(angle), degrees % 2
    term, total = cosine if odd else 1.0, 0.0
    for k in range(degrees // 2):
        total += term
        term *= cosine**2 * ((2 * k + 2) / (2 * k + 3) if odd else (2 * k + 1) / (2 * k + 2))
    inside = math.sin(angle) * total
    return max(0.0, 1 - (2 / math.pi * (angle + inside) if odd else inside))


def student_quantile(level: float, degrees: int) -> float:
    """The t with P(|T| <= t) = `level`, by bisection."""
    low, high = 0.0, 1.0
    while student_tail(high, degrees) > 1 - level:
        low, high = high, 2 * high
    for _ in range(60):
        middle = (low + high) / 2
        if student_tail(middle, degrees) > 1 - level:
            low = middle
        else:
            high = middle
    return (low + high) / 2


def _over_seeds(values: Sequence[float], threshold: float, above: bool) -> Finding:
    """The Student interval is that of `statistics.seed_interval`, which needs scipy."""
    seeds = len(_some(values))
    mean = math.fsum(values) / seeds
    holds = mean > threshold if above else mean < threshold
    if seeds < SEEDS_NEEDED:
        return Finding(holds, mean, None, seeds, None)
    variance = math.fsum((value - mean) ** 2 for value in values) / (seeds - 1)
    error = math.sqrt(variance / seeds)
    half = student_quantile(LEVEL, seeds - 1) * error
    p = _two_sided(mean - threshold, error, seeds)
    return Finding(holds, mean, (mean - half, mean + half), seeds, p)


def _two_sided(distance: float, error: float, seeds: int) -> float:
    if error == 0:
        # Seeds that agree to the last digit leave nothing to chance.
        return 1.0 if distance == 0 else 0.0
    return student_tail(distance / error, seeds - 1)


def _differences(values: Sequence[float], than: Sequence[float]) -> list[float]:
    return [a - b for a, b in zip(values, than, strict=True)]


def _some(values: Sequence[float]) -> Sequence[float]:
    if not values:
        raise ValueError("A rule needs at least one value.")
    return values


def _exact(holds: bool, estimate: float) -> Finding:
    return Finding(holds, estimate, None, 0, None)


def _sign(value: float) -> int:
    return (value > 0) - (value < 0)
