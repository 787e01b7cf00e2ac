"""Plain properties of an image, with which a density score may be confounded."""

import io

import torch
from jaxtyping import Float64, UInt8
from PIL import Image
from torch import Tensor

# Rec. 601 luma, as in JPEG.
LUMA = (0.299, 0.587, 0.114)


def image_statistics(images: UInt8[Tensor, "N H W 3"]) -> dict[str, Float64[Tensor, "N"]]:
    """contrast, grey-level entropy, edges, brightness, JPEG size and saturation of every image.

    contrast: standard deviation of luma; edges: mean absolute difference of neighbouring luma;
    brightness: mean luma (all three in grey levels, 0 to 255); entropy: of the histogram of luma in
    256 bins, nats; JPEG size: bytes at quality 90; saturation: mean over pixels of the largest of
    red, green and blue minus the smallest (grey levels), 0 for a grey image.
    """
    luma = images.double() @ torch.tensor(LUMA, dtype=torch.float64)
    flat = luma.flatten(1)
    levels = flat.round().long()
    counts = torch.zeros(len(images), 256, dtype=torch.float64)
    counts.scatter_add_(1, levels, torch.ones_like(flat))
    across, down = luma.diff(dim=2).abs(), luma.diff(dim=1).abs()
    return {
        "contrast": flat.std(dim=1, correction=0),
        "entropy": torch.special.entr(counts / flat.shape[1]).sum(dim=1),
        "edges": (across.mean(dim=(1, 2)) + down.mean(dim=(1, 2))) / 2,
        "brightness": flat.mean(dim=1),
        "JPEG size": torch.tensor([_jpeg_bytes(image) for image in images], dtype=torch.float64),
        "saturation": (images.amax(dim=3) - images.amin(dim=3)).double().mean(dim=(1, 2)),
    }


def _jpeg_bytes(image: UInt8[Tensor, "H W 3"]) -> int:
    buffer = io.BytesIO()
    Image.fromarray(image.numpy()).save(buffer, "JPEG", quality=90)
    return len(buffer.getvalue())
