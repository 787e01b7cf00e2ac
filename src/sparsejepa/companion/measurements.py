"""What is measured of every variant of a study: four probes, effective rank, sparsity.

All variants and controls are measured with one `Yardstick`, so that their numbers compare.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from sparsejepa.data.batches import to_unit
from sparsejepa.data.image_set import SCENES_SEED, ImageSet, load_image_set, pixel_sha256
from sparsejepa.data.scenes import draw_scenes
from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.model.penalties import (
    activation_sparsity,
    column_sparsity,
    group_column_norms,
    group_sparsity,
    make_groups,
    projection_groups,
)
from sparsejepa.model.vit import Encoder
from sparsejepa.probing.evaluate import low_level_labels
from sparsejepa.probing.linear import linear_probe, whiten
from sparsejepa.probing.neighbours import choose_knn, knn_predict
from sparsejepa.probing.spectrum import rankme
from sparsejepa.randomness import generator
from sparsejepa.training.pretrain import PretrainConfig

Represent = Callable[
    [UInt8[Tensor, "N H W 3"], UInt8[Tensor, "M H W 3"]],
    tuple[Float[Tensor, "N d"], Float[Tensor, "M d"]],
]

PROBES = ("linear probe", "kNN", "count", "distance")
# A smaller sweep than the chapters': every variant has it four times.
_SWEEP = {"weight_decays": (1e-6, 1e-4, 1e-3, 1e-2)}
_WIDE_SWEEP = {"learning_rates": (1e-2,), "weight_decays": (1e-4, 1e-2, 1e-1)}
_WIDE = 1024  # features above which a sweep takes minutes instead of seconds
_TOKEN_IMAGES = 256  # first test images whose tokens say how sparse activations are
_ROWS_PER_COLUMN = 50  # below it intervals of a total correlation do not hold


@dataclass(frozen=True, eq=False)
class Yardstick:
    """What every variant is trained on and measured with."""

    train: ImageSet  # trains encoders, and probes of its first label
    test: ImageSet  # scored by these probes
    scenes_train: ImageSet  # trains probes of count and distance; may be `train` itself
    scenes_test: ImageSet  # scored by these probes
    groups: int  # of channels, in which sparsity is measured where a method has no groups
    seed: int  # of the probes
    probe_steps: int  # of a linear probe


@dataclass(frozen=True, eq=False)
class Measurement:
    """What was found of one variant or control."""

    correct: dict[str, Bool[Tensor, "_"]]  # probe -> the test images that it got right
    measures: dict[str, float]  # effective rank and sparsity, see `structure`
    history: list[dict[str, Any]] = field(default_factory=list)  # an entry an epoch of training
    steps: int = 0  # optimiser steps
    seconds: float = 0.0  # spent in them

    def accuracy(self, probe: str) -> float:
        """Share of test images that the probe got right, 0 to 1."""
        return self.correct[probe].double().mean().item()


def first_images(name: str, split: str, count: int) -> ImageSet:
    """The first `count` images of a split, 0 for all; of `scenes` no others are drawn.

    Raises:
        ValueError, FileNotFoundError, ConnectionError: as `load_image_set` and `ImageSet.take`.
    """
    if name != "scenes" or count == 0:
        return load_image_set(name, split).take(count)
    drawn = draw_scenes(count, SCENES_SEED, split)
    digest = pixel_sha256(drawn.images)
    return ImageSet(
        name, split, drawn.images, drawn.labels, drawn.label_names, digest, "drawn", drawn.factors
    )


def measure_majority(yardstick: Yardstick) -> Measurement:
    """The control: always the most frequent class of the training images."""
    classes = [class_labels(s) for s in (yardstick.train, yardstick.test)]
    tasks = [low_level_labels(s) for s in (yardstick.scenes_train, yardstick.scenes_test)]
    pairs = {"linear probe": classes, "kNN": classes}
    pairs |= {name: [labels[name] for labels in tasks] for name in ("count", "distance")}
    return Measurement(
        {name: test == train.bincount().argmax() for name, (train, test) in pairs.items()}, {}
    )


def probe(
    represent: Represent, yardstick: Yardstick
) -> tuple[dict[str, Bool[Tensor, "_"]], Float[Tensor, "M d"]]:
    """Which test images each of `PROBES` gets right, and the test images' features.

    Every choice is made on held-out training images; the test images are scored once.
    """
    train_x, test_x = represent(yardstick.train.images, yardstick.test.images)
    train_y, test_y = class_labels(yardstick.train), class_labels(yardstick.test)
    options = {"seed": yardstick.seed, "steps": yardstick.probe_steps}
    options |= _WIDE_SWEEP if train_x.shape[1] > _WIDE else _SWEEP
    whitening = whiten(train_x)
    found = linear_probe(train_x, train_y, test_x, test_y, whitening=whitening, **options)
    some = slice(0, 20_000)
    ks = tuple(k for k in (5, 10, 20, 50, 100) if k <= len(train_x) // 2) or (1,)
    rule = choose_knn(train_x[some], train_y[some], seed=yardstick.seed, ks=ks)
    voted = knn_predict(train_x, train_y, test_x, rule.k, rule.temperature)
    correct = {"linear probe": found.correct, "kNN": voted == test_y}
    scenes = (yardstick.scenes_train, yardstick.scenes_test)
    known, asked = train_x, test_x
    if scenes != (yardstick.train, yardstick.test):
        known, asked = represent(*(images.images for images in scenes))
        whitening = whiten(known)
    known_labels, asked_labels = (low_level_labels(images) for images in scenes)
    for task in ("count", "distance"):
        labels = known_labels[task], asked_labels[task]
        found = linear_probe(known, labels[0], asked, labels[1], whitening=whitening, **options)
        correct[task] = found.correct
    return correct, test_x


@torch.no_grad()
def structure(
    encoder: Encoder,
    projection: Float[Tensor, "p d"],
    config: PretrainConfig,
    yardstick: Yardstick,
    pooled: Float[Tensor, "M d"],
) -> dict[str, float]:
    """Effective rank and sparsity of any method, measured in one way.

    Of the pooled test features: rankme and, if there are rows enough, `shared_information`. Of the
    weight W of the predictor's input projection, in groups of its rows: zero_columns,
    small_columns, groups_per_latent, unread_latents and column_hoyer (`column_sparsity`), and
    zero_weights, the share of single zeros. Of the encoder's tokens of some test images, in groups
    of its channels: token_hoyer, effective_groups, activation_density, dead_units
    (`activations.py`); groups_in_use, the effective number of groups of the norms' means over all
    tokens: as small as effective_groups if all tokens keep the same groups. Two are no sparsity:
    latent_scale, the tokens' root mean square, and group_norms, the mean over tokens of sum_g
    ||z_{S_g}||.
    """
    model, sparsity = config.model, config.model.sparsity
    if sparsity.reading == "none":
        sparsity = dataclasses.replace(sparsity, groups=yardstick.groups)
    weight = projection.detach().float().cpu()
    rows = projection_groups(sparsity, model.predictor, config.seed)
    channels = make_groups(
        model.encoder.width,
        sparsity.groups,
        sparsity.grouping,
        model.encoder.heads,
        generator(config.seed, "groups"),
    )
    images = to_unit(yardstick.test.images[:_TOKEN_IMAGES])
    device = next(encoder.parameters()).device
    tokens = encoder(images.to(device)).float().cpu().flatten(0, 1)
    columns = column_sparsity(group_column_norms(weight, rows))
    groups = group_sparsity(tokens, channels)
    norms = tokens.double()[:, channels].norm(dim=-1).mean(0)
    return {
        "rankme": rankme(pooled),
        **shared_information(pooled, yardstick.seed),
        "zero_weights": (weight == 0).float().mean().item(),
        "column_hoyer": columns.pop("hoyer"),
        **columns,
        "token_hoyer": groups.pop("hoyer"),
        **groups,
        **activation_sparsity(tokens),
        "groups_in_use": (norms.sum().square() / norms.square().sum()).item(),
        "latent_scale": tokens.square().mean().sqrt().item(),
        "group_norms": norms.sum().item(),
    }


def shared_information(features: Float[Tensor, "M d"], seed: int) -> dict[str, float]:
    """Total correlation (multiinformation) of the features, divided by d - 1, in nats.

    total_correlation and the ends of its 95 % interval, total_correlation_low and
    total_correlation_high, by the Gaussian copula: at least so much is shared. Nothing for fewer
    than 50 rows a column, or where features have collapsed so that it is not defined.
    """
    rows, columns = features.shape
    if rows < _ROWS_PER_COLUMN * columns:
        return {}
    try:
        found = total_correlation(features, drop=True, seed=seed)
    except ValueError:  # Despite `drop`: all are constants, or one is a function of another.
        return {}
    values = (found.value, *found.interval())
    names = ("", "_low", "_high")
    return {
        f"total_correlation{name}": value / max(found.d - 1, 1)
        for name, value in zip(names, values, strict=True)
    }


def class_labels(images: ImageSet) -> Int64[Tensor, "N"]:
    """The first label of a set, which the linear probe and kNN tell."""
    return next(iter(images.labels.values()))
