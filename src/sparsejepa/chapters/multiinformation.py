"""Chapter 03: laws with a known answer, features of frozen encoders beside controls, figures."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float, Float64, Int64, Shaped, UInt8
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator
from safetensors.torch import load_file
from scipy.special import gammaln, ndtri, psi
from torch import Tensor

from sparsejepa.information.columns import usable_columns
from sparsejepa.information.copula import independent_ranks, normal_scores
from sparsejepa.information.estimate import TotalCorrelation
from sparsejepa.information.multiinformation import (
    AmongRandom,
    decompose,
    groups_of,
    random_partitions,
    random_subsets,
    shuffled_null,
    total_correlation,
)
from sparsejepa.information.nearest_neighbour import ksg_value
from sparsejepa.intervals import Interval, seed_interval
from sparsejepa.model.penalties import strongest_group
from sparsejepa.model.vit import Encoder
from sparsejepa.plots import method_color
from sparsejepa.probing.features import pooled_features
from sparsejepa.probing.spectrum import feature_spread, rankme
from sparsejepa.randomness import generator

CONTROL = "untrained encoder"
# Columns of a random subset on which nearest neighbours check the copula, and rows used.
FEW, ROWS_OF_FEW = 5, 2000
# A group whose column is below this share of the largest does not read the latent: beside exact
# zeros, proximal steps leave many that are a ten-thousandth of real columns.
SMALL_COLUMN = 0.01
# Beyond these widths KSG takes long and is long wrong, and parity has too many values.
WIDEST = {"ksg": 20, "discrete": 10}


def equicorrelated(d: int, rho: float) -> float:
    """Nats of d Gaussian columns with all correlations rho.

    -½ ln det R with the eigenvalues 1 - rho, d - 1 times, and 1 + (d - 1) rho.
    """
    return -0.5 * ((d - 1) * math.log(1 - rho) + math.log(1 + (d - 1) * rho))


def autoregressive(d: int, rho: float) -> float:
    """Nats of d Gaussian columns with correlations rho^|i-j|: every step adds those of a pair."""
    return -0.5 * (d - 1) * math.log(1 - rho**2)


def student(d: int, degrees: int) -> float:
    """Nats of the d-variate Student t with R = I: d h_1 - h_d with the entropies h_k."""

    def entropy(k: int) -> float:
        half = (degrees + k) / 2
        normaliser = gammaln(half) - gammaln(degrees / 2) - k / 2 * math.log(degrees * math.pi)
        return float(half * (psi(half) - psi(degrees / 2)) - normaliser)

    return d * entropy(1) - entropy(d)


def equicorrelation(d: int, rho: float) -> Float64[Tensor, "d d"]:
    """The correlation matrix of `equicorrelated`."""
    return (1 - rho) * torch.eye(d, dtype=torch.float64) + rho


def autoregression(d: int, rho: float) -> Float64[Tensor, "d d"]:
    """The correlation matrix of `autoregressive`."""
    step = torch.arange(d, dtype=torch.float64)
    return rho ** (step[:, None] - step).abs()


def gaussian_rows(
    n: int, correlation: Float64[Tensor, "d d"], generator: torch.Generator
) -> Float64[Tensor, "n d"]:
    """n draws of N(0, R)."""
    white = torch.randn(n, len(correlation), generator=generator, dtype=torch.float64)
    return white @ torch.linalg.cholesky(correlation).T


def student_rows(
    n: int, d: int, degrees: int, generator: torch.Generator
) -> Float64[Tensor, "n d"]:
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
    """Whether intervals are claimed to hold there, as the head of each estimator's module says."""
    if law.values:
        return method == "discrete" and n >= 5 * law.values(d)
    enough = n >= 100 * d and d <= 3 if method == "ksg" else n >= 50 * d
    return enough and method in law.holds


@dataclass(frozen=True)
class CalibrationPoint:
    """One estimate beside the truth; entropies in nats."""

    method: str
    law: str
    n: int  # rows
    d: int  # columns
    truth: float
    value: float
    low: float  # of the 95 % interval
    high: float
    stated: bool  # whether the estimator claims to hold there

    @property
    def covered(self) -> bool:
        """Whether the interval holds the truth."""
        return self.low <= self.truth <= self.high


def calibrate(
    widths: Sequence[int], rows_per_column: Sequence[int], draws: int, most_rows: int, seed: int
) -> list[CalibrationPoint]:
    """Every estimator on every law that it can be asked about, several times.

    Args:
        widths: numbers of columns.
        rows_per_column: n / d; combinations with more than `most_rows` rows are left out.
    """
    points = []
    sizes = [(max(20, share * d), d) for d in widths for share in rows_per_column]
    for name, law in LAWS.items():
        methods = ("discrete",) if law.values else ("gaussian", "copula", "ksg")
        for n, d in sizes:
            for draw in range(draws if n <= most_rows else 0):
                x = law.draw(n, d, generator(seed, name, n, d, draw))
                for method in methods:
                    stated = stated_range(method, law, n, d)
                    # Counts refuse what they cannot estimate, so only their range is asked.
                    if d > WIDEST.get(method, d) or (method == "discrete" and not stated):
                        continue
                    found = total_correlation(x, method, seed=draw)
                    point = (n, d, law.truth(d), found.value, *found.interval(), stated)
                    points.append(CalibrationPoint(method, name, *point))
    return points


def coverage(points: Sequence[CalibrationPoint]) -> dict[str, dict[str, float]]:
    """Method -> share of 95 % intervals that hold the truth, and their number, by range.

    Keys: "stated" and "stated_points" inside the stated range; "outside" and "outside_points".
    """
    table: dict[str, dict[str, float]] = {}
    for method in dict.fromkeys(point.method for point in points):
        cells = table[method] = {}
        for name, inside in (("stated", True), ("outside", False)):
            hits = [p.covered for p in points if p.method == method and p.stated == inside]
            cells[f"{name}_points"] = len(hits)
            if hits:
                cells[name] = sum(hits) / len(hits)
    return table


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


def representations(runs: Sequence[Any], images: UInt8[Tensor, "N H W 3"]) -> list[Representation]:
    """Features of the same images from every pretrained run, and of its encoder before training."""
    found = []
    for run in runs:
        groups, readers = read_groups(run)
        config, seed = run.encoder.config, run.seed
        before = Encoder(config, generator(seed, "initial encoder")).eval().requires_grad_(False)
        for name, method, encoder in (
            (run.name, run.method, run.encoder),
            (f"{run.name} before", CONTROL, before),
        ):
            probed = run.results["accuracy"][f"{method}, last block"]["linear probe"]["value"]
            features = pooled_features(encoder, images)
            found.append(Representation(name, method, seed, features, groups, readers, probed))
    return found


def read_groups(run: Any) -> tuple[Int64[Tensor, "d"], Int64[Tensor, "d"]]:
    """The partition of latents that the run's predictor makes, and how many groups read each.

    A latent belongs to the group that reads it most, -1 if none does. Columns below a hundredth
    of the largest are none.

    Raises:
        FileNotFoundError: the run kept no groups.
    """
    path = run.training / "groups.safetensors"
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
    values, kept, _ = usable_columns(given.features, drop=True)
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
        total_correlation(given.features, "copula", drop=True, seed=seed),
        total_correlation(given.features, "gaussian", drop=True),
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


def per_unit_difference(measured: Sequence[Measured], method: str) -> Interval | None:
    """TC / (d - 1) of a method minus JEPA's, over the seeds that both have; None without a pair.

    Student's interval from three seeds on; else over images, of the one seed or of the mean of
    two, as if both encoders saw images of their own (a wider interval than they deserve).
    """
    by_run = {(m.method, m.seed): m.copula for m in measured}
    pairs = [
        (by_run[found, seed], by_run["jepa", seed])
        for found, seed in by_run
        if found == method and ("jepa", seed) in by_run
    ]
    differences = [one.per_unit - jepa.per_unit for one, jepa in pairs]
    if not differences or len(differences) >= 3:
        return seed_interval(differences) if differences else None
    errors = [t.standard_error / max(t.d - 1, 1) for pair in pairs for t in pair]
    mean = sum(differences) / len(differences)
    half = float(ndtri(0.975)) * math.hypot(*errors) / len(pairs)
    return Interval(mean, mean - half, mean + half, 0.95)


def conclusions(measured: Sequence[Measured]) -> list[dict[str, Any]]:
    """One row a method with a group penalty and a control: is the method clear of the control?

    "total" is per unit, minus JEPA's. "dimension" (latents read, among random ones) and "grouping"
    (groups, among random ones) are clear where all runs lie on one side with p of 0.05 or less, so
    that no correction over runs is needed; their rank is the mean of the runs.
    """
    rows = []
    for method in dict.fromkeys(m.method for m in measured if m.method.startswith("sparsejepa")):
        own = [m for m in measured if m.method == method]
        if found := per_unit_difference(measured, method):
            row = {"value": found.value, "interval": [found.low, found.high]}
            clear = found.low > 0 or found.high < 0
            rows.append({"method": method, "question": "total", **row, "clear": clear})
        for question, among in (
            ("dimension", [m.subset for m in own if m.subset]),
            ("grouping", [m.partition for m in own if m.partition]),
        ):
            if among:
                row = {"ranks": [a.rank for a in among], "p_values": [a.p_value for a in among]}
                one_side = len({a.rank > 0.5 for a in among}) == 1
                clear = one_side and max(row["p_values"]) <= 0.05
                rows.append({"method": method, "question": question, **row, "clear": clear})
    return rows


def as_results(measured: Sequence[Measured]) -> dict[str, Any]:
    """What `results.json` keeps of each representation."""
    return {m.name: _cell(m) for m in measured}


def _cell(m: Measured) -> dict[str, Any]:
    cell: dict[str, Any] = {
        "method": m.method,
        "seed": m.seed,
        "n": m.copula.n,
        "d": m.copula.d,
        "dropped": [f"{c.column}: {c.reason}" for c in m.copula.dropped],
        "total": {"value": m.copula.value, "interval": list(m.copula.interval())},
        "per_unit": m.copula.per_unit,
        "gaussian": {"value": m.gaussian.value, "interval": list(m.gaussian.interval())},
        "null": {"mean": m.null[0], "standard_deviation": m.null[1]},
        "missed_by_copula": {"mean": m.missed[0], "standard_error": m.missed[1]},
        "rankme": m.rankme,
        "spread": m.spread,
        "accuracy": m.accuracy,
        "read_latents": m.read,
        "shared_latents": m.shared,
        "between": m.between,
        "within": m.within,
    }
    for key, among in (("partition", m.partition), ("subset", m.subset)):
        if among:
            cell[key] = {
                "own": among.own,
                "rank": among.rank,
                "p_value": among.p_value,
                "random_range": [float(among.random.min()), float(among.random.max())],
            }
    return cell


def calibration_figure(points: Sequence[CalibrationPoint]) -> Figure:
    """A panel an estimator: estimate with its interval against the truth, both in nats.

    Filled where the estimator claims to hold, hollow where it does not; the colour is the width.
    """
    methods = list(dict.fromkeys(point.method for point in points))
    widths = sorted({point.d for point in points})
    colors = dict(zip(widths, sns.color_palette("viridis", len(widths)), strict=True))
    figure, axes = plt.subplots(2, 2, figsize=(9.2, 7.8), layout="constrained")
    for axis, method in zip(axes.flat, methods, strict=False):
        own = [point for point in points if point.method == method]
        top = 1.3 * max(max(p.truth, p.value) for p in own)
        axis.plot([0, top], [0, top], color="0.5", lw=1, ls="--", zorder=1)
        for p in own:
            axis.errorbar(
                p.truth, p.value, [[p.value - p.low], [p.high - p.value]], fmt="o", ms=5, lw=0.8,
                color=colors[p.d], mfc=colors[p.d] if p.stated else "white", zorder=2 + p.stated,
            )  # fmt: skip
        # Zero has its place, and equal steps are equal ratios from a twentieth of a nat on.
        axis.set_xscale("symlog", linthresh=0.05)
        axis.set_yscale("symlog", linthresh=0.05)
        for side, lowest in ((axis.xaxis, 0.0), (axis.yaxis, min(0.0, min(p.low for p in own)))):
            decades = (-100, -10, -1, -0.1, 0, 0.1, 1, 10, 100)
            ticks = [t for t in decades if lowest <= t <= top]
            side.set_ticks(ticks, [f"{t:g}" for t in ticks])
            side.set_minor_locator(NullLocator())
        axis.set(title=method, xlabel="truth, nats", ylabel="estimate, nats")
        axis.grid(alpha=0.3)
    marks = [_mark("o", f"d = {d}", color) for d, color in colors.items()]
    marks += [_mark("o", "in the stated range"), _mark("o", "outside", mfc="white")]
    return _with_legend(figure, marks, columns=4)


def total_panel(measured: Mapping[str, Sequence[Measured]]) -> Figure:
    """A panel an image set, a row a representation: TC per unit by two estimators, and its null.

    Args:
        measured: image set -> its representations, the same in all.
    """
    names = [m.name for m in next(iter(measured.values()))]
    size = (5.2 * len(measured) + 1.2, 0.36 * len(names) + 1.7)
    figure, axes = plt.subplots(
        1, len(measured), figsize=size, sharey=True, squeeze=False, layout="constrained"
    )
    for axis, (images, found) in zip(axes[0], measured.items(), strict=True):
        for row, m in enumerate(found):
            color, units, value = method_color(m.method), max(m.copula.d - 1, 1), m.copula.per_unit
            low, high = (end / units for end in m.copula.interval())
            ends = [[value - low], [high - value]]
            axis.errorbar(value, row, xerr=ends, fmt="o", color=color, capsize=2)
            axis.plot(m.gaussian.per_unit, row, "D", color=color, mfc="white", ms=6)
            axis.plot(m.null[0] / units, row, "|", color="0.35", ms=11)
        axis.set_title(images)
        _rows(axis, names, "total correlation / (d - 1), nats")
    axes[0, 0].invert_yaxis()
    marks = [
        _mark("o", "Gaussian copula, 95 % interval"),
        _mark("D", "Gaussian plug-in", mfc="white"),
        _mark("|", "columns shuffled", ms=11),
    ]
    return _with_legend(figure, marks, columns=3)


def chance_panel(measured: Sequence[Measured]) -> Figure:
    """A row a representation: what random partitions leave between groups, and what its own does.

    As a share of the total correlation of the latents that some group reads. Every random draw is
    a tick, so that nothing is smoothed.
    """
    shown = [m for m in measured if m.partition]
    size = (8.2, max(2.2, 0.42 * len(shown) + 1.3))
    figure, axis = plt.subplots(figsize=size, layout="constrained")
    for row, m in enumerate(shown):
        share, color = 100 / (m.between + m.within), method_color(m.method)
        ticks = share * m.partition.random
        axis.plot(ticks, np.full(len(ticks), row), "|", color=color, alpha=0.35, ms=13)
        axis.plot(share * m.partition.own, row, "D", color=color, ms=7, mec="black")
    axis.invert_yaxis()
    label = "between groups, % of the total correlation of the latents that are read"
    _rows(axis, [m.name for m in shown], label)
    marks = [
        _mark("D", "the method's groups", mec="black"),
        _mark("|", "random groups, equal sizes", ms=9),
    ]
    return _with_legend(figure, marks, columns=2)


def beside_panels(measured: Sequence[Measured]) -> Figure:
    """TC per unit against accuracy, effective rank and scale, a dot a representation."""
    panels: dict[str, Callable[[Measured], float]] = {
        "linear probe, top-1 %": lambda m: 100 * m.accuracy,
        "RankMe": lambda m: m.rankme,
        "feature spread": lambda m: m.spread,
    }
    figure, axes = plt.subplots(1, 3, figsize=(10.2, 3.7), layout="constrained")
    for axis, (label, value) in zip(axes, panels.items(), strict=True):
        for m in measured:
            axis.plot(m.copula.per_unit, value(m), "o", color=method_color(m.method))
        axis.set(xlabel="total correlation / (d - 1), nats", ylabel=label)
        axis.grid(alpha=0.3)
    methods = dict.fromkeys(m.method for m in measured)
    return _with_legend(figure, [_mark("o", m, method_color(m)) for m in methods], columns=4)


def _rows(axis: plt.Axes, names: Sequence[str], label: str) -> None:
    axis.set_yticks(range(len(names)), names)
    axis.set_xlabel(label)
    axis.grid(axis="x", alpha=0.3)
    sns.despine(ax=axis)


def _mark(marker: str, label: str, color: Any = "0.4", **looks: Any) -> Line2D:
    return Line2D([], [], marker=marker, ls="", color=color, label=label, **looks)


def _with_legend(figure: Figure, marks: Sequence[Line2D], columns: int) -> Figure:
    place = {"loc": "outside lower center", "ncols": columns, "frameon": False, "fontsize": 9}
    figure.legend(handles=list(marks), **place)
    return figure
