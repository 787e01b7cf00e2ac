"""One decoder of encoded images, for training and for `score`: 8-bit RGB, upright, with a note."""

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image
from PIL.Image import Transpose

from sparsejepa.errors import in_short

# Aspect ratios beyond this are refused: a centre crop would not represent the image.
STRIP = 100
ORIENTATION, BITS = 0x112, 0x102  # tags of EXIF and TIFF
_FLIPS = (Transpose.FLIP_LEFT_RIGHT, Transpose.ROTATE_180, Transpose.FLIP_TOP_BOTTOM)
_TURNS = (Transpose.TRANSPOSE, Transpose.ROTATE_270, Transpose.TRANSVERSE, Transpose.ROTATE_90)
UPRIGHT = dict(enumerate(_FLIPS + _TURNS, 2))  # orientation -> what undoes it
NAMES = {"L": "grey", "1": "black and white", "P": "a palette"}


class Unreadable(ValueError):
    """The content is no image, is damaged, or has no clear reading as 8-bit RGB."""


class Decoded(NamedTuple):
    """An upright RGB image, and what was changed: "from CMYK; first of 3 frames", or ""."""

    image: Image.Image
    note: str


def decode_image(content: bytes, size: int) -> Decoded:
    """Decodes any format that Pillow reads, or raises `Unreadable` with the reason.

    Grey, palettes and CMYK become RGB; deep grey keeps its upper 8 bits; transparency is laid on
    white; the camera's orientation is applied; the first of several frames is taken. A JPEG above
    `PIL.Image.MAX_IMAGE_PIXELS` is decoded at a fraction, with sides of at least `size` pixels.
    """
    try:
        # Pillow warns of damaged metadata and of sizes, which are dealt with here.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as opened:
            width, height = full = opened.size
            if max(full) > STRIP * min(full):
                raise Unreadable(
                    f"its aspect ratio is above {STRIP}:1 ({width}x{height} pixels): a centre crop "
                    "would not represent it"
                )
            if width * height > (Image.MAX_IMAGE_PIXELS or float("inf")):
                opened.draft("RGB", (size, size))  # has an effect on JPEG files alone
            notes = [f"reduced from {width}x{height}"] if opened.size != full else []
            turn = _orientation(opened)
            opened.load()
            image, converted = _to_rgb(opened)
            notes += [converted] if converted else []
            if turn in UPRIGHT:
                notes.append("turned upright")
                if _orientation(opened) == turn:  # Pillow turns a TIFF while loading it
                    image = image.transpose(UPRIGHT[turn])
            try:
                frames = f"{getattr(opened, 'n_frames', 1)} frames"
            except Exception:  # a later frame is damaged
                frames = "several frames, some of them damaged"
            notes += [f"first of {frames}"] if frames != "1 frames" else []
            return Decoded(image, "; ".join(notes))
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable("it has too many pixels to be decoded safely") from error
    except Exception as error:  # damaged files make every kind of error in Pillow's readers
        # Pillow prints the address of the buffer that it could not identify.
        foreign = "cannot identify image file" in str(error)
        reason = "not an image file" if foreign else in_short(error)
        raise Unreadable(f"it cannot be decoded ({reason})") from error


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata must not cost the image
        return 1


def _to_rgb(image: Image.Image) -> tuple[Image.Image, str]:
    mode, clear = image.mode, image.info.get("transparency")
    if mode == "RGB" and clear is None:
        return image.copy(), ""
    deep = mode == "I" or mode.startswith("I;16")
    levels = np.asarray(image).astype(np.int64) if deep else np.zeros(1)
    if mode == "F" or levels.min() < 0 or levels.max() >= 1 << 16:
        raise Unreadable(
            "it holds floating-point numbers or levels outside 0 to 65,535, whose range is not "
            "known: save it with 8 or 16 bits"
        )
    note = f"from {NAMES.get(mode, mode)}"
    if deep:
        bits = image.tag_v2.get(BITS, (16,))[0] if image.format == "TIFF" else 16
        if bits > 16:
            # The file does not tell which of its 32 bits it uses.
            bits = 8 if levels.max() < 1 << 8 else 16
        grey, note = (levels >> (bits - 8)).clip(0, 255), f"from {bits}-bit grey"
        alpha = np.full_like(grey, 255) if clear is None else 255 * (levels != clear)
        layers = [Image.fromarray(layer.astype(np.uint8)) for layer in (grey, grey, grey, alpha)]
        image = Image.merge("RGBA", layers)
    elif "A" not in mode.upper().replace("LAB", "") and clear is None:
        return image.convert("RGB"), note
    layers = image.convert("RGBA")
    if layers.getextrema()[3][0] == 255:
        return layers.convert("RGB"), note
    white = Image.new("RGBA", layers.size, "white")
    return Image.alpha_composite(white, layers).convert("RGB"), f"{note}, laid on white"
