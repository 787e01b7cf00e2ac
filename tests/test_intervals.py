"""Intervals: closed forms, coverage on known laws, and one rule for runs of several seeds."""

import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from sparsejepa.intervals import (
    Estimate,
    Interval,
    bootstrap_interval,
    estimate,
    over_intervals,
    over_runs,
    paired_difference,
    paired_estimate,
    seed_interval,
)

RIGHT = np.random.default_rng(0).random((4, 300)) < [[0.4], [0.5], [0.45], [0.55]]


def ends(found: Interval) -> tuple[float, float, float]:
    return (found.value, found.low, found.high)


def test_imports_without_torch():
    code = "import sys, sparsejepa.intervals; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_bootstrap_agrees_with_the_closed_form():
    """For a large sample the interval is mean +- 1.96 standard errors of a proportion."""
    interval = bootstrap_interval(np.arange(10_000) % 10 < 3, 0, draws=20_000)
    half = stats.norm.ppf(0.975) * np.sqrt(0.3 * 0.7 / 10_000)
    # One image is 1e-4 here: the bootstrap's means lie on that grid.
    assert ends(interval) == pytest.approx((0.3, 0.3 - half, 0.3 + half), abs=3e-4)


def test_bootstrap_of_numbers_agrees_with_drawing_indices():
    """Drawing counts of distinct values is the same law as drawing rows with replacement."""
    values = np.random.default_rng(0).exponential(size=60)
    interval = bootstrap_interval(values, 1, draws=40_000)
    rows = np.random.default_rng(2).integers(60, size=(40_000, 60))
    low, high = np.quantile(values[rows].mean(1), [0.025, 0.975])
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=0.01)


def a_paired_difference(rng: np.random.Generator) -> Interval:
    hard = rng.random(400)
    return paired_difference(hard < 0.5, hard < 0.4, rng, draws=500)


def two_runs_on_the_same_images(rng: np.random.Generator) -> Interval:
    hard = rng.random(400)
    return over_runs([hard < 0.4, hard + rng.normal(0, 0.1, 400) < 0.5], rng)


def a_difference_over_seeds(rng: np.random.Generator) -> Interval:
    seeds = rng.normal(0.5, 0.1, (3, 1))
    a, b = (dict(enumerate(rng.random((3, 300)) < seeds + gain)) for gain in (0.05, 0.0))
    return paired_estimate(a, b, 0)


@pytest.mark.parametrize(
    ("draw", "truth", "repeats"),
    [
        (lambda rng: bootstrap_interval(rng.random(400) < 0.35, rng, draws=500), 0.35, 1000),
        (a_paired_difference, 0.1, 1000),
        (lambda rng: over_runs(rng.normal(0.97, 0.02, (3, 1)), 0, (0, 1)), 0.97, 2000),
        (two_runs_on_the_same_images, 0.45, 300),
        (lambda rng: over_runs(rng.random((4, 300)) < rng.normal(0.5, 0.03, (4, 1)), 0), 0.5, 1000),
        (a_difference_over_seeds, 0.05, 1000),
    ],
)
def test_ninety_five_per_cent_cover(draw: Callable, truth: float, repeats: int):
    """Of many samples of a known law, 95 % of the intervals hold the truth, four errors either way.

    Half a point more: a percentile bootstrap of 400 images covers a little less than it says.
    """
    rng = np.random.default_rng(3)
    found = [draw(rng) for _ in range(repeats)]
    covered = np.mean([one.low <= truth <= one.high for one in found])
    assert covered == pytest.approx(0.95, abs=4 * np.sqrt(0.95 * 0.05 / repeats) + 0.005)


def test_seeds_have_students_interval_within_what_can_be():
    shares = [0.99, 1.0, 0.97]
    plain, clipped = seed_interval(shares), over_runs(np.array(shares)[:, None], 0, within=(0, 1))
    expected = stats.t.interval(0.95, 2, np.mean(shares), stats.sem(shares))
    assert ends(plain)[1:] == pytest.approx(expected, rel=1e-9)
    assert plain.high > 1 and clipped == Estimate(plain.value, plain.low, 1.0, 0.95, 3)
    assert estimate({s: [1, 1, s > 0] for s in range(3)}, 0).high == 1


def test_pairing_narrows_the_interval_of_correlated_methods():
    """By the ratio of the variances, q (1 - q) against p (1 - p) + p' (1 - p')."""
    rng = np.random.default_rng(5)
    hard = rng.random(5000)
    a, b = hard < 0.4, hard < 0.37
    paired, apart = paired_difference(a, b, 0), paired_difference(a, rng.permutation(b), 0)
    q = a.mean() - b.mean()
    assert paired.value == pytest.approx(apart.value) == pytest.approx(q)
    ratio = (apart.high - apart.low) / (paired.high - paired.low)
    assert ratio**2 == pytest.approx((a.var() + b.var()) / (q * (1 - q)), rel=0.1)


def test_student_from_three_seeds_on():
    """Below, the bootstrap over images of each image's mean; `basis` says which."""
    one, two, three = (estimate(dict(enumerate(RIGHT[:n])), seed=1) for n in (1, 2, 3))
    assert ends(one) == ends(bootstrap_interval(RIGHT[0], 1))
    assert ends(two) == ends(bootstrap_interval(RIGHT[:2].mean(0), 1))
    assert (one.basis, two.basis) == ("over test images, 1 seed", "over test images, 2 seeds")
    assert ends(three) == ends(seed_interval(RIGHT[:3].mean(1))) and three.basis == "over 3 seeds"


def test_differences_are_paired_by_seed_and_image():
    a, b = {0: RIGHT[0], 1: RIGHT[1], 5: RIGHT[2]}, {1: RIGHT[3], 9: RIGHT[2]}
    assert ends(paired_estimate(a, b, 2)) == ends(paired_difference(RIGHT[1], RIGHT[3], 2))
    three = paired_estimate(dict(enumerate(RIGHT[:3])), dict.fromkeys(range(3), RIGHT[3]), 2)
    expected = seed_interval(RIGHT[:3].mean(1) - RIGHT[3].mean())
    assert ends(three) == pytest.approx(ends(expected), rel=1e-12)
    assert paired_estimate({0: RIGHT[0]}, {1: RIGHT[1]}, seed=2) is None
    same = paired_estimate({0: RIGHT[0]}, {0: RIGHT[0]}, seed=0)
    assert ends(same) == (0, 0, 0) and not same.clear()
    assert same.percent(signed=True) == "+0.0 [+0.0, +0.0]"


@pytest.mark.parametrize(
    "call",
    [
        lambda: bootstrap_interval([1.0], 0),
        lambda: seed_interval([[1.0, 0.0]]),
        lambda: seed_interval([1.0, float("nan")]),
        lambda: bootstrap_interval([1.0, 0.0], 0, level=95.0),
        lambda: paired_difference([1.0, 0.0], [1.0, 0.0, 1.0], 0),
        lambda: estimate({0: RIGHT[0], 1: RIGHT[1][:200]}, seed=0),
        lambda: paired_estimate({0: RIGHT[0]}, {0: RIGHT[0][:200]}, seed=0),
    ],
)
def test_undefined_intervals_are_refused(call: Callable):
    """One value has no interval, NaN no mean, 95 is no level, other images are no pair."""
    with pytest.raises(ValueError):
        call()


def test_means_of_ends_cover_at_least():
    """Exactly at their level where runs share their images, more often where they do not."""
    rng, covered = np.random.default_rng(4), {}
    for shared in (True, False):
        errors = rng.normal(0, 1, (2000, 2))
        errors[:, 1] = errors[:, 0] if shared else errors[:, 1]
        half = stats.norm.ppf(0.975)
        drawn = [[Interval(e, e - half, e + half, 0.95) for e in pair] for pair in errors]
        covered[shared] = np.mean([not over_intervals(pair).clear() for pair in drawn])
    assert covered[True] == pytest.approx(0.95, abs=0.02)
    assert covered[False] == pytest.approx(2 * stats.norm.cdf(2**0.5 * half) - 1, abs=0.008)


@pytest.mark.parametrize("runs", [1, 2, 3])
def test_intervals_of_runs_follow_the_same_rule(runs: int):
    """One is kept as it is, the ends of two are averaged, three are a sample of seeds."""
    cells = [bootstrap_interval(row, 0) for row in RIGHT[:runs]]
    found = over_intervals(cells)
    assert found.seeds == runs
    expected = np.mean([ends(cell) for cell in cells], axis=0)
    if runs == 3:
        expected = ends(seed_interval([cell.value for cell in cells]))
    assert ends(found) == pytest.approx(expected, rel=1e-12)
