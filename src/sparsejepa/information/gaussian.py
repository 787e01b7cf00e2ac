"""Gaussian plug-in estimate: -½ ln det R of the correlation matrix R, without its bias.

Valid at any width for Gaussian columns. Of others it is neither an upper nor a lower bound, and
misses all dependence without correlation. Undefined where it would rest on a single row.
"""

import numpy as np
import scipy.linalg
from jaxtyping import Float64
from scipy.special import polygamma, psi

from sparsejepa.information.columns import EPS64, centre_and_spread, moments, usable_columns
from sparsejepa.information.estimate import Blocks, Columns, Estimator, Matrix, Term

# Where a row leaves less of the determinant than this share, the formula of the jackknife loses
# its digits, and the row is left out in fact.
LEAST_LEFT = 1e-6


class GaussianEstimator(Estimator):
    """The plug-in estimate of columns that `usable_columns` and `columns_of_one_row` let pass."""

    def __init__(self, x: Float64[np.ndarray, "N d"]) -> None:
        self.x, self.rows = x, len(x)
        self.mean, covariance = moments(x)
        self.scale = np.sqrt(np.diag(covariance))
        self.correlation = covariance / self.scale / self.scale[:, None]

    def between_value(self, blocks: Blocks) -> float:
        whole = self._plug_in(np.concatenate(blocks))[0]
        return sum(self._plug_in(block)[0] for block in blocks) - whole

    def entropy(self, columns: Columns) -> Term:
        value, factor, correction = self._plug_in(columns)
        null = 0.25 * float(polygamma(1, (self.rows - 1 - np.arange(len(columns))) / 2).sum())
        return Term(value, self.deviations(columns, factor), null, correction)

    def _plug_in(self, columns: Columns) -> tuple[float, Matrix, float]:
        """½ ln det without its bias, the Cholesky factor and the correction that it contains."""
        factor = np.linalg.cholesky(self.correlation[np.ix_(columns, columns)])
        correction = self.correction(columns, factor)
        half = float(np.log(np.diag(factor)).sum())
        return half - excess(self.rows, len(columns)) + correction, factor, correction

    def correction(self, columns: Columns, factor: Matrix) -> float:
        """Nats to add to the plug-in, whose size is suspected as bias."""
        return 0.0

    def deviations(self, columns: Columns, factor: Matrix) -> Float64[np.ndarray, "N"]:
        """By the exact jackknife: leaving row i out multiplies det R by 1 - leverage i."""
        leverage = self.leverages(columns, factor)
        left_out = 0.5 * np.log1p(-np.minimum(leverage, 1 - LEAST_LEFT))
        for row in np.flatnonzero(leverage > 1 - LEAST_LEFT):
            rest = GaussianEstimator(np.delete(self.x[:, columns], row, axis=0))
            narrower = np.log(rest.scale / self.scale[columns]).sum()
            narrower += 0.5 * len(columns) * np.log1p(-1 / self.rows)
            of_rest = np.log(np.diag(np.linalg.cholesky(rest.correlation))).sum()
            left_out[row] = of_rest + narrower - np.log(np.diag(factor)).sum()
        return np.sqrt(self.rows - 1) * (left_out - left_out.mean())

    def leverages(self, columns: Columns, factor: Matrix) -> Float64[np.ndarray, "N"]:
        """h_i / (N - 1) with each row's squared Mahalanobis distance h_i from the mean."""
        z = (self.x[:, columns] - self.mean[columns]) / self.scale[columns]
        white = scipy.linalg.solve_triangular(factor, z.T, lower=True)
        return np.square(white).sum(axis=0) / (self.rows - 1)


def in_own_units(x: Float64[np.ndarray, "N d"]) -> Float64[np.ndarray, "N d"]:
    """Columns up to 1 in size, by powers of two, without the offset of those far from zero."""
    median, spread = centre_and_spread(x)
    offset = np.where(np.abs(median) > 1000 * spread, median, 0.0)
    x = x - offset if offset.any() else x
    return np.ldexp(x, -np.frexp(np.abs(x).max(axis=0))[1])


def columns_of_one_row(x: Float64[np.ndarray, "N d"]) -> dict[int, str]:
    """Column -> why no Gaussian estimate with it has a standard error: it would rest on one row.

    Without that row the column is constant, as a unit that is active for one image, or dependent.
    """
    estimator, every = GaussianEstimator(in_own_units(x)), np.arange(x.shape[1])
    if np.linalg.eigvalsh(estimator.correlation)[0] <= 10 * len(every) * EPS64:
        median, spread = centre_and_spread(x)
        raise ValueError(
            f"Outliers, the farthest in row {np.abs((x - median) / spread).max(axis=1).argmax()}, "
            "leave nothing of a correlation matrix but rounding: leave such rows out, or use "
            "method 'copula' or 'ksg', which see ranks."
        )
    found = {}
    leverage = estimator.leverages(every, np.linalg.cholesky(estimator.correlation))
    for row in np.flatnonzero(leverage > 1 - LEAST_LEFT):
        for left_out in usable_columns(np.delete(x, row, axis=0), drop=True)[2]:
            found[left_out.column] = f"{left_out.reason} but for row {row}"
    return found


def excess(n: int, k: int) -> float:
    """E[½ ln det S] - ½ ln det Sigma - k/2 ln 2 of the products S of n centred rows, k columns.

    Exact for Gaussian columns: S's determinant is that of Sigma times independent chi-squares of
    n - 1, ..., n - k degrees of freedom (Anderson 2003, theorem 7.5.3). It biases the
    multiinformation of d columns by about d (d - 1) / (4 n).
    """
    return 0.5 * float(psi((n - 1 - np.arange(k)) / 2).sum())
