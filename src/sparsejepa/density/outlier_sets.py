"""Images that an encoder was not trained on: other sets, and ones made from the test images."""

import torch
import torch.nn.functional as F
from jaxtyping import UInt8
from torch import Tensor

from sparsejepa.data.batches import to_unit
from sparsejepa.data.image_set import load_image_set
from sparsejepa.randomness import generator

# Sets of other things than those of CIFAR-100; where they are not, they are left out.
OUTLIER_SETS = ("cifar10", "dtd", "galaxy_zoo2", "mnist", "fashion_mnist")
SPLITS = ("test", "train")


def outlier_set(name: str, size: int) -> UInt8[Tensor, "N S S 3"]:
    """The images of a local set at `size` pixels a side: of its test split, else of its training.

    Images of another size are resized, with antialiasing. What is resized is smoother or sharper
    than the images that an encoder knows: part of what makes such a set easy to tell.

    Raises:
        FileNotFoundError: the set is not here; says where it was looked for.
        ValueError: its files are damaged.
    """
    for split in SPLITS:
        try:
            return resized(load_image_set(name, split).images, size)
        except FileNotFoundError as error:
            missing = error
    raise missing


def resized(images: UInt8[Tensor, "N H W 3"], size: int) -> UInt8[Tensor, "N S S 3"]:
    """Bilinear with antialiasing, rounded to bytes; images of the right size stay as they are."""
    if images.shape[1:3] == (size, size):
        return images
    smaller = F.interpolate(to_unit(images), (size, size), mode="bilinear", antialias=True)
    return _bytes(smaller)


def drawn_outliers(
    images: UInt8[Tensor, "N S S 3"], patch_size: int, seed: int
) -> dict[str, UInt8[Tensor, "N S S 3"]]:
    """Outliers that need no data: five made from `images`, pixel noise and plain colours.

    noise: every byte uniform; plain colours: one colour an image; shuffled patches: same patches
    of `patch_size` in another order; inverted: 255 minus every byte; blurred: averaged over
    5 × 5 pixels; low contrast: a third of each image's deviations from its mean colour.
    The last two keep the scene: a score that ranks them by how much they vary is a contrast meter.
    """
    count, size = len(images), images.shape[1]
    draw = generator(seed, "outliers")
    unit = to_unit(images)
    mean = unit.mean(dim=(2, 3), keepdim=True)
    blurred = F.avg_pool2d(F.pad(unit, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    colours = torch.randint(256, (count, 1, 1, 3), dtype=torch.uint8, generator=draw)
    return {
        "noise": torch.randint(256, images.shape, dtype=torch.uint8, generator=draw),
        "plain colours": colours.expand(-1, size, size, -1).contiguous(),
        "shuffled patches": shuffled_patches(images, patch_size, draw),
        "inverted": 255 - images,
        "blurred": _bytes(blurred),
        "low contrast": _bytes(mean + (unit - mean) / 3),
    }


def shuffled_patches(
    images: UInt8[Tensor, "N S S 3"], patch_size: int, draw: torch.Generator
) -> UInt8[Tensor, "N S S 3"]:
    """Each image's patches in an order of its own.

    Raises:
        ValueError: the patches do not fill the image.
    """
    count, size = len(images), images.shape[1]
    if size % patch_size:
        raise ValueError(f"Images of {size} pixels cannot be cut into patches of {patch_size}.")
    grid = size // patch_size
    patches = images.view(count, grid, patch_size, grid, patch_size, 3).transpose(2, 3)
    patches = patches.reshape(count, grid * grid, -1)
    order = torch.rand(count, grid * grid, generator=draw).argsort(dim=1)
    moved = patches.gather(1, order[:, :, None].expand_as(patches))
    moved = moved.view(count, grid, grid, patch_size, patch_size, 3).transpose(2, 3)
    return moved.reshape(images.shape)


def _bytes(unit: Tensor) -> UInt8[Tensor, "N H W 3"]:
    return (unit.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().contiguous()
