"""Figures that more than one chapter draws; each takes numbers and returns a matplotlib figure."""

from collections.abc import Collection, Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import seaborn as sns
from jaxtyping import Float, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

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
    frame: pd.DataFrame,
    label: str,
    *,
    lines: Mapping[str, float | Mapping[str, float]] | None = None,
    looks: Mapping[str, tuple[str, str]] | None = None,
    hollow: Collection[str] = (),
    limits: tuple[float, float] | None = None,
) -> Figure:
    """Estimates as dots with their intervals: a panel a `panel`, a row a `row`.

    Args:
        frame: a line an estimate. Columns row, value, low and high (NaN: no interval); if there is
            more than one, panel and series, drawn side by side with a marker each; and, if the
            colour is a method's and not the series', method.
        label: of the axis of values.
        lines: control -> its value, or panel -> value; drawn as vertical lines.
        looks: series -> colour and marker, where a chapter has its own.
        hollow: series whose dots are not filled.
        limits: of the axis of values in every panel; without them each panel has its own.
    """
    frame = pd.DataFrame({"panel": "", "series": "", **frame})
    panels, rows, series = (list(frame[name].unique()) for name in ("panel", "row", "series"))
    if looks is None:
        looks = dict(zip(series, zip(COLORS.values(), MARKERS, strict=False), strict=False))
    height = len(rows) * (0.2 + 0.12 * len(series)) + 0.7
    figure, axes = panel_grid(len(panels), (2.9, height), sharey=True)
    for axis, panel in zip(axes, panels, strict=True):
        for shift, name in enumerate(series):
            own = frame[(frame["panel"] == panel) & (frame["series"] == name)]
            places = [
                rows.index(row) + 0.7 * ((shift + 0.5) / len(series) - 0.5) for row in own.row
            ]
            color, marker = looks[name]
            for place, dot in zip(places, own.to_dict("records"), strict=True):
                own_color = method_color(dot["method"]) if "method" in dot else color
                # Where all seeds agree, rounding may put the mean outside its interval.
                ends = np.array([[dot["value"] - dot["low"]], [dot["high"] - dot["value"]]])
                axis.errorbar(
                    dot["value"], place, xerr=ends.clip(min=0), marker=marker, ms=5, lw=1.2,
                    capsize=2, color=own_color, mfc="white" if name in hollow else own_color,
                )  # fmt: skip
            shown = "0.3" if "method" in frame else color
            axis.plot([], [], marker, color=shown, label=name,
                      mfc="white" if name in hollow else shown)  # fmt: skip
        for (control, at), (color, style) in zip((lines or {}).items(), LINES, strict=False):
            value = at.get(panel) if isinstance(at, Mapping) else at
            if value is not None:
                axis.axvline(value, color=color, ls=style, lw=1.2, zorder=0, label=control)
        axis.set(title=panel, xlabel=label, xlim=limits)
        axis.grid(alpha=0.3)
        sns.despine(ax=axis)
    axes[0].set_yticks(range(len(rows)), rows)
    axes[0].set_ylim(len(rows) - 0.5, -0.5)
    if len(series) > 1 or lines:
        legend_below(figure)
    return figure


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
    figure, axes = panel_grid(len(panels))
    for axis, (key, label) in zip(axes, panels.items(), strict=True):
        for index, (name, history) in enumerate(runs.items()):
            # Later lines are thinner: where runs coincide, the earlier ones show behind them.
            size = 1 / (1 + index) if len(runs) > 1 else 0.3
            axis.plot(
                [entry["epoch"] for entry in history], [entry[key] for entry in history],
                color=method_color((methods or {}).get(name, "jepa")), label=name,
                marker=MARKERS[index], ls=("-", "--", "-.", ":")[index % 4],
                lw=0.8 + 2.4 * size, ms=4 + 6 * size,
            )  # fmt: skip
        axis.set(xlabel="epoch")
        axis.set_title(label, fontsize=9)
        axis.xaxis.get_major_locator().set_params(integer=True)
        axis.grid(alpha=0.3)
    if len(runs) > 1:
        legend_below(figure)
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
    rows = -(-len(images) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(1.15 * columns, 1.35 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, image, title in zip(axes.flat, images, titles, strict=False):
        axis.imshow(image.numpy(), interpolation="nearest")
        axis.set_title(title, fontsize=8)
    return figure


def panel_grid(
    count: int, size: tuple[float, float] = (2.9, 2.6), **options: object
) -> tuple[Figure, list[Axes]]:
    """`count` panels of `size` inches, at most three a row, so that a phone can show them."""
    columns = 2 if count == 4 else min(3, count)
    rows = -(-count // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(size[0] * columns + 0.8, size[1] * rows), squeeze=False,
        layout="constrained", **options,
    )  # fmt: skip
    for axis in list(axes.flat)[count:]:
        axis.axis("off")
    return figure, list(axes.flat)[:count]


def legend_below(figure: Figure, columns: int = 3) -> None:
    """One legend for all panels, each label once."""
    found = [axis.get_legend_handles_labels() for axis in figure.axes]
    unique = {name: h for pair in found for h, name in zip(*pair, strict=True) if name}
    figure.legend(
        unique.values(), unique.keys(), loc="outside lower center", frameon=False,
        ncols=min(columns, len(unique)),
    )  # fmt: skip


def accuracies(
    rows: Sequence[tuple[str, str, float, tuple[float, float]]], chance: float
) -> Figure:
    """Accuracies with intervals: rows of (representation, probe, accuracy, (low, high))."""
    dots = [
        {"row": name, "series": probe, "value": 100 * value, "low": 100 * low, "high": 100 * high}
        for name, probe, value, (low, high) in rows
    ]
    label = "top-1 accuracy on test images, %"
    return interval_dots(pd.DataFrame(dots), label, lines={"chance": 100 * chance})


def mask_grid(images: UInt8[Tensor, "N H W 3"], masks: Masks, grid: int) -> Figure:
    """A row an image: the image, the patches that the context encoder keeps, each target block."""
    blocks = masks.targets.shape[1]
    columns = ["image", "context", *[f"target {m + 1}" for m in range(blocks)]]
    figure, axes = plt.subplots(
        len(images),
        len(columns),
        figsize=(1.2 * len(columns), 1.25 * len(images)),
        squeeze=False,
        layout="constrained",
    )
    for row, image in enumerate(images):
        kept = [range(grid * grid), masks.context[row].tolist(), *masks.targets[row].tolist()]
        for column, (axis, indices) in enumerate(zip(axes[row], kept, strict=True)):
            axis.imshow(_only(image.numpy(), set(indices), grid), interpolation="nearest")
            axis.set_xticks([])
            axis.set_yticks([])
            color = "0.6" if column == 0 else COLORS["jepa" if column == 1 else "sparsejepa"]
            for spine in axis.spines.values():
                spine.set_edgecolor(color)
            if row == 0:
                axis.set_title(columns[column], fontsize=9)
    return figure


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


def _only(image: np.ndarray, kept: set[int], grid: int) -> np.ndarray:
    """The image with every patch greyed out that is not kept."""
    shown = image.copy()
    size = image.shape[0] // grid
    for patch in set(range(grid * grid)) - kept:
        top, left = patch // grid * size, patch % grid * size
        shown[top : top + size, left : left + size] = 225
    return shown
