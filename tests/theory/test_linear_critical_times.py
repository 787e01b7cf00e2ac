"""Critical times: quadrature, closed forms and series against each other and known numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad

from sparsejepa.theory.critical_times import (
    SERIES_SHARE,
    critical_time,
    critical_time_closed_form,
    critical_time_series,
    limit_slopes,
    order_ratio,
    series_is_valid,
    series_terms,
)
from sparsejepa.theory.linear_dynamics import fixed_point, linear_dynamics

# Ratio t_A / t_B of features A (lambda 1.2, rho 0.4) and B (lambda 1, rho 0.9) at half of their
# fixed points, for L and epsilon. Origin: the two integrals over u in the module's docstring, by
# adaptive quadrature in another program, to two decimals.
RATIOS = [
    (1, 0.1, 0.64, 0.63),
    (2, 2.0e-2, 1.06, 0.78),
    (3, 1.1e-2, 1.35, 0.81),
    (5, 8.6e-4, 1.77, 0.83),
    (5, 1.2e-5, 1.03, 0.83),
    (5, 5.1e-13, 0.84, 0.83),
    (8, 1.4e-4, 2.94, 0.83),
]

objectives = st.sampled_from(["jepa", "mae"])
depths = st.integers(1, 10)
covariances = st.floats(0.1, 3)
regressions = st.floats(0.2, 1.5)
shares = st.floats(0.003, 0.3)
fractions = st.floats(0.35, 0.99)


def one_feature(objective, depth, covariance, regression, share):
    """A feature whose layers begin at `share` of their fixed point."""
    end = fixed_point(objective, depth, np.array([regression]))
    return linear_dynamics(objective, depth, covariance, regression, share**depth * end)


@given(objectives, depths, covariances, regressions, shares, fractions)
def test_the_closed_form_is_the_integral(objective, depth, covariance, regression, share, fraction):
    """Partial fractions and the hypergeometric function against quadrature, to 1e-9."""
    dynamics = one_feature(objective, depth, covariance, regression, share)
    np.testing.assert_allclose(
        critical_time_closed_form(dynamics, fraction), critical_time(dynamics, fraction), rtol=1e-9
    )


@pytest.mark.parametrize("depth", [1, 2, 3, 5])
def test_quadrature_over_the_plain_variable_agrees(depth: int):
    """The integrals as they are printed, over u and without the change to logit(u / u*)."""
    lam, rho, epsilon, p = 1.3, 0.7, 0.2**depth * 0.7**depth, 0.6
    ends = {
        "jepa": (epsilon ** (1 / depth), (p * rho**depth) ** (1 / depth)),
        "mae": (epsilon ** (1 / depth), (p * rho ** (depth / (depth + 1))) ** (1 / depth)),
    }
    plain = {
        "jepa": lambda u: 1 / (u ** (2 * depth) * (1 - u / rho)),
        "mae": lambda u: 1 / (u**depth * (1 - u ** (depth + 1) / rho)),
    }
    for objective, integrand in plain.items():
        expected = depth / lam * quad(integrand, *ends[objective], epsrel=1e-11, epsabs=0)[0]
        dynamics = linear_dynamics(objective, depth, lam, rho, epsilon)
        assert critical_time(dynamics, p) == pytest.approx([expected], rel=1e-9)


@pytest.mark.parametrize("p", [0.3, 0.9])
def test_elementary_cases_by_hand(p: float):
    """MAE for L = 1 and L = 3, where the integral is a logarithm and an artanh."""
    lam, rho, epsilon = 0.8, 0.6, 1e-3

    def between(antiderivative, depth):
        first, last = epsilon ** (1 / depth), (p * rho ** (depth / (depth + 1))) ** (1 / depth)
        return depth / lam * (antiderivative(last) - antiderivative(first))

    one = between(lambda u: np.log(u) - np.log(1 - u**2 / rho) / 2, 1)
    three = between(lambda u: -1 / (2 * u**2) + np.arctanh(u**2 / rho**0.5) / (2 * rho**0.5), 3)
    for depth, expected in ((1, one), (3, three)):
        dynamics = linear_dynamics("mae", depth, lam, rho, epsilon)
        assert critical_time_closed_form(dynamics, p) == pytest.approx([expected], rel=1e-12)


@pytest.mark.parametrize(("depth", "epsilon", "jepa", "mae"), RATIOS)
def test_order_inverts_for_jepa_at_finite_epsilon(depth, epsilon, jepa, mae):
    """The table to its digits: JEPA above 1 means that the influential feature B comes first."""
    for objective, expected in (("jepa", jepa), ("mae", mae)):
        dynamics = linear_dynamics(objective, depth, [1.2, 1.0], [0.4, 0.9], epsilon)
        by_quadrature = critical_time(dynamics, 0.5)
        assert round(float(by_quadrature[0] / by_quadrature[1]), 2) == expected
        assert order_ratio(dynamics, 0.5) == pytest.approx(
            by_quadrature[:1] / by_quadrature[1:], rel=1e-10
        )


@pytest.mark.parametrize(
    ("depth", "rho", "jepa", "series", "mae"),
    [
        (2, 1.0, 786.1, 786.7, 17.75),
        (3, 1.0, 1783, 1787, None),
        (5, 1.0, 4055, 4067, None),
        (5, 0.5, 7210, 17787, None),
    ],
)
def test_known_times(depth, rho, jepa, series, mae):
    """lambda = 1, epsilon = 0.01, p = ½; origin: a separate computation, to the digits given."""
    dynamics = linear_dynamics("jepa", depth, 1.0, rho, 0.01)
    digits = 1 if depth == 2 else 0
    assert round(float(critical_time(dynamics, 0.5)[0]), digits) == jepa
    assert round(float(series_terms(dynamics).sum()), digits) == series
    if mae is not None:
        exact = critical_time(linear_dynamics("mae", depth, 1.0, rho, 0.01), 0.5)[0]
        assert round(float(exact), 2) == mae


@given(st.integers(2, 8), covariances, regressions, st.floats(0.01, SERIES_SHARE - 1e-6))
def test_the_series_is_good_where_it_is_allowed(depth, covariance, regression, share):
    """JEPA, half of the fixed point: within 0.1 %."""
    dynamics = one_feature("jepa", depth, covariance, regression, share)
    exact = critical_time(dynamics, 0.5)
    np.testing.assert_allclose(critical_time_series(dynamics), exact, rtol=1e-3)


@given(st.integers(1, 8), covariances)
def test_the_leading_term_knows_nothing_of_rho(depth, covariance):
    """L / ((2L - 1) lambda epsilon^((2L-1)/L)), whatever rho is; the next one falls as 1 / rho."""
    epsilon = 0.02**depth
    terms = series_terms(linear_dynamics("jepa", depth, covariance, [0.3, 0.9], epsilon))
    leading = depth / ((2 * depth - 1) * covariance * epsilon ** ((2 * depth - 1) / depth))
    np.testing.assert_allclose(terms[0], leading, rtol=1e-12)
    if depth > 1:
        assert terms[1, 0] / terms[1, 1] == pytest.approx(3.0, rel=1e-12)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_slopes_tend_to_those_of_the_leading_term(objective: str, depth: int):
    """d ln t / d ln epsilon, lambda and rho by finite differences, closer as epsilon falls."""
    predicted = limit_slopes(objective, depth)

    def time(epsilon, lam=1.0, rho=0.7):
        return critical_time(linear_dynamics(objective, depth, lam, rho, epsilon), 0.5)[0]

    errors = []
    for share in (1e-2, 1e-4):
        e = share**depth
        slopes = {
            "epsilon": np.log(time(1.01 * e) / time(e)) / np.log(1.01),
            "covariance": np.log(time(e, lam=1.01) / time(e)) / np.log(1.01),
            "regression": np.log(time(e, rho=0.707) / time(e)) / np.log(1.01),
        }
        errors.append(max(abs(slopes[name] - predicted[name]) for name in predicted))
    assert errors[1] < 0.002
    assert errors[1] < 0.2 * errors[0]


@given(st.integers(2, 8), st.floats(0.25, 0.55), st.floats(0.6, 1.0))
def test_at_equal_lambda_jepa_prefers_the_larger_rho(depth, low, high):
    """For L >= 2, at every small epsilon, and by more than MAE does."""
    ratios = [
        order_ratio(linear_dynamics(objective, depth, 1.0, [low, high], (0.1 * low) ** depth), 0.5)
        for objective in ("jepa", "mae")
    ]
    assert ratios[0] > 1
    assert ratios[0] > ratios[1]


@given(st.integers(2, 6), st.floats(1.05, 2), st.floats(0.25, 0.5), st.floats(0.6, 1.0))
def test_as_epsilon_vanishes_both_order_by_lambda(depth, lam, low, high):
    """t_A / t_B -> lambda_B / lambda_A: JEPA's inversion is an effect of a finite epsilon."""
    for objective in ("jepa", "mae"):
        dynamics = linear_dynamics(objective, depth, [lam, 1.0], [low, high], 1e-6**depth)
        assert order_ratio(dynamics, 0.5) == pytest.approx([1 / lam], rel=1e-4)


@given(st.floats(0.01, 3), st.floats(0.05, 1), st.floats(1e-4, 0.49), st.floats(1.05, 3))
def test_one_layer_hardly_inverts(high, share_of_high, share, lam):
    """L = 1, p = ½: a lead in lambda of 5 % is never overcome, whatever rho_A < rho_B and epsilon.

    lambda t = (1 + h(epsilon / rho)) / epsilon with h(x) = x (ln(1/x - 1) - 2), which is at most
    0.0475, at x = 0.045; where h(x_A) is positive, so is h(x_B), and beyond it falls.
    """
    low = share_of_high * high
    dynamics = linear_dynamics("jepa", 1, [lam, 1.0], [low, high], share * low)
    assert order_ratio(dynamics, 0.5)[0] < 1


def test_one_layer_inverts_a_very_small_lead():
    """A lead of 1 % is overcome at L = 1 too, by JEPA and not by MAE: "never" is not exact."""
    for objective, inverted in (("jepa", True), ("mae", False)):
        dynamics = linear_dynamics(objective, 1, [1.01, 1.0], [0.4, 0.9], 0.01)
        ratio = critical_time(dynamics, 0.5)
        assert (ratio[0] > ratio[1]) == inverted


@pytest.mark.parametrize(
    ("epsilon", "fraction", "message"),
    [
        (0.01, 0.0, "fraction 0.0 must lie between 0 and 1"),
        (0.01, 1.0, "fraction 1.0 must lie between 0 and 1"),
        (0.2, 0.5, "epsilon 0.2 is beyond 0.5 of the fixed point"),
    ],
)
def test_a_level_that_is_never_crossed_is_refused(epsilon, fraction, message):
    """The end is not reached, and the start must lie below the level."""
    dynamics = linear_dynamics("jepa", 2, 1.0, 0.5, epsilon)
    for exact in (critical_time, critical_time_closed_form):
        with pytest.raises(ValueError, match=message):
            exact(dynamics, fraction)


def test_the_series_refuses_a_large_epsilon():
    """And names the largest that will do; the check without an error says the same."""
    dynamics = linear_dynamics("jepa", 5, 1.0, [0.5, 0.9], 1e-6)
    np.testing.assert_array_equal(series_is_valid(dynamics), [False, True])
    with pytest.raises(ValueError, match="choose at most 3.13e-07, or use critical_time"):
        critical_time_series(dynamics)


def test_pairs_come_in_twos():
    """Three features are no pairs."""
    dynamics = linear_dynamics("jepa", 2, 1.0, [0.5, 0.6, 0.7], 0.01)
    with pytest.raises(ValueError, match="3 features do not come in pairs"):
        order_ratio(dynamics, 0.5)
