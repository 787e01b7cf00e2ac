"""Figures of the probes: accuracies with intervals, data efficiency, spectra."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from matplotlib.figure import Figure

from sparsejepa.companion.method_colors import method_color

# One a series: what is read, by which probe.
_MARKERS = "osD^vP"


@dataclass(frozen=True)
class Point:
    """One accuracy with its interval, as shares of 1."""

    name: str  # the row: a run, a method or a control
    method: str  # whose colour it has
    series: str  # which marker it has
    value: float
    low: float
    high: float


def accuracy_points(panels: Mapping[str, Sequence[Point]], chance: Mapping[str, float]) -> Figure:
    """A panel a task and a row a representation; `chance` is the dotted line of each panel."""
    names = list(dict.fromkeys(p.name for points in panels.values() for p in points))
    series = list(dict.fromkeys(p.series for points in panels.values() for p in points))
    figure, axes = plt.subplots(
        1,
        len(panels),
        figsize=(2.6 + 3.4 * len(panels), 1.6 + 0.32 * len(names)),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (task, points) in zip(axes[0], panels.items(), strict=True):
        for point in points:
            index = series.index(point.series)
            y = names.index(point.name) + 0.2 * (index - (len(series) - 1) / 2)
            error = [[100 * (point.value - point.low)], [100 * (point.high - point.value)]]
            axis.errorbar(
                100 * point.value, y, xerr=error, color=method_color(point.method), capsize=2,
                marker=_MARKERS[index], markersize=4, lw=1,
            )  # fmt: skip
        axis.axvline(100 * chance[task], color="0.4", ls=":", lw=1)
        axis.set(title=task, xlabel="accuracy on test images, %")
        axis.grid(axis="x", alpha=0.3)
        sns.despine(ax=axis)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    handles = [
        plt.Line2D([], [], color="0.3", marker=_MARKERS[i], ls="", markersize=4)
        for i in range(len(series))
    ]
    figure.legend(handles, series, loc="outside lower center", ncols=3, frameon=False, fontsize=8)
    return figure


def efficiency_curves(points: Mapping[str, Sequence[Point]], images: Sequence[int]) -> Figure:
    """Accuracy over the number of labelled images, a line a representation, with intervals."""
    figure, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for name, curve in points.items():
        error = [
            [100 * (p.value - p.low) for p in curve],
            [100 * (p.high - p.value) for p in curve],
        ]
        axis.errorbar(
            images, [100 * p.value for p in curve], yerr=error, label=name, capsize=2, lw=1.2,
            color=method_color(curve[0].method), marker="o", markersize=3,
            ls="--" if curve[0].method in ("untrained encoder", "raw pixels") else "-",
        )  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(images, [f"{n:,}" for n in images])
    axis.minorticks_off()
    axis.set(xlabel="labelled training images", ylabel="accuracy on test images, %")
    axis.grid(alpha=0.3)
    _legend_beside(figure)
    sns.despine(ax=axis)
    return figure


def spectra(values: Mapping[str, tuple[str, Sequence[float]]]) -> Figure:
    """Eigenvalues of the feature covariance as shares of their sum, over their rank.

    `values` maps a name to its method and its eigenvalues, largest first.
    """
    figure, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    for name, (method, eigenvalues) in values.items():
        shares = np.asarray(eigenvalues) / max(sum(eigenvalues), 1e-300)
        # Below, float32 features hold rounding only.
        alive = shares > 1e-9
        axis.plot(
            np.arange(1, len(shares) + 1)[alive], shares[alive], label=name, lw=1.2,
            color=method_color(method),
            ls="--" if method in ("untrained encoder", "raw pixels") else "-",
        )  # fmt: skip
    axis.set(xscale="log", yscale="log", ylim=(None, 1.2))
    axis.set(xlabel="rank i of the eigenvalue", ylabel="share of the variance")
    axis.grid(alpha=0.3)
    _legend_beside(figure)
    sns.despine(ax=axis)
    return figure


def _legend_beside(figure: Figure) -> None:
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
