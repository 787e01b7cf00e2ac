"""How many times faster batched mask sampling is than a loop over images."""

import random

import pytest
import torch
from torch import Tensor

from sparsejepa.model.masks import MaskConfig, block_shape, sample_masks
from sparsejepa.randomness import generator
from tests.benchmarks.interleaved import race

CONFIG = MaskConfig()
ROUNDS = 10


def with_tensors(count: int, source: torch.Generator) -> list[tuple[Tensor, list[Tensor]]]:
    """The law of `sample_masks` as a DataLoader's collate function usually draws it.

    Image by image and block by block: a mask of the grid with a rectangle set, its non-zero
    indices, and the targets' complement for the context.
    """
    grid = CONFIG.grid

    def number(low: float, high: float) -> float:
        return low + (high - low) * torch.rand(1, generator=source).item()

    def block(height: int, width: int) -> Tensor:
        top = torch.randint(0, grid - height + 1, (1,), generator=source).item()
        left = torch.randint(0, grid - width + 1, (1,), generator=source).item()
        mask = torch.zeros(grid, grid, dtype=torch.bool)
        mask[top : top + height, left : left + width] = True
        return mask

    shape = block_shape(grid, number(*CONFIG.target_scale), number(*CONFIG.target_aspect))
    context_shape = block_shape(grid, number(*CONFIG.context_scale), 1.0)
    drawn = []
    while len(drawn) < count:
        targets = [block(*shape) for _ in range(CONFIG.targets)]
        allowed = block(*context_shape)
        for target in targets:
            allowed &= ~target
        kept = allowed.flatten().nonzero()[:, 0]
        if len(kept) < CONFIG.context_length:
            continue
        order = torch.randperm(len(kept), generator=source)[: CONFIG.context_length]
        drawn.append((kept[order], [target.flatten().nonzero()[:, 0] for target in targets]))
    return drawn


def with_lists(count: int, source: random.Random) -> list[tuple[list[int], list[list[int]]]]:
    """The same without tensors, in Python numbers: the fastest plain loop."""
    grid = CONFIG.grid

    def block(height: int, width: int) -> list[int]:
        top, left = source.randint(0, grid - height), source.randint(0, grid - width)
        return [(top + y) * grid + left + x for y in range(height) for x in range(width)]

    shape = block_shape(
        grid, source.uniform(*CONFIG.target_scale), source.uniform(*CONFIG.target_aspect)
    )
    context_shape = block_shape(grid, source.uniform(*CONFIG.context_scale), 1.0)
    drawn = []
    while len(drawn) < count:
        targets = [block(*shape) for _ in range(CONFIG.targets)]
        hidden = set().union(*targets)
        allowed = [patch for patch in block(*context_shape) if patch not in hidden]
        if len(allowed) >= CONFIG.context_length:
            drawn.append((source.sample(allowed, CONFIG.context_length), targets))
    return drawn


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("count", [256, 1024])
def test_mask_ratio(count: int, capsys):
    """All draw masks of one kind."""
    source, plain_source = generator(0), random.Random(0)
    masks = sample_masks(CONFIG, count, source)
    for drawn in (with_tensors(count, source), with_lists(count, plain_source)):
        assert {len(context) for context, _ in drawn} == {masks.context.shape[1]}
        assert {len(targets) for _, targets in drawn} == {masks.targets.shape[1]}
        assert len(drawn) == len(masks.context)
        assert all(set(map(int, c)).isdisjoint(map(int, b)) for c, t in drawn for b in t)
    ways = {
        "loop over images, tensors, as in a collator": lambda: with_tensors(count, source),
        "loop over images, Python lists": lambda: with_lists(count, plain_source),
        "sample_masks": lambda: sample_masks(CONFIG, count, source),
    }
    race(capsys, f"masks for a batch of {count}", ways, ROUNDS, count)
