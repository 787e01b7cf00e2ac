"""Nearest-neighbour estimate of Kraskov, Stögbauer & Grassberger (2004), KSG.

With eps_i the distance from row i to its k-th neighbour (maximum norm over all columns) and n_m(i)
the number of other rows that lie strictly closer than eps_i in block m alone, of M blocks:

    T = psi(k) + (M - 1) psi(N) - mean_i sum_m psi(n_m(i) + 1)    (their eq. 8, extended to M)

Exact at independence, it falls below the truth as dependence and width grow, because balls are
large where the density bends. If that bias goes with the square of their radius, hence with
k^(2/d), the estimate with c k neighbours shows how large it is, and T* is returned:

    T* = T_k - b_4,   b_c = (T_ck - T_k) / (c^(2/d) - 1)

The larger of |b_2| and |b_4|, with the noise of b_2, is its systematic uncertainty. Where b falls
short, at near-deterministic dependence, the copula's lower bound widens the interval. Valid for
every bounded density, at up to 3 columns and N >= 100 d. With more, dependence spread over tails,
as in a Student t, is missed in part, and more rows help little.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64, Shaped
from scipy.spatial import cKDTree
from scipy.special import psi

from sparsejepa.information.estimate import Blocks, Estimator, Term
from sparsejepa.information.gaussian import CopulaEstimator, normal_scores

NEIGHBOURS = 4
COARSER, COARSEST = 2, 4  # times as many, in the balls from which the bias is extrapolated
PAIRS = 4_000_000  # of rows that are compared at a time, to bound memory

Block = Float64[np.ndarray, "N _"]
Rows = Float64[np.ndarray, "N"]
# Of a block and a radius for each row: how many rows, itself included, are strictly closer; and
# weights of rows -> for every row the sum of the weights of those that hold it in their ball.
Within = tuple[Int64[np.ndarray, "N"], Callable[[Rows], Rows]]


class NearestNeighbourEstimator(Estimator):
    """T* of normal scores, which make it invariant under monotone maps of single columns."""

    def __init__(self, x: Shaped[np.ndarray, "N d"], generator: torch.Generator) -> None:
        self.copula = CopulaEstimator(x, generator)
        self.scores = normal_scores(len(x))[self.copula.ranks]

    def between(self, blocks: Blocks) -> Term:
        term = ksg([self.scores[:, block] for block in blocks])
        missing = self.copula.between_value(blocks) - term.value
        return replace(term, systematic=max(term.systematic, missing))


def ksg_value(blocks: Sequence[Block]) -> float:
    """The estimate T_k between blocks of columns, in nats, of the values as they are."""
    distance, _ = _neighbours(blocks, NEIGHBOURS)
    return _from_psi(_psi_sum(blocks, distance[:, NEIGHBOURS]), blocks, NEIGHBOURS)


def ksg(blocks: Sequence[Block]) -> Term:
    """T* with its uncertainty.

    By the exact jackknife of T_k: without row i, those that hold it in their strips count one less,
    and those of which it is one of the k nearest go on to their next neighbour. It overstates the
    error (Efron & Stein 1981), at independence by two thirds.
    """
    n, k, width = len(blocks[0]), NEIGHBOURS, sum(block.shape[1] for block in blocks)
    distance, index = _neighbours(blocks, COARSEST * k)
    nearest, radius, next_radius = index[:, 1 : k + 1], distance[:, k], distance[:, k + 1]
    psi_sum, lost, psi_next = np.zeros(n), np.zeros(n), np.zeros((n, k))
    for block in blocks:
        # How far the nearest rows are in this block alone.
        apart = np.abs(block[nearest] - block[:, None]).max(axis=2)
        count, spread = _within(block, radius)
        psi_sum += psi(count)
        # psi(c) - psi(c - 1), what a row loses with one of its strip; it never loses itself.
        weight = 1.0 / np.maximum(count - 1, 1)
        lost += spread(weight) - weight
        np.subtract.at(lost, nearest, (apart < radius[:, None]) * weight[:, None])
        next_count, _ = _within(block, next_radius)
        psi_next += psi(next_count[:, None] - (apart < next_radius[:, None]))
    total = psi_sum.sum() - psi_sum - lost
    np.add.at(total, nearest, psi_next - psi_sum[:, None])
    left_out = (len(blocks) - 1) * psi(n - 1) - total / (n - 1)
    value, biases = _from_psi(psi_sum, blocks, k), []
    for times in (COARSEST, COARSER):
        # b_times, by how much T_k lies above the truth.
        wider, growth = _psi_sum(blocks, distance[:, times * k]), times ** (2 / width) - 1
        biases.append((_from_psi(wider, blocks, times * k) - value) / growth)
    noise = float((wider - psi_sum).std()) / np.sqrt(n) / growth
    systematic = np.hypot(max(map(abs, biases)), noise)
    return Term(value - biases[0], np.sqrt(n - 1) * (left_out - left_out.mean()), 0.0, systematic)


def _neighbours(blocks: Sequence[Block], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Distances and indices of the nearest rows, the row itself first."""
    x = np.concatenate(blocks, axis=1)
    distance, index = cKDTree(x).query(x, count + 1, p=np.inf, workers=-1)
    if (distance[:, 1] == 0).any():
        what = "Some rows coincide in every column, so that distances to neighbours vanish"
        raise ValueError(f"{what}; break ties, as total_correlation does, or count them.")
    return distance, index


def _psi_sum(blocks: Sequence[Block], radius: Rows) -> Rows:
    return np.sum([psi(_within(block, radius)[0]) for block in blocks], axis=0)


def _from_psi(psi_sum: Rows, blocks: Sequence[Block], k: int) -> float:
    return float(psi(k) + (len(blocks) - 1) * psi(len(psi_sum)) - psi_sum.mean())


def _within(block: Block, radius: Rows) -> Within:
    """In one dimension a strip is a range of the sorted values."""
    if block.shape[1] > 1:
        return _within_ball(block, radius)
    x = block[:, 0]
    order, n = np.argsort(x), len(x)
    ordered, reach = x[order], radius[order]
    first = np.searchsorted(ordered, ordered - reach, side="right")
    last = np.searchsorted(ordered, ordered + reach, side="left")
    # Sum and difference are rounded: ends can be off. The rule, exactly, is |difference| < radius.
    while (wrong := (first > 0) & (ordered - ordered[first - 1] < reach)).any():
        first -= wrong
    while (wrong := ordered - ordered[first] >= reach).any():
        first += wrong
    while (wrong := (last < n) & (ordered[np.minimum(last, n - 1)] - ordered < reach)).any():
        last += wrong
    while (wrong := ordered[last - 1] - ordered >= reach).any():
        last -= wrong
    back = np.argsort(order)

    def spread(weight: Rows) -> Rows:
        given = weight[order]
        steps = np.bincount(first, given, n + 1) - np.bincount(last, given, n + 1)
        return steps.cumsum()[:-1][back]

    return (last - first)[back], spread


def _within_ball(block: Block, radius: Rows) -> Within:
    parts = np.array_split(np.arange(len(block)), -(-(block.size * len(block)) // PAIRS))

    def held(rows: Int64[np.ndarray, "_"]) -> Bool[np.ndarray, "_ N"]:
        return np.abs(block[rows][:, None] - block).max(axis=2) < radius[rows][:, None]

    def spread(weight: Rows) -> Rows:
        return sum(weight[rows] @ held(rows) for rows in parts)

    return np.concatenate([held(rows).sum(axis=1) for rows in parts]), spread
