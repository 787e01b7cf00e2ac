"""Short runs of equal budget: train a variant once, measure it once, however often it is asked for.

A study compares dozens of variants. Each is known by its configuration alone: comparisons that
want the same variant share one training, and a killed study goes on with the first variant that is
not finished.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from sparsejepa.companion.measurements import (
    Measurement,
    Yardstick,
    class_labels,
    probe,
    structure,
)
from sparsejepa.data.batches import resized
from sparsejepa.model.jepa import Jepa
from sparsejepa.model.vit import Encoder
from sparsejepa.probing import features
from sparsejepa.probing.evaluate import online_watch
from sparsejepa.training.artefacts import Trainings, training_key
from sparsejepa.training.precision import choose_device, choose_precision
from sparsejepa.training.pretrain import PretrainConfig


@dataclass
class Study:
    """Variants and controls, all measured with one yardstick."""

    yardstick: Yardstick
    trainings: Trainings
    measured: dict[Any, Measurement] = field(default_factory=dict)

    def variant(self, config: PretrainConfig, name: str = "variant") -> Measurement:
        """Trains and measures a variant.

        Raises:
            ValueError: the images cannot train or be probed (see `pretrain` and `linear_probe`).
            FloatingPointError: the loss is not finite.
        """
        images = self.yardstick.train
        key = training_key(config, images.pixel_sha256)
        if key not in self.measured:
            device = choose_device()
            autocast = choose_precision(device, config.precision).autocast
            queries = min(2000, len(images.images) // 5)
            watch = online_watch(images.images, class_labels(images), queries, autocast=autocast)
            trained = self.trainings.get(config, images.images, images.pixel_sha256, watch, name)
            found = self._measure(trained.encoder, trained.projection, config)
            self.measured[key] = dataclasses.replace(
                found, history=trained.history, steps=trained.steps, seconds=trained.seconds
            )
        return self.measured[key]

    def untrained(self, config: PretrainConfig) -> Measurement:
        """The control: the same network, as it is before training with that seed."""
        key = ("untrained", training_key(config, ""))
        if key not in self.measured:
            jepa = Jepa(config.model, config.seed)
            weight = jepa.predictor.projection.weight
            self.measured[key] = self._measure(jepa.target_encoder, weight, config)
        return self.measured[key]

    def pixels(self, side: int) -> Measurement:
        """The control: raw pixels of the images, squeezed to `side` pixels a side."""

        def represent(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
            return features.pixel_features(*(resized(x, side) for x in (train, test)))

        return Measurement(probe(represent, self.yardstick)[0], {})

    def _measure(self, encoder: Encoder, projection: Tensor, config: PretrainConfig) -> Measurement:
        """Of the target encoder, as in I-JEPA; in float32, as in the pretraining chapter."""

        def represent(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
            found = (features.pooled_features(encoder, x) for x in (train, test))
            return tuple(found)

        correct, pooled = probe(represent, self.yardstick)
        return Measurement(correct, structure(encoder, projection, config, self.yardstick, pooled))
