"""Small Parquet files in the layout of the Hub."""

import io

import numpy as np
import pyarrow as pa
import torch
from PIL import Image

from sparsejepa.randomness import generator


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def pixels(count: int, seed: int = 0, size: int = 8) -> np.ndarray:
    shape = (count, size, size, 3)
    drawn = torch.randint(256, shape, dtype=torch.uint8, generator=generator(seed, "pixels"))
    return drawn.numpy()


def structs(encoded: list[bytes | None]) -> pa.Array:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    return pa.array([{"bytes": one, "path": None} for one in encoded], kind)


def table(images: np.ndarray, **columns) -> pa.Table:
    return pa.table({"img": structs([png(image) for image in images]), **columns})
