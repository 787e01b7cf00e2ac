"""Multiinformation of frozen encoders' features, with the controls that a number needs."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from safetensors.torch import load_file
from torch import Tensor

from sparsejepa.companion.pretrained import Pretrained, untrained
from sparsejepa.information.columns import usable_columns
from sparsejepa.information.copula import independent_ranks, normal_scores
from sparsejepa.information.decomposition import (
    AmongRandom,
    decompose,
    groups_of,
    random_partitions,
    random_subsets,
)
from sparsejepa.information.estimate import TotalCorrelation
from sparsejepa.information.multiinformation import shuffled_null, total_correlation
from sparsejepa.information.nearest_neighbour import ksg_value
from sparsejepa.model.sparsity import strongest_group
from sparsejepa.probing.features import pooled_features
from sparsejepa.probing.spectrum import feature_spread, rankme
from sparsejepa.randomness import generator

CONTROL = "untrained encoder"
# Columns of a random subset on which nearest neighbours can check the copula, and rows used.
FEW, ROWS_OF_FEW = 5, 2000
# A group whose column is below this share of the largest does not read the latent: between exact
# zeros and real columns, proximal steps leave many that are a ten-thousandth of these.
SMALL_COLUMN = 0.01


@dataclass(frozen=True, eq=False)
class Representation:
    """Pooled features of some images, and the method's groups of them."""

    name: str  # of the run
    method: str  # as "sparsejepa", or "untrained encoder"
    seed: int
    features: Float[Tensor, "N d"]
    groups: Int64[Tensor, "d"]  # each latent's strongest group; -1: no group reads it
    readers: Int64[Tensor, "d"]  # how many groups read each latent
    accuracy: float  # top-1 of the linear probe on the run's own test images, 0 to 1


@dataclass(frozen=True, eq=False)
class Measured:
    """What is reported of one representation; information in nats."""

    name: str
    method: str
    seed: int
    accuracy: float
    copula: TotalCorrelation
    gaussian: TotalCorrelation
    null: tuple[float, float]  # mean and standard deviation of copula estimates, columns shuffled
    rankme: float  # effective rank of the features
    spread: float  # mean standard deviation of a feature over images
    missed: tuple[float, float]  # KSG minus copula on few columns: mean and standard error
    read: int  # latents that some group reads, of copula.d
    shared: int  # latents that several groups read
    between: float  # of the groups of read latents
    within: float  # sum over groups
    partition: AmongRandom | None  # between, among random partitions; None with a single group
    subset: AmongRandom | None  # total of the read latents, among random ones; None if all are read


def representations(
    runs: Sequence[Pretrained], images: UInt8[Tensor, "N H W 3"]
) -> list[Representation]:
    """Features of the same images from every run, and of each run's encoder before training."""
    found = []
    for run in runs:
        groups, readers = read_groups(run)
        accuracy = run.results["accuracy"]
        for name, method, encoder in (
            (run.name, run.method, run.encoder),
            (f"{run.name} before", CONTROL, untrained(run.encoder, run.seed)),
        ):
            top1 = accuracy[f"{method}, last block"]["linear probe"]["value"]
            features = pooled_features(encoder, images)
            found.append(Representation(name, method, run.seed, features, groups, readers, top1))
    return found


def read_groups(run: Pretrained) -> tuple[Int64[Tensor, "d"], Int64[Tensor, "d"]]:
    """The partition of latents that the run's predictor makes, and how many groups read each.

    A latent belongs to the group that reads it most, -1 if none does. Columns below a hundredth
    of the largest are none.

    Raises:
        FileNotFoundError: the run kept no groups; it is from before that was done.
    """
    path = run.folder / "groups.safetensors"
    if not path.is_file():
        raise FileNotFoundError(
            f"Run {run.name} has no groups.safetensors: run 01_pretrain again, which keeps it."
        )
    norms = load_file(path)["norms"]
    reads = norms > SMALL_COLUMN * norms.max()
    return strongest_group(norms * reads), reads.sum(dim=0)


def measure(
    representation: Representation, draws: int, null_draws: int, subsets: int, seed: int
) -> Measured:
    """Total correlation and its split, each beside what chance gives.

    The final norm's null direction and dead units are dropped once, before everything else, so
    that all numbers are of the same latents.

    Args:
        draws: random partitions, and random subsets of the read latents' number.
        null_draws: estimates of shuffled columns.
        subsets: random sets of few columns on which nearest neighbours check the copula.
    """
    given = representation
    values, kept, dropped = usable_columns(given.features, drop=True)
    copula = total_correlation(values, "copula", seed=seed)
    gaussian = total_correlation(values, "gaussian")
    null = shuffled_null(values, "copula", null_draws, generator(seed, "null"))
    labels = given.groups[torch.from_numpy(kept)]
    read = torch.nonzero(labels >= 0).flatten()
    groups = groups_of(labels[read])
    between = within = 0.0
    partition = subset = None
    if groups:
        split = decompose(values[:, read], groups, "copula", seed=seed)
        between, within = split.between.value, sum(part.value for part in split.within)
    if len(groups) > 1:
        source = generator(seed, "partitions")
        partition = random_partitions(values[:, read], groups, "copula", draws, source, seed=seed)
    if 1 < len(read) < len(labels):
        source = generator(seed, "subsets")
        subset = random_subsets(values, read.tolist(), "copula", draws, source, seed=seed)
    return Measured(
        given.name,
        given.method,
        given.seed,
        given.accuracy,
        _with_dropped(copula, dropped),
        _with_dropped(gaussian, dropped),
        (float(null.mean()), float(null.std())),
        rankme(given.features),
        feature_spread(given.features),
        missed_by_copula(values, subsets, seed),
        len(read),
        int((given.readers[torch.from_numpy(kept)] > 1).sum()),
        between,
        within,
        partition,
        subset,
    )


def missed_by_copula(
    values: Float[np.ndarray, "N d"], subsets: int, seed: int
) -> tuple[float, float]:
    """Nats that nearest neighbours find beyond the copula, on random sets of few columns.

    Mean over the sets and its standard error. KSG as published errs downwards there, the copula
    misses what is not Gaussian: a positive number is dependence that the copula does not see.
    """
    source, rows, gaps = generator(seed, "few"), values[:ROWS_OF_FEW], []
    for _ in range(subsets):
        few = rows[:, torch.randperm(values.shape[1], generator=source)[:FEW].numpy()]
        ranks = independent_ranks(few, source)
        by_neighbours = ksg_value(list(normal_scores(len(few))[ranks].T[:, :, None]))
        gaps.append(by_neighbours - total_correlation(few, "copula", seed=seed).value)
    return float(np.mean(gaps)), float(np.std(gaps, ddof=1) / np.sqrt(len(gaps)))


def _with_dropped(result: TotalCorrelation, dropped: tuple) -> TotalCorrelation:
    return TotalCorrelation(
        result.value, result.standard_error, result.method, result.n, result.d, dropped
    )
