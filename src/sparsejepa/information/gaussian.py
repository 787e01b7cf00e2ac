"""Gaussian estimates: -½ ln det R, without its bias, of the correlation matrix R of the columns.

The plug-in takes columns as they are: valid at any width for Gaussian ones, of others neither an
upper nor a lower bound, blind to dependence without correlation, undefined on a single row.

The copula turns ranks into normal scores first: invariant under monotone maps of each column, valid
for monotone functions of jointly Gaussian columns, at N >= 50 d. Otherwise it estimates a lower
bound: of all laws with standard normal margins and correlation R, the Gaussian has the largest
entropy. Dependence that leaves normal scores uncorrelated, as of a Student t's tails, is missed.
"""

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float64, Int, Int32, Shaped
from scipy.special import ndtri, polygamma, psi

from sparsejepa.information.columns import EPS64, centre_and_spread, moments, usable_columns
from sparsejepa.information.estimate import Blocks, Columns, DroppedColumn, Estimator, Matrix, Term

# Where a row leaves less of the determinant, the jackknife's formula loses its digits.
LEAST_LEFT = 1e-6
SPLITS = 4  # into random halves, from which the copula's bias is extrapolated
LEAST_SHARE = 0.01  # of a direction's variance that extrapolation leaves: it adds 2.3 nats

Values, Ranks = Float64[np.ndarray, "N d"], Int32[np.ndarray, "N d"]


class GaussianEstimator(Estimator):
    """The plug-in estimate of columns that `usable_columns` and `columns_of_one_row` let pass."""

    def __init__(self, x: Values) -> None:
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
        """½ ln det without its bias, the Cholesky factor, and what of it is suspected as bias."""
        factor = np.linalg.cholesky(self.correlation[np.ix_(columns, columns)])
        half = float(np.log(np.diag(factor)).sum())
        return half - excess(self.rows, len(columns)), factor, 0.0

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


def gaussian_estimator(x: Values, generator: torch.Generator | None = None) -> GaussianEstimator:
    """Of columns up to 1 in size, by powers of two, without the offset of those far from zero."""
    median, spread = centre_and_spread(x)
    offset = np.where(np.abs(median) > 1000 * spread, median, 0.0)
    x = x - offset if offset.any() else x
    return GaussianEstimator(np.ldexp(x, -np.frexp(np.abs(x).max(axis=0))[1]))


def columns_of_one_row(x: Values, names: Columns) -> tuple[DroppedColumn, ...]:
    """Columns that are constant (a unit active for one image) or dependent but for one row.

    A Gaussian estimate would rest on that row, without a standard error.
    """
    estimator, every = gaussian_estimator(x), np.arange(x.shape[1])
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
            name = int(names[left_out.column])
            found[name] = DroppedColumn(name, f"{left_out.reason} but for row {row}")
    return tuple(found.values())


def excess(n: int, k: int) -> float:
    """E[½ ln det S] - ½ ln det Sigma - k/2 ln 2 of the products S of n centred rows, k columns.

    Exact for Gaussian columns: det S / det Sigma is a product of chi-squares of n - 1, ..., n - k
    degrees of freedom (Anderson 2003, theorem 7.5.3). It biases d columns by d (d - 1) / (4 n).
    """
    return 0.5 * float(psi((n - 1 - np.arange(k)) / 2).sum())


class CopulaEstimator(GaussianEstimator):
    """The plug-in of normal scores, bound to the ranks of its columns.

    Ranks displace the scores of a row by about 1 / sqrt(N), differently in every column: that blurs
    near-deterministic dependence. Of the scores' correlation matrix, E S(N) = R + B / N to first
    order. So the estimate is of 2 S(N) - S(N/2), where S(N/2) is the mean over random halves; the
    size of that correction is its systematic uncertainty.
    """

    def __init__(self, x: Shaped[np.ndarray, "N d"], generator: torch.Generator) -> None:
        self.ranks, self.rows = independent_ranks(x, generator), len(x)
        self.correlation = _products(self.ranks)
        smallest = float(np.linalg.eigvalsh(self.correlation)[0])
        if smallest <= 10 * len(self.correlation) * EPS64:
            raise ValueError(
                "The ranks of the columns are linearly dependent (smallest eigenvalue of the "
                f"correlation matrix of their normal scores {smallest:.1e}), so their total "
                "correlation is infinite; leave out what is a monotone function of another column."
            )
        self.in_halves = np.zeros_like(self.correlation)
        for _ in range(SPLITS):
            order = torch.randperm(self.rows, generator=generator).numpy()
            for part in np.split(order, [self.rows // 2]):
                # Ranks within the half, by counting its members instead of sorting them again.
                ranks, member = self.ranks[np.sort(part)], np.zeros(x.shape, dtype=np.int32)
                np.put_along_axis(member, ranks, 1, axis=0)
                within = np.take_along_axis(member.cumsum(axis=0), ranks, axis=0) - 1
                self.in_halves += _products(within) / (2 * SPLITS)

    def deviations(self, columns: Columns, factor: Matrix) -> Float64[np.ndarray, "N"]:
        """By the influence function of -½ ln det R (Klaassen & Wellner 1997, section 3).

        A row moves R by z z' and, through the margins, by the error of each distribution function.
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

    def _plug_in(self, columns: Columns) -> tuple[float, Matrix, float]:
        """Corrected by ½ ln det (2 S(N) - S(N/2)) - ½ ln det S(N), bounded in each direction."""
        value, factor, _ = super()._plug_in(columns)
        halves = self.in_halves[np.ix_(columns, columns)]
        white = scipy.linalg.solve_triangular(factor, halves, lower=True)
        white = scipy.linalg.solve_triangular(factor, white.T, lower=True)
        left = np.maximum(2 - np.linalg.eigvalsh(white), LEAST_SHARE)
        correction = float(0.5 * np.log(left).sum())
        return value + correction, factor, correction


def independent_ranks(x: Shaped[np.ndarray, "N d"], generator: torch.Generator) -> Ranks:
    """Ranks 0 to N - 1 of every column, equal values in random order.

    The value can be read back: by the data processing inequality, multiinformation stays the same.
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


def _products(ranks: Int[np.ndarray, "N d"]) -> Matrix:
    """Correlation matrix of the columns' normal scores."""
    z = normal_scores(len(ranks))[ranks]
    products = z.T @ z / len(ranks)
    # Exactly 1, without rounding, so that a column alone is exactly independent.
    np.fill_diagonal(products, 1.0)
    return products
