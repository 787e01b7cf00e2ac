import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.probing.collapse import feature_spread, rankme, spectrum, token_spread
from sparsejepa.randomness import generator


def with_spectrum(singular: torch.Tensor, rows: int = 200, seed: int = 0) -> torch.Tensor:
    """Centred features whose singular values are exactly these, in random directions."""
    draw, d = generator(seed, "features"), len(singular)
    left = torch.randn(rows, d, generator=draw, dtype=torch.float64)
    left = torch.linalg.qr(left - left.mean(0)).Q
    right = torch.linalg.qr(torch.randn(d, d, generator=draw, dtype=torch.float64)).Q
    return left * singular @ right.T


def test_isotropic_features_have_full_rank() -> None:
    """d equal singular values: RankMe is d; a large Gaussian sample comes within 1 %."""
    assert rankme(with_spectrum(torch.ones(24).double())) == pytest.approx(24, rel=1e-9)
    assert rankme(torch.randn(20_000, 24, generator=generator(0))) == pytest.approx(24, rel=0.01)


@pytest.mark.parametrize("rank", [1, 2, 5, 16])
def test_rank_r_gives_r(rank: int) -> None:
    """r equal singular values and zeros elsewhere: RankMe is r, in float32 features too."""
    z = with_spectrum((torch.arange(16) < rank).double())
    assert rankme(z) == pytest.approx(rank, rel=1e-6)
    assert rankme(z.float()) == pytest.approx(rank, rel=1e-4)


def test_known_spectrum_closed_form() -> None:
    """Singular values 4, 2, 1, 1: p = 1/2, 1/4, 1/8, 1/8 has entropy 7/4 log 2."""
    z = with_spectrum(torch.tensor([4.0, 2.0, 1.0, 1.0]).double())
    assert rankme(z) == pytest.approx(2**1.75, rel=1e-9)
    # Its covariance has their squares, from which the number would be another, 2.28.
    assert spectrum(z).mul(200).tolist() == pytest.approx([16, 4, 1, 1], rel=1e-9)


def test_agrees_with_singular_values() -> None:
    """The covariance route gives the numbers of an SVD of the centred features."""
    z = torch.randn(100, 12, generator=generator(1)) @ torch.randn(12, 12, generator=generator(2))
    singular = torch.linalg.svdvals(z.double() - z.double().mean(0))
    torch.testing.assert_close(spectrum(z), singular.square() / 100)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_rankme_ignores_mean_scale_and_rotation(mean: float, scale: float, seed: int) -> None:
    """A constant added to all images, a change of units and a rotation leave the rank alone."""
    z = with_spectrum(torch.linspace(1, 0.1, 6).double(), rows=40, seed=seed)
    draw = torch.randn(6, 6, generator=generator(seed, "rotation"), dtype=torch.float64)
    moved = scale * (z + mean) @ torch.linalg.qr(draw).Q
    assert rankme(moved) == pytest.approx(rankme(z), rel=1e-4)


def test_rankme_lies_between_one_and_the_smaller_side() -> None:
    """Three rows, centred, span two directions at most, whatever the width."""
    assert 1 <= rankme(torch.randn(3, 50, generator=generator(3))) <= 2 + 1e-9


def test_total_collapse_is_zero() -> None:
    """Features that are equal for all images: no spread, no rank, no number out of rounding."""
    z = torch.full((50, 8), 0.1).cumsum(dim=1)
    assert rankme(z) == 0.0
    assert feature_spread(z) == pytest.approx(0.0, abs=1e-12)


def test_feature_spread_by_hand() -> None:
    """Columns (0, 2) and (1, 7) have standard deviations 1 and 3: mean 2, at any offset."""
    z = torch.tensor([[0.0, 1.0], [2.0, 7.0]])
    assert feature_spread(z) == pytest.approx(2.0)
    assert feature_spread(z + 100) == pytest.approx(2.0)
    assert feature_spread(3 * z) == pytest.approx(6.0)


def test_token_spread_sees_what_feature_spread_does_not() -> None:
    """Equal tokens within images that differ: token spread 0; tokens (0, 2) everywhere: 1."""
    same = torch.randn(5, 1, 3, generator=generator(4)).expand(5, 4, 3)
    assert token_spread(same) == pytest.approx(0.0, abs=1e-12)
    assert feature_spread(same.flatten(0, 1)) > 0.1
    assert token_spread(torch.tensor([0.0, 2.0]).view(1, 2, 1).expand(5, 2, 3)) == 1.0


@pytest.mark.parametrize("measure", [rankme, feature_spread])
def test_refuses_the_undefined(measure) -> None:
    """One row has no spread, and NaN no rank."""
    with pytest.raises(ValueError, match="at least 2 rows"):
        measure(torch.ones(1, 4))
    with pytest.raises(ValueError, match="NaN"):
        measure(torch.full((5, 4), math.nan))
