"""Probes (notebook 02): features by name of what they are read from, and the chapter's figures."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
from jaxtyping import Float, Int64, UInt8
from matplotlib.figure import Figure
from torch import Tensor, nn

from sparsejepa.data.batches import crop_and_resize, draw_crops, draw_flips, resized, to_unit
from sparsejepa.intervals import Interval
from sparsejepa.probing.features import pooled_features
from sparsejepa.randomness import generator

LAST, PIXELS, UNTRAINED = "last block", "raw pixels", "untrained encoder"
MARKERS = "osD^vP"  # one a series

Images = Sequence[UInt8[Tensor, "_ _ _ 3"]]
Features = dict[str, list[Float[Tensor, "_ _"]]]


def block_features(encoder: nn.Module, image_sets: Images, blocks: int) -> Features:
    """Pooled tokens of the last block and of the last `blocks` side by side, of each image set.

    The two protocols of I-JEPA's linear probe (its appendix A.2, with four blocks), in one pass.
    """
    wide = [pooled_features(encoder, images, last=blocks) for images in image_sets]
    columns = wide[0].shape[1] // blocks
    narrow = [x[:, -columns:].contiguous() for x in wide]
    return {LAST: narrow} if blocks == 1 else {LAST: narrow, f"last {blocks} blocks": wide}


def pixel_control(image_sets: Images, size: int) -> Features:
    """Raw pixels of each image set, centred by the mean of the first, reduced to `size` a side.

    Reduced to half their side, small photographs lose little that a linear probe can read, and a
    probe of a quarter of the columns takes a fraction of the time.
    """
    flat = [to_unit(resized(images, size)).flatten(1) for images in image_sets]
    mean = flat[0].mean(dim=0)
    return {PIXELS: [x - mean for x in flat]}


def augmented_views(
    images: UInt8[Tensor, "N S S 3"], views: int, seed: int
) -> tuple[UInt8[Tensor, "M S S 3"], Int64[Tensor, "M"]]:
    """Crops and mirrors of each image as in pretraining, and the number of each view's image."""
    side, draw = images.shape[1], generator(seed, "views")
    shown = images.repeat_interleave(views, dim=0)
    boxes = draw_crops(len(shown), side, side, draw, scale=(0.6, 1.0))
    shown = crop_and_resize(shown, boxes, draw_flips(len(shown), draw), side)
    bytes_ = (255 * shown).round().byte().permute(0, 2, 3, 1).contiguous()
    return bytes_, torch.arange(len(bytes_)) // views


def accuracy_points(
    panels: Mapping[str, Mapping[tuple[str, str], Interval]],
    colors: Mapping[str, str],
    chance: Mapping[str, float],
) -> Figure:
    """A panel a task, a row a representation, a marker a series; `chance` is the dotted line."""
    cells = [cell for cells in panels.values() for cell in cells]
    names, series = (list(dict.fromkeys(cell[i] for cell in cells)) for i in (0, 1))
    size = (2.6 + 3.4 * len(panels), 1.6 + 0.32 * len(names))
    options = {"figsize": size, "sharey": True, "squeeze": False, "layout": "constrained"}
    figure, axes = plt.subplots(1, len(panels), **options)
    for axis, (task, points) in zip(axes[0], panels.items(), strict=True):
        for (name, shown_as), found in points.items():
            index = series.index(shown_as)
            y = names.index(name) + 0.2 * (index - (len(series) - 1) / 2)
            _errorbar(axis, 100 * found.value, y, [found], colors[name], along="x",
                      marker=MARKERS[index], markersize=4)  # fmt: skip
        axis.axvline(100 * chance[task], color="0.4", ls=":", lw=1)
        axis.set(title=task, xlabel="accuracy on test images, %")
        axis.grid(axis="x", alpha=0.3)
    axes[0, 0].set_yticks(range(len(names)), names)
    axes[0, 0].invert_yaxis()
    marks = [plt.Line2D([], [], color="0.3", marker=m, ls="", markersize=4) for m in MARKERS]
    place = {"loc": "outside lower center", "ncols": 3, "frameon": False, "fontsize": 8}
    figure.legend(marks[: len(series)], series, **place)
    sns.despine(figure)
    return figure


def efficiency_curves(
    curves: Mapping[str, Sequence[Interval]], colors: Mapping[str, str], images: Sequence[int]
) -> Figure:
    """Accuracy over the number of labelled images, a line a representation, with intervals."""
    figure, axis = _lines("labelled training images", "accuracy on test images, %")
    for name, curve in curves.items():
        values = [100 * found.value for found in curve]
        _errorbar(axis, images, values, curve, colors[name], label=name, marker="o", markersize=3,
                  ls=_dashes(name))  # fmt: skip
    axis.set_xscale("log")
    axis.set_xticks(images, [f"{n:,}" for n in images])
    axis.minorticks_off()
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    return figure


def spectra(values: Mapping[str, Sequence[float]], colors: Mapping[str, str]) -> Figure:
    """Eigenvalues of the feature covariance, largest first, as shares of their sum."""
    figure, axis = _lines("rank i of the eigenvalue", "share of the variance")
    for name, eigenvalues in values.items():
        shares = np.asarray(eigenvalues) / max(sum(eigenvalues), 1e-300)
        # Below, float32 features hold rounding only.
        shares = shares[shares > 1e-9]
        rank = np.arange(1, len(shares) + 1)
        axis.plot(rank, shares, label=name, lw=1.2, color=colors[name], ls=_dashes(name))
    axis.set(xscale="log", yscale="log", ylim=(None, 1.2))
    figure.legend(loc="outside right upper", frameon=False, fontsize=7)
    return figure


def _lines(xlabel: str, ylabel: str) -> tuple[Figure, plt.Axes]:
    figure, axis = plt.subplots(figsize=(7, 4.4), layout="constrained")
    axis.set(xlabel=xlabel, ylabel=ylabel)
    axis.grid(alpha=0.3)
    sns.despine(figure)
    return figure, axis


def _dashes(name: str) -> str:
    return "--" if name in (PIXELS, UNTRAINED) else "-"


def _errorbar(axis: plt.Axes, x, y, found: Sequence[Interval], color: str, along="y", **style):
    ends = [[100 * (f.value - f.low) for f in found], [100 * (f.high - f.value) for f in found]]
    axis.errorbar(x, y, **{f"{along}err": ends}, color=color, capsize=2, lw=1.2, **style)
