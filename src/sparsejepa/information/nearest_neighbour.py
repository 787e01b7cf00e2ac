"""Nearest-neighbour estimate of Kraskov, Stögbauer & Grassberger (2004), KSG.

With eps_i the distance from row i to its k-th neighbour (maximum norm over all columns) and n_m(i)
the number of other rows that lie strictly closer than eps_i in block m alone, of M blocks:

    T = psi(k) + (M - 1) psi(N) - mean_i sum_m psi(n_m(i) + 1)    (their eq. 8, extended to M)

Valid for every law with a density, at up to some 5 columns and N >= 50 d. Exact at independence,
it falls below the truth as dependence and width grow, and more rows help little beyond 8 columns.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from jaxtyping import Bool, Float64, Int, Int64
from scipy.spatial import cKDTree
from scipy.special import psi

from sparsejepa.information.copula import normal_scores
from sparsejepa.information.estimate import Term

NEIGHBOURS = 4
# Pairs of rows that are listed at a time, to bound memory.
PAIRS = 4_000_000

# Weights of rows -> for every row the sum of the weights of those that hold it in their ball.
Spread = Callable[[Float64[np.ndarray, "N"]], Float64[np.ndarray, "N"]]


@dataclass(frozen=True, eq=False)
class NearestNeighbourEstimator:
    """KSG bound to its columns, as normal scores.

    Multiinformation does not change under monotone maps of single columns, the distances that
    KSG compares do: scores make it invariant as well, and columns of any unit comparable.
    """

    scores: Float64[np.ndarray, "N d"]
    neighbours: int = NEIGHBOURS
    method: str = "ksg"

    def between(self, blocks: Sequence[Int[np.ndarray, "_"]]) -> Term:
        return ksg([self.scores[:, block] for block in blocks], self.neighbours)

    def between_value(self, blocks: Sequence[Int[np.ndarray, "_"]]) -> float:
        return ksg_value([self.scores[:, block] for block in blocks], self.neighbours)


def nearest_neighbour_estimator(ranks: Int[np.ndarray, "N d"]) -> NearestNeighbourEstimator:
    """From ranks in which every tie is broken, so that no two rows are at distance zero."""
    return NearestNeighbourEstimator(normal_scores(len(ranks))[ranks])


def ksg_value(blocks: Sequence[Float64[np.ndarray, "N _"]], neighbours: int = NEIGHBOURS) -> float:
    """The estimate between blocks of columns, in nats, of the values as they are.

    Raises:
        ValueError: rows that coincide, of which the estimate is undefined.
    """
    distance, _ = _neighbours(np.concatenate(blocks, axis=1), neighbours)
    return _estimate(blocks, distance[:, neighbours], neighbours)


def ksg(blocks: Sequence[Float64[np.ndarray, "N _"]], neighbours: int = NEIGHBOURS) -> Term:
    """The same with its uncertainty.

    The sampling error is the exact jackknife: leaving row i out takes it from the counts of all
    that hold it in their strips, and moves those of which it is one of the k nearest to their
    next neighbour. It overstates the error (Efron & Stein 1981), by up to two thirds at
    independence. The suspected bias b is what the estimate with twice the neighbours reveals, if
    the bias goes with the square of the distance, hence with k^(2/d): b (2^(2/d) - 1) = T_2k - T_k.

    Raises:
        ValueError: as `ksg_value`.
    """
    n, k = len(blocks[0]), neighbours
    distance, index = _neighbours(np.concatenate(blocks, axis=1), 2 * k)
    nearest, radius, next_radius = index[:, 1 : k + 1], distance[:, k], distance[:, k + 1]
    psi_sum, lost, psi_next = np.zeros(n), np.zeros(n), np.zeros((n, k))
    for block in blocks:
        count, spread = _within(block, radius)
        psi_sum += psi(count)
        # psi(c) - psi(c - 1), what a row loses with one of its strip; it never loses itself.
        weight = 1.0 / np.maximum(count - 1, 1)
        lost += spread(weight) - weight
        np.subtract.at(lost, nearest, _holds(block, nearest, radius) * weight[:, None])
        next_count, _ = _within(block, next_radius)
        psi_next += psi(next_count[:, None] - _holds(block, nearest, next_radius))
    total = psi_sum.sum() - psi_sum - lost
    np.add.at(total, nearest, psi_next - psi_sum[:, None])
    left_out = (len(blocks) - 1) * psi(n - 1) - total / (n - 1)
    value = float(psi(k) + (len(blocks) - 1) * psi(n) - psi_sum.mean())
    coarser = _estimate(blocks, distance[:, 2 * k], 2 * k)
    width = sum(block.shape[1] for block in blocks)
    return Term(
        value,
        np.sqrt(n - 1) * (left_out - left_out.mean()),
        systematic=(coarser - value) / (2 ** (2 / width) - 1),
    )


def _neighbours(
    x: Float64[np.ndarray, "N d"], count: int
) -> tuple[Float64[np.ndarray, "N c"], Int64[np.ndarray, "N c"]]:
    """Distances and indices of the nearest rows, the row itself first."""
    tree = cKDTree(x)
    # Asked in the order of the tree, rows of one neighbourhood find their data in the cache.
    asked = tree.query(x[tree.indices], count + 1, p=np.inf, workers=-1)
    distance, index = (np.empty_like(found) for found in asked)
    for into, found in zip((distance, index), asked, strict=True):
        into[tree.indices] = found
    if (distance[:, 1] == 0).any():
        raise ValueError(
            "Some rows coincide in every column, so that distances to neighbours vanish; break "
            "ties first, as total_correlation does, or use the discrete estimate."
        )
    return distance, index


def _estimate(
    blocks: Sequence[Float64[np.ndarray, "N _"]], radius: Float64[np.ndarray, "N"], k: int
) -> float:
    n = len(radius)
    return float(
        psi(k)
        + (len(blocks) - 1) * psi(n)
        - sum(psi(_within(block, radius)[0]).mean() for block in blocks)
    )


def _holds(
    block: Float64[np.ndarray, "N b"],
    nearest: Int64[np.ndarray, "N k"],
    radius: Float64[np.ndarray, "N"],
) -> Bool[np.ndarray, "N k"]:
    """Whether a row's ball in this block holds each of its nearest rows."""
    return np.abs(block[nearest] - block[:, None]).max(axis=2) < radius[:, None]


def _within(
    block: Float64[np.ndarray, "N b"], radius: Float64[np.ndarray, "N"]
) -> tuple[Int64[np.ndarray, "N"], Spread]:
    """How many rows, itself included, are strictly closer than the radius; and who holds whom."""
    if block.shape[1] == 1:
        return _within_strip(block[:, 0], radius)
    return _within_ball(block, radius)


def _within_strip(
    x: Float64[np.ndarray, "N"], radius: Float64[np.ndarray, "N"]
) -> tuple[Int64[np.ndarray, "N"], Spread]:
    """In one dimension a strip is a range of the sorted values."""
    order, n = np.argsort(x), len(x)
    ordered, reach = x[order], radius[order]
    first = np.searchsorted(ordered, ordered - reach, side="right")
    last = np.searchsorted(ordered, ordered + reach, side="left")
    # Sum and difference are rounded, so that ends are off at times. The rule, exactly, is
    # |difference| < radius.
    while (wrong := (first > 0) & (ordered - ordered[first - 1] < reach)).any():
        first -= wrong
    while (wrong := ordered - ordered[first] >= reach).any():
        first += wrong
    while (wrong := (last < n) & (ordered[np.minimum(last, n - 1)] - ordered < reach)).any():
        last += wrong
    while (wrong := ordered[last - 1] - ordered >= reach).any():
        last -= wrong
    count = np.empty(n, dtype=np.int64)
    count[order] = last - first

    def spread(weight: Float64[np.ndarray, "N"]) -> Float64[np.ndarray, "N"]:
        given = weight[order]
        steps = np.bincount(first, given, n + 1) - np.bincount(last, given, n + 1)
        received = np.empty(n)
        received[order] = steps.cumsum()[:-1]
        return received

    return count, spread


def _within_ball(
    block: Float64[np.ndarray, "N b"], radius: Float64[np.ndarray, "N"]
) -> tuple[Int64[np.ndarray, "N"], Spread]:
    tree = cKDTree(block)
    # The tree counts distances up to the radius: of the next smaller number, those below it.
    below = np.nextafter(radius, 0)
    count = tree.query_ball_point(block, below, p=np.inf, return_length=True)

    def spread(weight: Float64[np.ndarray, "N"]) -> Float64[np.ndarray, "N"]:
        received = np.zeros(len(block))
        for rows in _few_pairs(count):
            held = tree.query_ball_point(block[rows], below[rows], p=np.inf)
            pairs = np.repeat(weight[rows], count[rows])
            received += np.bincount(np.concatenate(held), pairs, len(block))
        return received

    return count, spread


def _few_pairs(count: Int64[np.ndarray, "N"]) -> Iterator[slice]:
    """Slices of rows that hold some `PAIRS` others together."""
    ends = np.flatnonzero(np.diff(count.cumsum() // PAIRS)) + 1
    bounds = [0, *ends.tolist(), len(count)]
    return (slice(start, end) for start, end in pairwise(bounds))
