"""Probes (notebook 02): features by name of what they are read from, and views of images."""

from collections.abc import Sequence

import torch
from jaxtyping import Float, Int64, UInt8
from torch import Tensor, nn

from sparsejepa.chapters import first_split
from sparsejepa.data.batches import crop_and_resize, draw_crops, draw_flips
from sparsejepa.data.image_set import ImageSet
from sparsejepa.model.vit import Encoder
from sparsejepa.probing.evaluate import low_level_labels
from sparsejepa.probing.features import TrainY, pooled_features
from sparsejepa.randomness import generator

LAST, PIXELS, UNTRAINED = "last block", "raw pixels", "untrained encoder"

Images = Sequence[UInt8[Tensor, "_ _ _ 3"]]
Features = dict[str, list[Float[Tensor, "_ _"]]]


def untrained(encoder: Encoder, seed: int) -> Encoder:
    """An encoder of the same architecture as it was before any training with that seed."""
    return Encoder(encoder.config, generator(seed, "initial encoder")).eval().requires_grad_(False)


def small_set(folder: str) -> tuple[ImageSet, dict[str, TrainY]]:
    """A set's training images, or else its test images, and what is read of them.

    Count and distance where it has a count, else its first label. Raises as `load_image_set`.
    """
    images = first_split(folder, "train", "test")
    if "count" in images.factors | images.labels:
        return images, low_level_labels(images)
    return images, dict([next(iter(images.labels.items()))])


def block_features(encoder: nn.Module, image_sets: Images, blocks: int) -> Features:
    """Pooled tokens of the last block and of the last `blocks` side by side, of each image set.

    The two protocols of I-JEPA's linear probe (its appendix A.2, with four blocks), in one pass.
    """
    wide = [pooled_features(encoder, images, last=blocks) for images in image_sets]
    columns = wide[0].shape[1] // blocks
    narrow = [x[:, -columns:].contiguous() for x in wide]
    return {LAST: narrow} if blocks == 1 else {LAST: narrow, f"last {blocks} blocks": wide}


def augmented_views(
    images: UInt8[Tensor, "N S S 3"], views: int, seed: int
) -> tuple[UInt8[Tensor, "M S S 3"], Int64[Tensor, "M"]]:
    """Crops and mirrors of each image as in pretraining, and the number of each view's image."""
    side, draw = images.shape[1], generator(seed, "views")
    shown = images.repeat_interleave(views, dim=0)
    boxes = draw_crops(len(shown), side, side, draw, scale=(0.6, 1.0))
    shown = crop_and_resize(shown, boxes, draw_flips(len(shown), draw), side)
    bytes_ = (255 * shown).round().byte().permute(0, 2, 3, 1).contiguous()
    return bytes_, torch.arange(len(bytes_)) // views
