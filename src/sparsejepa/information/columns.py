"""Columns with a finite multiinformation; constant and dependent ones are refused or left out."""

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from sparsejepa.information.estimate import DroppedColumn, Matrix

# Fewer rows leave the correlation matrix so uncertain that no correction mends it.
ROWS_PER_COLUMN = 5
FEWEST_ROWS = 20
# An entry this many typical deviations from its column's median is an outlier or a sentinel, such
# as 1e9 for "missing", whose row would hide what the others show of dependence.
FAR = 100
EPS32, EPS64 = float(np.finfo(np.float32).eps), float(np.finfo(np.float64).eps)

Array = Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"]
Usable = tuple[Shaped[np.ndarray, "N k"], Int64[np.ndarray, "k"], tuple[DroppedColumn, ...]]


def usable_columns(x: Array, drop: bool) -> Usable:
    """The columns of `x` that can enter, in float64, their indices, and what was dropped.

    Constant columns (dead units) have an entropy of minus infinity; exact linear dependence, as a
    final LayerNorm causes (sum_i z_i / w_i is the same for every image), makes the multiinformation
    infinite. `drop` leaves out constant columns, and then as many others as there are null
    directions: those that leave the largest determinant, hence the smallest multiinformation. Of
    one null direction v that is argmax |v_i|; column j adds ln |v_i / v_j|.

    Raises:
        ValueError: NaN or infinity, fewer rows than `ROWS_PER_COLUMN` a column, constant columns
            or linear dependence without `drop`, or no column left.
    """
    values, rounding, noise = as_float64(x)
    n, d = values.shape
    if n < _fewest_rows(d):
        what = f"{n} rows are too few for {d} columns: at least {_fewest_rows(d)} are needed"
        raise ValueError(f"{what}, and intervals hold from {50 * d}.")
    highest, lowest = values.max(axis=0), values.min(axis=0)
    dead = highest - lowest <= 2 * rounding * np.maximum(np.abs(highest), np.abs(lowest))
    dropped = [DroppedColumn(int(i), "constant") for i in np.flatnonzero(dead)]
    if dropped and not drop:
        advice = "pass drop=True to leave such columns out and have that reported"
        raise ValueError(f"Column {dropped[0].column} is constant (a dead unit); {advice}.")
    kept = np.flatnonzero(~dead)
    if len(kept) == 0:
        raise ValueError("Every column is constant: there is nothing to estimate.")
    dependent, smallest = dependent_columns(values[:, kept] if dropped else values, noise)
    if len(dependent) and not drop:
        raise ValueError(
            f"The columns are linearly dependent (smallest eigenvalue of their correlation matrix "
            f"{smallest:.1e}; a final LayerNorm causes one), so their total correlation is "
            f"infinite; pass drop=True to leave out {len(dependent)} and have that reported."
        )
    dropped += [DroppedColumn(int(kept[i]), "linearly dependent on the others") for i in dependent]
    kept = np.delete(kept, dependent)
    return values[:, kept] if dropped else values, kept, tuple(dropped)


def dependent_columns(
    x: Float64[np.ndarray, "N d"], noise: float
) -> tuple[Int64[np.ndarray, "k"], float]:
    """As many columns as there are null directions, and the smallest eigenvalue.

    It is of the correlation matrix of rows without far entries, after each column is centred at its
    median and scaled by its typical deviation: no offset, unit or sentinel row changes it. `noise`
    is as in `as_float64`.
    """
    d = x.shape[1]
    median, spread = centre_and_spread(x)
    y = np.ascontiguousarray((x - median) / spread)
    y = y[(np.abs(y) <= FAR).all(axis=1)]
    if len(y) < _fewest_rows(d):
        return np.array([], dtype=np.int64), np.nan
    mean, covariance = moments(y)
    scale = np.sqrt(np.diag(covariance))
    moving = np.flatnonzero(scale > 0)
    mean, scale = mean[moving], scale[moving]
    spectrum, axes = np.linalg.eigh(covariance[np.ix_(moving, moving)] / scale / scale[:, None])
    offset = (median[moving] / spread[moving] + mean) / scale
    # Features in float64 have often been computed in float32 and centred afterwards: 100 EPS32².
    # What exceeds a hundredth of a column's variance is no rounding, whatever the offset.
    tolerance = 100 * EPS32**2 + noise * (1 + np.square(axes * offset[:, None]).sum(axis=0))
    null = axes[:, spectrum <= np.minimum(tolerance, 0.01) + 10 * d * EPS64]
    # Pivoted QR picks rows of the null space greedily by volume: exact for one direction.
    pivots = scipy.linalg.qr(null.T, mode="r", pivoting=True)[1][: null.shape[1]]
    return np.sort(moving[pivots]), float(spectrum[0])


def centre_and_spread(x: Float64[np.ndarray, "N d"]) -> Float64[np.ndarray, "2 d"]:
    """The median of every column, and the median distance of other values from it."""
    median = np.median(x, axis=0)
    distance = np.abs(x - median)
    return np.stack([median, np.nanmedian(np.where(distance > 0, distance, np.nan), axis=0)])


def as_float64(x: Array) -> tuple[Float64[np.ndarray, "N d"], float, float]:
    """`x` in float64, the rounding eps of its number format, and the variance of that rounding.

    Of a number's square: eps² / 2 where only storage rounds, as in half precision, 2 eps² where
    arithmetic does, as measured behind LayerNorms in float32. Numbers in float64 that float32 holds
    too were computed there.
    """
    array, eps = as_array(x), EPS64
    if array.dtype.kind == "f":
        eps = float((torch if isinstance(x, Tensor) else np).finfo(x.dtype).eps)
    values = np.asarray(array, dtype=np.float64)
    if eps > EPS32:
        return values, eps, eps**2 / 2
    with np.errstate(over="ignore"):
        coarse = np.array_equal(values, values.astype(np.float32))
    return values, eps, 2 * (EPS32 if coarse else EPS64) ** 2


def as_array(x: Array) -> Shaped[np.ndarray, "N d"]:
    """`x`, checked to be finite, as a NumPy array; half precision becomes float64."""
    if isinstance(x, Tensor):
        x = x.detach().cpu()
        x = (x.double() if x.dtype in (torch.float16, torch.bfloat16) else x).numpy()
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise ValueError("The columns contain NaN or infinity: check what computed them.")
    return x


def moments(x: Float64[np.ndarray, "N d"]) -> tuple[Float64[np.ndarray, "d"], Matrix]:
    """Mean and covariance (divided by N)."""
    mean = x.mean(axis=0)
    centred = x - mean
    return mean, centred.T @ centred / len(x)


def _fewest_rows(d: int) -> int:
    return max(ROWS_PER_COLUMN * d, FEWEST_ROWS)
