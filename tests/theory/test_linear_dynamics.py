"""The equations of the deep linear theory: fixed points, the solver, critical times."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.integrate import quad

from sparsejepa.theory import linear_dynamics as theory
from sparsejepa.theory.linear_dynamics import critical_time, linear_dynamics

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


OBJECTIVES = ["jepa", "mae"]
DEPTHS = [1, 2, 3, 5, 8]
objectives = st.sampled_from(OBJECTIVES)
depths = st.integers(1, 8)
covariances = st.floats(0.1, 3)
regressions = st.floats(0.2, 1.5)
small_shares = st.floats(0.003, 0.3)
fractions = st.floats(0.35, 0.99)
shares = st.floats(0.01, 0.9)  # of epsilon^(1/L) in the layer's fixed point


def one_feature(objective, depth, covariance, regression, share):
    """A feature whose layers begin at `share` of their fixed point."""
    end = theory.fixed_point(objective, depth, np.array([regression]))
    return linear_dynamics(objective, depth, covariance, regression, share**depth * end)


@given(objectives, depths, covariances, regressions)
def test_the_fixed_point_is_where_growth_ends(objective, depth, covariance, regression):
    """Growth is 0 at rho^L (JEPA) and rho^(L/(L+1)) (MAE), positive below and negative above."""
    dynamics = one_feature(objective, depth, covariance, regression, 0.5)
    end = regression**depth if objective == "jepa" else regression ** (depth / (depth + 1))
    assert theory.fixed_point(objective, depth, np.array([regression])) == pytest.approx(
        [end], rel=1e-14
    )
    scale = theory.log_growth(dynamics, np.array([0.5 * end]))
    assert abs(theory.log_growth(dynamics, np.array([end]))) < 1e-12 * max(1, scale[0])
    assert scale > 0 > theory.log_growth(dynamics, np.array([1.1 * end]))


@given(objectives, depths, covariances, regressions, shares)
def test_growth_is_the_printed_equation(objective, depth, covariance, regression, share):
    """w · d ln w / dt = lambda (w^(3 - 1/L) - w³/rho), with 2 in place of 3 - 1 for MAE."""
    dynamics = one_feature(objective, depth, covariance, regression, share)
    w = dynamics.epsilon
    power = (3 if objective == "jepa" else 2) - 1 / depth
    printed = covariance * (w**power - w**3 / regression)
    np.testing.assert_allclose(w * theory.log_growth(dynamics, w), printed, rtol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_the_solver_keeps_the_exact_times(objective: str, depth: int):
    """At the exact critical time less 1e-6 a gain is below its level, at plus 1e-6 above."""
    rho = np.array([0.3, 0.6, 1.0, 1.3])
    share = {1: 0.02, 2: 0.05, 3: 0.1, 5: 0.2, 8: 0.4}[depth]
    epsilon = share**depth * theory.fixed_point(objective, depth, rho)
    dynamics = linear_dynamics(objective, depth, [1.0, 2.0, 0.5, 1.1], rho, epsilon)
    for fraction in (0.1, 0.5, 0.99):
        exact = critical_time(dynamics, fraction)
        level = fraction * theory.fixed_point(objective, depth, rho)
        around = exact[:, None] * [1 - 1e-6, 1 + 1e-6]
        times, place = np.unique(around, return_inverse=True)
        gains = theory.trajectories(dynamics, times)[place.reshape(4, 2), np.arange(4)[:, None]]
        assert (gains[:, 0] < level).all()
        assert (gains[:, 1] > level).all()


@settings(max_examples=8)
@given(objectives, depths, regressions, st.floats(0.3, 0.9), st.floats(0.2, 5))
def test_lambda_is_the_clock(objective, depth, regression, share, factor):
    """Multiplying lambda by c is running time c times as fast: the trajectory is the same."""
    slow = one_feature(objective, depth, 1.0, regression, share)
    fast = one_feature(objective, depth, factor, regression, share)
    times = critical_time(slow, 0.95) * np.array([0.5, 0.9, 1.5])
    np.testing.assert_allclose(
        theory.trajectories(fast, times / factor), theory.trajectories(slow, times), rtol=1e-5
    )


def test_crossing_times_are_exact_for_exponentials():
    """Log gain is interpolated: exact if it is linear in time; NaN where a level is not reached."""
    times = np.array([0.0, 1.0, 3.0])
    gains = np.exp(np.outer(times, [1.0, 2.0, 0.1]))
    found = theory.crossing_times(times, gains, np.exp([2.0, 0.0, 1.0]))
    np.testing.assert_allclose(found[:2], [2.0, 0.0], atol=1e-12)
    assert np.isnan(found[2])


@pytest.mark.parametrize(
    ("arguments", "fraction", "message"),
    [
        (("jepa", 2, 1.0, np.nan, 0.01), 0.5, r"regression \[nan\] must be finite and above 0"),
        (("jepa", 2, 1.0, [0.5, 0.1], 0.02), 0.5, r"0.02\] must be above 0 and below the fixed"),
        (("mae", 1, 1.0, 0.25, 0.5), 0.5, r"\[0.5\] must be .* below the fixed point \[0.5\]"),
        # The end is not reached, and the start must lie below the level.
        (("jepa", 2, 1.0, 0.5, 0.01), 1.0, "must be below 1, and no epsilon .* beyond it"),
        (("jepa", 2, 1.0, 0.5, 0.2), 0.5, "must be below 1, and no epsilon .* beyond it"),
        # Depth 8 from 0.001 of the layer's fixed point: the wait is 10^45 times the growth.
        (("jepa", 8, 1.0, 1.0, 1e-24), 0.5, "epsilon 1e-24 is too small for a trajectory at depth"),
    ],
)
def test_what_lies_outside_the_theory_is_refused(arguments, fraction, message):
    """With the reason."""
    with pytest.raises(ValueError, match=message):
        dynamics = linear_dynamics(*arguments)
        theory.trajectories(dynamics, critical_time(dynamics, fraction))


def quadrature(dynamics, fraction):
    """The integral over z = logit(u / u*), where the integrand is smooth and bounded."""
    depth = dynamics.depth
    end = dynamics.end ** (1 / depth)
    first, last = dynamics.epsilon ** (1 / depth), fraction ** (1 / depth) * end
    times = []
    for top, low, high in zip(end, first, last, strict=True):
        # In units of the integrand at its start, which may be 1e100.
        def integrand(z, top=top, low=low):
            share = 1 / (1 + np.exp(-z))
            rest = 1 if dynamics.objective == "jepa" else (1 - share) / (1 - share ** (depth + 1))
            return (top * share / low) ** -dynamics.power * rest

        ends = (np.log(u / (top - u)) for u in (low, high))
        value = quad(integrand, *ends, epsabs=0, epsrel=1e-11, limit=400)[0]
        times.append(value * low**-dynamics.power)
    return depth / dynamics.covariance * times


@given(objectives, depths, covariances, regressions, small_shares, fractions)
def test_the_closed_form_is_the_integral(objective, depth, covariance, regression, share, fraction):
    """Partial fractions and the hypergeometric function against quadrature, to 1e-9."""
    dynamics = one_feature(objective, depth, covariance, regression, share)
    np.testing.assert_allclose(
        critical_time(dynamics, fraction), quadrature(dynamics, fraction), rtol=1e-9
    )


@pytest.mark.parametrize(("depth", "epsilon", "jepa", "mae"), RATIOS)
def test_order_inverts_for_jepa_at_finite_epsilon(depth, epsilon, jepa, mae):
    """The table to its digits: JEPA above 1 means that the influential feature B comes first."""
    for objective, expected in (("jepa", jepa), ("mae", mae)):
        dynamics = linear_dynamics(objective, depth, [1.2, 1.0], [0.4, 0.9], epsilon)
        assert round(float(theory.order_ratio(dynamics, 0.5)[0]), 2) == expected


@given(st.integers(2, 8), covariances, regressions, st.floats(0.01, theory.SERIES_SHARE - 1e-6))
def test_the_series_is_good_where_it_is_allowed(depth, covariance, regression, share):
    """JEPA, half of the fixed point: within 0.1 %."""
    dynamics = one_feature("jepa", depth, covariance, regression, share)
    exact = critical_time(dynamics, 0.5)
    assert theory.series_is_valid(dynamics).all()
    np.testing.assert_allclose(theory.series_terms(dynamics).sum(0), exact, rtol=1e-3)


@given(st.integers(1, 8), covariances)
def test_the_leading_term_does_not_contain_rho(depth, covariance):
    """L / ((2L - 1) lambda epsilon^((2L-1)/L)), whatever rho is; the next one falls as 1 / rho."""
    epsilon = 0.02**depth
    terms = theory.series_terms(linear_dynamics("jepa", depth, covariance, [0.3, 0.9], epsilon))
    leading = depth / ((2 * depth - 1) * covariance * epsilon ** ((2 * depth - 1) / depth))
    np.testing.assert_allclose(terms[0], leading, rtol=1e-12)
    if depth > 1:
        assert terms[1, 0] / terms[1, 1] == pytest.approx(3.0, rel=1e-12)


@pytest.mark.parametrize("objective", ["jepa", "mae"])
@pytest.mark.parametrize("depth", [2, 3, 5])
def test_slopes_tend_to_those_of_the_leading_term(objective: str, depth: int):
    """d ln t / d ln epsilon, lambda and rho by finite differences, closer as epsilon falls."""
    predicted = theory.limit_slopes(objective, depth)

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
        theory.order_ratio(
            linear_dynamics(objective, depth, 1.0, [low, high], (0.1 * low) ** depth), 0.5
        )
        for objective in ("jepa", "mae")
    ]
    assert ratios[0] > 1
    assert ratios[0] > ratios[1]


@given(st.integers(2, 6), st.floats(1.05, 2), st.floats(0.25, 0.5), st.floats(0.6, 1.0))
def test_as_epsilon_vanishes_both_order_by_lambda(depth, lam, low, high):
    """t_A / t_B -> lambda_B / lambda_A: JEPA's inversion is an effect of a finite epsilon."""
    for objective in ("jepa", "mae"):
        dynamics = linear_dynamics(objective, depth, [lam, 1.0], [low, high], 1e-6**depth)
        assert theory.order_ratio(dynamics, 0.5) == pytest.approx([1 / lam], rel=1e-4)


@given(st.floats(0.01, 3), st.floats(0.05, 1), st.floats(1e-4, 0.49), st.floats(1.05, 3))
def test_one_layer_hardly_inverts(high, share_of_high, share, lam):
    """L = 1, p = ½: a lead in lambda of 5 % is never overcome, whatever rho_A < rho_B and epsilon.

    lambda t = (1 + h(epsilon / rho)) / epsilon with h(x) = x (ln(1/x - 1) - 2), which is at most
    0.0475, at x = 0.045; where h(x_A) is positive, so is h(x_B), and beyond it falls.
    """
    low = share_of_high * high
    dynamics = linear_dynamics("jepa", 1, [lam, 1.0], [low, high], share * low)
    assert theory.order_ratio(dynamics, 0.5)[0] < 1


def test_one_layer_inverts_a_very_small_lead():
    """A lead of 1 % is overcome at L = 1 too, by JEPA and not by MAE: "never" is not exact."""
    for objective, inverted in (("jepa", True), ("mae", False)):
        dynamics = linear_dynamics(objective, 1, [1.01, 1.0], [0.4, 0.9], 0.01)
        assert (theory.order_ratio(dynamics, 0.5)[0] > 1) == inverted
