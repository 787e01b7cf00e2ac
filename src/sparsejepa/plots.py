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
from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator
from torch import Tensor

from sparsejepa.intervals import Interval
from sparsejepa.model.masks import Masks

History = Sequence[Mapping[str, int | float]]  # an entry an epoch
Names = Mapping[str, str]
Size = tuple[int | float, int | float]  # of a panel, in inches

# Okabe & Ito's palette (2008) for what is compared most; the rest from Tol's muted scheme (2021).
COLORS = {
    "jepa": "#0072B2",
    "sparsejepa": "#D55E00",
    "sparsejepa-off": "#DDCC77",
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
    across: bool = False  # the intervals are around x


def interval_dots(
    cells: Mapping[tuple[str, str, str], Interval],
    label: str,
    *,
    methods: Names | None = None,
    lines: Mapping[str, float | Mapping[str, float]] | None = None,
    hollow: Collection[str] = (),
    factor: int | float = 1,
) -> Figure:
    """Estimates as dots with their intervals, side by side with a marker a series.

    Args:
        cells: panel, row and series -> estimate (ends NaN: no interval).
        methods: row -> the method whose colour it has, instead of the series' own.
        lines: control -> its value, or panel -> value; drawn as vertical lines.
        hollow: series whose dots are not filled.
        factor: of all values, as 100 for per cent.
    """
    names, rows, series = (list(dict.fromkeys(key[i] for key in cells)) for i in range(3))
    colors = ["0.3"] * len(series) if methods else [*COLORS.values()]
    looks = dict(zip(series, zip(colors, MARKERS, strict=False), strict=False))
    height = (len(rows) - 0.5, -0.5)
    panels = {panel: [] for panel in names}
    for panel, drawn in panels.items():
        for (control, at), (color, style) in zip((lines or {}).items(), LINES, strict=False):
            value = at.get(panel) if isinstance(at, Mapping) else at
            if value is not None:
                drawn.append(Line([factor * value] * 2, height, color, control, style, 1.2))
        for name, (color, marker) in looks.items():
            drawn.append(Line([], [], color, name, marker, hollow=name in hollow))
    for (panel, row, name), cell in cells.items():
        color, marker = looks[name]
        color = method_color(methods[row]) if methods else color
        place = rows.index(row) + 0.7 * ((series.index(name) + 0.5) / len(series) - 0.5)
        value, *ends = factor * np.array([[cell.value], [cell.low], [cell.high]])
        dot = Line(value, [place], color, None, marker, 1.2, ends, name in hollow, across=True)
        panels[panel].append(dot)
    size = 2.9, len(rows) * (0.2 + 0.12 * len(series)) + 0.7
    scales = {"yticks": range(len(rows)), "yticklabels": rows, "ylim": height}
    return line_panels(panels, label, "", size=size, share=True, below=True, **scales)


def line_panels(
    panels: Mapping[str, Sequence[Line]],
    xlabel: str,
    ylabel: str,
    *,
    columns: int | None = None,
    size: Size = (2.9, 2.4),
    share: bool | str = False,
    below: bool = False,
    **scales: object,
) -> Figure:
    """A panel a title, in raster order; `share` and `scales`, as xscale, are matplotlib's.

    `share` is of the vertical axis; `below` puts one legend for all panels below them.
    """
    figure, axes = panel_grid(len(panels), size, columns, sharey=share)
    for axis, (title, lines) in zip(axes, panels.items(), strict=True):
        for line in lines:
            look = {"fmt": line.style, "color": line.color, "lw": line.width, "capsize": 2}
            look["mec"] = "white" if line.style == "o" and not line.hollow else line.color
            look["mfc"] = "white" if line.hollow else line.color
            if line.ends is not None:
                middle, side = (line.x, "xerr") if line.across else (line.y, "yerr")
                lengths = (np.asarray(line.ends) - np.asarray(middle)) * [[-1], [1]]
                # Rounding may put a mean of equal numbers outside its ends.
                look[side] = lengths.clip(min=0)
            axis.errorbar(line.x, line.y, label=line.label or None, **look)
        axis.set(xlabel=xlabel, **scales)
        axis.set_title(title, fontsize=9)
        if not below and axis.get_legend_handles_labels()[0]:
            axis.legend(frameon=False, fontsize=7, handlelength=1.2)
        for side in (axis.xaxis, axis.yaxis):
            if side.get_scale() == "log":
                # Few labels, so that they do not run together in a narrow panel.
                low, high = side.get_view_interval()
                subs = (1, 2, 5) if high < 10 * low else (1, 3) if high < 50 * low else (1,)
                side.set_major_locator(LogLocator(subs=subs, numticks=5))
                side.set_major_formatter("{x:g}")
                side.set_minor_formatter("")
        axis.grid(alpha=0.3)
        sns.despine(ax=axis)
    figure.supylabel(ylabel, fontsize=10)
    found = [axis.get_legend_handles_labels() for axis in axes]
    unique = {name: h for pair in found for h, name in zip(*pair, strict=True)}
    if below and unique:
        place = {"loc": "outside lower center", "ncols": 2 if max(map(len, unique)) > 20 else 3}
        figure.legend(unique.values(), unique.keys(), frameon=False, **place)
    return figure


def curves(histories: Mapping[str, History], panels: Names, colors: Mapping[str, Any]) -> Figure:
    """A panel a measure, key -> label, over epochs; a line a run, in its colour or JEPA's."""
    lines = {label: [] for label in panels.values()}
    for index, (name, history) in enumerate(histories.items()):
        style = MARKERS[index % len(MARKERS)] + ("-", "--", "-.", ":")[index % 4]
        # Later lines are thinner: where runs coincide, the earlier ones show behind them.
        look = colors.get(name, COLORS["jepa"]), name, style, 0.8 + 2.4 / (1 + index)
        epochs = [entry["epoch"] for entry in history]
        for key, label in panels.items():
            values = [entry[key] for entry in history]
            lines[label].append(Line(epochs, values, *look))
    figure = line_panels(lines, "epoch", "", below=len(histories) > 1)
    for axis in figure.axes:
        axis.xaxis.get_major_locator().set_params(integer=True)
    return figure


def norm_matrix(norms: Mapping[str, Float[Tensor, "G d"]]) -> Figure:
    """||W^(g)_{.,k}|| of every group and latent, by title; exact zeros are left white.

    Latents stand in the order of their strongest group, those that no group reads at the end.
    """
    ordered = {}
    for title, norm in norms.items():
        values = norm.double().numpy()
        strongest = np.where(values.max(0) > 0, values.argmax(0), len(values))
        ordered[title] = norm[:, np.lexsort((-values.max(0), strongest))]
    size = max(4.8, 9 / len(ordered)), 0.28 * len(values) + 1.4
    labels = "column norm", "latent k, by its strongest group", "group g"
    return heat_maps(ordered, size, *labels, xticklabels=False)


def heat_maps(
    maps: Mapping[str, Float[Tensor, "r c"]], size: Size, *labels: str, **options: bool
) -> Figure:
    """Small ones with numbers, exact zeros white; `labels` of colour, x, y; seaborn's options."""
    label, xlabel, ylabel = labels
    figure, axes = panel_grid(len(maps), size)
    largest = max(values.max().item() for values in maps.values())
    # Few digits, which never make a small number look like an exact zero.
    digits = np.vectorize(lambda value: f"{value:.3f}" if value >= 0.001 else f"{value:.0e}")
    for axis, (title, map_) in zip(axes, maps.items(), strict=True):
        look = {"cmap": "crest", "vmin": 0, "vmax": largest or 1, "cbar_kws": {"label": label}}
        values = map_.double().numpy()
        if values.size <= 100:
            look |= {"annot": digits(values), "fmt": "", "annot_kws": {"fontsize": 7}}
        sns.heatmap(values, mask=values == 0, ax=axis, **look, **options)
        axis.set(title=title, xlabel=xlabel, ylabel=ylabel)
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
    count: int, size: Size = (2.9, 2.6), columns: int | None = None, **options: object
) -> tuple[Figure, list[Axes]]:
    """`count` panels, three a row at most, so that a phone can show them."""
    columns = columns or (2 if count == 4 else min(3, count))
    rows = -(-count // columns)
    options |= {"figsize": (size[0] * columns + 0.8, size[1] * rows), "layout": "constrained"}
    figure, axes = plt.subplots(rows, columns, squeeze=False, **options)
    for axis in axes.flat[count:]:
        axis.axis("off")
    return figure, list(axes.flat[:count])


def mask_grid(images: UInt8[Tensor, "N H W 3"], masks: Masks, grid: int) -> Figure:
    """A row an image: the image, the patches that the context encoder keeps, each target block."""
    titles = ["image", "context", *[f"target {m + 1}" for m in range(masks.targets.shape[1])]]
    size, shown = images.shape[1] // grid, []
    for row, image in enumerate(images):
        for kept in (torch.arange(grid**2), masks.context[row], *masks.targets[row]):
            seen = torch.isin(torch.arange(grid**2), kept).view(grid, grid, 1)
            seen = seen.repeat_interleave(size, 0).repeat_interleave(size, 1)
            shown.append(torch.where(seen, image, 225))
    names = titles + [""] * (len(shown) - len(titles))
    return image_grid(torch.stack(shown), names, columns=len(titles))
