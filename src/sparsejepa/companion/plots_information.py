"""Figures of multiinformation: calibration, encoders beside their controls, random partitions."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float64
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullLocator

from sparsejepa.companion.calibration import CalibrationPoint
from sparsejepa.companion.information_of_encoders import Measured
from sparsejepa.companion.method_colors import method_color

# Nats at the ticks of axes that are linear near 0.
DECADES = (-100, -10, -1, -0.1, 0, 0.1, 1, 10, 100)


def calibration_figure(points: Sequence[CalibrationPoint]) -> Figure:
    """A panel an estimator: estimate with its interval against the truth, both in nats.

    Filled where the estimator claims to hold, hollow where it does not; the colour is the width.
    """
    methods = list(dict.fromkeys(point.method for point in points))
    widths = sorted({point.d for point in points})
    colors = dict(zip(widths, sns.color_palette("viridis", len(widths)), strict=True))
    columns = min(2, len(methods))
    rows = -(-len(methods) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(4.6 * columns, 3.9 * rows), squeeze=False, layout="constrained"
    )
    for axis, method in zip(axes.flat, methods, strict=False):
        own = [point for point in points if point.method == method]
        top = 1.3 * max(max(p.truth, p.value) for p in own)
        axis.plot([0, top], [0, top], color="0.5", lw=1, ls="--", zorder=1)
        for point in own:
            color = colors[point.d]
            axis.errorbar(
                point.truth, point.value, fmt="o", ms=5, color=color, zorder=2 + point.stated,
                yerr=[[point.value - point.low], [point.high - point.value]], lw=0.8,
                markerfacecolor=color if point.stated else "white",
            )  # fmt: skip
        # Zero has its place, and equal steps are equal ratios from a twentieth of a nat on.
        axis.set_xscale("symlog", linthresh=0.05)
        axis.set_yscale("symlog", linthresh=0.05)
        for side, lowest in ((axis.xaxis, 0.0), (axis.yaxis, min(0.0, min(p.low for p in own)))):
            ticks = [t for t in DECADES if lowest <= t <= top]
            side.set_ticks(ticks, [f"{t:g}" for t in ticks])
            side.set_minor_locator(NullLocator())
        axis.set(title=method, xlabel="truth, nats", ylabel="estimate, nats")
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(methods) :]:
        axis.axis("off")
    marks = [_dot(color, f"d = {d}") for d, color in colors.items()]
    marks += [_dot("0.4", "in the stated range"), _dot("0.4", "outside", hollow=True)]
    figure.legend(handles=marks, loc="outside lower center", ncols=4, frameon=False, fontsize=9)
    return figure


def total_panel(measured: Mapping[str, Sequence[Measured]]) -> Figure:
    """A panel an image set, a row a representation: TC per unit by two estimators, and its null.

    Args:
        measured: image set -> its representations, the same in all.
    """
    figure, axes = plt.subplots(
        1,
        len(measured),
        figsize=(5.2 * len(measured) + 1.2, 0.36 * len(next(iter(measured.values()))) + 1.7),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (images, found) in zip(axes[0], measured.items(), strict=True):
        for row, m in enumerate(found):
            color, units = method_color(m.method), max(m.copula.d - 1, 1)
            low, high = (end / units for end in m.copula.interval())
            value = m.copula.per_unit
            axis.errorbar(
                value, row, xerr=[[value - low], [high - value]], fmt="o", color=color, capsize=2
            )
            axis.plot(m.gaussian.per_unit, row, "D", color=color, mfc="white", ms=6)
            axis.plot(m.null[0] / units, row, "|", color="0.35", ms=11)
        axis.set(title=images, xlabel="total correlation / (d - 1), nats")
        axis.grid(axis="x", alpha=0.3)
        sns.despine(ax=axis)
    names = [m.name for m in next(iter(measured.values()))]
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    marks = [
        _dot("0.4", "Gaussian copula, 95 % interval"),
        Line2D([], [], marker="D", ls="", color="0.4", mfc="white", label="Gaussian plug-in"),
        Line2D([], [], marker="|", ls="", color="0.35", ms=11, label="columns shuffled"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    return figure


def chance_panel(measured: Sequence[Measured]) -> Figure:
    """A row a representation: what random partitions leave between groups, and what its own does.

    As a share of the total correlation of the latents that some group reads.
    """
    shown = [m for m in measured if m.partition]
    figure, axis = plt.subplots(
        figsize=(8.2, max(2.2, 0.42 * len(shown) + 1.3)), layout="constrained"
    )
    for row, m in enumerate(shown):
        total = m.between + m.within
        _spread_of_chance(axis, row, 100 * m.partition.random / total, method_color(m.method))
        axis.plot(
            100 * m.partition.own / total, row, "D", color=method_color(m.method), ms=7, mec="black"
        )
    axis.set_yticks(range(len(shown)), [m.name for m in shown])
    axis.invert_yaxis()
    axis.set(xlabel="between groups, % of the total correlation of the latents that are read")
    axis.grid(axis="x", alpha=0.3)
    sns.despine(ax=axis)
    marks = [
        Line2D([], [], marker="D", ls="", color="0.4", mec="black", label="the method's groups"),
        Line2D([], [], marker="|", ls="", color="0.4", ms=9, label="random groups, equal sizes"),
    ]
    figure.legend(handles=marks, loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    return figure


def beside_panels(measured: Sequence[Measured]) -> Figure:
    """TC per unit against accuracy, effective rank and scale, a dot a representation."""
    panels = {
        "linear probe, top-1 %": [100 * m.accuracy for m in measured],
        "RankMe": [m.rankme for m in measured],
        "feature spread": [m.spread for m in measured],
    }
    figure, axes = plt.subplots(1, len(panels), figsize=(10.2, 3.7), layout="constrained")
    for axis, (label, values) in zip(axes, panels.items(), strict=True):
        for m, value in zip(measured, values, strict=True):
            axis.plot(m.copula.per_unit, value, "o", color=method_color(m.method), label=m.method)
        axis.set(xlabel="total correlation / (d - 1), nats", ylabel=label)
        axis.grid(alpha=0.3)
    handles, labels = axes[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", ncols=4, frameon=False,
        fontsize=9,
    )  # fmt: skip
    return figure


def _spread_of_chance(
    axis: plt.Axes, row: int, values: Float64[np.ndarray, "draws"], color: str
) -> None:
    """Every random draw as a tick, so that nothing is smoothed."""
    axis.plot(values, np.full(len(values), row), "|", color=color, alpha=0.35, ms=13)


def _dot(color: object, label: str, hollow: bool = False) -> Line2D:
    face = "white" if hollow else color
    return Line2D([], [], marker="o", ls="", color=color, markerfacecolor=face, label=label)
