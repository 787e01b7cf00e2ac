"""What is probed, by name: blocks of an encoder, and raw pixels as the control."""

from collections.abc import Sequence

from jaxtyping import Float, UInt8
from torch import Tensor, nn

from sparsejepa.data.batches import to_unit
from sparsejepa.probing.cache import cached_features
from sparsejepa.probing.low_level import resized

LAST, PIXELS = "last block", "raw pixels"

ImageSets = Sequence[UInt8[Tensor, "_ _ _ 3"]]
Features = dict[str, list[Float[Tensor, "_ _"]]]


def block_features(encoder: nn.Module, image_sets: ImageSets, blocks: int) -> Features:
    """Pooled tokens of the last block and of the last `blocks` side by side, of each image set.

    The two protocols of I-JEPA's linear probe (its appendix A.2, with four blocks). Both come from
    one pass, which is kept (see `cached_features`).
    """
    wide = [cached_features(encoder, images, last=blocks) for images in image_sets]
    columns = wide[0].shape[1] // blocks
    narrow = [x[:, -columns:].contiguous() for x in wide]
    return {LAST: narrow} if blocks == 1 else {LAST: narrow, f"last {blocks} blocks": wide}


def pixel_control(image_sets: ImageSets, size: int) -> Features:
    """Raw pixels of each image set, centred by the mean of the first, reduced to `size` a side.

    Reduced to half their side, small photographs lose little that a linear probe can read, and a
    probe of a quarter of the columns takes a fraction of the time.
    """
    flat = [to_unit(resized(images, size)).flatten(1) for images in image_sets]
    mean = flat[0].mean(dim=0)
    return {PIXELS: [x - mean for x in flat]}
