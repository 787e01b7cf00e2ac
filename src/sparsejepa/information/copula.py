"""Gaussian copula estimate: the Gaussian one of ranks turned into normal scores.

Invariant under monotone maps of each column. Valid for every distribution whose columns are
monotone functions of jointly Gaussian ones, at N >= 50 d. Otherwise it estimates a lower bound:
among all laws with standard normal margins and correlation R, the Gaussian has the least
multiinformation, because it has the largest entropy. Dependence that leaves normal scores
uncorrelated, such as that of the tails of a Student t, is missed altogether.
"""

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Bool, Float64, Int32, Shaped
from scipy.special import ndtri

from sparsejepa.information.columns import EPS64
from sparsejepa.information.estimate import Columns, Matrix
from sparsejepa.information.gaussian import GaussianEstimator

# Random splits into halves, from which the bias is extrapolated.
SPLITS = 4
# Least share of a direction's variance that extrapolation leaves; 1/100 adds 2.3 nats.
LEAST_SHARE = 0.01

Ranks = Int32[np.ndarray, "N d"]


class CopulaEstimator(GaussianEstimator):
    """The estimate bound to the ranks of its columns.

    Ranks displace the scores of a row by about 1 / sqrt(N), differently in every column. That
    blurs near-deterministic dependence: with S the scores' correlation matrix, E S(N) = R + B / N
    to first order. So the estimate is of 2 S(N) - S(N/2), where S(N/2) is the mean over random
    halves and the blur cancels; the size of that correction is its systematic uncertainty, large
    where a column follows from the others to within 1 / sqrt(N) of its deviation.
    """

    def __init__(self, x: Shaped[np.ndarray, "N d"], generator: torch.Generator) -> None:
        self.ranks, self.rows = independent_ranks(x, generator), len(x)
        self.correlation = _products(self.ranks)
        smallest = float(np.linalg.eigvalsh(self.correlation)[0])
        if smallest <= 10 * len(self.correlation) * EPS64:
            raise ValueError(
                "The ranks of the columns are linearly dependent (smallest eigenvalue of the "
                f"correlation matrix of their normal scores {smallest:.1e}; a column that is a "
                "monotone function of another causes that), so their total correlation is "
                "infinite; leave such a column out."
            )
        self.in_halves = np.zeros_like(self.correlation)
        for _ in range(SPLITS):
            order = torch.randperm(self.rows, generator=generator).numpy()
            for part in np.split(order, [self.rows // 2]):
                member = np.zeros(self.rows, dtype=bool)
                member[part] = True
                self.in_halves += _products(_ranks_within(self.ranks, member)) / (2 * SPLITS)

    def deviations(self, columns: Columns, factor: Matrix) -> Float64[np.ndarray, "N"]:
        """By the influence function of -½ ln det R.

        A row moves R by z z' and, through the margins, by the empirical distribution function's
        error at each of its scores: Klaassen & Wellner 1997, section 3, here summed over R⁻¹.
        """
        n, scores = self.rows, normal_scores(self.rows)
        precision = scipy.linalg.cho_solve((factor, True), np.eye(len(columns)))
        # d score / d rank share: from an error of the distribution function to one of the score.
        slope = np.sqrt(2 * np.pi) * np.exp(0.5 * ndtri((np.arange(n) + 1) / (n + 1)) ** 2) / n
        slope *= scores[-1] / ndtri(n / (n + 1))
        influence, pulled = np.zeros(n), scores[self.ranks[:, columns]] @ precision
        for column, pull in zip(columns, pulled.T, strict=True):
            rank = self.ranks[:, column]
            by_rank = np.empty(n)
            by_rank[rank] = pull
            above = (by_rank * slope)[::-1].cumsum()[::-1]
            influence += 0.5 * scores[rank] * pull + above[rank]
        return (influence - influence.mean()) / np.sqrt(n)

    def correction(self, columns: Columns, factor: Matrix) -> float:
        """½ ln det (2 S(N) - S(N/2)) - ½ ln det S(N), bounded in each direction."""
        halves = self.in_halves[np.ix_(columns, columns)]
        white = scipy.linalg.solve_triangular(factor, halves, lower=True)
        white = scipy.linalg.solve_triangular(factor, white.T, lower=True)
        left = np.maximum(2 - np.linalg.eigvalsh(white), LEAST_SHARE)
        return float(0.5 * np.log(left).sum())


def independent_ranks(x: Shaped[np.ndarray, "N d"], generator: torch.Generator) -> Ranks:
    """Ranks 0 to N - 1 of every column, equal values in random order.

    That makes every margin continuous and, by the data processing inequality in both directions,
    leaves the multiinformation exactly as it is: the value can be read back.
    """
    ranks = np.empty(x.shape, dtype=np.int32)
    for rank, column in zip(ranks.T, x.T, strict=True):
        order = torch.randperm(len(x), generator=generator).numpy()
        rank[order[np.argsort(column[order], kind="stable")]] = np.arange(len(x))
    return ranks


def normal_scores(n: int) -> Float64[np.ndarray, "n"]:
    """Phi⁻¹(i / (n + 1)) for i = 1 to n, scaled to variance 1."""
    scores = ndtri((np.arange(n) + 1) / (n + 1))
    return scores / np.sqrt(np.mean(scores**2))


def _ranks_within(ranks: Ranks, member: Bool[np.ndarray, "N"]) -> Int32[np.ndarray, "n d"]:
    """Ranks among the members alone, without sorting again."""
    found = np.empty((int(member.sum()), ranks.shape[1]), dtype=np.int32)
    by_rank = np.empty(len(ranks), dtype=bool)
    for column, rank in enumerate(ranks.T):
        by_rank[rank] = member
        found[:, column] = by_rank.cumsum()[rank[member]] - 1
    return found


def _products(ranks: Ranks) -> Matrix:
    """Correlation matrix of the columns' normal scores."""
    z = normal_scores(len(ranks))[ranks]
    products = z.T @ z / len(ranks)
    # Exactly 1, without rounding, so that a column alone is exactly independent.
    np.fill_diagonal(products, 1.0)
    return products
