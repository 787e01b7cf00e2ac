"""How many times faster batched mask sampling is than a Python loop over images."""

import random

import pytest

from sparsejepa.model.masks import MaskConfig, block_shape, sample_masks
from sparsejepa.randomness import generator
from tests.benchmarks.interleaved import best_seconds, ratio_table

CONFIG = MaskConfig()


def sample_by_image(config: MaskConfig, count: int, source: random.Random) -> list[tuple]:
    """The same law as `sample_masks`, image by image, as a DataLoader's collate function would."""
    height, width = block_shape(
        config.grid, source.uniform(*config.target_scale), source.uniform(*config.target_aspect)
    )
    side, _ = block_shape(config.grid, source.uniform(*config.context_scale), 1.0)

    def block(height: int, width: int) -> list[int]:
        top = source.randint(0, config.grid - height)
        left = source.randint(0, config.grid - width)
        return [(top + y) * config.grid + left + x for y in range(height) for x in range(width)]

    masks = []
    for _ in range(count):
        context = block(side, side)
        while True:
            targets = [block(height, width) for _ in range(config.targets)]
            hidden = {patch for target in targets for patch in target}
            allowed = [patch for patch in context if patch not in hidden]
            if len(allowed) >= config.context_length:
                break
        masks.append((source.sample(allowed, config.context_length), targets))
    return masks


@pytest.mark.slow
@pytest.mark.benchmark
@pytest.mark.parametrize("count", [256, 1024])
def test_mask_ratio(count: int, capsys):
    """Both draw masks of the same sizes; the ratio of their best times is printed, not asserted."""
    plain_source, source = random.Random(0), generator(0)
    context, targets = sample_by_image(CONFIG, 1, plain_source)[0]
    masks = sample_masks(CONFIG, 1, source)
    assert (len(context), len(targets)) == (masks.context.shape[1], masks.targets.shape[1])
    seconds = best_seconds(
        {
            "a Python loop over images": lambda: sample_by_image(CONFIG, count, plain_source),
            "sample_masks": lambda: sample_masks(CONFIG, count, source),
        },
        rounds=15,
    )
    with capsys.disabled():
        print(ratio_table(f"masks for a batch of {count}", seconds, count))
