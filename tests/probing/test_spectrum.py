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


@pytest.mark.parametrize("measure", [rankme, feature_spread, alpha_req, dead_channels])
def test_refuses_the_undefined(measure) -> None:
    """One row has no spread, and NaN no rank."""
    with pytest.raises(ValueError, match="at least 2 rows"):
        measure(torch.ones(1, 4))
    with pytest.raises(ValueError, match="NaN"):
        measure(torch.full((5, 4), math.nan))


def orthonormal(rows: int, columns: int, seed: int = 0) -> torch.Tensor:
    """Centred columns, orthonormal."""
    draw = torch.randn(rows, columns, generator=generator(seed, "columns"), dtype=torch.float64)
    return torch.linalg.qr(draw - draw.mean(0)).Q


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


@pytest.mark.parametrize("count", [1, 2, 5, 8])
def test_lidar_counts_the_directions_that_tell_groups_apart(count: int) -> None:
    """Planted groups that differ along r of 8 axes, alike: LiDAR is r."""
    z, index = planted(3.0 * (torch.arange(8) < count))
    assert lidar(z, index) == pytest.approx(count, rel=1e-6)


def test_lidar_closed_form_of_unequal_directions() -> None:
    """Variances 4, 2, 1, 1 of group means: shares 1/2, 1/4, 1/8, 1/8 have entropy 7/4 log 2.

    Their roots, which `rankme` takes, would give 3.7; their squares, as an analysis of the
    discriminants' covariance would see, 2.3.
    """
    z, index = planted(torch.tensor([4.0, 2, 1, 1, 0, 0]))
    assert lidar(z, index) == pytest.approx(2**1.75, rel=1e-6)


def test_lidar_measures_in_units_of_the_spread_inside_groups() -> None:
    """An axis whose means vary 100 times more, but whose inside does as well, counts no more."""
    z, index = planted(torch.ones(5))
    stretched = z * torch.tensor([10.0, 1, 1, 1, 1])
    assert lidar(stretched, index, 1e-9) == pytest.approx(5, rel=1e-6)


@settings(max_examples=20)
@given(st.floats(-1e2, 1e2), st.floats(1e-3, 1e3), st.integers(0, 2**32))
def test_lidar_ignores_mean_scale_rotation_and_names(mean, scale, seed) -> None:
    """Units, offsets and rotations leave LiDAR alone, and so do other names and orders of rows."""
    z, index = planted(torch.tensor([4.0, 2, 1, 0]), groups=12, seed=seed)
    rotation = torch.linalg.qr(
        torch.randn(4, 4, generator=generator(seed, "rotation"), dtype=torch.float64)
    ).Q
    order = torch.randperm(len(z), generator=generator(seed, "order"))
    moved = scale * (z + mean) @ rotation
    assert lidar(moved[order], 7 - 3 * index[order]) == pytest.approx(lidar(z, index), rel=1e-6)


def test_lidar_needs_true_groups() -> None:
    """The same rows in groups that mean nothing get the rank of noise, not that of the groups."""
    z, index = planted(3.0 * (torch.arange(8) < 2), groups=200)
    unrelated = index[torch.randperm(len(index), generator=generator(1))]
    assert lidar(z, index) == pytest.approx(2, rel=1e-6)
    assert lidar(z, unrelated) > 6


def test_lidar_without_any_spread_inside_groups() -> None:
    """Equal members: the regularisation stands in, and every direction of the means counts."""
    z, index = planted(torch.ones(4))
    means = torch.zeros(40, 4).double().index_add_(0, index, z) / 6
    assert lidar(means[index], index) == pytest.approx(4, rel=1e-6)
    assert lidar(torch.full((6, 3), 0.1), torch.arange(6) // 2) == 0.0


def test_lidar_refuses_what_is_no_grouping() -> None:
    """One group and a group of one are one-sentence errors."""
    z = torch.randn(6, 3, generator=generator(2))
    with pytest.raises(ValueError, match="all 6 rows are of one group"):
        lidar(z, torch.zeros(6, dtype=torch.long))
    with pytest.raises(ValueError, match="Group 9 has a single row"):
        lidar(z, torch.tensor([0, 0, 0, 4, 4, 9]))


@pytest.mark.parametrize("alpha", [0.0, 0.5, 1.0, 2.0])
def test_alpha_of_a_power_law_is_recovered(alpha: float) -> None:
    """Eigenvalues i^-alpha give alpha, in whatever range of ranks and in whatever units."""
    rank = torch.arange(1, 25, dtype=torch.float64)
    z = 7 * orthonormal(300, 24) * rank ** (-alpha / 2)
    assert alpha_req(z) == pytest.approx(alpha, abs=1e-9)
    assert alpha_req(z, 3, 12) == pytest.approx(alpha, abs=1e-9)


def test_alpha_weighs_every_doubling_alike() -> None:
    """A law of exponent 1 whose 32 last of 64 eigenvalues fall as i^-3: alpha stays below 2.

    The same line through unweighted points lies above: half of the points are in the tail.
    """
    rank = torch.arange(1, 65, dtype=torch.float64)
    values = torch.where(rank <= 32, 1 / rank, 32**2 / rank**3)
    z = orthonormal(300, 64) * values.sqrt()
    x, y = rank.log() - rank.log().mean(), values.log()
    unweighted = -((x * y).sum() / (x * x).sum()).item()
    assert 1 < alpha_req(z) < unweighted - 0.1


def test_alpha_does_not_see_the_direction_that_layer_norm_removes() -> None:
    """In float32 its eigenvalue is rounding, some 1e-15: it would bend the line."""
    rank = torch.arange(1, 25, dtype=torch.float64)
    z = orthonormal(300, 24) / rank
    null = torch.linalg.qr(torch.randn(25, 25, generator=generator(5)).double()).Q
    assert alpha_req((z @ null[:24]).float()) == pytest.approx(2.0, abs=1e-4)


def test_alpha_needs_two_directions() -> None:
    """One direction has no power law."""
    z = torch.randn(20, 1, generator=generator(3)) @ torch.ones(1, 4)
    with pytest.raises(ValueError, match="2 non-zero eigenvalues"):
        alpha_req(z)


def test_channel_spread_counts_the_channels_that_vary() -> None:
    """k of d channels vary alike: k / d; of variances 4 and 2 and 1 and 1 it is 49 / 88."""
    z = orthonormal(100, 8) * (torch.arange(8) < 3)
    assert channel_spread(z) == pytest.approx(3 / 8)
    assert dead_channels(z) == pytest.approx(5 / 8)
    four = orthonormal(100, 4) * torch.tensor([4.0, 2, 1, 1]).sqrt() + 5
    assert channel_spread(four) == pytest.approx(8**2 / 22 / 4)
    assert dead_channels(four) == 0.0


def test_channel_spread_sees_axes_and_rank_does_not() -> None:
    """One direction spread over all channels by a rotation: spread 1; along one axis: 1 / d."""
    one = torch.randn(50, 1, generator=generator(4), dtype=torch.float64)
    assert channel_spread(one @ torch.ones(1, 4).double()) == pytest.approx(1.0)
    assert channel_spread(one @ torch.eye(4).double()[:1]) == pytest.approx(0.25)


def test_collapse_has_no_spread() -> None:
    """Equal features: no channel carries anything, and rounding is no variance."""
    z = torch.full((50, 8), 0.1).cumsum(dim=1)
    assert channel_spread(z) == 0.0
    assert dead_channels(z) == 1.0


def test_the_table_leaves_out_what_is_undefined() -> None:
    """All measures of ordinary features; of a single direction, alpha is missing and no error."""
    z, index = planted(torch.ones(4))
    assert structure(z, z, index).keys() == {
        "rankme", "lidar", "alpha", "feature_spread", "channel_spread", "dead_channels",
    }  # fmt: skip
    line = z[:, :1] @ torch.ones(1, 4).double()
    assert "alpha" not in structure(line, line, index)
