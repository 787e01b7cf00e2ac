"""What the chapter on pretraining alone uses."""

import torch
from torch import Tensor

from sparsejepa.model.masks import MaskConfig, sample_masks


def coverage(config: MaskConfig, count: int, generator: torch.Generator) -> dict[str, Tensor]:
    """How often each patch is context and target: maps `[grid, grid]`, mean count per image."""
    # One block size a batch: small batches, so that the map averages over sizes too.
    masks = [sample_masks(config, 16, generator) for _ in range(-(-count // 16))]
    used = {"context": [m.context for m in masks], "target": [m.targets for m in masks]}
    maps = {}
    for name, indices in used.items():
        times = torch.cat([some.flatten() for some in indices]).bincount(minlength=config.grid**2)
        maps[name] = times.view(config.grid, config.grid) / (16 * len(masks))
    return maps
