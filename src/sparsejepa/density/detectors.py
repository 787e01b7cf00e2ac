"""Detectors of outliers in feature space, which JEPA-SCORE has to be compared with.

A detector is fitted on training features and returns a score of any features, higher for what is
more like the training images.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sparsejepa.density.separation import Separation, separation
from sparsejepa.probing.features import TestX, TrainX, TrainY
from sparsejepa.probing.neighbours import nearest

Score = Callable[[Tensor], Tensor]  # features Float["M d"] to scores Float["M"]
Fit = Callable[[Tensor], Score]  # training features Float["N d"] to a score


class FitComparison(NamedTuple):
    """One detector, one set of outliers, two ways of fitting on equally many images."""

    held_out: Separation  # fitted on training images, scored on others of their kind
    on_scored: Separation  # fitted on the very images that count as data


def knn_similarity(features: TrainX, k: int = 10) -> Score:
    """Mean cosine similarity to the k nearest training images, as in JEPA-SCORE's evaluation."""
    return lambda queries: nearest(features, queries, k)[0].mean(dim=1)


def knn_distance(features: TrainX, k: int = 10) -> Score:
    """Minus the mean Euclidean distance to the k nearest training images; lengths count."""
    return lambda queries: -_distances(queries, features).topk(k, largest=False)[0].mean(dim=1)


def feature_norm(features: TrainX) -> Score:
    """The length of a feature vector, supposed to be short for outliers. Nothing is fitted."""
    return lambda queries: queries.double().norm(dim=1)


def mahalanobis(features: TrainX, classes: TrainY | None = None) -> Score:
    """Minus the squared Mahalanobis distance to the mean of the training features.

    With classes: to the nearest class mean, with one covariance within classes (Lee et al. 2018).
    """
    labels, means = _class_means(features, classes)
    axes = _spectrum(features.double() - means[labels])[1]
    return lambda queries: -_distances(queries.double() @ axes, means @ axes).square().amin(dim=1)


def gaussian_likelihood(features: TrainX, classes: TrainY | None = None) -> Score:
    """log sum_c share_c N(f; mean_c, S_c) in nats, each class with a shrunk covariance S_c."""
    labels, means = _class_means(features, classes)
    parts = []
    for label, mean in enumerate(means):
        rows = features[labels == label].double() - mean
        values, axes = _spectrum(rows)
        size = values.log().sum() + len(values) * np.log(2 * np.pi)
        parts.append((np.log(len(rows) / len(features)) - 0.5 * size, mean, axes))

    def score(queries: TestX) -> Float64[Tensor, "M"]:
        wide = queries.double()
        logs = [log - 0.5 * ((wide - mean) @ axes).square().sum(dim=1) for log, mean, axes in parts]
        return torch.stack(logs).logsumexp(dim=0)

    return score


def detectors(classes: TrainY | None = None) -> Mapping[str, Fit]:
    """Every detector by its name in tables; those per class only if classes are given."""
    found: dict[str, Fit] = {
        "kNN similarity": knn_similarity,
        "kNN distance": knn_distance,
        "Mahalanobis": mahalanobis,
        "feature norm": feature_norm,
    }
    if classes is not None:
        found["Mahalanobis per class"] = lambda x: mahalanobis(x, classes)
        found["Gaussian likelihood per class"] = lambda x: gaussian_likelihood(x, classes)
    return found


def compare_fits(
    fit: Fit, training: TrainX, data: TestX, outliers: Float[Tensor, "L d"], seed: int
) -> FitComparison:
    """How much a detector gains by being fitted on the very images that it then has to accept.

    Both fits see equally many images: the first min(N, M) of `training`, or those of `data`. The
    public evaluation of JEPA-SCORE scored its baselines the second way.
    """
    count = min(len(training), len(data))
    scores = [fit(bank[:count]) for bank in (training, data)]
    return FitComparison(*(separation(s(data[:count]), s(outliers), seed) for s in scores))


def _distances(x: TestX, y: TrainX) -> Float64[Tensor, "M N"]:
    return torch.cdist(x.double(), y.double(), compute_mode="donot_use_mm_for_euclid_dist")


def _class_means(features: TrainX, classes: TrainY | None) -> tuple[TrainY, Float64[Tensor, "C d"]]:
    """Each image's class as 0 to C - 1 (one class if none are given), and the classes' means."""
    classes = torch.zeros(len(features), dtype=torch.int64) if classes is None else classes
    labels = classes.unique(return_inverse=True)[1]
    sums = features.new_zeros(int(labels.max()) + 1, features.shape[1], dtype=torch.float64)
    sums.index_add_(0, labels, features.double())
    return labels, sums / labels.bincount()[:, None]


def _spectrum(centred: TrainX) -> tuple[Float64[Tensor, "r"], Float64[Tensor, "d r"]]:
    """Variances of the Ledoit-Wolf (2004) covariance, and the axes that make them 1.

    Directions in which nothing varies even when it is drawn towards the identity are left out.
    """
    # Slow to import.
    from sklearn.covariance import ledoit_wolf

    if len(centred) < 2 or not centred.any():
        raise ValueError(f"A covariance needs 2 images or more that differ, not {len(centred)}.")
    covariance, _ = ledoit_wolf(centred.numpy(), assume_centered=True)
    values, vectors = torch.linalg.eigh(torch.from_numpy(np.ascontiguousarray(covariance)))
    real = values > 1e-9 * values.max()
    return values[real], vectors[:, real] / values[real].sqrt()
