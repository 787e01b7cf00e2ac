"""KSG: exact counts, the exact jackknife, an independent implementation, and where it fails."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import psi

from sparsejepa.chapters.multiinformation import equicorrelation
from sparsejepa.information import nearest_neighbour
from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.information.nearest_neighbour import ksg, ksg_value
from tests.information.known import gaussian_rows, lattice, random_correlation

seeds = st.integers(0, 10**6)


def by_definition(blocks: list[np.ndarray], k: int = 4) -> float:
    """All pairs, in plain array operations."""
    n = len(blocks[0])
    apart = [np.abs(b[:, None] - b[None]).max(-1) for b in blocks]
    joint = np.max(apart, axis=0)
    radius = np.sort(joint, axis=1)[:, [k]]
    counts = [(a < radius).sum(1) for a in apart]
    return psi(k) + (len(blocks) - 1) * psi(n) - sum(psi(c).mean() for c in counts)


def columns(x: np.ndarray) -> list[np.ndarray]:
    return [x[:, [j]] for j in range(x.shape[1])]


def test_an_independent_implementation_agrees():
    """infomeasure 0.6.3, approach "ksg", noise_level 0, nats: computed once, in another process."""
    u = lattice(300, 4)
    x = np.stack([u[:, 0], u[:, 0] + 0.3 * u[:, 1], u[:, 1] * u[:, 2], u[:, 3]], axis=1)
    assert ksg_value(columns(x)) == pytest.approx(1.0959302937928586, abs=1e-12)
    assert ksg_value([x[:, :2], x[:, 2:]]) == pytest.approx(0.09500481239462777, abs=1e-12)


@given(seeds, st.sampled_from([1.0, 2.0**-20, 1e6]), st.booleans())
@settings(max_examples=25)
def test_counts_are_exact(seed: int, unit: float, coarse: bool):
    """Equal to all pairs, in one dimension and in blocks, also where many distances tie."""
    x = gaussian_rows(60, random_correlation(4, "ksg", seed), "ksg", seed).numpy()
    if coarse:
        # A grid: k-th distances tie, and values lie exactly on the edge of strips.
        x = np.round(2 * x) / 2 + 2.0**-30 * np.argsort(x, axis=0)
    x = unit * x + unit / 3
    for blocks in (columns(x), [x[:, :3], x[:, 3:]], [x[:, [0, 2]], x[:, [1, 3]]]):
        assert ksg_value(blocks) == pytest.approx(by_definition(blocks), abs=1e-12)


@pytest.mark.parametrize("pairs", [100, nearest_neighbour.PAIRS])
@pytest.mark.parametrize("coarse", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_the_jackknife_is_exact(seed: int, coarse: bool, pairs: int, monkeypatch):
    """sqrt(N-1) times the deviations of T_k without one row, for rows one by one.

    The value is T_k without the bias that four times the neighbours reveal, which is the least
    systematic part of the error. The bound on listed pairs does not show.
    """
    x = gaussian_rows(40, random_correlation(3, "loo", seed), "loo", seed).numpy()
    if coarse:
        x = np.round(2 * x) / 2 + 2.0**-30 * np.argsort(x, axis=0)
    for blocks in (columns(x), [x[:, [0, 2]], x[:, [1]]]):
        monkeypatch.setattr(nearest_neighbour, "PAIRS", pairs)
        term = ksg(blocks)
        left_out = np.array(
            [by_definition([np.delete(b, i, 0) for b in blocks]) for i in range(40)]
        )
        expected = math.sqrt(39) * (left_out - left_out.mean())
        np.testing.assert_allclose(term.deviations, expected, atol=1e-10)
        fine, coarse = by_definition(blocks), by_definition(blocks, 16)
        correction = (coarse - fine) / (4 ** (2 / 3) - 1)
        assert term.value == pytest.approx(fine - correction, abs=1e-12)
        assert term.systematic > abs(correction)


def test_rows_that_coincide_are_refused():
    x = np.repeat(gaussian_rows(30, equicorrelation(2, 0.5)).numpy(), 2, axis=0)
    with pytest.raises(ValueError, match="Some rows coincide in every column"):
        ksg_value(columns(x))
    assert math.isfinite(total_correlation(x, "ksg").value)
