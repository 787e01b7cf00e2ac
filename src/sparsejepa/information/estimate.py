"""What every estimator of multiinformation returns, its uncertainty, and the estimate by counts."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int, Int64, Shaped
from scipy.special import ndtri

# Of counts: the rows that each distinct value needs, and the resamplings of the bootstrap.
ROWS_PER_VALUE, RESAMPLINGS = 5, 200

Columns = Int[np.ndarray, "_"]
Matrix = Float64[np.ndarray, "_ _"]
Blocks = Sequence[Int[np.ndarray, "_"]]


@dataclass(frozen=True)
class DroppedColumn:
    """A column that did not enter."""

    column: int  # of the input
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
        shift, half = z * z / self.n, z * self.standard_error
        return float(self.value - half), float(self.value + shift + np.hypot(shift, half))


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
    """A method bound to its data; `entropy(columns)` is up to what cancels in multiinformation."""

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
        """The value of `between` alone; a subclass may have it sooner."""
        return self.between(blocks).value


class DiscreteEstimator(Estimator):
    """Plug-in of few joint values, with the bias correction of Miller & Madow (1955)."""

    def __init__(self, x: Shaped[np.ndarray, "N d"], generator: torch.Generator) -> None:
        values, counts = np.unique(x, axis=0, return_counts=True)
        n = len(x)
        if n < ROWS_PER_VALUE * len(values):
            what = f"{n} rows have {len(values)} distinct values: the discrete estimate needs at"
            advice = "use fewer columns, coarser values or another method"
            raise ValueError(f"{what} least {ROWS_PER_VALUE} rows for each; {advice}.")
        self.values, self.counts = values, counts[None]
        # NumPy draws counts at once; torch would draw the rows one by one.
        draw = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        self.resampled = draw.multinomial(n, counts / n, size=RESAMPLINGS)

    def entropy(self, columns: Columns) -> Term:
        """Bootstrapped over rows; the correction, right to order 1 / N, is suspected of bias."""
        counts = self._merged(columns, self.counts)
        drawn = _plug_in(self._merged(columns, self.resampled))
        correction = (counts.shape[1] - 1) / (2 * int(self.counts.sum()))
        value = _plug_in(counts).item() + correction
        return Term(value, drawn - drawn.mean(), systematic=correction)

    def _merged(self, columns: Columns, counts: Int64[np.ndarray, "B K"]) -> np.ndarray:
        """Counts of the distinct values of some columns, from those of all."""
        cell = np.unique(self.values[:, columns], axis=0, return_inverse=True)[1].reshape(-1)
        merged = np.zeros((cell.max() + 1, len(counts)), dtype=np.int64)
        np.add.at(merged, cell, counts.T)
        return merged.T


def _plug_in(counts: Int64[np.ndarray, "B K"]) -> Float64[np.ndarray, "B"]:
    """Entropy in nats of each row of counts."""
    share = counts / counts.sum(axis=1, keepdims=True)
    return -(share * np.log(np.where(share > 0, share, 1.0))).sum(axis=1)
