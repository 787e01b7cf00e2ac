"""Any image file as 8-bit RGB, with a note of what was changed; what cannot be read says why."""

import io
import warnings
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageOps

# A longer side of more than this many shorter ones: a strip, which resized would fill the memory.
STRIP = 100

# Modes of grey levels with more than 8 bits.
DEEP = ("I", "I;16", "I;16B", "I;16L", "I;16N")


class Unreadable(ValueError):
    """An image that has to be skipped."""


@dataclass(frozen=True)
class Decoded:
    """An upright RGB image."""

    image: Image.Image  # mode RGB
    note: str  # what was changed, as "from CMYK; first of 3 frames"; "" for a plain RGB image


def decode_image(encoded: bytes, smallest: int) -> Decoded:
    """Decodes a file of any format that Pillow knows.

    Grey levels, palettes and CMYK become RGB by Pillow's conversion; 16-bit grey keeps its upper 8
    bits; transparent images are laid on white; of several frames the first is taken; the camera's
    orientation is applied. A JPEG with more than `PIL.Image.MAX_IMAGE_PIXELS` pixels is decoded at
    a fraction of its size, not below `smallest` pixels a side; other files up to twice as many
    pixels are decoded whole.

    Raises:
        Unreadable: it is no image, is damaged, is larger still, is a strip, or holds floating-point
            numbers.
    """
    try:
        # Pillow warns of what the notes say, and of damaged metadata that does not matter here.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(encoded)) as opened:
            _check_shape(*opened.size)
            notes = _reduce(opened, smallest)
            frames = getattr(opened, "n_frames", 1)
            opened.load()
            image = ImageOps.exif_transpose(opened)
            image, converted = _to_rgb(image)
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable("it has too many pixels to be decoded safely") from error
    except Exception as error:  # damaged files make every kind of error in Pillow's readers
        raise Unreadable(f"it cannot be decoded ({_reason(error)})") from error
    notes += converted
    if frames > 1:
        notes.append(f"first of {frames} frames")
    return Decoded(image, "; ".join(notes))


def _check_shape(width: int, height: int) -> None:
    if max(width, height) > STRIP * min(width, height):
        raise Unreadable(
            f"it is a strip of {width}x{height} pixels, of which the middle square says nothing"
        )


def _reduce(image: Image.Image, smallest: int) -> list[str]:
    """Tells Pillow to decode a huge JPEG at 1/2, 1/4 or 1/8 of its size."""
    width, height = image.size
    if width * height <= (Image.MAX_IMAGE_PIXELS or float("inf")):
        return []
    image.draft("RGB", (smallest, smallest))
    # Formats other than JPEG know nothing of drafts.
    return [] if image.size == (width, height) else [f"reduced from {width}x{height}"]


def _to_rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image, []
    if mode == "F":
        raise Unreadable("it holds floating-point numbers, whose range is not known")
    if mode in DEEP:
        levels = np.asarray(image).astype(np.int64)
        # A file of 8 bits may be opened in a mode of 32.
        deep = mode != "I" or levels.max() > 255
        grey = (levels >> 8 if deep else levels).clip(0, 255).astype(np.uint8)
        return Image.fromarray(grey).convert("RGB"), [f"from {'16' if deep else '8'}-bit grey"]
    if "A" in mode or "transparency" in image.info:
        layers = image.convert("RGBA")
        if layers.getextrema()[3][0] == 255:
            return layers.convert("RGB"), [f"from {mode}"]
        white = Image.new("RGBA", layers.size, "white")
        return Image.alpha_composite(white, layers).convert("RGB"), [f"from {mode}, laid on white"]
    names = {"L": "grey", "1": "black and white", "P": "a palette"}
    return image.convert("RGB"), [f"from {names.get(mode, mode)}"]


def _reason(error: Exception) -> str:
    # Pillow prints the address of the buffer that it could not identify.
    if "cannot identify image file" in str(error):
        return "not an image file"
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
