"""Over repeated draws of laws with known multiinformation, intervals cover it at their level."""

import math

import pytest
import torch

from sparsejepa.chapters.multiinformation import (
    autoregression,
    autoregressive,
    equicorrelated,
    equicorrelation,
    student,
)
from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.randomness import generator
from tests.information.known import gaussian_rows, interval_hit, student_rows, warp

LAWS = {
    "independent": (lambda d: equicorrelation(d, 0.0), lambda d: 0.0),
    "weak": (lambda d: equicorrelation(d, 0.1), lambda d: equicorrelated(d, 0.1)),
    "equicorrelated": (lambda d: equicorrelation(d, 0.5), lambda d: equicorrelated(d, 0.5)),
    "autoregressive": (lambda d: autoregression(d, 0.8), lambda d: autoregressive(d, 0.8)),
}
# Of 150 draws, 95 % intervals miss 7.5 on average; more than 15 have probability .005.
DRAWS, MOST_MISSES = 150, 15


@pytest.mark.slow
@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize(
    ("method", "d"),
    [("gaussian", 2), ("gaussian", 10), ("gaussian", 40), ("copula", 2), ("copula", 10),
     ("copula", 40), ("ksg", 2), ("ksg", 5)],
)  # fmt: skip
def test_intervals_cover_at_their_level(law: str, method: str, d: int):
    """At N = 50 d, each method where it holds; for those that read ranks, warped columns."""
    correlation, truth = LAWS[law]
    misses = 0
    for i in range(DRAWS):
        x = gaussian_rows(50 * d, correlation(d), "coverage", i)
        result = total_correlation(x if method == "gaussian" else warp(x), method)
        misses += not interval_hit(result, truth(d))
    assert misses <= MOST_MISSES


@pytest.mark.slow
@pytest.mark.parametrize(("method", "d"), [("copula", 3), ("copula", 20), ("ksg", 4)])
def test_intervals_cover_random_correlations(method: str, d: int):
    """Of A A' with A a d x d matrix of normal draws, another for each sample, N = 50 d.

    Some are so close to singular that columns follow from the others to within 1 / sqrt(N): what
    ranks, and balls of neighbours, blur.
    """
    misses = 0
    for i in range(DRAWS):
        factor = torch.randn(d, d, generator=generator(i, "factor"), dtype=torch.float64)
        factor /= factor.norm(dim=1, keepdim=True)
        truth = -torch.linalg.svdvals(factor).log().sum().item()
        rows = torch.randn(50 * d, d, generator=generator(i, "rows"), dtype=torch.float64)
        misses += not interval_hit(total_correlation(warp(rows @ factor.T), method), truth)
    assert misses <= MOST_MISSES


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 3, 5])
def test_neighbours_cover_a_mixture(d: int):
    """Two balls apart, of different size and weights 0.3 and 0.7: truth from 400,000 draws."""

    def draw(n: int, *path: int | str) -> tuple[torch.Tensor, torch.Tensor]:
        """Rows, and the logarithm of joint over product density at each."""
        source = generator(0, *path)
        small = torch.rand(n, 1, generator=source) < 0.3
        noise = torch.randn(n, d, generator=source, dtype=torch.float64)
        x = torch.where(small, 2 + 0.5 * noise, noise - 2)
        parts = torch.stack([-2 * (x - 2) ** 2 + math.log(2), -((x + 2) ** 2) / 2])
        weights = torch.tensor([0.3, 0.7]).double().log()
        joint = (parts.sum(2) + weights[:, None]).logsumexp(0)
        return x, joint - (parts + weights[:, None, None]).logsumexp(0).sum(1)

    truth = draw(400_000, "truth")[1].mean().item()
    hits = [
        interval_hit(total_correlation(draw(50 * d, "mixture", i)[0], "ksg"), truth)
        for i in range(DRAWS)
    ]
    assert DRAWS - sum(hits) <= MOST_MISSES


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 4])
def test_neighbours_cover_a_law_that_is_not_gaussian(d: int):
    """Student t with 3 degrees of freedom, N = 300."""
    hits = [
        interval_hit(total_correlation(student_rows(300, d, 3, "cover", i), "ksg"), student(d, 3))
        for i in range(DRAWS)
    ]
    assert DRAWS - sum(hits) <= MOST_MISSES


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.0, 0.3, 1.0])
def test_counts_cover(noise: float):
    """A digit of three, and a copy that is drawn anew with some probability: N = 150."""
    keep = 1 - noise
    same, other = (keep + noise / 3) / 3, noise / 9
    truth = 2 * math.log(3) + 3 * same * math.log(same)
    truth += 6 * other * math.log(other) if other else 0.0
    misses = 0
    for i in range(DRAWS):
        draw = generator(i, "digits")
        a, b = torch.randint(3, (2, 150), generator=draw)
        x = torch.stack([a, torch.where(torch.rand(150, generator=draw) < noise, b, a)], dim=1)
        misses += not interval_hit(total_correlation(x, "discrete"), truth)
    assert misses <= MOST_MISSES


@pytest.mark.slow
def test_memory_is_bounded():
    """d = 768, N = 50,000, float32: everything that is allocated stays below 2 GB.

    NumPy reports its buffers to tracemalloc; the input's 154 MB are counted too.
    """
    import tracemalloc

    tracemalloc.start()
    x = torch.randn(50_000, 768, generator=generator(0, "wide")).numpy()
    x[:, 1:] += x[:, :1]
    truth = equicorrelated(768, 0.5)
    for method in ("gaussian", "copula"):
        tracemalloc.reset_peak()
        result = total_correlation(x, method)
        assert tracemalloc.get_traced_memory()[1] + x.nbytes < 2e9
        assert abs(result.value - truth) < 4 * result.standard_error
    tracemalloc.stop()
