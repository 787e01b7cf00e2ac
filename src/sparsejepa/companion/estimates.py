"""One number with its interval for several seeds of a method, and for two methods compared."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from sparsejepa.intervals import Interval, bootstrap_interval, seed_interval

# Below this many seeds an interval over seeds says nothing.
FEWEST_SEEDS = 3


@dataclass(frozen=True)
class Estimate:
    """A share or a difference of shares, and what its 95 % interval covers."""

    value: float
    low: float
    high: float
    seeds: int  # how many runs are averaged

    @property
    def basis(self) -> str:
        """What was drawn anew for the interval."""
        if self.seeds >= FEWEST_SEEDS:
            return f"over {self.seeds} seeds"
        return f"over test images, {self.seeds} seed{'s' * (self.seeds > 1)}"

    def percent(self, signed: bool = False) -> str:
        """As "12.3 [11.8, 12.9]", in per cent or points."""
        form = "{:+.1f} [{:+.1f}, {:+.1f}]" if signed else "{:.1f} [{:.1f}, {:.1f}]"
        return form.format(100 * self.value, 100 * self.low, 100 * self.high)

    def clear(self) -> bool:
        """For a difference: the interval does not contain zero."""
        return self.low > 0 or self.high < 0


def estimate(correct: Mapping[int, ArrayLike], seed: int) -> Estimate:
    """Accuracy over runs, given for each run's seed which test images were right.

    From three seeds on the interval is Student's over seeds; below, it is the bootstrap over test
    images of each image's mean over the runs there are.

    Raises:
        ValueError: there are no runs, or they were tested on different numbers of images.
    """
    return _over(_stacked(correct), seed)


def paired_estimate(
    a: Mapping[int, ArrayLike], b: Mapping[int, ArrayLike], seed: int
) -> Estimate | None:
    """Accuracy of `a` minus that of `b`, of the same images and seeds; None without a common seed.

    Raises:
        ValueError: as `estimate`.
    """
    common = sorted(a.keys() & b.keys())
    if not common:
        return None
    one, two = (_stacked({s: runs[s] for s in common}) for runs in (a, b))
    if one.shape != two.shape:
        raise ValueError(
            f"Paired runs need the same images, not {one.shape[1]} and {two.shape[1]}."
        )
    return _over(one - two, seed)


def _stacked(correct: Mapping[int, ArrayLike]) -> np.ndarray:
    rows = [np.asarray(correct[s], dtype=float) for s in sorted(correct)]
    if not rows or len({len(row) for row in rows}) > 1:
        raise ValueError(
            f"Runs must be tested on the same images, not on {[len(row) for row in rows]}."
        )
    return np.stack(rows)


def _over(values: np.ndarray, seed: int) -> Estimate:
    found: Interval = (
        seed_interval(values.mean(axis=1))
        if len(values) >= FEWEST_SEEDS
        else bootstrap_interval(values.mean(axis=0), seed)
    )
    return Estimate(found.value, found.low, found.high, len(values))
