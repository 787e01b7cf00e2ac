"""Gradient descent on the matrices: derivatives, symmetries, and the flow that it approaches."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejepa.randomness import generator
from sparsejepa.theory.linear_dynamics import (
    critical_time,
    linear_dynamics,
    trajectories,
)
from sparsejepa.theory.linear_networks import (
    Moments,
    gradient_descent,
    imbalance,
    initial_network,
    minibatch,
    product,
    sample_moments,
)

OBJECTIVES = ["jepa", "mae"]
LAMBDA, RHO = np.array([1.0, 0.7]), np.array([0.9, 0.6])
# epsilon^(1/L) by depth: features take tens of units of time, not thousands.
START = {1: 0.1, 2: 0.4, 3: 0.4}


def diagonal_moments() -> Moments:
    return Moments(torch.from_numpy(LAMBDA / RHO).diag(), torch.from_numpy(LAMBDA).diag())


def loss(objective: str, network: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """½ mean ||V W x - target||², as it is written, for autograd."""
    encoder = product(network[:-1])
    target = (y @ encoder.T).detach() if objective == "jepa" else y
    return 0.5 * (x @ encoder.T @ network[-1].T - target).square().sum(1).mean()


def gradients(objective: str, network: torch.Tensor, moments: Moments) -> torch.Tensor:
    """The derivatives that one step of size 1 has subtracted."""
    return (
        network
        - gradient_descent(objective, network, moments, step_size=1.0, steps=1, every=1).last
    )


def run(objective, start="aligned", depth=2, step_size=0.1, seed=0, time=None, every=1):
    """Descent on the two diagonal features, past their critical times."""
    dynamics = linear_dynamics(objective, depth, LAMBDA, RHO, START[depth] ** depth)
    time = time or 1.5 * critical_time(dynamics, 0.9).max()
    network = initial_network(
        objective, start, 2, depth, START[depth] ** depth, generator(seed, "start")
    )
    steps = int(time / depth / step_size)
    return dynamics, gradient_descent(
        objective, network, diagonal_moments(), step_size=step_size, steps=steps, every=every
    )


@settings(max_examples=15)
@given(st.sampled_from(OBJECTIVES), st.integers(1, 4), st.integers(1, 4), st.integers(0, 10**6))
def test_gradients_are_those_of_autograd(objective, depth, dimension, seed):
    """For JEPA with the target behind a stop-gradient, on samples whose moments do not commute."""
    x, y = torch.randn(2, 7, dimension, generator=generator(seed, "xy"), dtype=torch.float64)
    network = initial_network(
        objective, "gaussian", dimension, depth, 0.5, generator(seed, "start")
    )
    leaf = network.clone().requires_grad_()
    expected = torch.autograd.grad(loss(objective, leaf, x, y), leaf)[0]
    found = gradients(objective, network, sample_moments(x, y))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-12)


@settings(max_examples=15)
@given(st.sampled_from(OBJECTIVES), st.integers(1, 4), st.integers(0, 10**6))
def test_the_flow_keeps_the_imbalance(objective, depth, seed):
    """d/dt (W_{a+1}^T W_{a+1} - W_a W_a^T) = 0, V above W_L included, for any moments and start."""
    network = initial_network(objective, "gaussian", 3, depth, 0.5, generator(seed, "start"))
    draws = torch.randn(2, 8, 3, generator=generator(seed, "xy"), dtype=torch.float64)
    # Neither symmetric nor commuting.
    change = gradients(objective, network, sample_moments(draws[0], draws[1] + draws[0]))
    upper = change[1:].mT @ network[1:]
    lower = change[:-1] @ network[:-1].mT
    torch.testing.assert_close(upper + upper.mT, lower + lower.mT, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_descent_tends_to_the_flow_at_first_order(objective: str):
    """The largest distance from the solved equation halves with the step size.

    This also fixes the clock: recorded times are depth x learning rate x steps.
    """
    errors = []
    for step_size in (0.08, 0.04, 0.02):
        dynamics, descent = run(objective, step_size=step_size, every=max(1, int(0.4 / step_size)))
        gains = descent.encoders.norm(dim=1).numpy()
        errors.append(abs(gains - trajectories(dynamics, descent.times.numpy())).max())
    slopes = np.diff(np.log(errors)) / np.log(0.5)
    np.testing.assert_allclose(slopes, 1, atol=0.1)
    assert errors[-1] < 0.02


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_only_an_aligned_start_decouples(objective: str):
    """V W (MAE), or V where W takes the features (JEPA), stays diagonal; from a random V it is not.

    The random V is orthogonal too, and balanced: balance alone is not enough.
    """
    off_diagonal = []
    for start in ("aligned", "orthogonal"):
        _, descent = run(objective, start, time=30.0 if objective == "jepa" else 5.0)
        encoder, head = descent.encoders[-1], descent.heads[-1]
        seen = encoder.T @ head @ encoder if objective == "jepa" else head @ encoder
        off_diagonal.append((seen[0, 1].abs() / seen.diagonal().abs().min()).item())
    assert off_diagonal[0] < 1e-9
    assert off_diagonal[1] > 0.05


def test_starts_are_what_they_say():
    """Singular values epsilon^(1/L), V as alignment asks, imbalance only where it is announced."""
    one = torch.eye(4).double()
    for objective in OBJECTIVES:
        network = initial_network(objective, "aligned", 4, 3, 1e-3, generator(0, "start"))
        torch.testing.assert_close(network @ network.mT, 0.01 * one.expand(4, 4, 4))
        aligned = product(network) if objective == "mae" else 1e-3 * network[-1]
        torch.testing.assert_close(aligned, 1e-4 * one)
    tilted = initial_network("jepa", "unbalanced", 4, 3, 1e-3, generator(0, "start"))
    whole = product(tilted[:-1])
    torch.testing.assert_close(whole @ whole.T, 1e-6 * one)
    assert imbalance(tilted).abs().max() > 1e-3
    gaussian = initial_network("jepa", "gaussian", 60, 3, 1e-3, generator(0, "start"))
    assert gaussian.std().item() == pytest.approx(0.1 / 60**0.5, rel=0.05)


def test_a_batch_of_all_samples_is_the_full_batch():
    """A step on samples is a step on their moments; minibatches repeat with their generator."""
    x, y = torch.randn(2, 50, 3, generator=generator(1, "xy"), dtype=torch.float64)
    network = initial_network("jepa", "aligned", 3, 2, 0.04, generator(0, "start"))
    options = {"step_size": 0.05, "steps": 30, "every": 10}
    draws = [partial(minibatch, x, y, 8, generator(seed, "batches")) for seed in (0, 0, 1)]
    runs = [gradient_descent("jepa", network, draw, **options) for draw in draws]
    assert torch.equal(runs[0].encoders, runs[1].encoders)
    assert not torch.equal(runs[0].encoders, runs[2].encoders)
    assert runs[0].times.tolist() == pytest.approx([0, 1, 2, 3])
    one = x[:1], y[:1]
    draw = partial(minibatch, *one, 1, generator(0, "batches"))
    full = gradient_descent("mae", network, sample_moments(*one), **options)
    assert torch.equal(gradient_descent("mae", network, draw, **options).encoders, full.encoders)


def test_divergence_is_an_error():
    """Not a figure with gaps."""
    network = initial_network("mae", "aligned", 2, 2, 0.1, generator(0, "start"))
    options = {"steps": 500, "every": 1}
    with pytest.raises(FloatingPointError, match="diverged at step_size 50.0"):
        gradient_descent("mae", network, diagonal_moments(), step_size=50.0, **options)


# Scalar feature with lambda = 1 and rho = 0.5. Origin: gradient flow in a separate program.
@pytest.mark.parametrize(
    ("objective", "depth", "gain", "head"),
    [("jepa", 1, 0.5, 0.5), ("jepa", 2, 0.25, 0.5), ("mae", 1, 0.7071, 0.7071),
     ("mae", 2, 0.6300, 0.7937)],
)  # fmt: skip
def test_jepa_ends_at_v_rho_and_mae_at_v_w_rho(objective, depth, gain, head):
    """Both objectives end at the regression coefficient, but not the same quantity does."""
    moments = Moments(torch.tensor([[2.0]]).double(), torch.tensor([[1.0]]).double())
    network = initial_network(objective, "aligned", 1, depth, 0.1, generator(0, "start"))
    options = {"step_size": 0.05, "steps": 20_000, "every": 20_000}
    found = gradient_descent(objective, network, moments, **options)
    w, v = found.encoders[-1].abs().item(), found.heads[-1].abs().item()
    assert (w, v) == pytest.approx((gain, head), abs=1e-4)
    assert (v if objective == "jepa" else v * w) == pytest.approx(0.5, abs=1e-6)
