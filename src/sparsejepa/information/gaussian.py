"""Gaussian plug-in estimate: -½ ln det R of the correlation matrix R, without its bias.

Valid at any width for Gaussian columns. Of other columns it estimates that functional of their
correlation matrix, which is neither an upper nor a lower bound of their multiinformation, and
misses all dependence without correlation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
from jaxtyping import Float, Float64, Int
from scipy.special import polygamma, psi

from sparsejepa.information.columns import moments, row_chunks
from sparsejepa.information.estimate import (
    Term,
    between_by_entropies,
    between_value_by_entropies,
)


@dataclass(frozen=True, eq=False)
class GaussianEstimator:
    """The plug-in estimate bound to its columns, which are only read."""

    x: Float[np.ndarray, "N d"]
    mean: Float64[np.ndarray, "d"]
    scale: Float64[np.ndarray, "d"]  # standard deviations
    correlation: Float64[np.ndarray, "d d"]
    method: str = "gaussian"

    def between(self, blocks: Sequence[Int[np.ndarray, "_"]]) -> Term:
        return between_by_entropies(self, blocks)

    def between_value(self, blocks: Sequence[Int[np.ndarray, "_"]]) -> float:
        return between_value_by_entropies(self, blocks)

    def entropy_value(self, columns: Int[np.ndarray, "k"]) -> float:
        factor = cholesky(self.correlation, columns)
        return half_log_determinant(factor) - excess(len(self.x), len(columns))

    def entropy(self, columns: Int[np.ndarray, "k"]) -> Term:
        """With the exact jackknife: leaving row i out multiplies det R by 1 - N/(N-1) h_i / N.

        h_i is the row's squared Mahalanobis distance from the mean.
        """
        n, k = len(self.x), len(columns)
        factor = cholesky(self.correlation, columns)
        left_out = np.empty(n)
        for rows in row_chunks(n, k):
            z = (self.x[rows][:, columns] - self.mean[columns]) / self.scale[columns]
            white = scipy.linalg.solve_triangular(factor, z.T, lower=True)
            left_out[rows] = 0.5 * np.log1p(-np.square(white).sum(axis=0) / (n - 1))
        return Term(
            half_log_determinant(factor) - excess(n, k),
            np.sqrt(n - 1) * (left_out - left_out.mean()),
            null_variance(n, k),
        )


def gaussian_estimator(x: Float[np.ndarray, "N d"]) -> GaussianEstimator:
    """Reads the moments of columns that `usable_columns` let pass."""
    mean, covariance = moments(x)
    scale = np.sqrt(np.diag(covariance))
    return GaussianEstimator(x, mean, scale, covariance / scale / scale[:, None])


def cholesky(
    correlation: Float64[np.ndarray, "d d"], columns: Int[np.ndarray, "k"]
) -> Float64[np.ndarray, "k k"]:
    """Lower factor of the correlation matrix of some columns."""
    return np.linalg.cholesky(correlation[np.ix_(columns, columns)])


def half_log_determinant(factor: Float64[np.ndarray, "k k"]) -> float:
    """½ ln det of the matrix with this Cholesky factor."""
    return float(np.log(np.diag(factor)).sum())


def excess(n: int, k: int) -> float:
    """E[½ ln det S] - ½ ln det Sigma - k/2 ln 2 of the products S of n centred rows, k columns.

    Exact for Gaussian columns, whatever their correlation: S's determinant is that of Sigma times
    independent chi-squares of n - 1, ..., n - k degrees of freedom (Anderson 2003, theorem 7.5.3).
    For all d columns minus one by one that is the bias ½ [d psi((n-1)/2) - sum_i psi((n-i)/2)] of
    the multiinformation, about d (d - 1) / (4 n).
    """
    return 0.5 * float(psi((n - 1 - np.arange(k)) / 2).sum())


def null_variance(n: int, k: int) -> float:
    """Variance of ½ ln det S of n independent rows of k independent columns, in nats²."""
    return 0.25 * float(polygamma(1, (n - 1 - np.arange(k)) / 2).sum())
