"""Which columns have a finite multiinformation, and which must be left out before one is asked."""

from collections.abc import Iterator

import numpy as np
import scipy.linalg
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor

from sparsejepa.information.estimate import DroppedColumn

# Fewer rows leave the correlation matrix so uncertain that no correction mends it.
ROWS_PER_COLUMN = 5
FEWEST_ROWS = 20
# Rows are converted to float64 a chunk at a time: 50,000 x 768 of them would take 300 MB a copy.
CHUNK_BYTES = 32_000_000


def usable_columns(
    x: Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"], drop: bool
) -> tuple[Float[np.ndarray, "N k"], Int64[np.ndarray, "k"], tuple[DroppedColumn, ...]]:
    """The columns of `x` that can enter, their indices, and what was dropped.

    A constant column (a dead unit) has an entropy of minus infinity, and exact linear dependence
    makes the multiinformation infinite. The final LayerNorm of a vision transformer causes one
    such dependence: sum_i z_i / w_i is the same for every image. With `drop`, constant columns
    are left out, and then as many others as there are null directions: those that leave the
    largest determinant among what stays, hence the smallest multiinformation. Of one null
    direction v that is argmax |v_i|, and leaving out column j instead would add ln |v_i / v_j|.

    What is constant is judged by the rounding of the input's number format, what is a null
    direction by that or float32's.

    Raises:
        ValueError: NaN or infinity, fewer rows than `ROWS_PER_COLUMN` a column, constant columns
            or linear dependence without `drop`, or no column left.
    """
    values, rounding = as_float_array(x)
    n, d = values.shape
    if not all(np.isfinite(values[rows]).all() for rows in row_chunks(n, d)):
        raise ValueError(
            "The columns contain NaN or infinity, of which no multiinformation can be estimated; "
            "check what computed them."
        )
    if n < max(ROWS_PER_COLUMN * d, FEWEST_ROWS):
        raise ValueError(
            f"{n} rows are too few for {d} columns: at least "
            f"{max(ROWS_PER_COLUMN * d, FEWEST_ROWS)} are needed, and intervals hold from {50 * d}."
        )
    highest, lowest = values.max(axis=0), values.min(axis=0)
    dead = highest - lowest <= 8 * rounding * np.maximum(np.abs(highest), np.abs(lowest))
    dropped = [DroppedColumn(int(i), "constant") for i in np.flatnonzero(dead)]
    if dropped and not drop:
        raise ValueError(
            f"Column {dropped[0].column} is constant{_and_others(len(dropped) - 1)} (a dead unit); "
            "pass drop=True to leave such columns out and have that reported."
        )
    kept = np.flatnonzero(~dead)
    if len(kept) == 0:
        raise ValueError("Every column is constant: there is nothing to estimate.")
    mean, covariance = moments(values[:, kept] if dropped else values)
    scale = np.sqrt(np.diag(covariance))
    correlation = covariance / scale / scale[:, None]
    # Rounding of the input is noise of this variance, relative to that of the column it is in. At
    # least float32's: features in float64 have often been computed in float32.
    rounding = max(rounding, float(np.finfo(np.float32).eps))
    noise = 100 * rounding**2 * (1 + np.square(mean / scale).max())
    tolerance = noise + 10 * d * np.finfo(np.float64).eps
    spectrum, axes = np.linalg.eigh(correlation)
    null = axes[:, spectrum <= tolerance]
    if null.shape[1] and not drop:
        raise ValueError(
            f"The columns are linearly dependent (smallest eigenvalue of their correlation matrix "
            f"{spectrum[0]:.1e}; a final LayerNorm causes one), so their total correlation is "
            f"infinite; pass drop=True to leave out {null.shape[1]} and have that reported."
        )
    if null.shape[1]:
        # Pivoted QR picks rows of the null space greedily by volume: exact for one direction.
        pivots = scipy.linalg.qr(null.T, mode="r", pivoting=True)[1][: null.shape[1]]
        dropped += [
            DroppedColumn(int(kept[i]), "linearly dependent on the others") for i in sorted(pivots)
        ]
        kept = np.delete(kept, pivots)
    return values[:, kept] if dropped else values, kept, tuple(dropped)


def as_float_array(
    x: Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"],
) -> tuple[Float[np.ndarray, "N d"], float]:
    """`x` as a NumPy array of float32 or float64, and the relative rounding it came with."""
    if isinstance(x, Tensor):
        floating = x.dtype.is_floating_point
        rounding = torch.finfo(x.dtype).eps if floating else np.finfo(np.float64).eps
        wide = x.detach().cpu()
        wide = wide if x.dtype in (torch.float32, torch.float64) else wide.double()
        return wide.numpy(), rounding
    floating = np.issubdtype(x.dtype, np.floating)
    rounding = float(np.finfo(x.dtype if floating else np.float64).eps)
    return x if x.dtype in (np.float32, np.float64) else x.astype(np.float64), rounding


def moments(
    x: Float[np.ndarray, "N d"],
) -> tuple[Float64[np.ndarray, "d"], Float64[np.ndarray, "d d"]]:
    """Mean and covariance (divided by N), in float64."""
    n, d = x.shape
    mean = x.mean(axis=0, dtype=np.float64)
    covariance = np.zeros((d, d))
    for rows in row_chunks(n, d):
        centred = x[rows] - mean
        covariance += centred.T @ centred
    return mean, covariance / n


def row_chunks(n: int, d: int) -> Iterator[slice]:
    """Slices over n rows of d numbers, each of some `CHUNK_BYTES` in float64."""
    size = max(1, CHUNK_BYTES // (8 * max(d, 1)))
    return (slice(start, start + size) for start in range(0, n, size))


def shuffled_columns(
    x: Shaped[np.ndarray, "N d"], generator: torch.Generator
) -> Shaped[np.ndarray, "N d"]:
    """Every column in a random order of its own: the same margins, no dependence."""
    shuffled = np.empty_like(x)
    for column in range(x.shape[1]):
        order = torch.randperm(len(x), generator=generator).numpy()
        shuffled[:, column] = x[order, column]
    return shuffled


def _and_others(count: int) -> str:
    return f", as are {count} more" if count else ""
