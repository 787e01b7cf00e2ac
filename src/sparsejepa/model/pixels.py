"""Pixels as targets: the masked autoencoder (MAE, 2111.06377) with JEPA's masks and predictor."""

from jaxtyping import Float
from torch import Tensor


def patch_pixels(images: Float[Tensor, "B C H W"], patch_size: int) -> Float[Tensor, "B N D"]:
    """The D = C · patch_size² pixels of each patch, patches in raster order."""
    rows = images.unflatten(2, (-1, patch_size)).unflatten(4, (-1, patch_size))
    return rows.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)
