"""Estimates against closed forms (in nats), and what must not change them."""

import doctest
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import psi

from sparsejepa.chapters.multiinformation import equicorrelated, equicorrelation, student
from sparsejepa.information import multiinformation
from sparsejepa.information.estimate import TotalCorrelation
from sparsejepa.information.gaussian import GaussianEstimator
from sparsejepa.information.multiinformation import shuffled_null, total_correlation
from sparsejepa.randomness import generator
from tests.information.known import gaussian_rows, interval_hit, random_correlation, student_rows
from tests.information.known import warp as warped

GAUSSIAN_METHODS = ["gaussian", "copula"]
seeds = st.integers(0, 10**6)


@pytest.mark.parametrize(
    ("rho", "d", "number"),
    [(0.5, 2, 0.1438), (0.5, 20, 5.409), (0.5, 192, 63.91), (0.3, 10, 0.951), (0.3, 64, 9.74)],
)
def test_the_closed_form_is_the_determinant(rho: float, d: int, number: float):
    """-½ ln det R by eigenvalues equals the formula that the other tests use."""
    by_eigenvalues = -0.5 * torch.linalg.eigvalsh(equicorrelation(d, rho)).log().sum().item()
    assert by_eigenvalues == pytest.approx(equicorrelated(d, rho), abs=1e-9)
    assert by_eigenvalues == pytest.approx(number, rel=1e-3)


@pytest.mark.parametrize("method", GAUSSIAN_METHODS)
@pytest.mark.parametrize(("d", "rho"), [(2, 0.5), (10, 0.0), (10, 0.3), (64, 0.5)])
def test_equicorrelated(method: str, d: int, rho: float):
    result = total_correlation(gaussian_rows(50 * d, equicorrelation(d, rho), "equi"), method)
    assert abs(result.value - equicorrelated(d, rho)) < 3 * result.standard_error
    assert result.standard_error < 0.03 + 0.2 * equicorrelated(d, rho)
    assert result.per_unit == result.value / (d - 1)


def test_student_is_seen_by_neighbours_alone():
    """Uncorrelated columns with common tails: KSG finds .29 nats, the Gaussian copula none.

    A Gaussian-copula estimate of 0 is therefore no evidence of independence.
    """
    x, truth = student_rows(2000, 5, 3, "t"), student(5, 3)
    assert truth == pytest.approx(0.2931, abs=1e-4)
    assert interval_hit(total_correlation(x, "ksg"), truth)
    copula = total_correlation(x, "copula")
    assert abs(copula.value) < 0.03 and not interval_hit(copula, truth)


@pytest.mark.parametrize(("n", "d"), [(200, 20), (120, 24)])
def test_the_gaussian_bias_is_corrected_exactly(n: int, d: int):
    """Over 200 draws the mean is right to its error; the uncorrected one is off by the formula.

    Rows are 5 to 10 a column, where d (d-1) / (4 n), the leading term, is off by nats.
    """
    correlation = random_correlation(d, "bias")
    truth = -0.5 * torch.linalg.eigvalsh(correlation).log().sum().item()
    found = [
        total_correlation(gaussian_rows(n, correlation, "bias", i), "gaussian").value
        for i in range(200)
    ]
    error = np.std(found) / math.sqrt(len(found))
    assert abs(np.mean(found) - truth) < 3.5 * error
    bias = 0.5 * (d * psi((n - 1) / 2) - psi((n - 1 - np.arange(d)) / 2).sum())
    assert bias > 10 * error


@given(seeds)
@settings(max_examples=15)
def test_the_jackknife_is_exact(seed: int):
    """Deviations are sqrt(N-1) times those of the estimate with one row left out, row by row."""
    x = gaussian_rows(25, random_correlation(3, "loo", seed), "loo", seed).numpy()
    blocks = [np.array([0]), np.array([2, 1])]
    term = GaussianEstimator(x).between(blocks)
    left_out = np.array(
        [GaussianEstimator(np.delete(x, i, 0)).between_value(blocks) for i in range(25)]
    )
    expected = math.sqrt(24) * (left_out - left_out.mean())
    np.testing.assert_allclose(term.deviations, expected, atol=1e-10)


@given(seeds, st.sampled_from(["copula", "ksg"]))
@settings(max_examples=15)
def test_monotone_maps_of_columns_change_nothing(seed: int, method: str):
    x = gaussian_rows(200, random_correlation(4, "maps", seed), "maps", seed)
    assert total_correlation(warped(x), method) == total_correlation(x, method)


@given(seeds, st.sampled_from([*GAUSSIAN_METHODS, "ksg"]))
@settings(max_examples=15)
def test_the_order_of_columns_and_rows_changes_nothing(seed: int, method: str):
    x = gaussian_rows(150, random_correlation(4, "order", seed), "order", seed)
    columns = torch.randperm(4, generator=generator(seed))
    expected = total_correlation(x, method)
    turned = total_correlation(x[:, columns], method)
    assert turned.value == pytest.approx(expected.value, abs=1e-9)
    assert turned.standard_error == pytest.approx(expected.standard_error, abs=1e-9)
    if method != "copula":
        assert total_correlation(x.flip(0), method).value == pytest.approx(expected.value)


def test_independent_noise_on_each_column_loses_information():
    """The data processing inequality for local channels, at 0.7 and 0.7 of the variance noise."""
    x = gaussian_rows(4000, equicorrelation(3, 0.8), "clean")
    noisy = x + 1.5 * gaussian_rows(4000, torch.eye(3).double(), "noise")
    for method in (*GAUSSIAN_METHODS, "ksg"):
        clean, lossy = total_correlation(x, method), total_correlation(noisy, method)
        assert lossy.interval()[1] < clean.interval()[0]


def test_ties_are_broken_without_a_trace_of_dependence():
    x = torch.randint(5, (2000, 2), generator=generator(3)).double()
    for method in ("copula", "ksg"):
        assert interval_hit(total_correlation(x, method), 0.0)


def test_the_same_seed_gives_the_same_bits():
    x = gaussian_rows(200, equicorrelation(4, 0.7), "bits").float()
    assert total_correlation(x, "copula", seed=1) == total_correlation(x, "copula", seed=1)
    assert total_correlation(x, "copula", seed=1) != total_correlation(x, "copula", seed=2)
    assert total_correlation(x.numpy(), "gaussian") == total_correlation(x, "gaussian")


@pytest.mark.parametrize("method", [*GAUSSIAN_METHODS, "ksg", "discrete"])
def test_shuffled_columns_have_none(method: str):
    """Strongly dependent columns, shuffled: the mean of the nulls is 0 to within their spread."""
    x = gaussian_rows(600, equicorrelation(3, 0.9), "null")
    x = (x > 0).long() if method == "discrete" else x
    null = shuffled_null(x, method, 12, generator(5))
    assert abs(null.mean()) < 4 * null.std() / math.sqrt(12) + 1e-3
    np.testing.assert_array_equal(null, shuffled_null(x, method, 12, generator(5)))


def test_the_interval_by_hand():
    """Lower end value - z se; upper end t with (t - value)² = z² (se² + 2 (t - value) / n)."""
    low, high = TotalCorrelation(0.5, 0.1, "gaussian", 50, 3).interval(0.9)
    z = 1.6448536269514722
    assert low == pytest.approx(0.5 - z * 0.1)
    assert (high - 0.5) ** 2 == pytest.approx(z**2 * (0.01 + 2 * (high - 0.5) / 50))


def test_the_examples_run():
    found = doctest.testmod(multiinformation)
    assert found.failed == 0 and found.attempted > 4
