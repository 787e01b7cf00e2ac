"""Image files of every awkward kind."""

import io
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
from PIL import Image

from sparsejepa.model.vit import Encoder, EncoderConfig, round_to_half, save_encoder
from sparsejepa.randomness import generator
from tests.data.tiny_parquet import pixels

CONFIG = EncoderConfig(image_size=16, patch_size=8, width=8, depth=1, heads=2)


def encoder() -> Encoder:
    """With weights that a file keeps exactly."""
    made = Encoder(CONFIG, generator(0)).eval()
    round_to_half(made)
    return made


def tiny_file(folder: Path) -> Path:
    """Weights of an encoder of 16 x 16 images, as `01_pretrain` leaves them."""
    save_encoder(folder / "encoder.safetensors", encoder())
    return folder / "encoder.safetensors"


def encoded(image: Image.Image, kind: str = "PNG", **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def plain(seed: int = 0, size: int = 16) -> Image.Image:
    return Image.fromarray(pixels(1, seed, size)[0])


def awkward() -> dict[str, bytes]:
    """File name to content; every name begins with what the tool is to say of it."""
    image, second = plain(1, 24), plain(2, 24).quantize(16)
    deep = (np.arange(24 * 24).reshape(24, 24) * 113).astype(np.uint16)
    rgba = image.convert("RGBA")
    rgba.putalpha(100)
    turned = Image.Exif()
    turned[0x0112] = 6
    return {
        "plain.png": encoded(plain()),
        "grey.png": encoded(image.convert("L")),
        "grey16.png": encoded(Image.fromarray(deep)),
        "cmyk.jpg": encoded(image.convert("CMYK"), "JPEG"),
        "palette.gif": encoded(image.quantize(16), "GIF", save_all=True, append_images=[second]),
        "transparent.png": encoded(rgba),
        "turned.jpg": encoded(plain(3, 24).crop((0, 0, 24, 16)), "JPEG", exif=turned),
        "huge.jpg": encoded(plain(4, 16).resize((160, 120)), "JPEG"),
        "too_huge.png": encoded(plain(5, 16).resize((200, 200))),
        "float.tif": encoded(Image.fromarray(np.eye(8, dtype=np.float32)), "TIFF"),
        "corrupt.png": encoded(plain())[:200],
        "text.jpg": b"no image at all",
        "empty.png": b"",
    }


def folder_of(root: Path, files: dict[str, bytes]) -> Path:
    for name, content in files.items():
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    return root


def rows(out: Path) -> dict[str, dict]:
    """The rows of a table of scores by their paths, in their order."""
    return {row["path"]: row for row in pq.read_table(out).to_pylist()}
