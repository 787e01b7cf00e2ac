"""Gradient descent on the matrices, the flow that it approaches, and moments that don't commute."""

from functools import partial

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejepa.randomness import generator
from sparsejepa.theory import linear_dynamics as theory
from sparsejepa.theory import linear_networks as networks
from sparsejepa.theory.linear_dynamics import critical_time, linear_dynamics
from sparsejepa.theory.linear_networks import Moments, gradient_descent, product, sample_moments

OBJECTIVES = ["jepa", "mae"]
LAMBDA, RHO = np.array([1.0, 0.7]), np.array([0.9, 0.6])
DIAGONAL = Moments(torch.from_numpy(LAMBDA / RHO).diag(), torch.from_numpy(LAMBDA).diag())
# At depth 2: features take tens of units of time, not thousands.
EPSILON = 0.4**2
# Of two features that a turn couples.
TURNED = torch.tensor([[1.2, 1.0], [0.4, 0.9]], dtype=torch.float64)
objectives, depths, seeds = st.sampled_from(OBJECTIVES), st.integers(1, 4), st.integers(0, 10**6)


def begin(objective: str, start: str, dimension: int, depth: int, epsilon: float, seed: int = 0):
    source = generator(seed, "start")
    return networks.initial_network(objective, start, dimension, depth, epsilon, source)


def gradients(objective: str, network: torch.Tensor, moments: Moments) -> torch.Tensor:
    """The derivatives that one step of size 1 has subtracted."""
    step = {"step_size": 1.0, "steps": 1, "every": 1}
    return network - gradient_descent(objective, network, moments, **step).last


def run(objective, start="aligned", step_size=0.1, time=None, every=1):
    """Descent on the two diagonal features at depth 2, past their critical times."""
    dynamics = linear_dynamics(objective, 2, LAMBDA, RHO, EPSILON)
    time = time or 1.5 * critical_time(dynamics, 0.9).max()
    options = {"step_size": step_size, "steps": int(time / 2 / step_size), "every": every}
    network = begin(objective, start, 2, 2, EPSILON)
    return dynamics, gradient_descent(objective, network, DIAGONAL, **options)


@settings(max_examples=15)
@given(objectives, depths, st.integers(1, 4), seeds)
def test_gradients_are_those_of_autograd(objective, depth, dimension, seed):
    """Of ½ mean ||V W x - target||², JEPA's behind a stop-gradient; moments do not commute."""
    x, y = torch.randn(2, 7, dimension, generator=generator(seed, "xy"), dtype=torch.float64)
    network = begin(objective, "gaussian", dimension, depth, 0.5, seed)
    leaf = network.clone().requires_grad_()
    encoder = product(leaf[:-1])
    target = (y @ encoder.T).detach() if objective == "jepa" else y
    loss = 0.5 * (x @ encoder.T @ leaf[-1].T - target).square().sum(1).mean()
    found = gradients(objective, network, sample_moments(x, y))
    torch.testing.assert_close(found, torch.autograd.grad(loss, leaf)[0], rtol=1e-10, atol=1e-12)


@settings(max_examples=15)
@given(objectives, depths, seeds)
def test_the_flow_keeps_the_imbalance(objective, depth, seed):
    """d/dt (W_{a+1}^T W_{a+1} - W_a W_a^T) = 0, V above W_L included, for any moments and start."""
    network = begin(objective, "gaussian", 3, depth, 0.5, seed)
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
        errors.append(abs(gains - theory.trajectories(dynamics, descent.times.numpy())).max())
    np.testing.assert_allclose(np.diff(np.log(errors)) / np.log(0.5), 1, atol=0.1)
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
        network = begin(objective, "aligned", 4, 3, 1e-3)
        torch.testing.assert_close(network @ network.mT, 0.01 * one.expand(4, 4, 4))
        aligned = product(network) if objective == "mae" else 1e-3 * network[-1]
        torch.testing.assert_close(aligned, 1e-4 * one)
    tilted = begin("jepa", "unbalanced", 4, 3, 1e-3)
    whole = product(tilted[:-1])
    torch.testing.assert_close(whole @ whole.T, 1e-6 * one)
    assert networks.imbalance(tilted).abs().max() > 1e-3
    gaussian = begin("jepa", "gaussian", 60, 3, 1e-3)
    assert gaussian.std().item() == pytest.approx(0.1 / 60**0.5, rel=0.05)


def test_a_batch_of_all_samples_is_the_full_batch():
    """A step on samples is a step on their moments; minibatches repeat with their generator."""
    x, y = torch.randn(2, 50, 3, generator=generator(1, "xy"), dtype=torch.float64)
    network = begin("jepa", "aligned", 3, 2, 0.04)
    options = {"step_size": 0.05, "steps": 30, "every": 10}
    draws = [partial(networks.minibatch, x, y, 8, generator(s, "batches")) for s in (0, 0, 1)]
    runs = [gradient_descent("jepa", network, draw, **options) for draw in draws]
    assert torch.equal(runs[0].encoders, runs[1].encoders)
    assert not torch.equal(runs[0].encoders, runs[2].encoders)
    assert runs[0].times.tolist() == pytest.approx([0, 1, 2, 3])
    one = x[:1], y[:1]
    draw = partial(networks.minibatch, *one, 1, generator(0, "batches"))
    single, full = (
        gradient_descent("mae", network, data, **options) for data in (draw, sample_moments(*one))
    )
    assert torch.equal(single.encoders, full.encoders)


def test_divergence_is_an_error():
    """Not a figure with gaps."""
    network = begin("mae", "aligned", 2, 2, 0.1)
    with pytest.raises(FloatingPointError, match="diverged at step_size 50.0"):
        gradient_descent("mae", network, DIAGONAL, step_size=50.0, steps=500, every=1)


# Scalar feature with lambda = 1 and rho = 0.5. Origin: gradient flow in a separate program.
@pytest.mark.parametrize(
    ("objective", "depth", "gain", "head"),
    [("jepa", 1, 0.5, 0.5), ("jepa", 2, 0.25, 0.5), ("mae", 1, 0.7071, 0.7071),
     ("mae", 2, 0.6300, 0.7937)],
)  # fmt: skip
def test_jepa_ends_at_v_rho_and_mae_at_v_w_rho(objective, depth, gain, head):
    """Both objectives end at the regression coefficient, but not the same quantity does."""
    moments = Moments(torch.tensor([[2.0]]).double(), torch.tensor([[1.0]]).double())
    options = {"step_size": 0.05, "steps": 20_000, "every": 20_000}
    network = begin(objective, "aligned", 1, depth, 0.1)
    found = gradient_descent(objective, network, moments, **options)
    w, v = found.encoders[-1].abs().item(), found.heads[-1].abs().item()
    assert (w, v) == pytest.approx((gain, head), abs=1e-4)
    assert (v if objective == "jepa" else v * w) == pytest.approx(0.5, abs=1e-6)


@pytest.mark.parametrize("persistence", [(1.0, 1.0), (0.9, 0.6)])
def test_samples_have_the_stated_moments(persistence: tuple[float, float]):
    """E[x y] = lambda and E[x y] / E[x²] = rho within 5 standard errors, for y too."""
    signal, noise = np.array([1.0, 3.0]), np.array([0.5, 9.0])
    model, count = networks.FeatureModel(signal, noise, np.array(persistence)), 40_000
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
    moments = networks.turned_moments(*TURNED, degrees)
    _, regression, directions = networks.generalised_features(moments)
    left = moments.yx @ directions
    right = moments.xx @ directions * regression
    torch.testing.assert_close(left, right, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(directions.norm(dim=0), torch.ones(2).double())
    # det(S_yx S_xx^-1) = det S_yx / det S_xx, and a turn keeps det S_xx.
    assert regression.prod().item() == pytest.approx(TURNED[1].prod().item(), rel=1e-10)


def test_without_a_turn_both_readings_are_the_features():
    """At 0 degrees nothing is coupled."""
    moments = networks.turned_moments(*TURNED, 0.0)
    for read in (networks.diagonal_features, networks.generalised_features):
        torch.testing.assert_close(torch.stack(read(moments)[:2]), TURNED)


@pytest.mark.parametrize(("objective", "time"), [("jepa", 1500.0), ("mae", 60.0)])
def test_coupled_features_end_at_the_generalised_rho(objective, time):
    """At 20 degrees V (JEPA) and V W (MAE) have the eigenvalues of S_yx S_xx^-1, not its diagonal.

    And critical times follow the pairs, within 5 % and closer than the diagonal reading.
    """
    depth, epsilon = 2, 0.02
    moments = networks.turned_moments(*TURNED, 20.0)
    *pair, directions = networks.generalised_features(moments)
    options = {"step_size": 0.2, "steps": int(time / depth / 0.2), "every": 1}
    start = begin(objective, "aligned", 2, depth, epsilon)
    descent = gradient_descent(objective, start, moments, **options)
    values = networks.learned_values(objective, descent, moments, directions)
    np.testing.assert_allclose(values[-1], pair[1], rtol=0.01)
    level = 0.5 ** (1 / depth if objective == "jepa" else (depth + 1) / depth) * pair[1]
    measured = theory.crossing_times(descent.times.numpy(), values.numpy(), level.numpy())
    errors = []
    for read in (pair, networks.diagonal_features(moments)):
        dynamics = linear_dynamics(objective, depth, *(one.numpy() for one in read), epsilon)
        errors.append(abs(measured / critical_time(dynamics, 0.5) - 1).max())
    assert errors[0] < min(0.05, errors[1])
