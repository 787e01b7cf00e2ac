"""The standard evaluation of a representation: of one or many labels, few labels, few images."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Int64
from torch import Tensor, nn

from sparsejepa.data.image_set import ImageSet
from sparsejepa.data.scenes import LAYOUTS
from sparsejepa.probing.features import Images, TestX, TestY, TrainX, TrainY, pooled_features
from sparsejepa.probing.linear import LinearProbeResult, check_labels, linear_probe, whiten
from sparsejepa.probing.neighbours import KS, choose_knn, knn_accuracy, nearest, vote
from sparsejepa.probing.spectrum import feature_spread, rankme
from sparsejepa.randomness import generator

LINEAR, KNN = "linear probe", "kNN"
FRACTIONS = (0.01, 0.1, 1.0)
FOLDS = 5

# Features wider than this get a smaller sweep: raw pixels would take minutes instead of seconds.
_WIDE = 1024
_WIDE_SWEEP = {"learning_rates": (1e-2,), "weight_decays": (1e-4, 1e-2, 1e-1)}


@dataclass(frozen=True)
class Evaluation:
    """Results of the probes of one representation for one label."""

    correct: dict[str, Bool[Tensor, "M"]]  # probe -> which test images it got right
    correct5: Bool[Tensor, "M"]  # linear probe: the label is among the best 5
    chosen: dict[str, float]  # settings chosen on held-out training images


def label_to_probe(train: ImageSet, test: ImageSet) -> str | None:
    """The label that probes are trained and scored on; None for a set without labels.

    ValueError: the label is unclear, missing in the test split or refused by `check_labels`, or
    images are too few for a choice or an interval.
    """
    if train.candidates:
        raise ValueError(train.why_no_labels())
    if not (label := next(iter(train.labels), None)):
        return None
    if label not in test.labels:
        what = f"{test.name} {test.split} has no label {label!r} as {train.split} has"
        raise ValueError(f"{what}: give it one, or load both without labels.")
    n, m = len(train.images), len(test.images)
    if n < 6 or m < 2:
        raise ValueError(f"Probes need 6 training and 2 test images, not {n} and {m}.")
    check_labels(train.labels[label], test.labels[label])
    return label


def evaluate(
    train_x: TrainX, test_x: TestX, train_y: TrainY, test_y: TestY, *, seed: int
) -> Evaluation:
    """Linear probe and kNN; the test images are scored once, after every choice."""
    return evaluate_labels(train_x, test_x, {"": train_y}, {"": test_y}, seed=seed)[""]


def evaluate_labels(
    train_x: TrainX,
    test_x: TestX,
    train_y: Mapping[str, TrainY],
    test_y: Mapping[str, TestY],
    *,
    seed: int,
    voters: int = 20_000,
    **sweep: object,
) -> dict[str, Evaluation]:
    """`evaluate` of every label as if alone; they share the whitening and the search of neighbours.

    At most `voters` training images choose the kNN vote: wide features are slow. `sweep` goes to
    `linear_probe`.
    """
    sweep = (_WIDE_SWEEP if train_x.shape[1] > _WIDE else {}) | sweep
    whitening = whiten(train_x)
    ks = tuple(k for k in KS if k <= len(train_x) // 2) or (1,)
    similarities, neighbours = nearest(train_x, test_x, max(ks))
    found = {}
    for label, y in train_y.items():
        data = (train_x, y, test_x, test_y[label])
        linear = linear_probe(*data, seed=seed, whitening=whitening, **sweep)
        k, temperature = choose_knn(train_x[:voters], y[:voters], seed=seed, ks=ks)
        voted = vote(similarities[:, :k], y[neighbours[:, :k]], temperature)
        chosen = {"learning_rate": linear.learning_rate, "weight_decay": linear.weight_decay}
        chosen |= {"k": k, "temperature": temperature}
        correct = {LINEAR: linear.correct, KNN: voted == test_y[label]}
        found[label] = Evaluation(correct, linear.correct5, chosen)
    return found


def online_watch(
    images: Images,
    labels: TrainY | None,
    queries: int = 2000,
    bank: int = 8000,
    autocast: torch.dtype | None = None,
) -> Callable[[nn.Module], dict[str, float]]:
    """A function of the encoder: online kNN accuracy, RankMe and spread of pooled features.

    The last `queries` images are classified by their neighbours among the first `bank` others.
    Where fewer than half of their classes occur there, as in a set that is sorted by class, both
    are drawn from all images, the same ones every time.
    """
    bank = min(bank, len(images) - queries)
    if bank < 1:
        raise ValueError(f"{len(images)} images leave none beside {queries} queries.")
    known, asked = slice(0, bank), slice(len(images) - queries, None)
    if labels is not None:
        classes = labels[asked].unique()
        if 2 * torch.isin(classes, labels[known]).sum() < len(classes):
            order = torch.randperm(len(images), generator=generator(0, "online watch"))
            known, asked = order[:bank], order[-queries:]

    def watch(encoder: nn.Module) -> dict[str, float]:
        z, found = pooled_features(encoder, images[asked], autocast=autocast), {}
        if labels is not None:
            rows = pooled_features(encoder, images[known], autocast=autocast)
            found["knn"] = knn_accuracy(rows, labels[known], z, labels[asked], k=min(20, bank))
        return found | {"rankme": rankme(z), "feature_spread": feature_spread(z)}

    return watch


def stratified_subset(labels: TrainY, fraction: float, seed: int) -> Int64[Tensor, "n"]:
    """Rows of a random `fraction` of each class, one at least, in ascending order.

    Of one seed, a smaller fraction's rows are among a larger one's.
    """
    order = torch.randperm(len(labels), generator=generator(seed, "stratified subset"))
    classes = (order[labels[order] == name] for name in labels.unique())
    taken = [rows[: max(1, round(fraction * len(rows)))] for rows in classes]
    return torch.cat(taken).sort().values


def data_efficiency(
    train_x: TrainX,
    train_y: TrainY,
    test_x: TestX,
    test_y: TestY,
    *,
    seed: int,
    fractions: Sequence[float] = FRACTIONS,
    **sweep: object,
) -> dict[float, LinearProbeResult]:
    """The linear probe at every fraction of the labels; settings are chosen within the fraction."""
    found = {}
    for fraction in fractions:
        some = stratified_subset(train_y, fraction, seed)
        data = (train_x[some], train_y[some], test_x, test_y)
        found[fraction] = linear_probe(*data, seed=seed, **sweep)
    return found


def low_level_labels(images: ImageSet) -> dict[str, TrainY]:
    """Classes of `count` and, where known, `distance`, of scenes or CLEVR's columns, as in VTAB.

    From 3 to 10 objects are 8 classes, the smallest distance one of 6 bins (Zhai et al. 2019).
    """
    if "count" in images.label_names:
        return {t: images.labels[t] for t in ("count", "distance") if t in images.labels}
    known = images.factors | images.labels
    if "count" not in known:
        raise ValueError(f"{images.name} {images.split} has no column 'count'; it has {[*known]}.")
    objects, (fewest, most, *_) = known["count"], LAYOUTS["scenes"]
    low, high = objects.min().item(), objects.max().item()
    if low < fewest or high > most:
        what = f"Counts must be {fewest} to {most} objects, but {images.name} has {low} to {high}"
        raise ValueError(f"{what}: is that the number of objects?")
    distances = {k.removesuffix("_label"): y for k, y in images.labels.items()}
    distance = distances.get("closest_distance")
    return {"count": objects - fewest} | ({} if distance is None else {"distance": distance})


@dataclass(frozen=True)
class CrossValidation:
    """Which images are answered right without the image's fold: by the probe, by the control."""

    correct: Bool[Tensor, "N"]
    majority: Bool[Tensor, "N"]  # the most frequent class of the other folds


def cross_validate(x: TrainX, y: TrainY, *, seed: int, **sweep: object) -> CrossValidation:
    """Each image is predicted by a linear probe trained, settings chosen, on the other folds.

    Probes share rows: a bootstrap interval of `correct` is somewhat too narrow. The only image of a
    class counts as wrong; a class alone in the other folds is the answer.
    """
    # Random folds over which every class is spread evenly.
    order = torch.randperm(len(y), generator=generator(seed, "folds"))
    order = order[y[order].argsort(stable=True)]
    fold = torch.empty_like(order)
    fold[order] = torch.arange(len(y)) % FOLDS
    majority = torch.zeros(len(y), dtype=torch.bool)
    correct = majority.clone()
    for out in range(FOLDS):
        test, train = fold == out, fold != out
        majority[test] = y[test] == y[train].bincount().argmax()
        if len(y[train].unique()) == 1:
            correct[test] = majority[test]
            continue
        known = test & torch.isin(y, y[train])
        if known.any():
            found = linear_probe(x[train], y[train], x[known], y[known], seed=seed, **sweep)
            correct[known] = found.correct
    return CrossValidation(correct, majority)
