"""Figures of the JEPA-SCORE chapter: known densities, correlations, outliers, curation."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
from jaxtyping import Float, Float64
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from torch import Tensor

from sparsejepa.intervals import Interval

# One look a score, in every figure of the chapter: told apart without colour, too.
_LOOKS = {
    "JEPA-SCORE": ("#0072B2", "o"),
    "JEPA-SCORE, 8 views": ("black", "1"),
    "JEPA-SCORE + Gaussian": ("#56B4E9", "s"),
    "JEPA-SCORE + neighbours": ("#882255", "p"),
    "without the largest fifth": ("#332288", "D"),
    "Gaussian alone": ("#E69F00", "^"),
    "kNN similarity": ("#D55E00", "v"),
    "kNN distance": ("#A0522D", "X"),
    "kNN of embeddings": ("#D55E00", "v"),
    "kNN of the data": ("#777777", "x"),
    "Mahalanobis": ("#009E73", "<"),
    "Mahalanobis per class": ("#44AA99", ">"),
    "Gaussian likelihood per class": ("#CC79A7", "P"),
    "feature norm": ("#999933", "*"),
}
_OTHER = ("0.3", ".")


def stretching(
    x: Float64[Tensor, "N"], density: Float64[Tensor, "N"], share: Float64[Tensor, "N"]
) -> Figure:
    """A density above, an even one below, and where the map between them puts points.

    Evenly spaced points x are joined with their images: where the density is high, these lie
    apart. The shade of a line is the logarithm of the density there.

    Args:
        share: the images, shares of the data below x, from 0 to 1.
    """
    figure, (above, fan, below) = plt.subplots(
        3, 1, figsize=(6.5, 4.6), height_ratios=(1, 1.2, 0.8), layout="constrained"
    )
    low, high = x.min().item(), x.max().item()
    shades, logs = plt.get_cmap("crest"), density.log()
    scale = plt.Normalize(logs.min().item(), logs.max().item())
    for start, end, log in zip(((x - low) / (high - low)), share, logs, strict=True):
        fan.plot([start, end], [1, 0], color=shades(scale(log)), lw=1)
    above.fill_between(x.numpy(), density.numpy(), color="0.85")
    above.plot(x.numpy(), density.numpy(), color="0.2")
    above.set(xlim=(low, high), xlabel="x", ylabel="density of\nthe data")
    below.fill_between([0, 1], [1, 1], color="0.85")
    below.plot([0, 1], [1, 1], color="0.2")
    below.set(xlim=(0, 1), ylim=(0, 1.5), xlabel="f(x)", ylabel="density of the\nembeddings")
    fan.set_xlim(0, 1)
    for axis in (above, below):
        axis.set_ylim(0, None)
        sns.despine(ax=axis)
    fan.axis("off")
    return figure


def agreement(
    cases: Mapping[str, tuple[Float64[Tensor, "N"], Float64[Tensor, "N"]]],
) -> Figure:
    """A panel a case: the log-density found against the true one; equal on the diagonal."""
    figure, axes = _panels(len(cases), 3.0, 3.0)
    for axis, (name, (truth, found)) in zip(axes, cases.items(), strict=True):
        ends = [truth.min().item(), truth.max().item()]
        axis.plot(ends, ends, color="0.6", lw=1)
        axis.scatter(truth.numpy(), found.numpy(), s=12, color=_LOOKS["JEPA-SCORE"][0])
        axis.set(title=name, xlabel="true log p(x), nats")
        sns.despine(ax=axis)
    axes[0].set_ylabel("score + log φ(f(x)), nats")
    return figure


def density_maps(
    maps: Mapping[str, Float64[Tensor, "G G"]], extent: float, points: Float64[Tensor, "N 2"]
) -> Figure:
    """Maps over a square of the plane from -extent to extent, each by its own ranks.

    Ranks, because the claim is one of order and the scales have nothing in common. The points are
    data: elsewhere no encoder has learned anything.
    """
    columns = min(5, len(maps))
    rows = -(-len(maps) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.3 * columns, 2.5 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, values) in zip(axes.flat, maps.items(), strict=False):
        ranks = values.flatten().argsort().argsort().view(values.shape).numpy()
        axis.imshow(ranks, origin="lower", cmap="crest_r", extent=[-extent, extent] * 2)
        axis.plot(*points.T.numpy(), ".", color="#D55E00", ms=1.5)
        axis.set(xlim=(-extent, extent), ylim=(-extent, extent))
        axis.set_title(name, fontsize=9)
    return figure


def correlations_over_width(
    found: Mapping[str, Mapping[str, Mapping[int, Interval]]],
) -> Figure:
    """A panel a case: rank correlation of every score with log p over the embedding's width K.

    Args:
        found: case -> score -> K -> correlation with its interval over seeds.
    """
    figure, axes = _panels(len(found), 2.6, 3.2)
    for axis, (case, scores) in zip(axes, found.items(), strict=True):
        for shift, (name, by_width) in enumerate(scores.items()):
            color, marker = _LOOKS.get(name, _OTHER)
            # Side by side: intervals at one place would hide each other.
            x = np.arange(len(by_width)) + (shift - (len(scores) - 1) / 2) * 0.06
            cells = list(by_width.values())
            axis.errorbar(
                x, [cell.value for cell in cells], yerr=_errors(cells), color=color,
                marker=marker, ms=5, lw=1, capsize=2, label=name,
            )  # fmt: skip
        axis.set_xticks(range(len(by_width)), [str(width) for width in by_width])
        axis.axhline(0, color="0.6", lw=1)
        axis.set(title=case, xlabel="K, embedding dimensions", ylim=(-1.08, 1.08))
        sns.despine(ax=axis)
    axes[0].set_ylabel("Spearman's ρ with log p(x)")
    _legend_below(figure, axes[0], 3)
    return figure


def correlation_dots(found: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """A panel an encoder, a row a property of the image: rank correlation with its interval."""
    figure, axes = _panels(len(found), 2.7, 2.8)
    for axis, (encoder, cells) in zip(axes, found.items(), strict=True):
        for row, cell in enumerate(cells.values()):
            axis.errorbar(
                cell.value, row, xerr=_errors([cell]), fmt="o", capsize=2,
                color=_LOOKS["JEPA-SCORE"][0],
            )  # fmt: skip
        axis.axvline(0, color="0.6", lw=1)
        axis.set(title=encoder, xlim=(-1.05, 1.05), xlabel="Spearman's ρ with the score")
        axis.set_yticks(range(len(cells)), list(cells))
        axis.grid(axis="x", alpha=0.3)
        sns.despine(ax=axis)
    axes[0].invert_yaxis()
    return figure


def outlier_panels(found: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> Figure:
    """A panel an encoder, a row a set of outliers, a mark a score: AUROC with its interval.

    Args:
        found: encoder -> score -> set -> AUROC.
    """
    sets = list(next(iter(next(iter(found.values())).values())))
    figure, axes = _panels(len(found), 2.9, 0.62 * len(sets) + 1.6)
    for axis, scores in zip(axes, found.values(), strict=True):
        for shift, (name, by_set) in enumerate(scores.items()):
            color, marker = _LOOKS.get(name, _OTHER)
            offset = (shift - (len(scores) - 1) / 2) * 0.8 / len(scores)
            cells = list(by_set.values())
            axis.errorbar(
                [cell.value for cell in cells], np.arange(len(cells)) + offset,
                xerr=_errors(cells), fmt=marker, ms=4, lw=1, color=color, label=name,
            )  # fmt: skip
        axis.axvline(0.5, color="0.4", ls=":", lw=1)
        axis.set(xlim=(-0.03, 1.03), xlabel="AUROC (dotted: chance)")
        axis.grid(axis="y", alpha=0.3)
        sns.despine(ax=axis)
    for axis, encoder in zip(axes, found, strict=True):
        axis.set_title(encoder)
    axes[0].set_yticks(range(len(sets)), sets)
    axes[0].invert_yaxis()
    _legend_below(figure, axes[0], 3)
    return figure


def flattery_dots(found: Mapping[str, tuple[Interval, Interval]]) -> Figure:
    """A row a detector and set: AUROC held out (filled) and fitted on what is scored (hollow)."""
    figure, axis = plt.subplots(figsize=(6.5, 0.3 * len(found) + 1.4), layout="constrained")
    for row, (held_out, on_scored) in enumerate(found.values()):
        axis.axhline(row, color="0.92", lw=8, zorder=0)
        for cell, shift, fill, label in (
            (held_out, -0.12, "#0072B2", "fitted on other images"),
            (on_scored, 0.12, "white", "fitted on the images that it scores"),
        ):
            axis.errorbar(
                cell.value, row + shift, xerr=_errors([cell]), fmt="o", mfc=fill, color="#0072B2",
                capsize=2, lw=1, label=label if row == 0 else None,
            )  # fmt: skip
    axis.set_yticks(range(len(found)), list(found))
    axis.invert_yaxis()
    axis.axvline(0.5, color="0.4", ls=":", lw=1)
    axis.set_xlabel("AUROC (dotted: chance)")
    sns.despine(ax=axis)
    _legend_below(figure, axis, 2)
    return figure


def curation_bars(found: Mapping[str, Mapping[float, Interval]], everything: float) -> Figure:
    """A group of bars a share dropped, a bar a rule: gain in accuracy over random, in points."""
    figure, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
    shares = list(next(iter(found.values())))
    width = 0.8 / len(found)
    for index, (rule, cells) in enumerate(found.items()):
        color = _LOOKS.get(rule, _OTHER)[0]
        x = np.arange(len(shares)) + (index - (len(found) - 1) / 2) * width
        gains = list(cells.values())
        axis.bar(x, [100 * g.value for g in gains], width, color=color, label=rule)
        axis.errorbar(
            x, [100 * g.value for g in gains], yerr=100 * _errors(gains), fmt="none",
            color="black", capsize=2, lw=1,
        )  # fmt: skip
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(range(len(shares)), [f"{100 * share:.0f} % dropped" for share in shares])
    axis.set_ylabel("accuracy minus that of\nrandom dropping, points")
    axis.set_title(f"With all images: {100 * everything:.1f} %", fontsize=10)
    sns.despine(ax=axis)
    _legend_below(figure, axis, len(found))
    return figure


def _panels(count: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure, axes = plt.subplots(
        1, count, figsize=(width * count + 0.8, height), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    return figure, list(axes[0])


def _errors(cells: Sequence[Interval]) -> Float[np.ndarray, "2 n"]:
    # Where all seeds agree, rounding may put the mean outside its interval of no length.
    ends = np.array([[c.value - c.low for c in cells], [c.high - c.value for c in cells]])
    return ends.clip(min=0)


def _legend_below(figure: Figure, axis: Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
