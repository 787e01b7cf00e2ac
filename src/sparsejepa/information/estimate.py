"""What every estimator of multiinformation returns, and how its uncertainty is put together."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float64, Int
from scipy.special import ndtri


@dataclass(frozen=True)
class DroppedColumn:
    """A column that did not enter."""

    column: int  # its index in the input
    reason: str  # "constant" or "linearly dependent on the others"


@dataclass(frozen=True)
class TotalCorrelation:
    """An estimate of sum_i H(Z_i) - H(Z_1, ..., Z_d) (Watanabe 1960), in nats."""

    value: float  # bias-corrected, hence slightly negative at times; infinite only by definition
    standard_error: float  # nats; sampling error and what the estimator knows of its own bias
    method: str  # gaussian, copula, ksg or discrete
    n: int  # rows
    d: int  # columns that entered
    dropped: tuple[DroppedColumn, ...] = ()  # columns that did not

    @property
    def per_unit(self) -> float:
        """value / (d - 1), for comparisons across widths; 0 for a single column."""
        return self.value / max(self.d - 1, 1)

    def interval(self, level: float = 0.95) -> tuple[float, float]:
        """Lower and upper end, in nats, of the interval of that coverage.

        Near independence the variance of the estimate grows by 2 / n for each nat that the truth
        is larger (that of a chi-square / 2n). So, as in Wilson's interval of a proportion, the
        upper end t solves (t - value)² = z² (standard_error² + 2 (t - value) / n): without that,
        intervals of weakly dependent columns would end too low. The lower end is that of the
        normal distribution.

        Raises:
            ValueError: `level` is not between 0 and 1.
        """
        if not 0 < level < 1:
            raise ValueError(f"level must lie between 0 and 1, not {level}.")
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

        No estimate varies less than at independence. The deviations rather overstate the variance:
        a jackknife counts twice what is left of it at independence (Efron & Stein 1981).
        """
        variance = max(float(np.mean(np.square(self.deviations))), self.null_variance)
        return float(np.sqrt(variance + self.systematic**2))


def sum_minus_whole(parts: Iterable[Term], whole: Term) -> Term:
    """sum_g H(part g) - H(whole): the multiinformation between the parts."""
    value, systematic, null = -whole.value, -whole.systematic, whole.null_variance
    deviations = -whole.deviations
    for part in parts:
        value, systematic = value + part.value, systematic + part.systematic
        deviations = deviations + part.deviations
        null -= part.null_variance
    return Term(value, deviations, max(null, 0.0), systematic)


@runtime_checkable
class Estimator(Protocol):
    """A method bound to its data, of N rows and d columns."""

    method: str

    def between(self, blocks: Sequence[Int[np.ndarray, "_"]]) -> Term:
        """Multiinformation between disjoint blocks of columns, each taken as one vector."""

    def between_value(self, blocks: Sequence[Int[np.ndarray, "_"]]) -> float:
        """Its value alone, which takes a small part of the time."""


@runtime_checkable
class EntropyEstimator(Protocol):
    """A method that estimates entropies, up to what cancels in every multiinformation."""

    def entropy(self, columns: Int[np.ndarray, "k"]) -> Term: ...

    def entropy_value(self, columns: Int[np.ndarray, "k"]) -> float: ...


def between_by_entropies(
    estimator: EntropyEstimator, blocks: Sequence[Int[np.ndarray, "_"]]
) -> Term:
    """`Estimator.between` as a difference of entropies."""
    whole = estimator.entropy(np.concatenate(blocks))
    return sum_minus_whole((estimator.entropy(block) for block in blocks), whole)


def between_value_by_entropies(
    estimator: EntropyEstimator, blocks: Sequence[Int[np.ndarray, "_"]]
) -> float:
    """`Estimator.between_value` as a difference of entropies."""
    whole = estimator.entropy_value(np.concatenate(blocks))
    return sum(estimator.entropy_value(block) for block in blocks) - whole


def single_columns(d: int) -> list[Int[np.ndarray, "1"]]:
    """The finest partition: every column a block of its own."""
    return [np.array([column]) for column in range(d)]
