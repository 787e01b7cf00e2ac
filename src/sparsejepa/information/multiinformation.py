"""Multiinformation (total correlation) of columns, within and between groups of them.

For every partition S_1, ..., S_G of the columns, whatever their distribution,

    I(Z_1; ...; Z_d) = I(Z_S1; ...; Z_SG) + sum_g I(Z_i : i in S_g)         total = between + within

so that between <= total says nothing: compare with random partitions.
"""

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float64, Int64
from torch import Tensor

from sparsejepa.information.columns import Array, Usable, as_array, usable_columns
from sparsejepa.information.estimate import Blocks, DiscreteEstimator, Estimator, TotalCorrelation
from sparsejepa.information.gaussian import CopulaEstimator, columns_of_one_row, gaussian_estimator
from sparsejepa.information.nearest_neighbour import NearestNeighbourEstimator
from sparsejepa.randomness import generator as generator_of

Method = Literal["gaussian", "copula", "ksg", "discrete"]
Groups = Iterable[Iterable[int]] | Int64[Tensor, "G p"]

# Method -> the estimator of usable columns; the generator breaks ties, halves or resamples rows.
ESTIMATORS: dict[str, Callable[[np.ndarray, torch.Generator], Estimator]] = {
    "gaussian": gaussian_estimator,
    "copula": CopulaEstimator,
    "ksg": NearestNeighbourEstimator,
    "discrete": DiscreteEstimator,
}


@dataclass(frozen=True)
class Decomposition:
    """One partition's split of the total correlation, all in nats."""

    total: TotalCorrelation
    between: TotalCorrelation  # of the groups, each taken as one vector
    within: tuple[TotalCorrelation, ...]  # of the columns of each group

    @property
    def remainder(self) -> float:
        """total - between - sum within; rounding for all methods but "ksg"."""
        return self.total.value - self.between.value - sum(part.value for part in self.within)


@dataclass(frozen=True, eq=False)
class AmongRandom:
    """Where a choice of columns lies among random ones of the same sizes, in nats."""

    own: float
    random: Float64[np.ndarray, "draws"]

    @property
    def rank(self) -> float:
        """Share of random choices that have less, ties counting half: 0 for telling groups."""
        less, equal = (self.random < self.own).mean(), (self.random == self.own).mean()
        return float(less + equal / 2)

    @property
    def p_value(self) -> float:
        """Two-sided, of the permutation test (Davison & Hinkley 1997, section 4.3)."""
        tails = ((self.random <= self.own).sum(), (self.random >= self.own).sum())
        return float(min(1.0, 2 * (1 + min(tails)) / (len(self.random) + 1)))


def total_correlation(
    x: Array, method: Method = "copula", *, drop: bool = False, seed: int = 0
) -> TotalCorrelation:
    """I(Z_1; ...; Z_d) = sum_i H(Z_i) - H(Z_1, ..., Z_d), in nats, without its known bias.

    Args:
        x: [N, d] of any number format, rows are independent draws. The patches of one image are
            not: pool them first.
        method: "gaussian" (Gaussian columns, any d), "copula" (monotone functions of Gaussian
            columns; else a lower bound), "ksg" (any density, d up to 3) or "discrete" (few
            distinct rows), each explained at the head of its estimator or module.
        drop: leave out, and report, constant and linearly dependent columns instead of refusing.
        seed: breaks ties, halves the sample (copula, ksg), resamples it (discrete).

    Raises:
        ValueError: an unknown method, NaN or infinity, too few rows, constant columns or linear
            dependence without `drop`; for ranks, a column that is a monotone function of another;
            for "gaussian", columns that vary by one row alone, or outliers that hide the rest.

    Example:
        >>> import math, torch
        >>> x = torch.randn(2000, 2, generator=torch.Generator().manual_seed(0))
        >>> x[:, 1] += x[:, 0]
        >>> low, high = total_correlation(x).interval()
        >>> low < 0.5 * math.log(2) < high
        True
    """
    return _bound(x, method, drop, seed)[2]()


def decompose(
    x: Array,
    groups: Groups,
    method: Method = "copula",
    *,
    drop: bool = False,
    overlapping: bool = False,
    seed: int = 0,
) -> Decomposition:
    """Total correlation of columns = between groups + within groups, in nats (Watanabe 1960).

    Args:
        groups: the columns of each group, counted from 0.
        overlapping: ask for the counterexample: groups that share a column are dependent whatever
            it is (infinitely, or by its entropy if discrete): total is not between + within.

    Raises:
        ValueError: groups that are no partition; all that `total_correlation` refuses.
    """
    named = _checked_groups(groups, x.shape[1], overlapping)
    _, kept, between = _bound(x, method, drop, seed)
    blocks = [np.flatnonzero(np.isin(kept, group)) for group in named]
    if empty := [number for number, block in enumerate(blocks) if len(block) == 0]:
        raise ValueError(f"Of group {empty[0]} no column is left after dropping; leave it out.")
    total, d = between(), sum(map(len, blocks))
    if d > len(kept) and method != "discrete":
        apart = replace(total, value=math.inf, standard_error=0.0, d=d)
    else:
        apart = between(blocks)
    return Decomposition(total, apart, tuple(between(list(block[:, None])) for block in blocks))


def shuffled_null(
    x: Array, method: Method, draws: int, generator: torch.Generator
) -> Float64[np.ndarray, "draws"]:
    """Estimates, in nats, of columns that are shuffled independently: truth 0, the same margins."""
    values, kept, _ = _usable(x, method, False)
    nulls, shuffled, alone = [], np.empty_like(values), list(np.arange(len(kept))[:, None])
    for _ in range(draws):
        for column, into in zip(values.T, shuffled.T, strict=True):
            into[:] = column[torch.randperm(len(x), generator=generator).numpy()]
        nulls.append(ESTIMATORS[method](shuffled, generator).between_value(alone))
    return np.array(nulls)


def random_partitions(
    x: Array, groups: Groups, method: Method, draws: int, generator: torch.Generator, seed: int = 0
) -> AmongRandom:
    """Multiinformation between the groups, and between random groups of the same sizes.

    Groups may leave columns out: of groups of one column each, it is the total correlation of some
    columns, and of as many random ones.
    """
    own = _checked_groups(groups, x.shape[1], cover=False)
    estimator, kept, _ = _bound(x, method, False, seed)
    ends, drawn = np.cumsum([len(block) for block in own]), []
    for _ in range(draws):
        order = torch.randperm(len(kept), generator=generator).numpy()
        drawn.append(estimator.between_value(np.split(order[: ends[-1]], ends[:-1])))
    return AmongRandom(estimator.between_value(own), np.array(drawn))


def groups_of(labels: Int64[Tensor, "d"]) -> list[list[int]]:
    """The columns of each group that has some, from the group of each column; -1: in none."""
    present = sorted(set(labels.tolist()) - {-1})
    return [torch.nonzero(labels == group).flatten().tolist() for group in present]


def _bound(
    x: Array, method: Method, drop: bool, seed: int
) -> tuple[Estimator, np.ndarray, Callable]:
    """The estimator of the usable columns, their indices, and results between blocks or all."""
    values, kept, dropped = _usable(x, method, drop)
    estimator = ESTIMATORS[method](values, generator_of(seed, "multiinformation"))

    def between(blocks: Blocks | None = None) -> TotalCorrelation:
        blocks = blocks or list(np.arange(len(kept))[:, None])
        term, d = estimator.between(blocks), sum(map(len, blocks))
        return TotalCorrelation(term.value, term.standard_error(), method, len(x), d, dropped)

    return estimator, kept, between


def _usable(x: Array, method: str, drop: bool) -> Usable:
    if method not in ESTIMATORS:
        raise ValueError(f"method {method!r} is unknown; choose {' or '.join(ESTIMATORS)}.")
    if method == "discrete":
        # A constant column and exact dependence are nothing special to counts.
        return as_array(x), np.arange(x.shape[1]), ()
    values, kept, dropped = usable_columns(x, drop)
    if method == "gaussian" and (lone := columns_of_one_row(values, kept)):
        if not drop or len(lone) == len(kept):
            raise ValueError(
                f"Column {lone[0].column} is {lone[0].reason}, on which alone a Gaussian estimate "
                "would rest; pass drop=True to leave such columns out, or use method 'copula'."
            )
        left = ~np.isin(kept, [c.column for c in lone])
        values, kept, dropped = values[:, left], kept[left], dropped + lone
    return values, kept, dropped


def _checked_groups(groups: Groups, d: int, overlapping: bool = False, cover: bool = True) -> list:
    """Groups as arrays of columns, after refusing those for which the split does not hold."""
    named = [np.array([int(i) for i in group], dtype=np.int64) for group in groups]
    if not (named and all(0 < len(g) == len({*g} & {*range(d)}) for g in named)):
        raise ValueError(f"Every group needs columns of 0 to {d - 1}, none of them twice.")
    uses = np.bincount(np.concatenate(named), minlength=d)
    if (uses > 1).any() and not overlapping:
        raise ValueError(
            f"Column {uses.argmax()} is in {uses.max()} groups: groups that share a column depend "
            "on each other, so that total = between + within does not hold; pass a partition."
        )
    if cover and (uses == 0).any():
        raise ValueError(f"Column {uses.argmin()} is in no group: make it one of its own.")
    return named
