import numpy as np
import pytest

from sparsejepa.companion.estimates import estimate, paired_estimate
from sparsejepa.intervals import bootstrap_interval, paired_difference, seed_interval

RIGHT = np.random.default_rng(0).random((4, 300)) < [[0.4], [0.5], [0.45], [0.55]]


def numbers(found) -> tuple[float, float, float]:
    return (found.value, found.low, found.high)


def test_one_seed_is_the_bootstrap_over_images() -> None:
    """A single run: the interval of its test images, and the words say so."""
    found = estimate({7: RIGHT[0]}, seed=1)
    assert numbers(found) == numbers(bootstrap_interval(RIGHT[0], 1))
    assert found.basis == "over test images, 1 seed"


def test_two_seeds_average_each_image() -> None:
    """Two runs are no sample of seeds: images are drawn, each with its mean over both."""
    found = estimate({0: RIGHT[0], 1: RIGHT[1]}, seed=1)
    assert numbers(found) == numbers(bootstrap_interval(RIGHT[:2].mean(0), 1))
    assert found.basis == "over test images, 2 seeds"


def test_three_seeds_are_a_sample_of_seeds() -> None:
    """Student's interval of the runs' accuracies."""
    found = estimate({s: RIGHT[s] for s in range(3)}, seed=1)
    assert numbers(found) == numbers(seed_interval(RIGHT[:3].mean(1)))
    assert found.basis == "over 3 seeds"


def test_differences_are_paired_by_seed_and_image() -> None:
    """Only common seeds count, each with its own partner; from three on it is over seeds."""
    a, b = {0: RIGHT[0], 1: RIGHT[1], 5: RIGHT[2]}, {1: RIGHT[3], 9: RIGHT[2]}
    found = paired_estimate(a, b, seed=2)
    assert numbers(found) == numbers(paired_difference(RIGHT[1], RIGHT[3], 2))
    three = paired_estimate({s: RIGHT[s] for s in range(3)}, {s: RIGHT[3] for s in range(3)}, 2)
    expected = seed_interval(RIGHT[:3].mean(1) - RIGHT[3].mean())
    assert numbers(three) == pytest.approx(numbers(expected), rel=1e-12)
    assert paired_estimate({0: RIGHT[0]}, {1: RIGHT[1]}, seed=2) is None


def test_equal_runs_do_not_differ() -> None:
    """A run against itself: zero, and nothing clear about it."""
    found = paired_estimate({0: RIGHT[0]}, {0: RIGHT[0]}, seed=0)
    assert numbers(found) == (0, 0, 0) and not found.clear()
    assert found.percent(signed=True) == "+0.0 [+0.0, +0.0]"


def test_clear_is_an_interval_beside_zero() -> None:
    """All right against all wrong differ by 100 points, in either direction."""
    ones, zeros = {0: np.ones(9)}, {0: np.zeros(9)}
    assert paired_estimate(ones, zeros, 0).clear() and paired_estimate(zeros, ones, 0).clear()
    assert paired_estimate(ones, zeros, 0).percent() == "100.0 [100.0, 100.0]"


def test_other_images_are_refused() -> None:
    """Runs of different test sets cannot be averaged or paired."""
    with pytest.raises(ValueError, match=r"same images, not on \[300, 200\]"):
        estimate({0: RIGHT[0], 1: RIGHT[1][:200]}, seed=0)
    with pytest.raises(ValueError, match="same images, not 300 and 200"):
        paired_estimate({0: RIGHT[0]}, {0: RIGHT[0][:200]}, seed=0)
    with pytest.raises(ValueError, match=r"same images, not on \[\]"):
        estimate({}, seed=0)
