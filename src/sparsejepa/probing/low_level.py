"""Low-level tasks: how many objects does an image show, and how near is the nearest?

As in VTAB (Zhai et al. 2019), and so in I-JEPA's tables, both are classifications: counts of 3 to
10 objects are 8 classes, the smallest distance falls into one of 6 bins. `scenes` is drawn with
both; CLEVR is Parquet with the columns `image, count, closest_distance, closest_distance_label`.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from sparsejepa.data.image_set import ImageSet
from sparsejepa.data.scenes import FEWEST, MOST
from sparsejepa.probing.linear import linear_probe
from sparsejepa.randomness import generator

# Inner edges of VTAB's bins of CLEVR's camera depth; a distance on an edge is in the nearer bin.
CLEVR_EDGES = (8.0, 8.5, 9.0, 9.5, 10.0)


@dataclass(frozen=True)
class CrossValidation:
    """What probes say of images that they were not trained on."""

    correct: Bool[Tensor, "N"]  # of the probe that was trained without the image's fold
    majority: Bool[Tensor, "N"]  # of the most frequent class of the other folds, the control


def label_named(images: ImageSet, name: str) -> Int64[Tensor, "N"]:
    """The labels of that name.

    Raises:
        ValueError: the set has none; says which it has.
    """
    if name not in images.labels:
        raise ValueError(
            f"{images.name} {images.split} has no integer label {name!r}; choose "
            f"{' or '.join(map(repr, images.labels)) or 'another set, it has none'}."
        )
    return images.labels[name]


def low_level_labels(images: ImageSet) -> dict[str, Int64[Tensor, "N"]]:
    """Classes of `count` and, where it is known, `distance`, of scenes or of CLEVR's layout.

    Raises:
        ValueError: there is no count, or one outside 3 to 10 objects.
    """
    if images.origin == "drawn":
        return {task: label_named(images, task) for task in ("count", "distance")}
    tasks = {"count": count_classes(label_named(images, "count"))}
    for name in ("closest_distance", "closest_distance_label"):
        if name in images.labels:
            tasks["distance"] = images.labels[name]
    return tasks


def count_classes(objects: Int64[Tensor, "N"]) -> Int64[Tensor, "N"]:
    """Classes 0 to 7 of 3 to 10 objects.

    Raises:
        ValueError: a number outside 3 to 10.
    """
    for number in (objects.min().item(), objects.max().item()):
        if not FEWEST <= number <= MOST:
            raise ValueError(
                f"Counts must be {FEWEST} to {MOST} objects, but one is {number}: is the label "
                "column the number of objects?"
            )
    return objects - FEWEST


def distance_classes(distance: Float[Tensor, "N"]) -> Int64[Tensor, "N"]:
    """Classes 0 to 5 of CLEVR's distance to the nearest object, in the units of its scene files.

    Raises:
        ValueError: a distance that is not finite or not positive.
    """
    if not (distance.isfinite() & (distance > 0)).all():
        raise ValueError("Distances must be positive and finite; the label column holds others.")
    return torch.bucketize(distance, torch.tensor(CLEVR_EDGES, dtype=distance.dtype))


def resized(images: UInt8[Tensor, "N H W 3"], size: int) -> UInt8[Tensor, "N size size 3"]:
    """Whole images squeezed to a square, as VTAB does: bilinear, antialiased.

    An encoder of small images is shown CLEVR this way: objects become a few pixels large.
    """
    if images.shape[1:3] == (size, size):
        return images
    parts = []
    # A few at a time: as float32 the images take four times their memory.
    for part in images.split(256):
        planes = part.permute(0, 3, 1, 2).float()
        small = F.interpolate(planes, (size, size), mode="bilinear", antialias=True)
        parts.append(small.round().clamp(0, 255).byte().permute(0, 2, 3, 1))
    return torch.cat(parts).contiguous()


def stratified_folds(labels: Int64[Tensor, "N"], folds: int, seed: int) -> Int64[Tensor, "N"]:
    """A fold 0 to folds - 1 for each row, at random, every class spread evenly over the folds.

    Raises:
        ValueError: fewer than 2 folds, or more than rows.
    """
    if not 2 <= folds <= len(labels):
        raise ValueError(f"folds must be 2 to the number of rows, {len(labels)}, not {folds}.")
    order = torch.randperm(len(labels), generator=generator(seed, "folds"))
    order = order[labels[order].argsort(stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(labels)) % folds
    return fold


def cross_validate(
    x: Float[Tensor, "N d"],
    y: Int64[Tensor, "N"],
    *,
    seed: int,
    folds: int = 5,
    **sweep: object,
) -> CrossValidation:
    """Each image is predicted by a linear probe trained, settings chosen, on the other folds.

    For sets too small to part once, such as a few hundred images of CLEVR. The folds' probes share
    most of their training rows, so that a bootstrap interval of `correct` is somewhat too narrow.

    Args:
        sweep: passed to `linear_probe`.

    Raises:
        ValueError: as `linear_probe` and `stratified_folds`.
    """
    fold = stratified_folds(y, folds, seed)
    correct = torch.zeros(len(y), dtype=torch.bool)
    majority = correct.clone()
    for out in range(folds):
        test, train = fold == out, fold != out
        # A class of a single image is in no other fold: that image counts as wrong.
        known = torch.isin(y[test], y[train])
        rows = test.nonzero()[:, 0][known]
        if len(rows):
            found = linear_probe(x[train], y[train], x[rows], y[rows], seed=seed, **sweep)
            correct[rows] = found.correct
        majority[test] = y[test] == y[train].bincount().argmax()
    return CrossValidation(correct, majority)
