"""total = between + within, for every partition; what overlap does; random partitions."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsejepa.information.multiinformation import (
    AmongRandom,
    decompose,
    groups_of,
    random_partitions,
    total_correlation,
)
from sparsejepa.randomness import generator
from tests.information.known import block_truth, gaussian_rows, interval_hit, random_correlation

seeds = st.integers(0, 10**6)


def planted() -> torch.Tensor:
    """Three blocks of three columns, correlated .8 inside and not at all across."""
    correlation = torch.block_diag(*[torch.full((3, 3), 0.8).double()] * 3)
    return gaussian_rows(1500, correlation + 0.2 * torch.eye(9).double(), "planted")


@given(seeds, st.sampled_from(["gaussian", "copula", "discrete"]), st.integers(1, 6))
@settings(max_examples=25)
def test_the_split_is_an_identity(seed: int, method: str, count: int):
    """It adds up to rounding for any partition of any columns: grouping "reduces" always."""
    x = gaussian_rows(400, random_correlation(6, "split", seed), "split", seed)
    x = (x > 0).long() if method == "discrete" else x
    labels = torch.randint(count, (6,), generator=generator(seed, "labels"))
    split = decompose(x, groups_of(labels), method)
    assert abs(split.remainder) < 1e-10
    assert split.total == total_correlation(x, method)
    if count == 1:
        assert abs(split.between.value) < 1e-12


@pytest.mark.parametrize(
    ("method", "groups"), [("gaussian", [[0, 4], [1, 2, 5], [3]]), ("ksg", [[0, 1], [2, 3]])]
)
def test_between_and_within_are_those_of_the_blocks(method: str, groups: list[list[int]]):
    """By determinants; the terms of KSG are separate estimates, whose sum is nearly right."""
    correlation = random_correlation(sum(map(len, groups)), "blocks")
    split = decompose(gaussian_rows(2000, correlation, "blocks"), groups, method)
    assert interval_hit(split.between, block_truth(correlation, groups), 0.997)
    for group, part in zip(groups, split.within, strict=True):
        inner = block_truth(correlation[group][:, group], [[i] for i in range(len(group))])
        assert interval_hit(part, inner, 0.997) and part.d == len(group)
    assert abs(split.remainder) < (0.1 if method == "ksg" else 1e-10)


def test_overlap_is_the_counterexample():
    """Independent columns, one of them in two groups: 0 in all, infinite between the groups.

    Of fair bits the groups share exactly the entropy of the common one, ln 2.
    """
    x = gaussian_rows(1000, torch.eye(3).double(), "overlap")
    split = decompose(x, [[0, 1], [1, 2]], "gaussian", overlapping=True)
    assert split.between.value == math.inf and abs(split.total.value) < 0.01
    bits = torch.randint(2, (4000, 3), generator=generator(0, "fair"))
    split = decompose(bits, [[0, 1], [1, 2]], "discrete", overlapping=True)
    assert interval_hit(split.between, math.log(2)) and interval_hit(split.total, 0.0)


def test_a_planted_partition_stands_out():
    """Groups of dependent columns leave less between them than any random ones; across, more."""
    x = planted()
    own = random_partitions(x, [[0, 1, 2], [3, 4, 5], [6, 7, 8]], "copula", 99, generator(0))
    assert own.rank == 0.0 and own.p_value == pytest.approx(0.02)
    total = total_correlation(x, "copula").value
    assert own.own < 0.05 < own.random.min() and (own.random <= total + 0.05).all()
    across = random_partitions(x, [[0, 3, 6], [1, 4, 7], [2, 5, 8]], "copula", 99, generator(0))
    assert across.rank > 0.85
    some = random_partitions(x, [[3], [4], [5]], "gaussian", 200, generator(1))
    assert some.rank > 0.95
    assert some.own == pytest.approx(total_correlation(x[:, 3:6], "gaussian").value, abs=1e-12)


def test_a_random_partition_does_not():
    """A partition dealt like the others has a rank like the others': uniform over 40 deals."""
    x, ranks = gaussian_rows(300, random_correlation(8, "deal"), "deal"), []
    for i in range(40):
        groups = torch.randperm(8, generator=generator(i, "dealt")).view(4, 2)
        ranks.append(random_partitions(x, groups, "gaussian", 30, generator(i, "others")).rank)
    assert 0.35 < np.mean(ranks) < 0.65 and np.std(ranks) > 0.2


def test_rank_and_p_value_by_hand():
    """Between 1 and 2 of (1, 1, 2, 3): two lower, none equal; and ties count half."""
    drawn = np.array([1.0, 1.0, 2.0, 3.0])
    assert AmongRandom(1.5, drawn).rank == 0.5
    assert AmongRandom(1.0, drawn).rank == 0.25
    assert AmongRandom(0.5, drawn).p_value == pytest.approx(2 * 1 / 5)
    assert AmongRandom(2.0, drawn).p_value == 1.0


def test_groups_survive_dropped_columns():
    assert groups_of(torch.tensor([4, -1, 0, 4, 0])) == [[2, 4], [0, 3]]
    x = gaussian_rows(300, random_correlation(4, "kept"), "kept")
    dead = torch.cat([torch.zeros(300, 1).double(), x], dim=1)
    split = decompose(dead, [[1, 2], [0, 3, 4]], "gaussian", drop=True)
    whole = decompose(x, [[0, 1], [2, 3]], "gaussian")
    # Equal but for the order of sums, which follows the rows' alignment in memory.
    assert split.between.value == pytest.approx(whole.between.value, rel=1e-12)
    assert [c.column for c in split.between.dropped] == [0]
    with pytest.raises(ValueError, match="Of group 0 no column is left"):
        decompose(dead, [[0], [1, 2, 3, 4]], "gaussian", drop=True)


@pytest.mark.parametrize(
    ("groups", "sentence"),
    [
        ([[0, 1]], "Column 2 is in no group"),
        ([[0, 1], [1, 2]], "Column 1 is in 2 groups: groups that share a column"),
        ([[0, 1], [2, 3]], "Every group needs columns of 0 to 2, none of them twice"),
        ([[0, 1, 2], []], "Every group needs columns"),
        ([[0, 0, 1], [2]], "Every group needs columns"),
    ],
)
def test_what_is_no_partition_is_refused(groups: list[list[int]], sentence: str):
    with pytest.raises(ValueError, match=sentence):
        decompose(gaussian_rows(100, torch.eye(3).double()), groups)
