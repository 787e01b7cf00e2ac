"""Multiinformation (total correlation) of the columns of an array: the common call."""

from typing import Literal, get_args

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from sparsejepa.information.columns import shuffled_columns, usable_columns
from sparsejepa.information.copula import copula_estimator, independent_ranks
from sparsejepa.information.discrete import discrete_estimator
from sparsejepa.information.estimate import (
    DroppedColumn,
    Estimator,
    Term,
    TotalCorrelation,
    single_columns,
)
from sparsejepa.information.gaussian import gaussian_estimator
from sparsejepa.information.nearest_neighbour import nearest_neighbour_estimator
from sparsejepa.randomness import generator

Method = Literal["gaussian", "copula", "ksg", "discrete"]


def total_correlation(
    x: Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"],
    method: Method = "copula",
    *,
    drop: bool = False,
    seed: int = 0,
) -> TotalCorrelation:
    """I(Z_1; ...; Z_d) = sum_i H(Z_i) - H(Z_1, ..., Z_d) of N independent rows, in nats.

    Args:
        x: rows are independent draws. The patches of one image are not: pool them first.
        method: "gaussian" (Gaussian columns, any d), "copula" (monotone functions of Gaussian
            columns; else a lower bound), "ksg" (any density, d up to 3) or "discrete" (few
            distinct rows). Each module's first lines say where it holds.
        drop: leave out constant columns, and as many as are linearly dependent, instead of
            refusing them. What was left out stands in the result.
        seed: breaks ties, halves the sample (copula, ksg), resamples it (discrete).

    Raises:
        ValueError: an unknown method, NaN or infinity, too few rows, constant columns or linear
            dependence without `drop`; for estimates of ranks, a column that is a monotone
            function of another.
    """
    estimator, kept, dropped = bind(x, method, drop, seed)
    term = estimator.between(single_columns(len(kept)))
    return as_result(term, estimator, len(x), len(kept), dropped)


def shuffled_null(
    x: Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"],
    method: Method,
    draws: int,
    generator: torch.Generator,
    *,
    drop: bool = False,
) -> Float64[np.ndarray, "draws"]:
    """Estimates, in nats, of columns that the generator shuffles independently of each other.

    The truth is 0 then, with the margins as they are: what is left is the estimator's own error.

    Raises:
        ValueError: as `total_correlation`.
    """
    _check_method(method)
    values = _as_array(x) if method == "discrete" else usable_columns(x, drop)[0]
    columns = single_columns(values.shape[1])
    nulls = (
        _estimator(shuffled_columns(values, generator), method, generator) for _ in range(draws)
    )
    return np.array([null.between_value(columns) for null in nulls])


def bind(
    x: Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"], method: Method, drop: bool, seed: int
) -> tuple[Estimator, Int64[np.ndarray, "k"], tuple[DroppedColumn, ...]]:
    """The estimator of the usable columns of `x`, their indices, and what was dropped.

    Raises:
        ValueError: as `total_correlation`.
    """
    _check_method(method)
    if method == "discrete":
        # A constant column and exact dependence are nothing special to counts.
        values, kept, dropped = _as_array(x), np.arange(x.shape[1]), ()
    else:
        values, kept, dropped = usable_columns(x, drop)
    return _estimator(values, method, generator(seed, "multiinformation")), kept, dropped


def as_result(
    term: Term, estimator: Estimator, n: int, d: int, dropped: tuple[DroppedColumn, ...]
) -> TotalCorrelation:
    """A term with what it was estimated from."""
    return TotalCorrelation(term.value, term.standard_error(), estimator.method, n, d, dropped)


def _estimator(
    values: Shaped[np.ndarray, "N d"], method: Method, generator: torch.Generator
) -> Estimator:
    if method == "gaussian":
        return gaussian_estimator(values)
    if method == "discrete":
        return discrete_estimator(values, generator)
    ranks = independent_ranks(values, generator)
    if method == "copula":
        return copula_estimator(ranks, generator)
    return nearest_neighbour_estimator(ranks, generator)


def _check_method(method: str) -> None:
    if method not in get_args(Method):
        raise ValueError(f"method {method!r} is unknown; choose {' or '.join(get_args(Method))}.")


def _as_array(
    x: Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"],
) -> Shaped[np.ndarray, "N d"]:
    return x.detach().cpu().numpy() if isinstance(x, Tensor) else x
