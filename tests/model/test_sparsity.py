"""Group penalties: the proximal step against what defines it, groups, and measures of sparsity."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize
from torch import Tensor

from sparsejepa.model.sparsity import (
    column_sparsity,
    group_column_norms,
    group_lasso,
    make_groups,
    proximal_step,
    strongest_group,
)
from sparsejepa.randomness import generator

KEYS = ["zero_columns", "small_columns", "groups_per_latent", "unread_latents", "hoyer"]
GROUPINGS = ["contiguous", "heads", "random"]


def matrices(seed: int, scale: float = 1.0) -> Tensor:
    """A weight of 6 channels and 5 latents."""
    return scale * torch.randn(6, 5, generator=generator(seed, "weight"))


def proximal(weight: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """`proximal_step`, on a copy."""
    stepped = weight.clone()
    proximal_step(stepped, groups, threshold)
    return stepped


def partition(seed: int) -> Tensor:
    """Three random groups of two channels."""
    return make_groups(6, 3, "random", 2, generator(seed, "partition"))


def objective(point: Tensor, weight: Tensor, groups: Tensor, threshold: float) -> float:
    """½||V - W||² + t · sum_g sum_k ||V^(g)_{.,k}||, in float64 and without the library."""
    point = point.double()
    penalty = sum(point[group].square().sum(0).sqrt().sum() for group in groups)
    return (0.5 * (point - weight.double()).square().sum() + threshold * penalty).item()


seeds = st.integers(0, 10**6)
thresholds = st.floats(0, 3)


@given(seeds, thresholds, st.sampled_from([0.0, 1.0, None]), st.floats(0.1, 1.5))
def test_proximal_step_is_the_argmin(seed, threshold, shrink, distance):
    """A 1-strongly convex f is least at p if and only if f(v) >= f(p) + ½||v - p||² for all v.

    Here v lies on the way from p to 0, to W, or to anywhere (None), or beyond.
    """
    weight, groups = matrices(seed), partition(seed)
    stepped = proximal(weight, groups, threshold)
    goal = matrices(seed + 1) if shrink is None else shrink * weight
    other = stepped + distance * (goal - stepped)
    gap = 0.5 * (other - stepped).double().square().sum().item()
    least = objective(stepped, weight, groups, threshold)
    assert objective(other, weight, groups, threshold) >= least + gap - 1e-5 * (1 + gap)


@pytest.mark.parametrize("threshold", [0.1, 0.8, 1.6])
def test_proximal_step_is_what_a_numeric_minimiser_finds(threshold: float):
    """Nelder-Mead, which knows no gradient and no formula, ends at the same point."""
    weight, groups = torch.tensor([[0.9, 0.2], [-1.2, 0.4]]), torch.tensor([[0, 1]])
    found = minimize(
        lambda v: objective(torch.from_numpy(v).view(2, 2), weight, groups, threshold),
        weight.numpy().astype(np.float64).ravel() / 2,
        method="Nelder-Mead",
        options={"xatol": 1e-8, "fatol": 1e-14, "maxiter": 4000, "maxfev": 4000},
    )
    stepped = proximal(weight, groups, threshold)
    np.testing.assert_allclose(found.x, stepped.ravel(), atol=2e-5)


@given(seeds, thresholds)
def test_threshold_is_in_units_of_the_norm(seed: int, threshold: float):
    """Norms shrink by exactly the threshold; those at most the threshold become exactly zero."""
    weight, groups = matrices(seed), partition(seed)
    before = group_column_norms(weight, groups)
    after = group_column_norms(proximal(weight, groups, threshold), groups)
    torch.testing.assert_close(after, (before - threshold).clamp(min=0), rtol=0, atol=1e-5)
    assert ((after == 0) == (before <= threshold)).all()


def test_threshold_equal_to_the_norm_gives_zero():
    """||w|| <= t includes equality: (3, 4) at t = 5; at t = 2.5 the half is left."""
    weight, groups = torch.tensor([[3.0], [4.0]]), torch.tensor([[0, 1]])
    assert proximal(weight, groups, 5.0).tolist() == [[0.0], [0.0]]
    assert proximal(weight, groups, 2.5).tolist() == [[1.5], [2.0]]


@given(seeds)
def test_zero_threshold_is_the_identity(seed: int):
    """To the bit; and a column that is zero stays zero, without a NaN."""
    weight, groups = matrices(seed), partition(seed)
    weight[:, 2] = 0
    assert torch.equal(proximal(weight, groups, 0.0), weight)
    assert (proximal(weight, groups, 0.3)[:, 2] == 0).all()


@given(seeds, thresholds, st.floats(0, 5))
def test_proximal_step_is_non_expansive(seed: int, threshold: float, scale: float):
    """||prox(a) - prox(b)|| <= ||a - b||."""
    groups, a, b = partition(seed), matrices(seed), matrices(seed + 1, scale)
    apart = (proximal(a, groups, threshold) - proximal(b, groups, threshold)).norm()
    assert apart <= (a - b).norm() * (1 + 1e-6) + 1e-6


@given(st.integers(1, 6), st.integers(1, 8), st.sampled_from(GROUPINGS), seeds)
def test_groups_are_a_partition(count: int, size: int, grouping: str, seed: int):
    """Every channel is in exactly one of equally large groups."""
    groups = make_groups(count * size, count, grouping, count, generator(seed))
    assert groups.shape == (count, size)
    assert groups.flatten().sort().values.tolist() == list(range(count * size))


def test_groupings():
    """Contiguous runs; one run a head, whatever `groups` says; or a draw of the generator."""
    assert make_groups(6, 3, "contiguous", 2, generator(0)).tolist() == [[0, 1], [2, 3], [4, 5]]
    assert make_groups(6, 3, "heads", 2, generator(0)).tolist() == [[0, 1, 2], [3, 4, 5]]
    drawn = [make_groups(64, 8, "random", 2, generator(seed)) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(
        drawn[0].sort(1).values, make_groups(64, 8, "contiguous", 2, generator(0))
    )


@pytest.mark.parametrize("count", [0, 4, 7])
def test_unequal_groups_are_refused(count: int):
    """6 channels have 1, 2, 3 or 6 groups of one size."""
    with pytest.raises(ValueError, match=f"6 channels can't be split into {count} groups"):
        make_groups(6, count, "contiguous", 2, generator(0))


def test_group_lasso_closed_form():
    """Columns (3, 4), (0, 5) and (5, 12), (8, 15) have norms 5, 5, 13, 17."""
    weight = torch.tensor([[3.0, 0.0], [5.0, 8.0], [4.0, 5.0], [12.0, 15.0]])
    groups = torch.tensor([[0, 2], [1, 3]])
    assert group_column_norms(weight, groups).tolist() == [[5, 5], [13, 17]]
    assert group_lasso(weight, groups).item() == 40


@given(seeds)
def test_group_lasso_sees_groups_only(seed: int):
    """Rotating the channels of one group changes nothing: no axis in a group is preferred."""
    weight, groups = matrices(seed), partition(seed)
    rotation, _ = torch.linalg.qr(torch.randn(2, 2, generator=generator(seed, "rotation")))
    turned = weight.clone()
    turned[groups[1]] = rotation @ weight[groups[1]]
    torch.testing.assert_close(
        group_column_norms(turned, groups), group_column_norms(weight, groups), rtol=1e-5, atol=1e-5
    )


def test_proximal_gradient_recovers_a_planted_pattern():
    """Regression with a block-sparse true weight: exactly the planted columns stay above zero."""
    groups = make_groups(6, 3, "contiguous", 2, generator(0))
    alive = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0]])
    truth = (2 + matrices(1).abs()) * alive.repeat_interleave(2, dim=0)
    inputs = torch.randn(400, 5, generator=generator(2))
    noise = 0.1 * torch.randn(400, 6, generator=generator(3))
    weight = matrices(4)
    for _ in range(200):
        residual = inputs @ weight.T - (inputs @ truth.T + noise)
        weight = weight - 0.3 * residual.T @ inputs / 400
        proximal_step(weight, groups, 0.3 * 0.1)
    assert torch.equal(group_column_norms(weight, groups) > 0, alive.bool())


def test_column_sparsity_closed_forms():
    """All equal: Hoyer 0; one left, or none: 1; shares are counted over group × latent columns."""
    equal, one, none = torch.full((2, 8), 3.0), torch.zeros(2, 8), torch.zeros(2, 8)
    one[1, 5] = 0.2
    assert column_sparsity(equal) == pytest.approx(
        dict(zip(KEYS, [0, 0, 2, 0, 0], strict=True)), abs=1e-7
    )
    assert column_sparsity(one) == pytest.approx(
        dict(zip(KEYS, [15 / 16, 15 / 16, 1 / 8, 7 / 8, 1], strict=True))
    )
    assert column_sparsity(none) == pytest.approx(dict(zip(KEYS, [1, 1, 0, 1, 1], strict=True)))
    one[0, 2] = 0.2 * 0.009
    assert column_sparsity(one)["zero_columns"] == 14 / 16
    assert column_sparsity(one)["small_columns"] == 15 / 16


@given(seeds, st.floats(1e-3, 1e3))
def test_no_scale_feigns_sparsity(seed: int, scale: float):
    """A smaller weight is no sparser one."""
    weight, groups = proximal(matrices(seed), partition(seed), 0.8), partition(seed)
    scaled = column_sparsity(group_column_norms(weight * scale, groups))
    assert scaled == pytest.approx(column_sparsity(group_column_norms(weight, groups)), abs=1e-5)


def test_the_strongest_group_of_each_latent():
    """By hand: the row of the largest norm; -1 for a latent that no group reads."""
    norms = torch.tensor([[0.0, 2.0, 0.1], [0.0, 1.0, 0.2]])
    assert strongest_group(norms).tolist() == [-1, 0, 1]
