"""Collapse, effective ranks and spreads: closed forms and invariances."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejepa.probing.spectrum import (
    alpha_req,
    channel_spread,
    dead_channels,
    feature_spread,
    lidar,
    rankme,
    spectrum,
    structure,
    token_spread,
)
from sparsejepa.randomness import generator


def orthonormal(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Centred, unless there are as many rows as columns."""
    draw = torch.randn(rows, columns, generator=generator(seed, "columns"), dtype=torch.float64)
    return torch.linalg.qr(draw - (draw.mean(0) if rows > columns else 0)).Q


def with_spectrum(singular: torch.Tensor, rows: int = 200, seed: int = 0) -> torch.Tensor:
    """Centred features whose singular values are exactly these, in random directions."""
    d = len(singular)
    return orthonormal(rows, d, seed) * singular @ orthonormal(d, d, seed).T


@pytest.mark.parametrize(
    ("singular", "rank"),
    [([1] * 24, 24), ([1] * 5 + [0] * 11, 5), ([1] + [0] * 15, 1), ([4, 2, 1, 1], 2**1.75)],
)
def test_rank_of_a_known_spectrum(singular: list[float], rank: float) -> None:
    """r equal singular values give r; shares 1/2, 1/4, 1/8, 1/8 have entropy 7/4 log 2."""
    z = with_spectrum(torch.tensor(singular).double())
    assert rankme(z) == pytest.approx(rank, rel=1e-6)
    assert rankme(z.float()) == pytest.approx(rank, rel=1e-4)
    assert spectrum(z).mul(200).tolist() == pytest.approx([s**2 for s in singular], abs=1e-9)


@given(st.floats(-1e3, 1e3), st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_rankme_ignores_mean_scale_and_rotation(mean: float, scale: float, seed: int) -> None:
    z = with_spectrum(torch.linspace(1, 0.1, 6).double(), rows=40, seed=seed)
    moved = scale * (z + mean) @ orthonormal(6, 6, seed + 1)
    assert rankme(moved) == pytest.approx(rankme(z), rel=1e-4)


def test_token_spread_sees_what_feature_spread_does_not() -> None:
    """Columns (0, 2) and (1, 7) deviate by 1 and 3, at any offset; equal tokens by nothing."""
    assert feature_spread(torch.tensor([[100.0, 1.0], [102.0, 7.0]])) == pytest.approx(2.0)
    same = torch.randn(5, 1, 3, generator=generator(4)).expand(5, 4, 3)
    assert token_spread(same) == pytest.approx(0.0, abs=1e-12)
    assert feature_spread(same.flatten(0, 1)) > 0.1
    assert token_spread(torch.tensor([0.0, 2.0]).view(1, 2, 1).expand(5, 2, 3)) == 1.0


@pytest.mark.parametrize("measure", [rankme, feature_spread, alpha_req, dead_channels])
def test_refuses_the_undefined(measure) -> None:
    with pytest.raises(ValueError, match="at least 2 rows"):
        measure(torch.ones(1, 4))
    with pytest.raises(ValueError, match="NaN"):
        measure(torch.full((5, 4), math.nan))


def planted(directions: torch.Tensor, groups: int = 40, members: int = 6, seed: int = 0):
    """Groups whose means have this variance along each axis, and isotropic variance 1 inside.

    Both are exact: means and deviations are orthogonal columns, not draws.
    """
    d = len(directions)
    means = orthonormal(groups, d, seed) * groups**0.5 * directions.sqrt()
    inside = torch.randn(groups, members, d, generator=generator(seed, "in"), dtype=torch.float64)
    inside = (inside - inside.mean(1, keepdim=True)).flatten(0, 1)
    inside = torch.linalg.qr(inside).Q * (groups * members) ** 0.5
    index = torch.arange(groups).repeat_interleave(members)
    return means[index] + inside, index


@pytest.mark.parametrize(
    ("directions", "count"),
    [([3.0] + [0] * 7, 1), ([3.0] * 5 + [0] * 3, 5), ([3.0] * 8, 8), ([4.0, 2, 1, 1, 0], 2**1.75)],
)
def test_lidar_counts_the_directions_that_tell_groups_apart(directions, count: float) -> None:
    """Their roots, which `rankme` takes, would give 3.7 in the last case, their squares 2.3."""
    z, index = planted(torch.tensor(directions))
    assert lidar(z, index) == pytest.approx(count, rel=1e-6)


def test_lidar_measures_in_units_of_the_spread_inside_groups() -> None:
    """An axis whose means vary 100 times more, but whose inside does as well, counts no more."""
    z, index = planted(torch.ones(5))
    stretched = z * torch.tensor([10.0, 1, 1, 1, 1])
    assert lidar(stretched, index, 1e-9) == pytest.approx(5, rel=1e-6)


@settings(max_examples=20)
@given(st.floats(-1e2, 1e2), st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_lidar_ignores_mean_scale_rotation_and_names(mean, scale, seed) -> None:
    z, index = planted(torch.tensor([4.0, 2, 1, 0]), groups=12, seed=seed)
    order = torch.randperm(len(z), generator=generator(seed, "order"))
    moved = scale * (z + mean) @ orthonormal(4, 4, seed + 1)
    assert lidar(moved[order], 7 - 3 * index[order]) == pytest.approx(lidar(z, index), rel=1e-6)


def test_lidar_without_any_spread_inside_groups() -> None:
    """Equal members: the regularisation stands in, and every direction of the means counts."""
    z, index = planted(torch.ones(4))
    means = torch.zeros(40, 4).double().index_add_(0, index, z) / 6
    assert lidar(means[index], index) == pytest.approx(4, rel=1e-6)
    assert lidar(torch.full((6, 3), 0.1), torch.arange(6) // 2) == 0.0


def test_lidar_refuses_what_is_no_grouping() -> None:
    z = torch.randn(6, 3, generator=generator(2))
    with pytest.raises(ValueError, match="all 6 rows are of one group"):
        lidar(z, torch.zeros(6, dtype=torch.long))
    with pytest.raises(ValueError, match="Group 9 has a single row"):
        lidar(z, torch.tensor([0, 0, 0, 4, 4, 9]))


@pytest.mark.parametrize("alpha", [0.0, 1.0, 2.0])
def test_alpha_of_a_power_law_is_recovered(alpha: float) -> None:
    """Also beside the direction that LayerNorm removes, in float32 some 1e-15 of rounding."""
    z = 7 * orthonormal(300, 24) * torch.arange(1, 25, dtype=torch.float64) ** (-alpha / 2)
    assert alpha_req(z) == pytest.approx(alpha, abs=1e-9)
    assert alpha_req((z @ orthonormal(25, 25, 5)[:24]).float()) == pytest.approx(alpha, abs=1e-4)


def test_channel_spread_counts_the_channels_that_vary() -> None:
    """k of d channels vary alike: k / d; of variances 4 and 2 and 1 and 1 it is 49 / 88."""
    z = orthonormal(100, 8) * (torch.arange(8) < 3)
    assert channel_spread(z) == pytest.approx(3 / 8)
    assert dead_channels(z) == pytest.approx(5 / 8)
    four = orthonormal(100, 4) * torch.tensor([4.0, 2, 1, 1]).sqrt() + 5
    assert (channel_spread(four), dead_channels(four)) == pytest.approx((8**2 / 22 / 4, 0.0))


def test_collapse_has_no_spread() -> None:
    """Equal features: no channel carries anything, and rounding is no variance."""
    z = torch.full((50, 8), 0.1).cumsum(dim=1)
    assert channel_spread(z) == rankme(z) == 0.0
    assert dead_channels(z) == 1.0
    assert feature_spread(z) == pytest.approx(0.0, abs=1e-12)


def test_the_table_leaves_out_what_is_undefined() -> None:
    z, index = planted(torch.ones(4))
    assert structure(z, z, index).keys() == {
        "rankme", "lidar", "alpha", "feature_spread", "channel_spread", "dead_channels",
    }  # fmt: skip
    line = z[:, :1] @ torch.ones(1, 4).double()
    assert "alpha" not in structure(line, line, index) and alpha_req(line) is None
