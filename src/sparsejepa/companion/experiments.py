"""Short runs of equal budget: train a variant, measure it, and keep what was measured.

A study compares dozens of variants. Each is known by its configuration alone: comparisons that
want the same variant share one training, and a killed study goes on with the first variant that is
not finished.
"""

import dataclasses
import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparsejepa.chapters import sparsity as measurements
from sparsejepa.chapters.sparsity import (
    PROBES,
    Measurement,
    Yardstick,
    class_labels,
    probe,
    structure,
)
from sparsejepa.companion.hashes import library_hashes
from sparsejepa.information import columns, copula, gaussian, multiinformation
from sparsejepa.model.objective import Jepa
from sparsejepa.probing import collapse, evaluation, features, linear, low_level, neighbours
from sparsejepa.probing.online import online_watch
from sparsejepa.training.checkpoint import load_checkpoint, save_checkpoint
from sparsejepa.training.precision import choose_precision
from sparsejepa.training.pretrain import PretrainConfig, pretrain

# A change of these makes a kept measurement out of date; a change of what trains makes the
# checkpoints themselves so, which `attempts.py` sees to.
_MEASURING = (
    *(measurements, collapse, evaluation, features, linear, low_level, neighbours),
    *(columns, copula, gaussian, multiinformation),
)


def measure_variant(config: PretrainConfig, yardstick: Yardstick, folder: Path) -> Measurement:
    """Trains and measures a variant, or gives what an earlier call kept of the same one.

    Checkpoints and measurement lie below `folder`, in a folder named after the configuration. The
    measurement is made anew, without training, if another yardstick or other code made it.

    Raises:
        ValueError: the images cannot train or be probed (see `pretrain` and `linear_probe`), or a
            kept file is damaged.
        FloatingPointError: the loss is not finite.
        OSError: a file cannot be written.
    """
    place = folder / _name(config, yardstick)

    def make() -> Measurement:
        train, labels = yardstick.train, class_labels(yardstick.train)
        device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        autocast = choose_precision(device, config.precision).autocast
        queries = min(2000, len(train.images) // 5)
        watch = online_watch(train.images, labels, queries, autocast=autocast)
        result = pretrain(config, train.images, place, watch)
        found = _measure(result.jepa, config, yardstick)
        return dataclasses.replace(
            found, history=result.history, steps=result.steps, seconds=result.seconds
        )

    return _kept(place / "measured.safetensors", yardstick, make)


def measure_untrained(config: PretrainConfig, yardstick: Yardstick, folder: Path) -> Measurement:
    """The control: the same network, as it is before training with that seed."""
    place = folder / f"{_name(config, yardstick)}-untrained"

    def make() -> Measurement:
        return _measure(Jepa(config.model, config.seed), config, yardstick)

    return _kept(place / "measured.safetensors", yardstick, make)


def measure_pixels(side: int, yardstick: Yardstick, folder: Path) -> Measurement:
    """The control: raw pixels of the images, squeezed to `side` pixels a side."""

    def represent(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
        return evaluation.pixel_features(*(low_level.resized(x, side) for x in (train, test)))

    def make() -> Measurement:
        return Measurement(probe(represent, yardstick)[0], {})

    return _kept(folder / f"pixels-{side}" / "measured.safetensors", yardstick, make)


def _measure(jepa: Jepa, config: PretrainConfig, yardstick: Yardstick) -> Measurement:
    """Of the target encoder, as in I-JEPA; in float32, as in the pretraining chapter."""

    def represent(train: Tensor, test: Tensor) -> tuple[Tensor, Tensor]:
        found = (features.pooled_features(jepa.target_encoder, x) for x in (train, test))
        return tuple(found)

    correct, pooled = probe(represent, yardstick)
    return Measurement(correct, structure(jepa, config, yardstick, pooled))


def _kept(path: Path, yardstick: Yardstick, make: Callable[[], Measurement]) -> Measurement:
    """The measurement in `path` if it was made with this yardstick, else a new one, kept there."""
    key = _key(yardstick)
    if path.exists():
        masks, facts = load_checkpoint(path)
        if facts.pop("key") == key:
            return Measurement({name: masks[name].bool() for name in PROBES}, **facts)
    made = make()
    facts = {
        "key": key,
        "measures": made.measures,
        "history": made.history,
        "steps": made.steps,
        "seconds": made.seconds,
    }
    save_checkpoint(path, {name: mask.byte() for name, mask in made.correct.items()}, facts)
    return made


def _key(yardstick: Yardstick) -> dict[str, Any]:
    """All that decides the measurement of a given encoder: images, settings and code."""
    sets = (yardstick.train, yardstick.test, yardstick.scenes_train, yardstick.scenes_test)
    return {
        "pixels": [images.pixel_sha256 for images in sets],
        "groups": yardstick.groups,
        "seed": yardstick.seed,
        "probe_steps": yardstick.probe_steps,
        "code": library_hashes({module.__name__: module for module in _MEASURING}),
    }


def _name(config: PretrainConfig, yardstick: Yardstick) -> str:
    """A name for all that decides a training; how often it is saved does not."""
    decisive = dataclasses.asdict(config)
    del decisive["checkpoint_minutes"]
    text = json.dumps([decisive, yardstick.train.pixel_sha256], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
