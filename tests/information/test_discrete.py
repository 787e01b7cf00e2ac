"""Counts: parity, giant bit, and the correction of Miller & Madow."""

import math

import numpy as np
import pytest
import torch

from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.randomness import generator
from tests.information.known import interval_hit, lattice


def bits(n: int, count: int) -> torch.Tensor:
    return torch.randint(2, (n, count), generator=generator(0, "bits", count))


@pytest.mark.parametrize("count", [2, 3, 5, 8])
def test_the_giant_bit(count: int):
    """n copies of a fair bit: n - 1 bits, here from a sample with exactly half of each."""
    x = torch.tensor([0, 1]).repeat(500)[:, None].expand(-1, count)
    found = total_correlation(x, "discrete")
    correction = (count - 1) / (2 * 1000)
    assert found.value == pytest.approx((count - 1) * math.log(2) + correction, abs=1e-12)
    assert interval_hit(found, (count - 1) * math.log(2))


@pytest.mark.parametrize("count", [2, 3, 4, 6])
def test_parity(count: int):
    """n - 1 fair bits and their parity: 1 bit for every n, though all smaller sets have none."""
    x = bits(4000, count - 1)
    x = torch.cat([x, x.sum(1, keepdim=True) % 2], dim=1)
    assert interval_hit(total_correlation(x, "discrete"), math.log(2))
    assert interval_hit(total_correlation(x[:, 1:], "discrete"), 0.0) or count == 2


def test_an_independent_implementation_agrees():
    """infomeasure 0.6.3, approach "miller_madow", nats: computed once, in another process."""
    u = lattice(300, 7)
    x = np.floor(3 * u[:, :3]).astype(int)
    x[:, 2] = (x[:, 0] + x[:, 1]) % 3
    x = np.where(u[:, [3]] < 0.2, np.floor(3 * u[:, 4:]).astype(int), x)
    assert total_correlation(x, "discrete").value == pytest.approx(0.6137405038860402, abs=1e-12)


def test_the_correction_takes_out_the_bias():
    """Independent columns of 4 x 4 values, 200 rows: 9 / 400 nats too much without it."""
    draws = torch.randint(4, (300, 200, 2), generator=generator(1))
    found = np.array([total_correlation(x, "discrete").value for x in draws])
    assert abs(found.mean()) < 3.5 * found.std() / math.sqrt(300) < 9 / 400 / 4


def test_names_of_values_do_not_matter():
    x = bits(300, 3)
    x[:, 2] = x[:, 0] & x[:, 1]
    renamed = torch.stack([7 - x[:, 0], 100 * x[:, 1], x[:, 2] - 3], dim=1)
    padded = torch.cat([x, torch.full((300, 1), 5)], dim=1)
    expected = total_correlation(x, "discrete").value
    for same in (renamed, renamed.double(), padded):
        assert total_correlation(same, "discrete").value == pytest.approx(expected, abs=1e-12)


def test_rows_that_are_all_different_are_refused():
    x = torch.randn(100, 2, generator=generator(2))
    with pytest.raises(ValueError, match="100 rows have 100 distinct values: .* at least 5 rows"):
        total_correlation(x, "discrete")
