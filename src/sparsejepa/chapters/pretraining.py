"""What the chapter on pretraining alone uses."""

import torch
from torch import Tensor

from sparsejepa.data.image_set import ImageSet, load_image_set
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.probing.evaluate import label_to_probe


def coverage(config: MaskConfig, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """How often each patch is context and target: maps `[grid, grid]`, mean count per image."""
    context, targets = torch.zeros(config.grid**2), torch.zeros(config.grid**2)
    # One block size a batch: small batches, so that the map averages over sizes too.
    batch = 16
    for _ in range(-(-count // batch)):
        masks = sample_masks(config, batch, generator)
        context += torch.bincount(masks.context.flatten(), minlength=config.grid**2)
        targets += torch.bincount(masks.targets.flatten(), minlength=config.grid**2)
    drawn = -(-count // batch) * batch
    square = (config.grid, config.grid)
    return {"context": (context / drawn).view(square), "target": (targets / drawn).view(square)}


def probed_sets(
    name: str, label: str, train_images: int, test_images: int
) -> tuple[ImageSet, ImageSet | None, str]:
    """Training and test set, and the label that probes read; no test set and "" without labels.

    Raises:
        FileNotFoundError, ConnectionError, ValueError: as `load_image_set` and `label_to_probe`;
            images that are not square.
    """
    train = load_image_set(name, "train", label).take(train_images)
    train.side  # noqa: B018 (refuses images that are not square)
    if not train.labels and not train.candidates:
        return train, None, ""
    test = load_image_set(name, "test", label).take(test_images)
    return train, test, label_to_probe(train, test)
