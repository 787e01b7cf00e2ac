"""What every estimator of multiinformation returns, and how its uncertainty is put together."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64, Int
from scipy.special import ndtri

Columns = Int[np.ndarray, "_"]
Matrix = Float64[np.ndarray, "_ _"]
Blocks = Sequence[Int[np.ndarray, "_"]]


@dataclass(frozen=True)
class DroppedColumn:
    """A column that did not enter."""

    column: int  # its index in the input
    reason: str  # "constant", "linearly dependent on the others", or either but for one row


@dataclass(frozen=True)
class TotalCorrelation:
    """An estimate of sum_i H(Z_i) - H(Z_1, ..., Z_d) (Watanabe 1960), in nats."""

    value: float  # bias-corrected, hence slightly negative at times; infinite only by definition
    standard_error: float  # nats; sampling error and what the estimator suspects of its own bias
    method: str  # gaussian, copula, ksg or discrete
    n: int  # rows
    d: int  # columns that entered
    dropped: tuple[DroppedColumn, ...] = ()  # columns that did not

    @property
    def per_unit(self) -> float:
        """value / (d - 1), for comparisons across widths; 0 for a single column."""
        return self.value / max(self.d - 1, 1)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Lower and upper end, in nats, of the interval of that coverage, between 0 and 1.

        Near independence the variance grows by 2 / n for each nat that the truth is larger (that of
        a chi-square / 2n). So, as in Wilson's interval of a proportion, the upper end t solves
        (t - value)² = z² (standard_error² + 2 (t - value) / n); the lower end is the normal one.
        """
        z = float(ndtri((1 + level) / 2))
        shift = z * z / self.n
        lower = self.value - z * self.standard_error
        upper = self.value + shift + np.hypot(shift, z * self.standard_error)
        return float(lower), float(upper)


@dataclass(frozen=True, eq=False)
class Term:
    """An entropy, or a sum and difference of entropies, with its uncertainty."""

    value: float  # nats
    deviations: Float64[np.ndarray, "R"]  # root mean square: sampling error, by jackknife or such
    null_variance: float = 0.0  # nats², of the same quantity if all columns were independent
    systematic: float = 0.0  # nats, by how much the estimator suspects itself of bias

    def standard_error(self) -> float:
        """Sampling error and suspected bias, in nats.

        The variance at independence is a lower bound; the jackknife overestimates by up to 2x.
        """
        variance = max(float(np.mean(np.square(self.deviations))), self.null_variance)
        return float(np.sqrt(variance + self.systematic**2))


class Estimator:
    """A method bound to its data.

    A subclass has `entropy(columns)`, a Term in nats up to what cancels in every multiinformation.
    """

    def between(self, blocks: Blocks) -> Term:
        """Multiinformation between disjoint blocks of columns, each taken as one vector."""
        whole = self.entropy(np.concatenate(blocks))
        value, systematic, null = -whole.value, -whole.systematic, whole.null_variance
        deviations = -whole.deviations
        for part in map(self.entropy, blocks):
            value, systematic = value + part.value, systematic + part.systematic
            deviations = deviations + part.deviations
            null -= part.null_variance
        return Term(value, deviations, max(null, 0.0), systematic)

    def between_value(self, blocks: Blocks) -> float:
        """The value of `between` alone, which may take a small part of the time."""
        return self.between(blocks).value
