"""Gaussian plug-in estimate: -½ ln det R of the correlation matrix R, without its bias.

Valid at any width for Gaussian columns. Of others it is neither an upper nor a lower bound, and
misses all dependence without correlation. Undefined where it would rest on a single row.
"""

import numpy as np
import scipy.linalg
from jaxtyping import Float64
from scipy.special import polygamma, psi

from sparsejepa.information.columns import (
    EPS64,
    as_float64,
    centre_and_spread,
    dependent_columns,
    moments,
    row_chunks,
)
from sparsejepa.information.estimate import Columns, Estimator, Matrix, Term

# Where a row leaves less of the determinant than this share, the formula of the jackknife loses
# its digits, and the row is left out in fact.
LEAST_LEFT = 1e-6


class GaussianEstimator(Estimator):
    """The plug-in estimate of columns that `usable_columns` and `columns_of_one_row` let pass."""

    def __init__(self, x: Float64[np.ndarray, "N d"]) -> None:
        self.x = x
        self.mean, covariance = moments(x)
        self.scale = np.sqrt(np.diag(covariance))
        self.correlation = covariance / self.scale / self.scale[:, None]

    def entropy_value(self, columns: Columns) -> float:
        half = half_log_determinant(cholesky(self.correlation, columns))
        return half - excess(len(self.x), len(columns))

    def entropy(self, columns: Columns) -> Term:
        """With the exact jackknife: leaving row i out multiplies det R by 1 - leverage i."""
        n, k = len(self.x), len(columns)
        half = half_log_determinant(cholesky(self.correlation, columns))
        leverage = self.leverages(columns)
        left_out = 0.5 * np.log1p(-np.minimum(leverage, 1 - LEAST_LEFT))
        for row in np.flatnonzero(leverage > 1 - LEAST_LEFT):
            rest = GaussianEstimator(np.delete(self.x[:, columns], row, axis=0))
            narrower = np.log(rest.scale / self.scale[columns]).sum() + 0.5 * k * np.log1p(-1 / n)
            of_rest = half_log_determinant(cholesky(rest.correlation, np.arange(k)))
            left_out[row] = of_rest + narrower - half
        deviations = np.sqrt(n - 1) * (left_out - left_out.mean())
        return Term(half - excess(n, k), deviations, null_variance(n, k))

    def leverages(self, columns: Columns) -> Float64[np.ndarray, "N"]:
        """h_i / (N - 1) with each row's squared Mahalanobis distance h_i from the mean."""
        n, k = len(self.x), len(columns)
        factor, leverage = cholesky(self.correlation, columns), np.empty(n)
        for rows in row_chunks(n, k):
            z = (self.x[rows][:, columns] - self.mean[columns]) / self.scale[columns]
            white = scipy.linalg.solve_triangular(factor, z.T, lower=True)
            leverage[rows] = np.square(white).sum(axis=0) / (n - 1)
        return leverage


def in_own_units(x: Float64[np.ndarray, "N d"]) -> Float64[np.ndarray, "N d"]:
    """Columns up to 1 in size, by powers of two, without the offset of those far from zero."""
    median, spread = centre_and_spread(x)
    offset = np.where(np.abs(median) > 1000 * spread, 2 * median, 0.0)
    x = x - offset if offset.any() else x
    return np.ldexp(x, -np.frexp(np.abs(x).max(axis=0))[1])


def columns_of_one_row(x: Float64[np.ndarray, "N d"]) -> dict[int, str]:
    """Column -> why no Gaussian estimate with it has a standard error: it would rest on one row.

    Without that row the column is constant, as a unit that is active for one image, or dependent.
    """
    median, spread = centre_and_spread(x)
    apart = [np.flatnonzero(column / 2 != half) for column, half in zip(x.T, median, strict=True)]
    found = {j: f"constant but for row {a[0]}" for j, a in enumerate(apart) if len(a) == 1}
    others = np.array([j for j in range(x.shape[1]) if j not in found], dtype=np.int64)
    if len(others) == 0:
        return found
    estimator = GaussianEstimator(in_own_units(x[:, others]))
    smallest = float(np.linalg.eigvalsh(estimator.correlation)[0])
    if smallest <= 10 * len(others) * EPS64:
        with np.errstate(over="ignore"):
            farthest = np.abs((x / 2 - median) / spread).max(axis=1).argmax()
        raise ValueError(
            f"Outliers, the farthest in row {farthest}, leave nothing of a correlation matrix but "
            "rounding: leave such rows out, or use method 'copula' or 'ksg', which see ranks."
        )
    noise = as_float64(x)[2]
    for row in np.flatnonzero(estimator.leverages(np.arange(len(others))) > 1 - LEAST_LEFT):
        for j in dependent_columns(np.delete(x[:, others], row, axis=0), noise)[0]:
            found[int(others[j])] = f"linearly dependent on the others but for row {row}"
    return found


def cholesky(correlation: Matrix, columns: Columns) -> Matrix:
    """Lower factor of the correlation matrix of some columns."""
    return np.linalg.cholesky(correlation[np.ix_(columns, columns)])


def half_log_determinant(factor: Matrix) -> float:
    """½ ln det of the matrix with this Cholesky factor."""
    return float(np.log(np.diag(factor)).sum())


def excess(n: int, k: int) -> float:
    """E[½ ln det S] - ½ ln det Sigma - k/2 ln 2 of the products S of n centred rows, k columns.

    Exact for Gaussian columns: S's determinant is that of Sigma times independent chi-squares of
    n - 1, ..., n - k degrees of freedom (Anderson 2003, theorem 7.5.3). It biases the
    multiinformation of d columns by about d (d - 1) / (4 n).
    """
    return 0.5 * float(psi((n - 1 - np.arange(k)) / 2).sum())


def null_variance(n: int, k: int) -> float:
    """Variance of ½ ln det S of n independent rows of k independent columns, in nats²."""
    return 0.25 * float(polygamma(1, (n - 1 - np.arange(k)) / 2).sum())
