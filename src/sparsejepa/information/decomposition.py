"""Multiinformation within and between groups of columns, and the random groups to compare with.

For every partition S_1, ..., S_G of the columns, whatever their distribution,

    I(Z_1; ...; Z_d) = I(Z_S1; ...; Z_SG) + sum_g I(Z_i : i in S_g)         total = between + within

so "between is below total" is no finding about a partition. The finding would be a partition whose
between is lower than that of random groups of the same sizes.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Int64, Shaped
from torch import Tensor

from sparsejepa.information.estimate import TotalCorrelation, single_columns
from sparsejepa.information.multiinformation import Method, as_result, bind

Groups = Iterable[Iterable[int]] | Int64[Tensor, "G p"]


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
    """Where a choice of columns lies among random ones of the same sizes."""

    own: float  # nats, of the choice in question
    random: Float64[np.ndarray, "draws"]  # nats, of the random ones

    @property
    def rank(self) -> float:
        """Share of random choices that have less, ties counting half, 0 to 1.

        Of a partition, near 0: its groups gather dependent columns more than chance does.
        """
        less, equal = (self.random < self.own).mean(), (self.random == self.own).mean()
        return float(less + equal / 2)

    @property
    def p_value(self) -> float:
        """Of the two-sided permutation test of "this choice is a random one".

        At least 2 / (draws + 1) (Davison & Hinkley 1997, section 4.3): 200 draws cannot show less
        than 0.01.
        """
        tails = ((self.random <= self.own).sum(), (self.random >= self.own).sum())
        return float(min(1.0, 2 * (1 + min(tails)) / (len(self.random) + 1)))


def decompose(
    x: Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"],
    groups: Groups,
    method: Method = "copula",
    *,
    drop: bool = False,
    overlapping: bool = False,
    seed: int = 0,
) -> Decomposition:
    """Splits the total correlation of the columns of `x` by a partition of them.

    Args:
        groups: the columns of each group, counted from 0.
        overlapping: ask for the counterexample. Groups that share a column are dependent whatever
            the columns are: between is infinite for continuous columns, and for discrete ones it
            counts the shared entropy. Then total is not between + within.
        method, drop, seed: as in `total_correlation`.

    Raises:
        ValueError: groups that overlap, leave a column out, are empty or name a column that does
            not exist; all that `total_correlation` refuses.
    """
    named = checked_groups(groups, x.shape[1], overlapping)
    estimator, kept, dropped = bind(x, method, drop, seed)
    blocks = _positions(named, kept)

    def result(parts: Sequence[Int64[np.ndarray, "_"]]) -> TotalCorrelation:
        term = estimator.between(parts)
        return as_result(term, estimator, len(x), sum(map(len, parts)), dropped)

    shared = sum(map(len, blocks)) > len(kept)
    if shared and method != "discrete":
        d = sum(map(len, blocks))
        between = TotalCorrelation(math.inf, 0.0, method, len(x), d, dropped)
    else:
        between = result(blocks)
    within = tuple(result([block[[i]] for i in range(len(block))]) for block in blocks)
    return Decomposition(result(single_columns(len(kept))), between, within)


def random_partitions(
    x: Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"],
    groups: Groups,
    method: Method,
    draws: int,
    generator: torch.Generator,
    *,
    drop: bool = False,
    seed: int = 0,
) -> AmongRandom:
    """Multiinformation between the groups, and between random groups of the same sizes.

    The generator deals the columns anew for each draw. Columns that `drop` leaves out are left
    out before, so that all partitions are of the same columns.

    Raises:
        ValueError: as `decompose`.
    """
    named = checked_groups(groups, x.shape[1])
    estimator, kept, _ = bind(x, method, drop, seed)
    blocks = _positions(named, kept)
    ends = np.cumsum([len(block) for block in blocks])[:-1]
    drawn = [
        estimator.between_value(
            np.split(torch.randperm(len(kept), generator=generator).numpy(), ends)
        )
        for _ in range(draws)
    ]
    return AmongRandom(estimator.between_value(blocks), np.array(drawn))


def random_subsets(
    x: Shaped[Tensor, "N d"] | Shaped[np.ndarray, "N d"],
    columns: Iterable[int],
    method: Method,
    draws: int,
    generator: torch.Generator,
    *,
    drop: bool = False,
    seed: int = 0,
) -> AmongRandom:
    """Total correlation of some columns, and of as many random ones out of all.

    What leaving columns out explains by their number alone.

    Raises:
        ValueError: a column that does not exist, none that is left after dropping, or as
            `total_correlation`.
    """
    estimator, kept, _ = bind(x, method, drop, seed)
    (own,) = _positions(checked_groups([columns], x.shape[1], cover=False), kept)

    def value(chosen: Int64[np.ndarray, "_"]) -> float:
        return estimator.between_value(list(chosen[:, None]))

    drawn = [
        value(torch.randperm(len(kept), generator=generator).numpy()[: len(own)])
        for _ in range(draws)
    ]
    return AmongRandom(value(own), np.array(drawn))


def groups_of(labels: Int64[Tensor, "d"]) -> list[list[int]]:
    """The columns of each group, from the group of each column; -1: in none.

    Groups without columns are left out.
    """
    present = sorted(set(labels.tolist()) - {-1})
    return [torch.nonzero(labels == group).flatten().tolist() for group in present]


def checked_groups(
    groups: Groups, d: int, overlapping: bool = False, cover: bool = True
) -> list[Int64[np.ndarray, "_"]]:
    """Groups as arrays of columns, after refusing those for which the split does not hold.

    Raises:
        ValueError: as `decompose`.
    """
    named = [np.array([int(i) for i in group], dtype=np.int64) for group in groups]
    if not named or any(len(group) == 0 for group in named):
        raise ValueError("Every group needs at least one column; leave empty groups out.")
    every = np.concatenate(named)
    if every.min() < 0 or every.max() >= d:
        wrong = every[(every < 0) | (every >= d)][0]
        raise ValueError(f"Column {wrong} of a group does not exist: there are 0 to {d - 1}.")
    uses = np.bincount(every, minlength=d)
    if any(len(np.unique(group)) < len(group) for group in named):
        raise ValueError("A group names a column twice; name every column once.")
    if (uses > 1).any() and not overlapping:
        raise ValueError(
            f"Column {uses.argmax()} is in {uses.max()} groups: groups that share a column depend "
            "on each other even where all columns are independent, so total = between + within "
            "does not hold; pass a partition, or overlapping=True for the counterexample."
        )
    if cover and (uses == 0).any():
        raise ValueError(
            f"Column {uses.argmin()} is in no group: make such columns a group of their own, or "
            "pass only the columns that are in one."
        )
    return named


def _positions(
    named: Sequence[Int64[np.ndarray, "_"]], kept: Int64[np.ndarray, "k"]
) -> list[Int64[np.ndarray, "_"]]:
    """Groups in terms of the kept columns."""
    blocks = [np.flatnonzero(np.isin(kept, group)) for group in named]
    for number, block in enumerate(blocks):
        if len(block) == 0:
            raise ValueError(
                f"Of group {number} no column is left after dropping; leave that group out."
            )
    return blocks
