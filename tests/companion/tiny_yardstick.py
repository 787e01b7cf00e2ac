"""A study small enough for tests: a few tiny images with labels of three kinds."""

from pathlib import Path
from typing import Any

import torch

from sparsejepa.chapters.sparsity import Study
from sparsejepa.data.image_set import ImageSet, pixel_sha256
from sparsejepa.training.artefacts import Trainings
from tests.training.tiny import tiny_images


def image_set_of(images: torch.Tensor, classes: tuple[int, int, int]) -> ImageSet:
    """Images whose three labels run through their classes."""
    rows = torch.arange(len(images))
    names = ("label", "count", "distance")
    labels = {name: rows % number for name, number in zip(names, classes, strict=True)}
    # A set with names of its counts is one whose counts are classes already.
    named = {"count": tuple(map(str, range(classes[1])))}
    return ImageSet("tiny", "train", images, labels, named, pixel_sha256(images), "drawn")


def tiny_study(folder: Path, **changes: Any) -> Study:
    """40 images to train on, 12 to test, other images for count and distance."""
    sets = [image_set_of(tiny_images(n, seed), (4, 3, 2)) for n, seed in ((40, 0), (12, 1))]
    others = [image_set_of(tiny_images(n, seed), (4, 3, 2)) for n, seed in ((24, 2), (10, 3))]
    names = ("train", "test", "scenes_train", "scenes_test")
    options = dict(zip(names, sets + others, strict=True), groups=2, seed=0, probe_steps=5)
    return Study(**(options | {"trainings": Trainings(folder)} | changes))
