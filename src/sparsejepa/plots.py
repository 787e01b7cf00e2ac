"""Figures that more than one chapter draws; each takes numbers and returns a matplotlib figure."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter
from torch import Tensor

from sparsejepa.intervals import Interval
from sparsejepa.model.masks import Masks

History = Mapping[str, int | float]  # an entry an epoch

# Okabe & Ito's palette (2008) for what is compared most; the rest from Tol's muted scheme (2021).
COLORS = {
    "jepa": "#0072B2",
    "sparsejepa": "#D55E00",
    "sparsejepa-r1b": "#E69F00",
    "sparsejepa-r2": "#CC79A7",
    "sparsejepa-r3": "#882255",
    "l1": "#AA4499",
    "cjepa": "#56B4E9",
    "jepa-uniformity": "#6699CC",
    "jepa-sigreg": "#117733",
    "sigreg": "#009E73",
    "rectified": "#44AA99",
    "ec-ijepa": "#332288",
    "tjepa": "#88CCEE",
    "mae": "#999933",
    "untrained encoder": "#555555",
    "raw pixels": "#A0A0A0",
}
# Series and controls are told apart without colour, too.
MARKERS = "osD^vP*X<>"
LINES = (("0.35", "--"), ("0.55", "-."), ("0.35", ":"))


def method_color(name: str) -> str:
    """The colour of a method or control, the same in every figure; black for a new method."""
    return COLORS.get(name, "black")


def interval_dots(
    cells: Mapping[tuple[str, str, str], Interval],
    label: str,
    *,
    methods: Mapping[str, str] | None = None,
    lines: Mapping[str, float | Mapping[str, float]] | None = None,
    hollow: Collection[str] = (),
    factor: int | float = 1,
) -> Figure:
    """Estimates as dots with their intervals: a panel a `panel`, a row a `row`.

    Args:
        cells: panel, row and series -> estimate (ends NaN: no interval). Series are drawn side by
            side with a marker each.
        label: of the axis of values.
        methods: row -> the method whose colour it has, instead of the series' own.
        lines: control -> its value, or panel -> value; drawn as vertical lines.
        hollow: series whose dots are not filled.
        factor: of all values, as 100 for per cent.
    """
    panels, rows, series = (list(dict.fromkeys(key[i] for key in cells)) for i in range(3))
    height = len(rows) * (0.2 + 0.12 * len(series)) + 0.7
    figure, axes = panel_grid(len(panels), (2.9, height), sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        for shift, name in enumerate(series):
            color, marker = [*COLORS.values()][shift], MARKERS[shift]
            for row, row_name in enumerate(rows):
                if (cell := cells.get((panel, row_name, name))) is None:
                    continue
                if methods:
                    color = method_color(methods[row_name])
                axis.errorbar(
                    factor * cell.value, row + 0.7 * ((shift + 0.5) / len(series) - 0.5),
                    xerr=factor * _lengths([cell.value], [[cell.low], [cell.high]]), marker=marker,
                    ms=5, lw=1.2, capsize=2, color=color, mfc="white" if name in hollow else color,
                )  # fmt: skip
            shown = "0.3" if methods else color
            face = "white" if name in hollow else shown
            axis.plot([], [], marker, color=shown, label=name, mfc=face)
        for (control, at), (color, style) in zip((lines or {}).items(), LINES, strict=False):
            value = at.get(panel) if isinstance(at, Mapping) else at
            if value is not None:
                place = factor * value
                axis.axvline(place, color=color, ls=style, lw=1.2, zorder=0, label=control)
        axis.set(title=panel, xlabel=label)
        axis.grid(alpha=0.3)
        sns.despine(ax=axis)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    if len(series) > 1 or lines:
        legend_below(figure)
    return figure


@dataclass(frozen=True)
class Line:
    """One curve or row of points of a panel."""

    x: Any  # a sequence of numbers, as y
    y: Any
    color: Any
    label: str | None = None
    style: str = "-"  # of matplotlib; "o": points
    width: int | float = 1.6
    ends: Any = None  # low and high ends of the intervals around y, [2, n]
    hollow: bool = False  # points that are not filled


def line_panels(
    panels: Mapping[str, Sequence[Line]],
    xlabel: str,
    ylabel: str,
    *,
    columns: int | None = None,
    size: tuple[int | float, int | float] = (2.9, 2.4),
    share: bool | str = False,
    below: bool = False,
    **scales: object,
) -> Figure:
    """A panel a title, in raster order.

    Args:
        share: whether panels share the vertical axis; "row": those of a row.
        below: one legend for all panels instead of one in each.
        scales: settings of every axis, as xscale.
    """
    figure, axes = panel_grid(len(panels), size, columns, sharey=share)
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for line in lines:
            ends = None if line.ends is None else _lengths(line.y, line.ends)
            edge = "white" if line.style == "o" and not line.hollow else line.color
            axis.errorbar(
                line.x, line.y, ends, fmt=line.style, color=line.color, label=line.label or None,
                lw=line.width, mec=edge, mfc="white" if line.hollow else line.color, capsize=2,
            )  # fmt: skip
        axis.set(**scales)
        axis.set_title(title, fontsize=9)
        if not below and axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=7, handlelength=1.2)
        for side in (axis.xaxis, axis.yaxis):
            _log_ticks(side)
        axis.grid(alpha=0.3)
        sns.despine(ax=axis)
    figure.supxlabel(xlabel, fontsize=10)
    figure.supylabel(ylabel, fontsize=10)
    if below:
        legend_below(figure)
    return figure


def _lengths(values: Any, ends: Any) -> np.ndarray:
    """Of the bars below and above; rounding may put a mean of equal numbers outside its ends."""
    return ((np.asarray(ends) - np.asarray(values)) * [[-1], [1]]).clip(min=0)


def _log_ticks(axis: Axis) -> None:
    """Few labels on a logarithmic axis, so that they do not run together in a narrow panel."""
    if axis.get_scale() != "log":
        return
    low, high = axis.get_view_interval()
    subs = (1, 2, 5) if high < 10 * low else (1, 3) if high < 50 * low else (1,)
    axis.set_major_locator(LogLocator(subs=subs, numticks=5))
    axis.set_major_formatter(FuncFormatter(_tick))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float, _: int) -> str:
    power = int(np.floor(np.log10(value) + 1e-9))
    if -4 < power < 4:
        return f"{value:g}"
    digits = round(value / 10.0**power)
    return f"$10^{{{power}}}$" if digits == 1 else rf"${digits}\cdot10^{{{power}}}$"


def curves(
    histories: Sequence[History] | Mapping[str, Sequence[History]],
    panels: Mapping[str, str],
    methods: Mapping[str, str] | None = None,
) -> Figure:
    """A panel a measure, over epochs, a line a run.

    Args:
        histories: run -> its history, an entry an epoch; or the history of a single run.
        panels: key of the entries -> label.
        methods: run -> the method whose colour it has.
    """
    runs = histories if isinstance(histories, Mapping) else {"": histories}
    lines = {label: [] for label in panels.values()}
    for index, (name, history) in enumerate(runs.items()):
        color = method_color((methods or {}).get(name, "jepa"))
        # Later lines are thinner: where runs coincide, the earlier ones show behind them.
        look = MARKERS[index] + ("-", "--", "-.", ":")[index % 4], 0.8 + 2.4 / (1 + index)
        epochs = [entry["epoch"] for entry in history]
        for key, label in panels.items():
            values = [entry[key] for entry in history]
            lines[label].append(Line(epochs, values, color, name, *look))
    figure = line_panels(lines, "epoch", "", below=len(runs) > 1)
    for axis in figure.axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def norm_matrix(norms: Float[Tensor, "G d"] | Mapping[str, Float[Tensor, "G d"]]) -> Figure:
    """||W^(g)_{.,k}|| of every group and latent; exact zeros are left white.

    Latents stand in the order of their strongest group, those that no group reads at the end.
    Several matrices, by title, stand side by side; small ones have their numbers in them.
    """
    matrices = norms if isinstance(norms, Mapping) else {"": norms}
    size = max(4.8, 9 / len(matrices)), 0.28 * len(next(iter(matrices.values()))) + 1.4
    figure, axes = panel_grid(len(matrices), size)
    largest = max(matrix.max().item() for matrix in matrices.values())
    for axis, (title, matrix) in zip(axes, matrices.items(), strict=True):
        values = matrix.double().numpy()
        strongest = np.where(values.max(0) > 0, values.argmax(0), len(values))
        values = values[:, np.lexsort((-values.max(0), strongest))]
        # Few digits, which never make a small norm look like an exact zero.
        digits = np.vectorize(lambda norm: f"{norm:.3f}" if norm >= 0.001 else f"{norm:.0e}")
        sns.heatmap(
            values, mask=values == 0, ax=axis, cmap="crest", vmin=0, vmax=largest or 1, fmt="",
            annot=digits(values) if values.size <= 100 else None, annot_kws={"fontsize": 7},
            cbar_kws={"label": "column norm"}, xticklabels=False,
        )  # fmt: skip
        axis.set(title=title, xlabel="latent k, by its strongest group", ylabel="group g")
    return figure


def image_grid(images: UInt8[Tensor, "N H W 3"], titles: Sequence[str], columns: int = 8) -> Figure:
    """Images in raster order, each under its title."""
    figure, axes = panel_grid(len(images), (1.15, 1.35), columns)
    for axis, image, title in zip(axes, images, titles, strict=True):
        axis.axis("off")
        axis.imshow(image.numpy(), interpolation="nearest")
        axis.set_title(title, fontsize=8)
    return figure


def panel_grid(
    count: int,
    size: tuple[int | float, int | float] = (2.9, 2.6),
    columns: int | None = None,
    **options: object,
) -> tuple[Figure, list[Axes]]:
    """`count` panels of `size` inches, three a row at most, so that a phone can show them."""
    columns = columns or (2 if count == 4 else min(3, count))
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns + 0.8, size[1] * rows), squeeze=False,
        layout="constrained", **options,
    )  # fmt: skip
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, list(axes.flat[:count])


def legend_below(figure: Figure) -> None:
    """One legend for all panels, each label once."""
    found = [axis.get_legend_handles_labels() for axis in figure.axes]
    unique = {name: h for pair in found for h, name in zip(*pair, strict=True) if name}
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", frameon=False,
        ncols=min(3, len(unique)),
    )  # fmt: skip


def mask_grid(images: UInt8[Tensor, "N H W 3"], masks: Masks, grid: int) -> Figure:
    """A row an image: the image, the patches that the context encoder keeps, each target block."""
    titles = ["image", "context", *[f"target {m + 1}" for m in range(masks.targets.shape[1])]]
    size, shown = images.shape[1] // grid, []
    for row, image in enumerate(images):
        for kept in (torch.arange(grid**2), masks.context[row], *masks.targets[row]):
            hidden = torch.ones(grid**2, dtype=torch.bool).index_fill(0, kept, False)
            hidden = hidden.view(grid, grid, 1).repeat_interleave(size, 0)
            shown.append(torch.where(hidden.repeat_interleave(size, 1), 225, image))
    names = titles + [""] * (len(shown) - len(titles))
    return image_grid(torch.stack(shown), names, columns=len(titles))


def coverage_maps(maps: Mapping[str, Float[Tensor, "g g"]]) -> Figure:
    """How often each patch is used, as heat maps with numbers."""
    figure, axes = panel_grid(len(maps), (4.4, 3.8))
    for axis, (name, values) in zip(axes, maps.items(), strict=True):
        sns.heatmap(
            values.numpy(), ax=axis, annot=True, fmt=".2f", square=True, cmap="crest", vmin=0,
            annot_kws={"fontsize": 7}, cbar_kws={"shrink": 0.8},
        )  # fmt: skip
        axis.set_title(f"{name}: mean uses per image")
        axis.set(xlabel="patch column", ylabel="patch row")
    return figure
