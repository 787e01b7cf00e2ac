"""The equations of the deep linear theory: fixed points, the solver, and what is refused."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejepa.theory.critical_times import critical_time
from sparsejepa.theory.linear_dynamics import (
    crossing_times,
    fixed_point,
    flow_time,
    linear_dynamics,
    log_growth,
    trajectories,
)

OBJECTIVES = ["jepa", "mae"]
DEPTHS = [1, 2, 3, 5, 8]
objectives = st.sampled_from(OBJECTIVES)
depths = st.integers(1, 8)
covariances = st.floats(0.1, 3)
regressions = st.floats(0.2, 1.5)
shares = st.floats(0.01, 0.9)  # of epsilon^(1/L) in the layer's fixed point


def one_feature(objective, depth, covariance, regression, share):
    """A feature whose layers begin at `share` of their fixed point."""
    end = fixed_point(objective, depth, np.array([regression]))
    return linear_dynamics(objective, depth, covariance, regression, share**depth * end)


@given(objectives, depths, covariances, regressions)
def test_the_fixed_point_is_where_growth_ends(objective, depth, covariance, regression):
    """Growth is 0 at rho^L (JEPA) and rho^(L/(L+1)) (MAE), positive below and negative above."""
    dynamics = one_feature(objective, depth, covariance, regression, 0.5)
    end = regression**depth if objective == "jepa" else regression ** (depth / (depth + 1))
    assert fixed_point(objective, depth, np.array([regression])) == pytest.approx([end], rel=1e-14)
    scale = log_growth(dynamics, np.array([0.5 * end]))
    assert abs(log_growth(dynamics, np.array([end]))) < 1e-12 * max(1, scale[0])
    assert scale > 0 > log_growth(dynamics, np.array([1.1 * end]))


@given(objectives, depths, covariances, regressions, shares)
def test_growth_is_the_printed_equation(objective, depth, covariance, regression, share):
    """w · d ln w / dt = lambda (w^(3 - 1/L) - w³/rho), with 2 in place of 3 - 1 for MAE."""
    dynamics = one_feature(objective, depth, covariance, regression, share)
    w = dynamics.epsilon
    power = (3 if objective == "jepa" else 2) - 1 / depth
    printed = covariance * (w**power - w**3 / regression)
    np.testing.assert_allclose(w * log_growth(dynamics, w), printed, rtol=1e-9)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("depth", DEPTHS)
def test_the_solver_keeps_the_exact_times(objective: str, depth: int):
    """At the exact critical time less 1e-6 a gain is below its level, at plus 1e-6 above."""
    rho = np.array([0.3, 0.6, 1.0, 1.3])
    share = {1: 0.02, 2: 0.05, 3: 0.1, 5: 0.2, 8: 0.4}[depth]
    epsilon = share**depth * fixed_point(objective, depth, rho)
    dynamics = linear_dynamics(objective, depth, [1.0, 2.0, 0.5, 1.1], rho, epsilon)
    for fraction in (0.1, 0.5, 0.99):
        exact = critical_time(dynamics, fraction)
        level = fraction * fixed_point(objective, depth, rho)
        around = exact[:, None] * [1 - 1e-6, 1 + 1e-6]
        times, place = np.unique(around, return_inverse=True)
        gains = trajectories(dynamics, times)[place.reshape(4, 2), np.arange(4)[:, None]]
        assert (gains[:, 0] < level).all()
        assert (gains[:, 1] > level).all()


def test_trajectories_rise_from_epsilon_to_the_fixed_point():
    """Monotone between its two known ends, features side by side as each alone."""
    times = np.linspace(0, 3000, 50)
    both = trajectories(linear_dynamics("jepa", 2, [1.0, 1.0], [0.9, 0.5], 0.02), times)
    alone = trajectories(linear_dynamics("jepa", 2, 1.0, 0.5, 0.02), times)
    np.testing.assert_allclose(both[0], 0.02, rtol=1e-12)
    np.testing.assert_allclose(both[-1], [0.81, 0.25], rtol=1e-6)
    assert (np.diff(both, axis=0) > -1e-9).all()
    np.testing.assert_allclose(both[:, 1], alone[:, 0], rtol=1e-7)


@settings(max_examples=8)
@given(objectives, depths, regressions, st.floats(0.3, 0.9), st.floats(0.2, 5))
def test_lambda_is_the_clock(objective, depth, regression, share, factor):
    """Multiplying lambda by c is running time c times as fast: the trajectory is the same."""
    slow = one_feature(objective, depth, 1.0, regression, share)
    fast = one_feature(objective, depth, factor, regression, share)
    times = critical_time(slow, 0.95) * np.array([0.5, 0.9, 1.5])
    np.testing.assert_allclose(
        trajectories(fast, times / factor), trajectories(slow, times), rtol=1e-5
    )


def test_flow_time_is_that_of_the_layers():
    """One layer of L under gradient flow, solved on its own: w = u^L is reached L times sooner.

    JEPA, u' = lambda u^(2L) (1 - u / rho): with L = 1, u_0 = rho / 2 and p = ¾ the integral is
    [ln(u / (rho - u)) / rho² - 1 / (rho u)], which needs no rescaling; with L = 2 see the matrices.
    """
    rho = 0.8
    dynamics = linear_dynamics("jepa", 1, 1.0, rho, rho / 2)
    by_hand = np.log(3) / rho - (1 / 0.75 - 2) / rho
    assert critical_time(dynamics, 0.75) == pytest.approx([by_hand], rel=1e-9)
    assert flow_time(1, 6.0) == 6.0
    assert flow_time(3, 6.0) == 2.0


def test_crossing_times_are_exact_for_exponentials():
    """Log gain is interpolated: exact if it is linear in time; NaN where a level is not reached."""
    times = np.array([0.0, 1.0, 3.0])
    gains = np.exp(np.outer(times, [1.0, 2.0, 0.1]))
    found = crossing_times(times, gains, np.exp([2.0, 0.0, 1.0]))
    np.testing.assert_allclose(found[:2], [2.0, 0.0], atol=1e-12)
    assert np.isnan(found[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ijepa", 2, 1.0, 0.5, 0.01), "objective 'ijepa' is unknown"),
        (("jepa", 0, 1.0, 0.5, 0.01), "depth 0 must be at least 1"),
        (("jepa", 2, 1.0, -0.5, 0.01), "regression -0.5 must be finite and above 0"),
        (("mae", 2, [1.0, 0.0], 0.5, 0.01), "covariance 0.0 must be finite and above 0"),
        (("mae", 2, 1.0, 0.5, 0.0), "epsilon 0.0 must be finite and above 0"),
        (("mae", 2, 1.0, np.nan, 0.1), "regression nan must be finite and above 0"),
        (("jepa", 2, 1.0, [0.5, 0.1], 0.02), "0.02 must be below the fixed point 0.01 .*decays"),
        (("mae", 1, 1.0, 0.25, 0.5), "epsilon 0.5 must be below the fixed point 0.5"),
    ],
)
def test_what_lies_outside_the_theory_is_refused(arguments, message):
    """With the reason."""
    with pytest.raises(ValueError, match=message):
        linear_dynamics(*arguments)


def test_a_jump_is_no_trajectory():
    """Depth 8 from 0.001 of the layer's fixed point: the wait is 10^45 times the growth."""
    dynamics = linear_dynamics("jepa", 8, 1.0, 1.0, 1e-24)
    with pytest.raises(ValueError, match="epsilon 1e-24 is too small for a trajectory at depth 8"):
        trajectories(dynamics, np.array([1.0]))


@pytest.mark.parametrize("times", [[], [-1.0, 0.0], [0.0, 2.0, 2.0]])
def test_times_must_increase(times: list[float]):
    """From 0 on, without repetition."""
    with pytest.raises(ValueError, match="increasing numbers from 0 on"):
        trajectories(linear_dynamics("jepa", 2, 1.0, 0.5, 0.01), np.array(times))
