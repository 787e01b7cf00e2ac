"""Multi-block masks: *kept indices* of patches, for the context encoder and the predictor."""

import itertools
import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
from jaxtyping import Bool, Int64
from torch import Tensor

from sparsejepa.config import AT_LEAST_ONE, check_ranges


@dataclass(frozen=True)
class MaskConfig:
    """Multi-block sampling, I-JEPA (2301.08243) §3 and appendix A.1."""

    grid: int = 8  # patches along a side; 32 pixels / patch 4
    targets: int = 4  # M, target blocks an image; I-JEPA
    target_scale: tuple[float, float] = (0.15, 0.2)  # block area / image area; I-JEPA
    target_aspect: tuple[float, float] = (0.75, 1.5)  # height / width; I-JEPA
    context_scale: tuple[float, float] = (0.85, 1.0)  # context block area / image area; I-JEPA
    context_length: int = 16  # K, patches kept for the context encoder; ours, see the appendix

    def __post_init__(self) -> None:
        for name in ("target_scale", "target_aspect", "context_scale"):
            pair = getattr(self, name)
            if len(pair) != 2 or not 0 < pair[0] <= pair[1] < math.inf:
                raise ValueError(f"{name} {pair} must be two positive numbers, the smaller first.")
        check_ranges(self, targets=AT_LEAST_ONE)
        grid, extremes = self.grid, itertools.product(self.target_scale, self.target_aspect)
        targets = [block_shape(grid, scale, aspect) for scale, aspect in extremes]
        contexts = [block_shape(grid, scale, 1.0) for scale in self.context_scale]
        sides = [side for shape in targets + contexts for side in shape]
        if min(sides) < 1 or max(sides) > grid:
            raise ValueError(
                f"Blocks of target_scale {self.target_scale}, target_aspect {self.target_aspect} "
                f"and context_scale {self.context_scale} do not all fit a {grid}x{grid} grid; "
                "change the scales or the patch size."
            )
        (h, w), target = contexts[0], tuple(map(max, *targets))
        room = h * w - math.prod(target)
        if not 1 <= self.context_length <= room:
            advice = f"choose 1 to {room}" if room > 0 else "use smaller targets"
            raise ValueError(
                f"context_length {self.context_length} does not fit: a {h}x{w} context block less "
                f"one {target[0]}x{target[1]} target leaves {max(room, 0)} patches; {advice}."
            )


class Masks(NamedTuple):
    """Kept patch indices of a batch. Context and targets of an image never overlap."""

    context: Int64[Tensor, "B K"]  # in random order, distinct
    targets: Int64[Tensor, "B M T"]  # raster order within a block; blocks of an image may overlap

    def to(self, device: torch.device) -> "Masks":
        return Masks(*(kept.to(device, non_blocking=True) for kept in self))


def block_shape(grid: int, scale: float, aspect: float) -> tuple[int, int]:
    """Height and width in patches of a block of area `scale`·grid² and height/width `aspect`."""
    area = scale * grid * grid
    return round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))


def sample_masks(config: MaskConfig, count: int, generator: torch.Generator) -> Masks:
    """Draws context and target patches for `count` images, all as tensor operations.

    As in the official code one block size serves a whole batch; unlike there, scale and aspect
    ratio are two numbers and every position that fits is equally likely. The context is a uniform
    random subset of K patches of the context block outside the targets. An image whose targets
    leave fewer draws new ones, a few times; then they coincide, which `MaskConfig` lets fit.
    """
    scale, aspect, context_scale = (
        low + (high - low) * torch.rand((), generator=generator).item()
        for low, high in (config.target_scale, config.target_aspect, config.context_scale)
    )
    grid, number = config.grid, config.targets
    shape, context = block_shape(grid, scale, aspect), block_shape(grid, context_scale, 1.0)
    in_context, _ = _draw_blocks(grid, context, (count,), generator)
    in_targets, targets = _draw_blocks(grid, shape, (count, number), generator)
    for redraws_left in range(4, -1, -1):
        allowed = in_context & ~in_targets.any(1)
        short = (allowed.sum(1) < config.context_length).nonzero()[:, 0]
        if not len(short):
            break
        if redraws_left:
            redrawn = _draw_blocks(grid, shape, (len(short), number), generator)
            in_targets[short], targets[short] = redrawn
    targets[short] = targets[short][:, :1]
    allowed[short] = in_context[short] & ~in_targets[short, 0]
    # The K largest of independent uniform keys are a uniform random subset.
    keys = torch.rand(allowed.shape, generator=generator) + allowed
    return Masks(keys.topk(config.context_length, dim=1).indices, targets)


def _draw_blocks(
    grid: int, shape: tuple[int, int], size: tuple[int, ...], generator: torch.Generator
) -> tuple[Bool[Tensor, "*size P"], Int64[Tensor, "*size T"]]:
    """Blocks of one shape at uniform positions: membership of every patch, and kept indices."""
    height, width = shape
    top = torch.randint(0, grid - height + 1, (*size, 1), generator=generator)
    left = torch.randint(0, grid - width + 1, (*size, 1), generator=generator)
    offsets = (torch.arange(height)[:, None] * grid + torch.arange(width)).flatten()
    kept = top * grid + left + offsets
    member = torch.zeros(*size, grid * grid, dtype=torch.bool)
    return member.scatter_(-1, kept, True), kept
