"""Where to look in a scene."""

import torch

from sparsejepa.data.batches import crop_and_resize
from sparsejepa.data.scenes import FOCAL_LENGTH, SIZE


def nearest_object(scenes, half: int = 0) -> torch.Tensor:
    """The nearest object, cut out with the help of the factors (its left or right half)."""
    f = {
        name: values[:, 0] if values.ndim == 2 else values
        for name, values in scenes.factors.items()
    }
    radius = FOCAL_LENGTH * f["size"] / f["depth"]
    column = SIZE / 2 + FOCAL_LENGTH * f["lateral"] / f["depth"]
    foot = f["horizon"] + FOCAL_LENGTH * f["camera_height"] / f["depth"]
    left = column - radius if half < 1 else column
    width = 2 * radius if half == 0 else radius
    box = torch.stack((foot - 2 * radius, left, 2 * radius, width), 1).round().long()
    box[:, :2] = box[:, :2].clamp(min=0)
    box[:, 2:] = torch.minimum(box[:, 2:], SIZE - box[:, :2])
    return crop_and_resize(scenes.images, box, torch.zeros(len(box)).bool(), 10)
