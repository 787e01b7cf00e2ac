"""The chapter of probes: which features stand under which name, and views of one image."""

import pytest
import torch

from sparsejepa.chapters.probes import LAST, augmented_views, block_features
from sparsejepa.data.batches import resized
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.probing.features import pixel_features, pooled_features
from sparsejepa.randomness import generator


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (count, 8, 8, 3), generator=generator(seed, "images")).byte()


@pytest.mark.parametrize("blocks", [1, 3])
def test_blocks_are_pooled_features(blocks: int) -> None:
    """Of each image set, the last block and the last blocks, as `pooled_features` has them."""
    config = EncoderConfig(image_size=8, patch_size=4, width=8, depth=3, heads=2)
    encoder = Encoder(config, generator(0, "weights"))
    sets = [images(5, 0), images(3, 1)]
    found = block_features(encoder, sets, blocks)
    assert list(found) == [LAST, f"last {blocks} blocks"][: 1 + (blocks > 1)]
    for shown, narrow in zip(sets, found[LAST], strict=True):
        torch.testing.assert_close(narrow, pooled_features(encoder, shown))
    for shown, wide in zip(sets, list(found.values())[-1], strict=True):
        assert torch.equal(wide, pooled_features(encoder, shown, last=blocks))


def test_pixels_are_centred_by_the_first_set() -> None:
    """At full size and reduced: pixels minus the mean of the first set's."""
    sets = [images(6, 0), images(4, 1)]
    for side in (8, 4):
        found = pixel_features(*(resized(x, side) for x in sets))
        flat = [resized(x, side).double().permute(0, 3, 1, 2).flatten(1) / 255 for x in sets]
        for ours, expected in zip(found, flat, strict=True):
            exact = expected - flat[0].mean(0)
            torch.testing.assert_close(ours.double(), exact, atol=1e-6, rtol=0)


def test_views_are_of_one_image() -> None:
    """Images of one grey each: so are their views, and the seed decides the crops."""
    grey = (20 * torch.arange(5)).byte()[:, None, None, None].expand(-1, 8, 8, 3).contiguous()
    shown, index = augmented_views(grey, 3, seed=0)
    assert index.tolist() == [i for i in range(5) for _ in range(3)]
    assert (shown.flatten(1) == 20 * index[:, None]).all()
    first, again, other = (augmented_views(images(4, 2), 2, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)
