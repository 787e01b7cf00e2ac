"""Plug-in estimate for discrete columns, with the bias correction of Miller & Madow (1955).

Valid where the joint values are few: N at least 5 times their number.
"""

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped

from sparsejepa.information.estimate import Columns, Estimator, Term

ROWS_PER_VALUE = 5
RESAMPLINGS = 200


class DiscreteEstimator(Estimator):
    """Counts of the distinct rows, and what resampling the rows makes of them."""

    def __init__(self, x: Shaped[np.ndarray, "N d"], generator: torch.Generator) -> None:
        numbered = [np.unique(column, return_inverse=True)[1].reshape(-1) for column in x.T]
        values, counts = np.unique(np.stack(numbered, axis=1), axis=0, return_counts=True)
        n = len(x)
        if n < ROWS_PER_VALUE * len(values):
            raise ValueError(
                f"{n} rows have {len(values)} distinct values: the discrete estimate needs at "
                f"least {ROWS_PER_VALUE} rows for each; use fewer columns, coarser values or "
                "another method."
            )
        self.values, self.counts = values, counts[None]
        # NumPy draws counts at once; torch would draw the rows one by one.
        draw = np.random.default_rng(int(torch.randint(2**62, (1,), generator=generator)))
        self.resampled = draw.multinomial(n, counts / n, size=RESAMPLINGS)

    def entropy(self, columns: Columns) -> Term:
        """With the bootstrap over rows for its sampling error.

        The correction is right to order 1 / N and where no value is rare: its size is suspected.
        """
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
