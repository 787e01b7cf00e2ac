import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from sparsejepa.intervals import (
    Interval,
    bootstrap_interval,
    paired_difference,
    seed_interval,
)


def width(interval: Interval) -> float:
    return interval.high - interval.low


def coverage_allowance(level: float, repeats: int) -> float:
    """Four standard errors of the share of `repeats` intervals that cover."""
    return 4 * np.sqrt(level * (1 - level) / repeats)


def test_imports_without_torch() -> None:
    """Intervals need numpy and scipy only."""
    code = "import sys, sparsejepa.intervals; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bootstrap_agrees_with_the_closed_form() -> None:
    """For a large sample the interval is mean +- 1.96 standard errors of a proportion."""
    correct = np.arange(10_000) % 10 < 3
    interval = bootstrap_interval(correct, 0, draws=20_000)
    half = stats.norm.ppf(0.975) * np.sqrt(0.3 * 0.7 / 10_000)
    assert interval.value == pytest.approx(0.3)
    # One image is 1e-4 here: the bootstrap's means lie on that grid.
    assert interval.low == pytest.approx(0.3 - half, abs=3e-4)
    assert interval.high == pytest.approx(0.3 + half, abs=3e-4)


def test_bootstrap_of_numbers_agrees_with_drawing_indices() -> None:
    """Drawing counts of distinct values is the same law as drawing rows with replacement."""
    values = np.random.default_rng(0).exponential(size=60)
    interval = bootstrap_interval(values, 1, draws=40_000)
    rows = np.random.default_rng(2).integers(60, size=(40_000, 60))
    low, high = np.quantile(values[rows].mean(1), [0.025, 0.975])
    assert interval.low == pytest.approx(low, abs=0.01)
    assert interval.high == pytest.approx(high, abs=0.01)


def test_bootstrap_covers_at_its_level() -> None:
    """Of 400 samples of 500 images, the 90 % interval covers the true accuracy in about 90 %."""
    rng = np.random.default_rng(3)
    repeats, level, truth = 400, 0.9, 0.35
    covered = 0
    for _ in range(repeats):
        interval = bootstrap_interval(rng.random(500) < truth, rng, level, draws=1000)
        covered += interval.low <= truth <= interval.high
    assert covered / repeats == pytest.approx(level, abs=coverage_allowance(level, repeats) + 0.01)


def test_paired_difference_covers_at_its_level() -> None:
    """The 95 % interval of a difference covers the true difference in about 95 % of 400 samples."""
    rng = np.random.default_rng(4)
    repeats, level = 400, 0.95
    covered = 0
    for _ in range(repeats):
        hard = rng.random(600)
        interval = paired_difference(hard < 0.5, hard < 0.42, rng, level, draws=1000)
        covered += interval.low <= 0.08 <= interval.high
    assert covered / repeats == pytest.approx(level, abs=coverage_allowance(level, repeats) + 0.01)


def test_pairing_narrows_the_interval_of_correlated_methods() -> None:
    """Two methods that fail on the same images differ more surely than on two test sets."""
    rng = np.random.default_rng(5)
    hard = rng.random(5000)
    a, b = hard < 0.4, hard < 0.37
    paired = paired_difference(a, b, 0)
    apart = paired_difference(a, rng.permutation(b), 0)
    assert paired.value == pytest.approx(apart.value) == pytest.approx(a.mean() - b.mean())
    # Closed forms of the two variances: q (1 - q) against p (1 - p) + p' (1 - p').
    q = a.mean() - b.mean()
    expected = (a.var() + b.var()) / (q * (1 - q))
    assert (width(apart) / width(paired)) ** 2 == pytest.approx(expected, rel=0.1)
    assert paired.low > 0


def test_difference_changes_sign_with_the_order() -> None:
    """a - b is the mirror image of b - a, and a - a is exactly zero."""
    rng = np.random.default_rng(6)
    a, b = rng.random(2000) < 0.5, rng.random(2000) < 0.4
    one, other = paired_difference(a, b, 0), paired_difference(b, a, 0)
    assert one.value == -other.value
    assert one.low == pytest.approx(-other.high, abs=2e-3)
    assert paired_difference(a, a, 0) == Interval(0.0, 0.0, 0.0, 0.95)


def test_same_seed_same_interval() -> None:
    """Nothing but the argument drives the draws; other seeds draw otherwise."""
    values = np.random.default_rng(7).random(50)
    assert bootstrap_interval(values, 8) == bootstrap_interval(values, 8)
    assert bootstrap_interval(values, 8) != bootstrap_interval(values, 9)
    assert bootstrap_interval(values, 8) == bootstrap_interval(values, np.random.default_rng(8))


def test_seed_interval_agrees_with_scipy() -> None:
    """Three seeds: mean +- 4.303 standard errors."""
    values = [0.301, 0.315, 0.308]
    interval = seed_interval(values)
    low, high = stats.t.interval(0.95, 2, np.mean(values), stats.sem(values))
    assert (interval.low, interval.high) == pytest.approx((low, high), rel=1e-9)


def test_seed_interval_covers_at_its_level() -> None:
    """Of 500 sets of three normal seeds, the 95 % interval covers in about 95 %."""
    rng = np.random.default_rng(10)
    intervals = [seed_interval(rng.normal(1.0, 0.3, size=3)) for _ in range(500)]
    covered = np.mean([i.low <= 1.0 <= i.high for i in intervals])
    assert covered == pytest.approx(0.95, abs=coverage_allowance(0.95, 500))


@pytest.mark.parametrize(
    ("values", "level", "message"),
    [
        ([1.0], 0.95, "2 values or more"),
        ([[1.0, 0.0]], 0.95, "2 values or more"),
        ([1.0, float("nan")], 0.95, "NaN"),
        ([1.0, 0.0], 95.0, "level must lie between 0 and 1, not 95.0"),
    ],
)
def test_undefined_intervals_are_refused(values: list, level: float, message: str) -> None:
    """One value has no interval, NaN no mean, and 95 is no level."""
    with pytest.raises(ValueError, match=message):
        bootstrap_interval(values, 0, level)
    with pytest.raises(ValueError, match=message):
        seed_interval(values, level)


def test_pairs_must_match() -> None:
    """Different numbers of images cannot be paired."""
    with pytest.raises(ValueError, match="same images"):
        paired_difference([1.0, 0.0], [1.0, 0.0, 1.0], 0)
