"""Over repeated draws of laws with known multiinformation, intervals cover it at their level."""

import math
from collections.abc import Callable

import pytest
import torch

from sparsejepa.chapters.multiinformation import (
    autoregression,
    autoregressive,
    equicorrelated,
    equicorrelation,
    student,
)
from sparsejepa.information.multiinformation import decompose, total_correlation
from sparsejepa.randomness import generator
from tests.information import known
from tests.information.known import block_truth, gaussian_rows, interval_hit, random_correlation

LAWS = {
    "independent": (lambda d: equicorrelation(d, 0.0), lambda d: 0.0),
    "weak": (lambda d: equicorrelation(d, 0.1), lambda d: equicorrelated(d, 0.1)),
    "equicorrelated": (lambda d: equicorrelation(d, 0.5), lambda d: equicorrelated(d, 0.5)),
    "autoregressive": (lambda d: autoregression(d, 0.8), lambda d: autoregressive(d, 0.8)),
}
# Draws -> most misses of 95 % intervals: more have a probability of some .005.
MOST_MISSES = {40: 6, 150: 15}
quick_and_long = pytest.mark.parametrize("draws", [40, pytest.param(150, marks=pytest.mark.slow)])


def misses(draws: int, draw: Callable[[int], tuple[torch.Tensor, float]], method: str) -> int:
    samples = (draw(i) for i in range(draws))
    return sum(not interval_hit(total_correlation(x, method), truth) for x, truth in samples)


@quick_and_long
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("method", "d"), [("gaussian", 10), ("copula", 2), ("copula", 10), ("ksg", 2)]
)
def test_intervals_cover_at_their_level(law: str, method: str, d: int, draws: int):
    """At N = 50 d, each method where it holds; for those that read ranks, warped columns."""
    correlation, truth = LAWS[law]

    def draw(i: int) -> tuple[torch.Tensor, float]:
        x = gaussian_rows(50 * d, correlation(d), "coverage", i)
        return x if method == "gaussian" else known.warp(x), truth(d)

    assert misses(draws, draw, method) <= MOST_MISSES[draws]


@quick_and_long
@pytest.mark.parametrize(
    ("method", "d"), [("copula", 3), pytest.param("copula", 20, marks=pytest.mark.slow), ("ksg", 4)]
)
def test_intervals_cover_random_correlations(method: str, d: int, draws: int):
    """Of A A' with A a d x d matrix of normal draws, another for each sample, N = 50 d.

    Some are so close to singular that columns follow from the others to within 1 / sqrt(N): what
    ranks, and balls of neighbours, blur.
    """

    def draw(i: int) -> tuple[torch.Tensor, float]:
        factor = torch.randn(d, d, generator=generator(i, "factor"), dtype=torch.float64)
        factor /= factor.norm(dim=1, keepdim=True)
        rows = torch.randn(50 * d, d, generator=generator(i, "rows"), dtype=torch.float64)
        return known.warp(rows @ factor.T), -torch.linalg.svdvals(factor).log().sum().item()

    assert misses(draws, draw, method) <= MOST_MISSES[draws]


@quick_and_long
@pytest.mark.parametrize("d", [2, 4])
def test_neighbours_cover_a_law_that_is_not_gaussian(d: int, draws: int):
    """Student t with 3 degrees of freedom, N = 300."""
    truth = student(d, 3)
    missed = misses(draws, lambda i: (known.student_rows(300, d, 3, "cover", i), truth), "ksg")
    assert missed <= MOST_MISSES[draws]


@quick_and_long
@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_counts_cover(noise: float, draws: int):
    """A digit of three, and a copy that is drawn anew with some probability: N = 150."""
    same, other = (1 - noise + noise / 3) / 3, noise / 9
    truth = 2 * math.log(3) + 3 * same * math.log(same)
    truth += 6 * other * math.log(other) if other else 0.0

    def draw(i: int) -> tuple[torch.Tensor, float]:
        source = generator(i, "digits")
        a, b = torch.randint(3, (2, 150), generator=source)
        again = torch.rand(150, generator=source) < noise
        return torch.stack([a, torch.where(again, b, a)], dim=1), truth

    assert misses(draws, draw, "discrete") <= MOST_MISSES[draws]


@quick_and_long
@pytest.mark.parametrize("method", ["gaussian", "copula"])
def test_intervals_between_groups_cover(method: str, draws: int):
    """Two groups of three columns, N = 300."""
    correlation, groups = random_correlation(6, "groups"), [[0, 1, 2], [3, 4, 5]]
    truth = block_truth(correlation, groups)
    samples = (gaussian_rows(300, correlation, "between", i) for i in range(draws))
    hits = [interval_hit(decompose(x, groups, method).between, truth) for x in samples]
    assert hits.count(False) <= MOST_MISSES[draws]


def test_an_outlier_widens_the_interval_of_the_plug_in():
    """One of 100 rows at 1e3, 1e6 or 1e9 in one column: finite, and it holds what the rest has.

    The estimate falls to 0, and only the jackknife of that row tells.
    """
    for i in range(100):
        x = gaussian_rows(100, equicorrelation(2, 0.8), "outlier", i)
        x[i % 100, 0] = (-1) ** i * 10.0 ** (3 + 3 * (i % 3))
        found = total_correlation(x, "gaussian")
        assert all(map(math.isfinite, (found.value, *found.interval())))
        assert interval_hit(found, equicorrelated(2, 0.8))
