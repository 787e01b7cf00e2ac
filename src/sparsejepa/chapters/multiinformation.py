"""Chapter 03: laws with a known answer, features of frozen encoders beside controls, figures."""

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float, Float64, Int64, Shaped
from scipy.special import ndtri
from scipy.stats import multivariate_t
from torch import Tensor

from sparsejepa.chapters import stored
from sparsejepa.chapters.probes import UNTRAINED, untrained
from sparsejepa.data.batches import Images
from sparsejepa.information import multiinformation as information
from sparsejepa.information.columns import usable_columns
from sparsejepa.information.estimate import TotalCorrelation
from sparsejepa.information.gaussian import independent_ranks, normal_scores
from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.information.nearest_neighbour import ksg_value
from sparsejepa.intervals import Interval, over_intervals
from sparsejepa.model.penalties import strongest_group
from sparsejepa.probing.features import TrainX, pooled_features
from sparsejepa.probing.spectrum import feature_spread, rankme
from sparsejepa.randomness import generator

# Columns of a random subset on which nearest neighbours check the copula, and rows used.
FEW, ROWS_OF_FEW = 5, 2000
# Beyond these widths KSG takes long and is long wrong, and parity has too many values.
WIDEST = {"ksg": 20, "discrete": 10}

Rows, Matrix = Float64[Tensor, "n d"], Float64[Tensor, "d d"]
# The group that reads each latent most, and how many read it.
Reads = tuple[Int64[Tensor, "d"], Int64[Tensor, "d"]]
Cell = Mapping[str, Any]  # what is measured of an encoder
Totals = Mapping[tuple[str, int], TotalCorrelation]  # by method and seed


def equicorrelated(d: int, rho: float) -> float:
    """Nats of d Gaussian columns with all correlations rho: -½ ln det R by its eigenvalues."""
    return -0.5 * ((d - 1) * math.log(1 - rho) + math.log(1 + (d - 1) * rho))


def autoregressive(d: int, rho: float) -> float:
    """Nats of d Gaussian columns with correlations rho^|i-j|: every step adds those of a pair."""
    return -0.5 * (d - 1) * math.log(1 - rho**2)


def student(d: int, degrees: int) -> float:
    """Nats of the d-variate Student t with R = I: d h_1 - h_d with the entropies h_k."""
    one, whole = (multivariate_t(df=degrees, shape=np.eye(k)).entropy() for k in (1, d))
    return float(d * one - whole)


def equicorrelation(d: int, rho: float) -> Matrix:
    """The correlation matrix of `equicorrelated`."""
    return (1 - rho) * torch.eye(d, dtype=torch.float64) + rho


def autoregression(d: int, rho: float) -> Matrix:
    """The correlation matrix of `autoregressive`."""
    step = torch.arange(d, dtype=torch.float64)
    return rho ** (step[:, None] - step).abs()


def gaussian_rows(n: int, correlation: Matrix, generator: torch.Generator) -> Rows:
    """n draws of N(0, R)."""
    white = torch.randn(n, len(correlation), generator=generator, dtype=torch.float64)
    return white @ torch.linalg.cholesky(correlation).T


def student_rows(n: int, d: int, degrees: int, generator: torch.Generator) -> Rows:
    """n draws of the Student t with R = I."""
    white = torch.randn(n, d + degrees, generator=generator, dtype=torch.float64)
    return white[:, :d] / (white[:, d:].square().sum(1, keepdim=True) / degrees).sqrt()


def _parity_rows(n: int, d: int, generator: torch.Generator) -> Shaped[Tensor, "n d"]:
    bits = torch.randint(2, (n, d - 1), generator=generator)
    return torch.cat([bits, bits.sum(1, keepdim=True) % 2], dim=1)


@dataclass(frozen=True)
class Law:
    """A family of laws, one for every number of columns d."""

    truth: Callable[[int], float]  # d -> nats
    draw: Callable[[int, int, torch.Generator], Shaped[Tensor, "N d"]]  # rows, d, generator
    holds: tuple[str, ...] = ()  # methods that claim to hold, given rows enough
    values: Callable[[int], int] | None = None  # of a discrete law: d -> distinct rows


def _gaussian_law(correlation: Callable, truth: Callable, rho: float) -> Law:
    return Law(
        lambda d: truth(d, rho),
        lambda n, d, g: gaussian_rows(n, correlation(d, rho), g),
        ("gaussian", "copula", "ksg"),
    )


LAWS: Mapping[str, Law] = {
    "independent Gaussian": _gaussian_law(equicorrelation, lambda d, rho: 0.0, 0.0),
    "equicorrelated Gaussian, 0.3": _gaussian_law(equicorrelation, equicorrelated, 0.3),
    "autoregressive Gaussian, 0.8": _gaussian_law(autoregression, autoregressive, 0.8),
    "log-normal, 0.6": Law(
        lambda d: equicorrelated(d, 0.6),
        lambda n, d, g: gaussian_rows(n, equicorrelation(d, 0.6), g).exp(),
        ("copula", "ksg"),
    ),
    "Student t, 3 degrees": Law(
        lambda d: student(d, 3), lambda n, d, g: student_rows(n, d, 3, g), ("ksg",)
    ),
    "parity": Law(lambda d: math.log(2), _parity_rows, values=lambda d: 2 ** (d - 1)),
    "giant bit": Law(
        lambda d: (d - 1) * math.log(2),
        lambda n, d, g: torch.randint(2, (n, 1), generator=g).expand(n, d),
        values=lambda d: 2,
    ),
}


def stated_range(method: str, law: Law, n: int, d: int) -> bool:
    """Whether intervals are claimed to hold there, as the head of each estimator says."""
    if law.values:
        return method == "discrete" and n >= 5 * law.values(d)
    enough = n >= 100 * d and d <= 3 if method == "ksg" else n >= 50 * d
    return enough and method in law.holds


def calibrate(
    widths: Sequence[int], rows_per_column: Sequence[int], draws: int, most_rows: int, seed: int
) -> pd.DataFrame:
    """Every estimator on every law that it can be asked about, several times: a row an estimate.

    With the truth and the ends of its 95 % interval in nats; stated: whether the estimator claims
    to hold there; covered: whether the interval holds the truth. Widths are numbers of columns;
    combinations with more than `most_rows` rows are left out.
    """
    points = []
    sizes = [(max(20, share * d), d) for d in widths for share in rows_per_column]
    cases = itertools.product(LAWS.items(), [s for s in sizes if s[0] <= most_rows], range(draws))
    for (name, law), (n, d), draw in cases:
        x = law.draw(n, d, generator(seed, name, n, d, draw))
        for method in ("discrete",) if law.values else ("gaussian", "copula", "ksg"):
            stated = stated_range(method, law, n, d)
            # Counts refuse what they cannot estimate, so only their range is asked.
            if d <= WIDEST.get(method, d) and (stated or method != "discrete"):
                found, truth = total_correlation(x, method, seed=draw), law.truth(d)
                low, high = found.interval()
                point = {"method": method, "law": name, "n": n, "d": d, "truth": truth}
                point |= {"value": found.value, "low": low, "high": high, "stated": stated}
                points.append(point | {"covered": low <= truth <= high})
    return pd.DataFrame(points)


def measure_runs(
    runs: Sequence[Any], images: Images, seed: int, **draws: int
) -> tuple[dict[str, Cell], Totals]:
    """`measure` of each pretrained run and of its encoder before training, on the same images.

    By name of the run, with its method, seed and accuracy; and the estimates.
    """
    cells, totals = {}, {}
    for run in runs:
        reads = read_groups(run.training.norms)
        for name, method, encoder in (
            (run.name, run.method, run.encoder),
            (f"{run.name} before", UNTRAINED, untrained(run.encoder, run.seed)),
        ):
            features = pooled_features(encoder, images)
            cell, totals[method, run.seed] = measure(features, reads, seed, **draws)
            probed = run.results["accuracy"][f"{method}, last block"]["linear probe"]["value"]
            cells[name] = {"method": method, "seed": run.seed, "accuracy": probed} | cell
    return cells, totals


def read_groups(norms: Float[Tensor, "G d"]) -> Reads:
    """From column norms, of 1 % of the largest or more; a latent that no group reads has -1."""
    reads = norms > 0.01 * norms.max()
    return strongest_group(norms * reads), reads.sum(dim=0)


def measure(
    features: TrainX, reads: Reads, seed: int, *, draws: int, null_draws: int, subsets: int
) -> tuple[dict[str, Any], TotalCorrelation]:
    """Total correlation and its split in nats, each beside what chance gives, and the estimate.

    All are of the same latents, without the final norm's null direction and dead units.
    read_latents, shared_latents: latents that some group reads, that several do; partition: what is
    between groups, among random partitions; subset: the total of the read latents, among random
    ones; both only where there is a choice.

    Args:
        draws: random partitions, and random subsets of the read latents' number.
        null_draws: estimates of shuffled columns.
        subsets: random sets of few columns on which nearest neighbours check the copula.
    """
    values, kept, _ = usable_columns(features, drop=True)
    null = information.shuffled_null(values, "copula", null_draws, generator(seed, "null"))
    labels, readers = (of_all[torch.from_numpy(kept)] for of_all in reads)
    read = torch.nonzero(labels >= 0).flatten()
    parts, among, between, within = information.groups_of(labels[read]), {}, 0.0, 0.0
    if parts:
        split = information.decompose(values[:, read], parts, "copula", seed=seed)
        between, within = split.between.value, sum(part.value for part in split.within)
    for key, asked, data, groups in (
        ("partition", len(parts) > 1, values[:, read], parts),
        ("subset", 1 < len(read) < len(labels), values, read[:, None]),
    ):
        if asked:
            source = generator(seed, f"{key}s")
            found = information.random_partitions(data, groups, "copula", draws, source, seed)
            among[key] = {"own": found.own, "rank": found.rank, "p_value": found.p_value}
            among[key]["random_range"] = [float(found.random.min()), float(found.random.max())]
    total = total_correlation(features, "copula", drop=True, seed=seed)
    plug_in = total_correlation(features, "gaussian", drop=True)
    return {
        "n": total.n,
        "d": total.d,
        "dropped": [f"{c.column}: {c.reason}" for c in total.dropped],
        "total": {"value": total.value, "interval": list(total.interval())},
        "per_unit": total.per_unit,
        "gaussian": {"value": plug_in.value, "interval": list(plug_in.interval())},
        "null": {"mean": float(null.mean()), "standard_deviation": float(null.std())},
        "missed_by_copula": missed_by_copula(values, subsets, seed),
        "rankme": rankme(features),
        "spread": feature_spread(features),
        "read_latents": len(read),
        "shared_latents": int((readers > 1).sum()),
        "between": between,
        "within": within,
        **among,
    }, total


def missed_by_copula(values: Float[np.ndarray, "N d"], subsets: int, seed: int) -> dict[str, float]:
    """Nats that nearest neighbours find beyond the copula, on random sets of few columns.

    Mean over the sets and its standard error. KSG errs downwards there: a positive number is
    dependence that the copula does not see.
    """
    source, rows, gaps = generator(seed, "few"), values[:ROWS_OF_FEW], []
    for _ in range(subsets):
        few = rows[:, torch.randperm(values.shape[1], generator=source)[:FEW].numpy()]
        ranks = independent_ranks(few, source)
        by_neighbours = ksg_value(list(normal_scores(len(few))[ranks].T[:, :, None]))
        gaps.append(by_neighbours - total_correlation(few, "copula", seed=seed).value)
    error = float(np.std(gaps, ddof=1) / np.sqrt(len(gaps)))
    return {"mean": float(np.mean(gaps)), "standard_error": error}


def per_unit_difference(totals: Totals, method: str) -> Interval | None:
    """TC / (d - 1) of a method minus JEPA's, over the seeds that both have; None without a pair.

    By `over_intervals`, as if both encoders saw images of their own: wider than they deserve.
    """
    differences = []
    for (name, seed), one in totals.items():
        if name == method and (jepa := totals.get(("jepa", seed))):
            value = one.per_unit - jepa.per_unit
            errors = (t.standard_error / max(t.d - 1, 1) for t in (one, jepa))
            half = ndtri(0.975) * math.hypot(*errors)
            differences.append(Interval(value, value - half, value + half, 0.95))
    return over_intervals(differences) if differences else None


def conclusions(cells: Sequence[Cell], totals: Totals) -> list[dict[str, Any]]:
    """One row a method with a group penalty and a control: is the method clear of the control?

    "total" is per unit, minus JEPA's. "dimension" (latents read, among random ones) and "grouping"
    (groups, among random ones) are clear where all runs lie on one side with p of 0.05 or less, so
    that no correction over runs is needed.
    """
    rows = []
    for method in dict.fromkeys(c["method"] for c in cells if c["method"].startswith("sparsejepa")):
        row = {"method": method, "question": "total"}
        if found := per_unit_difference(totals, method):
            rows.append(row | stored(found) | {"clear": found.clear()})
        for question, key in (("dimension", "subset"), ("grouping", "partition")):
            if among := [c[key] for c in cells if c["method"] == method and key in c]:
                ranks, p_values = ([a[name] for a in among] for name in ("rank", "p_value"))
                clear = len({rank > 0.5 for rank in ranks}) == 1 and max(p_values) <= 0.05
                judged = {"ranks": ranks, "p_values": p_values, "clear": clear}
                rows.append(row | {"question": question} | judged)
    return rows
