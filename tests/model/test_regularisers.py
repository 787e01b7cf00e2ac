"""The statistical terms of JEPA's peers against closed forms and independent computations."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.stats import laplace
from torch import Tensor

from sparsejepa.model.jepa import RegulariserConfig
from sparsejepa.model.regularisers import (
    LAPLACE_SCALE,
    Regulariser,
    covariance_cost,
    epps_pulley,
    rectified_laplace,
    sliced_wasserstein,
    unit_vectors,
    variance_hinge,
)
from sparsejepa.randomness import generator

seeds = st.integers(0, 10**6)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "regularisers"))


def test_epps_pulley_is_its_integral():
    """N ∫ |φ_N - φ|² e^(-t²/2) dt over [-3, 3] by quadrature, to what 17 knots allow."""
    samples = 0.3 + 1.4 * normal(9).double()

    def integrand(t: float) -> float:
        values = torch.exp(1j * t * samples).mean().item()
        return abs(values - math.exp(-t * t / 2)) ** 2 * math.exp(-t * t / 2)

    expected = 9 * quad(integrand, -3, 3)[0]
    assert expected > 0.5
    for knots, error in ((17, 2e-3), (2001, 1e-6)):
        found = epps_pulley(samples.view(-1, 1), knots).item()
        assert found == pytest.approx(expected, rel=error)


def test_sigreg_knows_a_gaussian_batch():
    """A batch of N(0, I) costs about ∫ (1 - e^(-t²)) e^(-t²/2) dt; a collapsed one 30 times it."""
    term = Regulariser(RegulariserConfig("SIGReg"), seed=0)
    expected = math.sqrt(2 * math.pi) * (1 - 1 / math.sqrt(3))
    gaussian = [term(normal(200, 16, seed=s), s).item() for s in range(5)]
    assert sum(gaussian) / 5 == pytest.approx(expected, rel=0.1)
    one_channel = normal(200, 16) * (torch.arange(16) == 3)
    assert term(0 * one_channel, 0) > 30 * expected
    assert term(one_channel, 0) > 10 * expected


@given(seeds)
def test_sliced_wasserstein_sees_the_distribution_only(seed: int):
    """0 for the same rows in another order; |shift|²/d on average for a shift; symmetric."""
    rows = normal(12, 4, seed=seed)
    slices = unit_vectors(4, 300, generator(seed, "slices"))
    order = torch.randperm(12, generator=generator(seed, "order"))
    assert sliced_wasserstein(rows[order], rows, slices) < 1e-10
    shift = normal(4, seed=seed + 1)
    moved = sliced_wasserstein(rows + shift, rows, slices)
    torch.testing.assert_close(moved, (shift @ slices).square().mean(), rtol=1e-3, atol=1e-6)
    other = normal(12, 4, seed=seed + 2)
    one, two = (sliced_wasserstein(*pair, slices) for pair in ((rows, other), (other, rows)))
    torch.testing.assert_close(one, two)
    assert one > 1e-3


@pytest.mark.parametrize("location", [-1.0, 0.0, 0.5])
def test_rectified_laplace_has_the_stated_law(location: float):
    """E||z||₀ = D Φ(μ/σ) (papers' formula), mean and variance-1 scale as the Laplace law says."""
    drawn = rectified_laplace((400, 500), location, generator(3))
    law = laplace(location, LAPLACE_SCALE)
    assert law.var() == pytest.approx(1)
    active = laplace.cdf(location / LAPLACE_SCALE)
    assert (drawn > 0).float().mean().item() == pytest.approx(active, abs=0.005)
    mean = quad(lambda x: x * law.pdf(x), 0, 40, points=[0.5])[0]
    assert drawn.mean().item() == pytest.approx(mean, abs=0.01)


def test_rdmreg_prefers_what_it_asks_for():
    """Batches of the wanted law cost a tenth of dense, shifted and constant ones; ReLU is its."""
    term = Regulariser(RegulariserConfig("RDMReg", slices=128), seed=0)
    wanted = rectified_laplace((300, 8), 0.0, generator(9))
    cost = term(wanted, 0)
    assert torch.equal(term(torch.where(wanted > 0, wanted, -1.0), 0), cost)
    assert term.measures()["activation_density"] == pytest.approx(0.5, abs=0.03)
    for other in (0 * wanted, wanted + 1, normal(300, 8).abs()):
        assert term(other, 0) > 8 * cost


def test_vicreg_terms_against_hand_values():
    """Columns (0, 2), (1, 1), (0, 0.6): variances 2, 0, 0.18; covariance of 1 and 3 is 0.6."""
    rows = torch.tensor([[0.0, 1.0, 0.0], [2.0, 1.0, 0.6]])
    expected = (0 + (1 - 0.01) + (1 - math.sqrt(0.18 + 1e-4))) / 3
    assert variance_hinge(rows).item() == pytest.approx(expected, abs=1e-6)
    assert covariance_cost(rows).item() == pytest.approx(2 * 0.6**2 / 3, abs=1e-6)
    term = Regulariser(RegulariserConfig("VICReg"), seed=0)
    assert term(rows, 0).item() == pytest.approx(expected + 2 * 0.36 / 75, abs=1e-6)


@pytest.mark.parametrize("term", ["VICReg", "SIGReg", "RDMReg"])
def test_terms_are_functions_of_seed_and_step(term: str):
    """Equal draws for equal seed and step, others for others, and in float32 under autocast."""
    rows = normal(32, 8)
    one, two = (Regulariser(RegulariserConfig(term, slices=16), seed) for seed in (0, 1))
    value = one(rows, 4)
    assert torch.equal(one(rows, 4), value) and value.dtype == torch.float32
    for other in (one(rows, 5), two(rows, 4)):
        assert torch.equal(other, value) == (term == "VICReg")
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(one(rows, 4), value)
