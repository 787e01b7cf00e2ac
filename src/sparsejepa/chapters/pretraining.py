"""What the chapter on pretraining alone uses."""

import torch
from torch import Tensor

from sparsejepa.model.masks import MaskConfig, sample_masks


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
