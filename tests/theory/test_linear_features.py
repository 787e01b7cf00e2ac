"""Generative models of features, and pairs of features whose moments do not commute."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejepa.randomness import generator
from sparsejepa.theory.linear_dynamics import critical_time, crossing_times, linear_dynamics
from sparsejepa.theory.linear_networks import (
    FeatureModel,
    diagonal_features,
    generalised_features,
    gradient_descent,
    initial_network,
    learned_values,
    sample_moments,
    turned_moments,
)

LAMBDA = torch.tensor([1.2, 1.0], dtype=torch.float64)
RHO = torch.tensor([0.4, 0.9], dtype=torch.float64)
DEPTH, EPSILON = 2, 0.02


@pytest.mark.parametrize("dynamic", [False, True])
def test_samples_have_the_stated_moments(dynamic: bool):
    """E[x y] = lambda and E[x y] / E[x²] = rho within 5 standard errors, for y too."""
    signal, noise = np.array([1.0, 3.0]), np.array([0.5, 9.0])
    persistence = np.array([0.9, 0.6]) if dynamic else np.ones(2)
    model = FeatureModel(signal, noise, persistence)
    count = 40_000
    x, y = model.sample(count, generator(0, "pairs"))
    moments, variance = sample_moments(x, y), signal + noise
    error = 5 * 2**0.5 * variance / count**0.5
    assert (abs(moments.yx.diagonal().numpy() - model.covariance) < error).all()
    assert (abs(moments.xx.diagonal().numpy() - variance) < error).all()
    assert (abs(y.var(0).numpy() - variance) < error).all()
    np.testing.assert_allclose(model.regression, model.covariance / variance, rtol=1e-12)
    np.testing.assert_allclose(model.covariance, persistence * signal, rtol=1e-12)
    assert abs(moments.yx[0, 1]) < error.max()


@settings(max_examples=20)
@given(st.floats(0, 90))
def test_generalised_pairs_are_eigenpairs(degrees):
    """S_yx e = rho S_xx e for unit e; trace and determinant of the regression matrix are kept."""
    moments = turned_moments(LAMBDA, RHO, degrees)
    _, regression, directions = generalised_features(moments)
    left = moments.yx @ directions
    right = moments.xx @ directions * regression
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(2).double())
    # det(S_yx S_xx^-1) = det S_yx / det S_xx, and a turn keeps det S_xx.
    assert regression.prod().item() == pytest.approx(RHO.prod().item(), rel=1e-10)


def test_without_a_turn_both_readings_are_the_features():
    """At 0 degrees nothing is coupled."""
    moments = turned_moments(LAMBDA, RHO, 0.0)
    for pair in (diagonal_features(moments), generalised_features(moments)):
        torch.testing.assert_close(pair[0], LAMBDA)
        torch.testing.assert_close(pair[1], RHO)


@pytest.mark.parametrize(("objective", "time"), [("jepa", 1500.0), ("mae", 60.0)])
def test_coupled_features_end_at_the_generalised_rho(objective, time):
    """At 20 degrees V (JEPA) and V W (MAE) have the eigenvalues of S_yx S_xx^-1, not its diagonal.

    And critical times follow the pairs, within 5 % and closer than the diagonal reading.
    """
    moments = turned_moments(LAMBDA, RHO, 20.0)
    *pair, directions = generalised_features(moments)
    start = initial_network(objective, "aligned", 2, DEPTH, EPSILON, generator(0, "start"))
    descent = gradient_descent(
        objective, start, moments, step_size=0.2, steps=int(time / DEPTH / 0.2), every=1
    )
    values = learned_values(objective, descent, moments, directions)
    np.testing.assert_allclose(values[-1], pair[1], rtol=0.01)
    level = 0.5 ** (1 / DEPTH if objective == "jepa" else (DEPTH + 1) / DEPTH) * pair[1]
    measured = crossing_times(descent.times.numpy(), values.numpy(), level.numpy())
    errors = {}
    for name, read in (("pairs", pair), ("diagonal", diagonal_features(moments))):
        dynamics = linear_dynamics(objective, DEPTH, *(one.numpy() for one in read), EPSILON)
        errors[name] = abs(measured / critical_time(dynamics, 0.5) - 1).max()
    assert errors["pairs"] < 0.05
    assert errors["pairs"] < errors["diagonal"]
