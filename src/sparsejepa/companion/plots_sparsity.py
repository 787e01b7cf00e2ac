"""Figures of the sparsity study: methods, paths of strengths, groups, and runs over epochs."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sparsejepa.companion.comparisons import ENOUGH_SEEDS
from sparsejepa.companion.method_colors import method_color
from sparsejepa.intervals import Interval, seed_interval

# How a control's line is drawn: it must be told from others without colour, too.
_CONTROL_LINES = {
    "untrained encoder": ("0.35", "--"),
    "raw pixels": ("0.55", "-."),
    "majority class": ("0.35", ":"),
}

_RUN_LINES = (("o", "-"), ("s", "--"), ("D", "-."), ("^", ":"))


def method_panels(
    accuracies: Mapping[str, Mapping[str, Interval]], controls: Mapping[str, Mapping[str, float]]
) -> Figure:
    """A panel a probe, a row a method: accuracy with its interval; lines for the controls.

    Args:
        accuracies: probe -> method -> accuracy as a share; every probe has the same methods.
        controls: probe -> control -> accuracy as a share.
    """
    methods = list(next(iter(accuracies.values())))
    figure, axes = plt.subplots(
        1,
        len(accuracies),
        figsize=(2.9 * len(accuracies), 0.32 * len(methods) + 1.5),
        sharey=True,
        squeeze=False,
        layout="constrained",
    )
    for axis, (probe, found) in zip(axes[0], accuracies.items(), strict=True):
        for row, method in enumerate(methods):
            cell = found[method]
            errors = [[100 * (cell.value - cell.low)], [100 * (cell.high - cell.value)]]
            axis.errorbar(
                100 * cell.value, row, xerr=errors, fmt="o", color=method_color(method), capsize=2
            )
        for name, value in controls[probe].items():
            color, style = _CONTROL_LINES[name]
            axis.axvline(100 * value, color=color, ls=style, lw=1.2, label=name)
        axis.set(title=probe, xlabel="top-1 accuracy, %")
        axis.grid(axis="x", alpha=0.3)
        sns.despine(ax=axis)
    axes[0, 0].set_yticks(range(len(methods)), methods)
    axes[0, 0].invert_yaxis()
    _legend_below(figure, axes[0, 0])
    return figure


def path_panels(
    strengths: Sequence[float],
    panels: Mapping[str, Sequence[tuple[float, float, float]]],
    method: str,
    reference: Mapping[str, tuple[float, float]],
    untrained: Mapping[str, float],
) -> Figure:
    """A panel a measure, along the strengths of one penalty.

    Args:
        strengths: the penalty's, ascending; evenly spaced in the figure, since one of them is 0.
        panels: measure -> (value, low, high) at each strength; low and high are the value itself
            where there is no interval.
        method: whose colour the path has.
        reference: measure -> lowest and highest value of plain JEPA over its seeds, drawn as a
            band; measures that JEPA lacks have none.
        untrained: measure -> value of the untrained encoder, drawn as a line: a penalty that stops
            training ends there.
    """
    figure, axes = _grid(len(panels))
    places = np.arange(len(strengths))
    for axis, (label, cells) in zip(axes, panels.items(), strict=False):
        value, low, high = np.array(cells).T
        if label in reference:
            bottom, top = reference[label]
            blue = method_color("jepa")
            axis.axhspan(bottom, top, color=blue, alpha=0.18, lw=0)
            for end in {bottom, top}:
                axis.axhline(end, color=blue, lw=0.8, label="jepa, range over seeds")
        if label in untrained:
            color, style = _CONTROL_LINES["untrained encoder"]
            axis.axhline(untrained[label], color=color, ls=style, lw=0.8, label="untrained encoder")
        axis.plot(places, value, "o-", color=method_color(method), label=method)
        axis.fill_between(places, low, high, color=method_color(method), alpha=0.2, lw=0)
        axis.set_xticks(places, [f"{strength:g}" for strength in strengths], rotation=45)
        axis.set(xlabel="strength λ", ylabel=label)
        axis.grid(alpha=0.3)
    _legend_below(figure, axes[0])
    return figure


def seed_panels(
    panels: Mapping[str, Mapping[str, Sequence[float]]], colors: Mapping[str, str]
) -> Figure:
    """A panel a measure, a column a variant: a dot a seed, and the mean of three or more.

    Args:
        panels: measure -> variant -> one value a seed; every measure has the same variants. The
            mean stands beside the dots, with its 95 % interval.
        colors: variant -> the method whose colour it has.
    """
    figure, axes = _grid(len(panels))
    for axis, (label, variants) in zip(axes, panels.items(), strict=False):
        for column, (name, values) in enumerate(variants.items()):
            color = method_color(colors[name])
            axis.plot([column] * len(values), values, "o", color=color, alpha=0.45, ms=5)
            if len(values) >= ENOUGH_SEEDS:
                mean = seed_interval(values)
                errors = [[mean.value - mean.low], [mean.high - mean.value]]
                axis.errorbar(
                    column + 0.22, mean.value, yerr=errors, fmt="_", color=color, capsize=3
                )
        axis.set_xticks(range(len(variants)), list(variants), rotation=30, ha="right")
        axis.set_xlim(-0.5, len(variants) - 0.3)
        axis.set(ylabel=label)
        axis.grid(axis="y", alpha=0.3)
    return figure


def run_curves(
    histories: Mapping[str, Sequence[Mapping[str, int | float]]],
    panels: Mapping[str, str],
    colors: Mapping[str, str],
) -> Figure:
    """A panel a measure, a line a run, over epochs.

    Args:
        histories: run -> its history, an entry an epoch.
        panels: key of the entries -> label.
        colors: run -> the method whose colour it has.
    """
    figure, axes = _grid(len(panels))
    for axis, (key, label) in zip(axes, panels.items(), strict=False):
        for index, (name, history) in enumerate(histories.items()):
            marker, style = _RUN_LINES[index % len(_RUN_LINES)]
            epochs = [entry["epoch"] for entry in history]
            values = [entry[key] for entry in history]
            # Later lines are thinner: where runs coincide, the earlier ones show behind them.
            size = 1 / (1 + index)
            axis.plot(
                epochs, values, color=method_color(colors[name]), marker=marker, ls=style,
                lw=0.8 + 2.4 * size, ms=4 + 6 * size, label=name,
            )  # fmt: skip
        axis.set(xlabel="epoch", ylabel=label)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    _legend_below(figure, axes[0])
    return figure


def norm_matrices(matrices: Mapping[str, Float[Tensor, "G K"]]) -> Figure:
    """||W^(g)_{.,k}|| of groups and latents side by side; exact zeros are left white.

    Latents stand in the order of their strongest group.
    """
    figure, axes = plt.subplots(
        1, len(matrices), figsize=(4.8 * len(matrices), 3.8), squeeze=False, layout="constrained"
    )
    largest = max(matrix.max().item() for matrix in matrices.values())
    for axis, (name, matrix) in zip(axes[0], matrices.items(), strict=True):
        values = matrix.double().numpy()
        values = values[:, np.lexsort((-values.max(0), values.argmax(0)))]
        sns.heatmap(
            values, mask=values == 0, ax=axis, cmap="crest", vmin=0, vmax=largest,
            annot=np.vectorize(_short)(values), fmt="", annot_kws={"fontsize": 7},
            cbar_kws={"label": "column norm"}, xticklabels=False,
        )  # fmt: skip
        axis.set(title=name, xlabel="latent k, by its strongest group", ylabel="group g")
    return figure


def _short(norm: float) -> str:
    """Few digits that never make a small norm look like an exact zero."""
    return f"{norm:.3f}" if norm >= 0.001 else f"{norm:.0e}"


def _legend_below(figure: Figure, axis: Axes) -> None:
    """The legend of one panel for all, each label once."""
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", ncols=len(unique), frameon=False
    )


def _grid(count: int) -> tuple[Figure, list[Axes]]:
    """`count` panels, three a row if that fills the rows, else at most four."""
    columns = 3 if count in (3, 6, 9) else min(4, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.9 * columns, 2.6 * rows), squeeze=False, layout="constrained"
    )
    for axis in list(axes.flat)[count:]:
        axis.axis("off")
    return figure, list(axes.flat)[:count]
