"""Data efficiency: linear probes trained on 1 %, 10 % and all of the labelled images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from sparsejepa.probing.linear import LinearProbeResult, linear_probe
from sparsejepa.randomness import generator

FRACTIONS = (0.01, 0.1, 1.0)


def stratified_subset(labels: Int64[Tensor, "N"], fraction: float, seed: int) -> Int64[Tensor, "n"]:
    """Rows of a random `fraction` of each class, one at least, in ascending order.

    Of one seed, a smaller fraction's rows are among a larger one's: a curve over fractions sees
    rows added, not exchanged.

    Raises:
        ValueError: a fraction outside 0 to 1.
    """
    if not 0 < fraction <= 1:
        raise ValueError(f"fraction must be above 0 and at most 1, not {fraction}.")
    order = torch.randperm(len(labels), generator=generator(seed, "stratified subset"))
    taken = []
    for name in labels.unique():
        rows = order[labels[order] == name]
        taken.append(rows[: max(1, round(fraction * len(rows)))])
    return torch.cat(taken).sort().values


def data_efficiency(
    train_x: Float[Tensor, "N d"],
    train_y: Int64[Tensor, "N"],
    test_x: Float[Tensor, "M d"],
    test_y: Int64[Tensor, "M"],
    *,
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
    **sweep: object,
) -> dict[float, LinearProbeResult]:
    """The linear probe's result at every fraction, on the same test images.

    Settings are chosen within the fraction: nothing is learnt from the labels that are left out.

    Args:
        sweep: passed to `linear_probe`.

    Raises:
        ValueError: as `stratified_subset` and `linear_probe`.
    """
    results = {}
    for fraction in fractions:
        rows = stratified_subset(train_y, fraction, seed)
        results[fraction] = linear_probe(
            train_x[rows], train_y[rows], test_x, test_y, seed=seed, **sweep
        )
    return results
