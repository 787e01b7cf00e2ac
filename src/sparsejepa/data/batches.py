"""Batches of a set that lives on the device: order, random resized crops and flips as tensors.

Every random number comes from a CPU generator: a run draws the same crops on every device.
"""

import functools
import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int64, UInt8
from torch import Tensor

from sparsejepa import randomness

Images = UInt8[Tensor, "N H W 3"]  # RGB bytes


@functools.lru_cache(maxsize=2)
def epoch_order(count: int, seed: int, epoch: int) -> Int64[Tensor, "N"]:
    """The order in which an epoch visits `count` images; kept, not to be changed in place."""
    return torch.randperm(count, generator=randomness.generator(seed, "order", epoch))


def draw_crops(
    count: int,
    height: int,
    width: int,
    generator: torch.Generator,
    scale: tuple[float, float] = (0.3, 1.0),
    ratio: tuple[float, float] = (3 / 4, 4 / 3),
) -> Int64[Tensor, "B 4"]:
    """Boxes (top, left, height, width) in whole pixels, with the law of RandomResizedCrop.

    The area is uniform in `scale` (fraction of the image), width over height log-uniform in
    `ratio`. As in torchvision the first of ten boxes that fits is taken, here of ten drawn at once,
    and if none fits, the largest centred box whose shape `ratio` allows.
    """
    random = torch.rand(4, count, 10, generator=generator, dtype=torch.float64)
    area = height * width * (scale[0] + (scale[1] - scale[0]) * random[0])
    low, high = math.log(ratio[0]), math.log(ratio[1])
    shape = torch.exp(low + (high - low) * random[1])
    heights = torch.round(torch.sqrt(area / shape)).long()
    widths = torch.round(torch.sqrt(area * shape)).long()
    fits = (heights >= 1) & (heights <= height) & (widths >= 1) & (widths <= width)
    # argmax takes the first of equal values; on booleans it needs integers.
    first = fits.long().argmax(1, keepdim=True)
    h, w, u, v = (x.gather(1, first)[:, 0] for x in (heights, widths, random[2], random[3]))
    # u < 1 in float64 and the factor is small, so the floor never reaches height - h + 1.
    boxes = torch.stack(((u * (height - h + 1)).long(), (v * (width - w + 1)).long(), h, w), 1)
    tall, wide = min(height, round(width / ratio[0])), min(width, round(height * ratio[1]))
    central = torch.tensor([(height - tall) // 2, (width - wide) // 2, tall, wide])
    return torch.where(fits.any(1, keepdim=True), boxes, central)


def draw_flips(count: int, generator: torch.Generator) -> Bool[Tensor, "B"]:
    """Which images of a batch are mirrored left to right: half of them on average."""
    return torch.rand(count, generator=generator) < 0.5


def crop_and_resize(
    images: UInt8[Tensor, "B H W 3"],
    boxes: Int64[Tensor, "B 4"],
    flips: Bool[Tensor, "B"],
    size: int,
) -> Float[Tensor, "B 3 S S"]:
    """Cuts a box out of each image, resizes it to `size` by `size`, mirrors it where `flips` says.

    Equals `F.interpolate(crop, mode="bilinear", align_corners=False)` of each crop, in [0, 1].
    `boxes` are (top, left, height, width) inside the image.
    """
    height, width = images.shape[1:3]
    boxes, flips = (drawn.to(images.device, non_blocking=True) for drawn in (boxes, flips))
    top, left, box_height, box_width = boxes.unbind(1)
    y = _sample_positions(top, box_height, size)
    x = _sample_positions(left, box_width, size)
    x = torch.where(flips[:, None], x.flip(1), x)
    # grid_sample's coordinates: pixel centres at (2 i + 1) / n - 1.
    y = ((2 * y + 1) / height - 1)[:, :, None].expand(-1, size, size)
    x = ((2 * x + 1) / width - 1)[:, None, :].expand(-1, size, size)
    return F.grid_sample(
        to_unit(images), torch.stack((x, y), -1), padding_mode="border", align_corners=False
    )


def _sample_positions(start: Tensor, length: Tensor, size: int) -> Float[Tensor, "B S"]:
    """Where, in pixels of the image, the `size` samples of each crop lie along one axis."""
    steps = torch.arange(size, device=start.device) + 0.5
    position = steps * (length[:, None] / size) - 0.5
    # Without the clamp, samples at the crop's edge would mix in pixels from outside the crop.
    position = torch.minimum(position.clamp(min=0), (length[:, None] - 1).float())
    return position + start[:, None]


def to_unit(images: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 H W"]:
    """Bytes, channels last, to float32 in [0, 1], channels first."""
    return images.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format) / 255


def resized(images: Images, size: int) -> UInt8[Tensor, "N size size 3"]:
    """Whole images squeezed to a square, as VTAB does: bilinear, antialiased."""
    if images.shape[1:3] == (size, size):
        return images
    small = images.new_empty(len(images), size, size, 3)
    # A few at a time: as float32 the images take four times their memory.
    for part, into in zip(images.split(256), small.split(256), strict=True):
        planes = part.permute(0, 3, 1, 2).float()
        planes = F.interpolate(planes, (size, size), mode="bilinear", antialias=True)
        into[:] = planes.round().clamp(0, 255).permute(0, 2, 3, 1)
    return small


def channel_statistics(
    images: Images,
) -> tuple[tuple[float, float, float], tuple[float, float, float]]:
    """Mean and standard deviation of each channel over all pixels, in units of [0, 1]."""
    channels = images.reshape(-1, 3).cpu().unbind(1)
    # Counts of the 256 values, whose sums are exact in float64.
    counts = torch.stack([channel.bincount(minlength=256) for channel in channels]).double()
    values, pixels = torch.arange(256.0, dtype=torch.float64), images.numel() // 3
    mean = counts @ values / pixels
    std = (counts @ values.square() / pixels - mean.square()).clamp(min=0).sqrt()
    return tuple((mean / 255).tolist()), tuple((std / 255).tolist())
