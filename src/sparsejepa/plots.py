"""The book's figures: each takes numbers and returns a matplotlib figure."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float, UInt8
from matplotlib.figure import Figure
from torch import Tensor

from sparsejepa.model.masks import Masks

CONTEXT, TARGET = "#2a6f97", "#d1603d"


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
            color = CONTEXT if column == 1 else TARGET if column > 1 else "0.6"
            for spine in axis.spines.values():
                spine.set_edgecolor(color)
            if row == 0:
                axis.set_title(columns[column], fontsize=9)
    return figure


def coverage_maps(maps: Mapping[str, Float[Tensor, "g g"]]) -> Figure:
    """How often each patch is used, as heat maps with numbers."""
    figure, axes = plt.subplots(1, len(maps), figsize=(4.4 * len(maps), 3.8), layout="constrained")
    for axis, (name, values) in zip(np.atleast_1d(axes), maps.items(), strict=True):
        sns.heatmap(
            values.numpy(), ax=axis, annot=True, fmt=".2f", square=True, cmap="crest", vmin=0,
            annot_kws={"fontsize": 7}, cbar_kws={"shrink": 0.8},
        )  # fmt: skip
        axis.set_title(f"{name}: mean uses per image")
        axis.set(xlabel="patch column", ylabel="patch row")
    return figure


def curves(history: Sequence[Mapping[str, float]], panels: Mapping[str, str]) -> Figure:
    """One panel a measure, over epochs; `panels` maps a key of the history to its label."""
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(3.4 * columns, 2.6 * rows), squeeze=False, layout="constrained"
    )
    epochs = [entry["epoch"] for entry in history]
    for axis, (key, label) in zip(axes.flat, panels.items(), strict=False):
        sns.lineplot(x=epochs, y=[entry[key] for entry in history], ax=axis, marker="o")
        axis.set(xlabel="epoch", ylabel=label)
        axis.grid(alpha=0.3)
    for axis in list(axes.flat)[len(panels) :]:
        axis.axis("off")
    return figure


def accuracies(
    rows: Sequence[tuple[str, str, float, tuple[float, float]]], chance: float
) -> Figure:
    """Bars with intervals: rows of (representation, probe, accuracy, (low, high)), as shares."""
    probes = list(dict.fromkeys(probe for _, probe, _, _ in rows))
    names = list(dict.fromkeys(name for name, _, _, _ in rows))
    figure, axis = plt.subplots(figsize=(7.5, 0.55 * len(rows) + 1.2), layout="constrained")
    palette = dict(zip(probes, sns.color_palette("crest", len(probes)), strict=True))
    height = 0.8 / len(probes)
    for name, probe, value, (low, high) in rows:
        y = names.index(name) + (probes.index(probe) - (len(probes) - 1) / 2) * height
        axis.barh(y, 100 * value, height, color=palette[probe], label=probe)
        axis.errorbar(
            100 * value, y, xerr=[[100 * (value - low)], [100 * (high - value)]], color="black",
            capsize=2, lw=1,
        )  # fmt: skip
        axis.annotate(f"{100 * value:.1f}", (100 * high, y), xytext=(4, 0),
                      textcoords="offset points", va="center", fontsize=8)  # fmt: skip
    axis.axvline(100 * chance, color="0.4", ls=":", lw=1)
    axis.set_yticks(range(len(names)), names)
    axis.invert_yaxis()
    axis.margins(x=0.12)
    axis.set(xlabel="top-1 accuracy on test images, % (95 % interval; dotted: chance)")
    handles, labels = axis.get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    axis.legend(unique.values(), unique.keys(), frameon=False)
    sns.despine(ax=axis)
    return figure


def norm_matrix(norms: Float[Tensor, "G d"]) -> Figure:
    """||W^(g)_{.,k}|| of every group and latent; exact zeros are left white.

    Latents stand in the order of their strongest group, those that no group reads at the end.
    """
    figure, axis = plt.subplots(figsize=(9, 0.28 * len(norms) + 1.4), layout="constrained")
    values = norms.numpy()
    strongest = np.where(values.max(0) > 0, values.argmax(0), len(values))
    order = np.lexsort((-values.max(0), strongest))
    sns.heatmap(
        values[:, order], mask=values[:, order] == 0, ax=axis, cmap="crest", vmin=0,
        cbar_kws={"label": "column norm"}, xticklabels=False,
    )  # fmt: skip
    axis.set(xlabel="latent k, sorted by its strongest group", ylabel="group g")
    return figure


def _only(image: np.ndarray, kept: set[int], grid: int) -> np.ndarray:
    """The image with every patch greyed out that is not kept."""
    shown = image.copy()
    size = image.shape[0] // grid
    for patch in set(range(grid * grid)) - kept:
        top, left = patch // grid * size, patch % grid * size
        shown[top : top + size, left : left + size] = 225
    return shown
