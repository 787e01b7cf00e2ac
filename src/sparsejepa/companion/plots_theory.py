"""Figures of the deep linear theory: each takes numbers and returns a matplotlib figure."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from sparsejepa.companion.method_colors import method_color

NAMES = {"jepa": "JEPA", "mae": "MAE"}
# Ratios of lambda at which the map of inversion draws its contours.
CONTOURS = (1.01, 1.05, 1.2, 1.5, 2.0, 3.0)


@dataclass(frozen=True)
class LearningCurves:
    """Features of one network over time."""

    times: Float[np.ndarray, "T"]  # the paper's time
    learned: Float[np.ndarray, "T F"]  # gain over its fixed point
    critical: Float[np.ndarray, "F"]  # exact time at which half of it is learned
    labels: Sequence[str]  # of the features


def learning_curves(panels: Mapping[tuple[str, str], LearningCurves]) -> Figure:
    """A row an objective, a column a case; keys are (objective, title). Darker: later in the list.

    Points are exact critical times, lines are the solver's.
    """
    rows, columns = (list(dict.fromkeys(key[i] for key in panels)) for i in (0, 1))
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(3.1 * len(columns), 2.5 * len(rows)), squeeze=False,
        sharey=True, layout="constrained",
    )  # fmt: skip
    for (objective, title), curves in panels.items():
        axis = axes[rows.index(objective), columns.index(title)]
        shades = _shades(method_color(objective), len(curves.labels))
        for feature, (label, shade) in enumerate(zip(curves.labels, shades, strict=True)):
            axis.plot(curves.times, curves.learned[:, feature], color=shade, lw=1.8, label=label)
            axis.plot(curves.critical[feature], 0.5, "o", color=shade, mec="white", ms=6)
        axis.set(xscale="log", xlim=(curves.times[0], curves.times[-1]), ylim=(-0.03, 1.05))
        axis.legend(frameon=False, fontsize=7, loc="upper left", handlelength=1.2)
        if objective == rows[0]:
            axis.set_title(title, fontsize=9)
        if objective == rows[-1]:
            axis.set_xlabel("time t")
        if title == columns[0]:
            axis.set_ylabel(f"{NAMES[objective]}: gain / fixed point")
        _log_ticks(axis.xaxis)
        _tidy(axis)
    return figure


def critical_time_lines(
    lines: Mapping[tuple[str, str, int], tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]],
) -> Figure:
    """Log-log critical times; keys are (objective, variable, depth).

    Values are (x, exact t) for a line and (x, measured t) for points.
    """
    rows, columns, depths = (list(dict.fromkeys(key[i] for key in lines)) for i in range(3))
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(3.2 * len(columns), 2.6 * len(rows)), squeeze=False,
        layout="constrained",
    )  # fmt: skip
    for (objective, variable, depth), (x, exact, at, measured) in lines.items():
        axis = axes[rows.index(objective), columns.index(variable)]
        shade = _shades(method_color(objective), len(depths))[depths.index(depth)]
        axis.plot(x, exact, color=shade, lw=1.6, label=f"L = {depth}")
        axis.plot(at, measured, "o", color=shade, mec="white", ms=6)
        axis.set(xscale="log", yscale="log", xlabel=variable, ylabel=f"{NAMES[objective]}: time")
        axis.legend(frameon=False, fontsize=7)
        _log_ticks(axis.xaxis)
        _tidy(axis)
    return figure


def inversion_map(
    ratios: Mapping[tuple[str, int], Float[np.ndarray, "Y X"]],
    layer: Float[np.ndarray, "X"],
    share: Float[np.ndarray, "Y"],
) -> Figure:
    """t_A / t_B at equal lambda, by objective and depth: the lead in lambda that is overcome.

    Columns are depths. Over epsilon^(1/L) and rho_A / rho_B; grey where A begins beyond its level.
    """
    rows, columns = (list(dict.fromkeys(key[i] for key in ratios)) for i in (0, 1))
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(2.5 * len(columns) + 0.8, 2.6 * len(rows)),
        squeeze=False, sharex=True, sharey=True, layout="constrained",
    )  # fmt: skip
    shading = None
    for (objective, depth), values in ratios.items():
        axis = axes[rows.index(objective), columns.index(depth)]
        shading = axis.pcolormesh(
            layer, share, np.log(values), cmap="vlag", vmin=-np.log(4), vmax=np.log(4),
            shading="nearest", rasterized=True,
        )  # fmt: skip
        axis.set(xscale="log", title=f"{NAMES[objective]}, L = {depth}", facecolor="0.75")
        # Beyond the ridge, where g falls steeply, contours lie too close to be drawn or labelled.
        ridge = np.nanargmax(values, axis=1, keepdims=True)
        rising = np.where(np.arange(len(layer)) <= ridge, values, np.nan)
        drawn = axis.contour(layer, share, rising, CONTOURS, colors="black", linewidths=0.7)
        axis.clabel(drawn, fmt="%g", fontsize=6)
        axis.title.set_fontsize(9)
    for axis in axes[-1]:
        axis.set_xlabel(r"$\epsilon^{1/L}$")
    for axis in axes[:, 0]:
        axis.set_ylabel(r"$\rho_A / \rho_B$")
    ticks = np.array([0.25, 0.5, 1, 2, 4])
    bar = figure.colorbar(shading, ax=axes, ticks=np.log(ticks), shrink=0.8, extend="max")
    bar.set_ticklabels([f"{tick:g}" for tick in ticks])
    bar.set_label(r"lead $\lambda_A / \lambda_B$ that is overcome")
    return figure


def lines_of_objectives(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray, np.ndarray]],
    labels: Mapping[str, str],
    xlabel: str,
    ylabel: str,
    xscale: str = "log",
) -> Figure:
    """A line and points for each objective; values are (x, y of the line, y of the points)."""
    figure, axis = plt.subplots(figsize=(4.6, 3.2), layout="constrained")
    for objective, (x, line, points) in lines.items():
        color = method_color(objective)
        axis.plot(x, line, color=color, lw=1.6, label=f"{NAMES[objective]}, {labels[objective]}")
        axis.plot(x, points, "o", color=color, mec="white", ms=6)
    axis.set(xscale=xscale, yscale="log", xlabel=xlabel, ylabel=ylabel)
    axis.legend(frameon=False, fontsize=8)
    _log_ticks(axis.yaxis)
    if xscale == "log":
        _log_ticks(axis.xaxis)
    _tidy(axis)
    return figure


def descents(
    panels: Mapping[tuple[str, str], Sequence[tuple[np.ndarray, np.ndarray]]],
    flow: Mapping[str, tuple[np.ndarray, np.ndarray]],
    labels: Sequence[str],
) -> Figure:
    """Gains of single runs (thin) over the solved equation (black, dashed); a row an objective."""
    rows, columns = (list(dict.fromkeys(key[i] for key in panels)) for i in (0, 1))
    figure, axes = plt.subplots(
        len(rows), len(columns), figsize=(2.7 * len(columns), 2.5 * len(rows)), squeeze=False,
        sharex="row", sharey="row", layout="constrained",
    )  # fmt: skip
    for (objective, title), runs in panels.items():
        axis = axes[rows.index(objective), columns.index(title)]
        shades = _shades(method_color(objective), len(labels))
        for index, (times, gains) in enumerate(runs):
            for feature, (label, shade) in enumerate(zip(labels, shades, strict=True)):
                axis.plot(times, gains[:, feature], color=shade, lw=1,
                          label=label if index == 0 else None)  # fmt: skip
        axis.plot(*flow[objective], color="black", ls="--", lw=0.9)
        if objective == rows[0]:
            axis.set_title(title, fontsize=9)
        if objective == rows[-1]:
            axis.set_xlabel("time t")
        if title == columns[0]:
            axis.set_ylabel(f"{NAMES[objective]}: gain")
            axis.legend(frameon=False, fontsize=7)
        _tidy(axis)
    return figure


def coupled_times(
    degrees: Sequence[float],
    measured: Mapping[str, np.ndarray],
    readings: Mapping[str, Mapping[str, np.ndarray]],
    labels: Sequence[str],
) -> Figure:
    """Critical times of two features over the angle between their moments: points measured."""
    figure, axes = plt.subplots(1, len(measured), figsize=(4.2 * len(measured), 3.2),
                                squeeze=False, layout="constrained")  # fmt: skip
    styles = dict(zip(next(iter(readings.values())), ("-", ":"), strict=True))
    for axis, objective in zip(axes[0], measured, strict=True):
        shades = _shades(method_color(objective), len(labels))
        for feature, (label, shade) in enumerate(zip(labels, shades, strict=True)):
            axis.plot(degrees, measured[objective][:, feature], "o", color=shade, label=label)
            for name, times in readings[objective].items():
                axis.plot(degrees, times[:, feature], styles[name], color=shade,
                          label=f"{label}, {name}")  # fmt: skip
        axis.set(xlabel="angle, degrees", ylabel=f"{NAMES[objective]}: time")
        axis.legend(frameon=False, fontsize=7)
        _tidy(axis)
    return figure


def planted_features(
    curves: Mapping[tuple[str, str, str], Float[np.ndarray, "S C"]],
    steps: Sequence[int],
    labels: Mapping[str, str],
) -> Figure:
    """Measures over training; keys are (measure, feature, objective), seeds in rows of the arrays.

    A panel a measure and feature; thin lines are seeds, thick ones their mean.
    """
    panels = list(dict.fromkeys(key[:2] for key in curves))
    measures, features = (list(dict.fromkeys(panel[i] for panel in panels)) for i in (0, 1))
    figure, axes = plt.subplots(
        len(measures), len(features), figsize=(3.9 * len(features), 2.5 * len(measures)),
        squeeze=False, sharex=True, sharey="row", layout="constrained",
    )  # fmt: skip
    for (measure, feature, objective), values in curves.items():
        axis = axes[measures.index(measure), features.index(feature)]
        color = method_color(objective)
        axis.plot(steps, values.T, color=color, lw=0.6, alpha=0.6)
        axis.plot(steps, values.mean(0), "o-", color=color, lw=2, ms=4, label=NAMES[objective])
        axis.set_xscale("symlog", linthresh=max(1, sorted(steps)[1]))
        axis.set_ylabel(labels[measure])
        axis.set_title(f"planted {feature}", fontsize=9)
        axis.legend(frameon=False, fontsize=8)
        _tidy(axis)
    for axis in axes[-1]:
        axis.set_xlabel("training steps (0: untrained)")
    return figure


def _shades(color: str, count: int) -> list:
    """From light, but still to be seen, to the colour itself."""
    palette = sns.light_palette(color, as_cmap=True)
    return [palette(share) for share in np.linspace(0.45, 1, count)]


def _log_ticks(axis: Axis) -> None:
    """Labels at 1, 2 and 5 times powers of ten, at powers alone over more than two decades."""
    low, high = axis.get_view_interval()
    axis.set_major_locator(LogLocator(subs=(1, 2, 5) if high < 100 * low else (1,)))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.set_minor_formatter(NullFormatter())


def _tidy(axis: Axes) -> None:
    axis.grid(alpha=0.3)
    sns.despine(ax=axis)
