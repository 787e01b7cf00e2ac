"""One decoder of encoded images, for training and for `score`: 8-bit RGB, upright, with a note."""

import io
import warnings
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

# Aspect ratios beyond this are refused: a centre crop would not represent the image.
STRIP = 100
ORIENTATION, BITS = 0x112, 0x102  # tags of EXIF and TIFF
UPRIGHT = {
    2: (Image.Transpose.FLIP_LEFT_RIGHT, "mirrored"),
    3: (Image.Transpose.ROTATE_180, "rotated by 180°"),
    4: (Image.Transpose.FLIP_TOP_BOTTOM, "mirrored"),
    5: (Image.Transpose.TRANSPOSE, "rotated by 90° and mirrored"),
    6: (Image.Transpose.ROTATE_270, "rotated by 90°"),
    7: (Image.Transpose.TRANSVERSE, "rotated by 90° and mirrored"),
    8: (Image.Transpose.ROTATE_90, "rotated by 90°"),
}
NAMES = {"L": "grey", "1": "black and white", "P": "a palette"}


class Unreadable(ValueError):
    """The content is no image, is damaged, or has no clear reading as 8-bit RGB."""


class Decoded(NamedTuple):
    """An upright RGB image."""

    image: Image.Image  # mode RGB
    note: str  # what was changed, as "from CMYK; first of 3 frames"; "" for a plain RGB image


def decode_image(content: bytes, size: int) -> Decoded:
    """Decodes any format that Pillow reads, or raises `Unreadable` with the reason.

    Grey, palettes and CMYK become RGB; deep grey keeps its upper 8 bits; transparency is laid on
    white; the camera's orientation is applied; of several frames the first is taken. A JPEG with
    more than `PIL.Image.MAX_IMAGE_PIXELS` pixels is decoded at a fraction of its size, with sides
    of at least `size` pixels.
    """
    try:
        # Pillow warns of damaged metadata and of sizes, which are dealt with here.
        with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as opened:
            width, height = opened.size
            if max(opened.size) > STRIP * min(opened.size):
                raise Unreadable(
                    f"its aspect ratio is above {STRIP}:1 ({width}x{height} pixels): a centre crop "
                    "would not represent it"
                )
            if width * height > (Image.MAX_IMAGE_PIXELS or float("inf")):
                opened.draft("RGB", (size, size))  # has an effect on JPEG files alone
            small = opened.size != (width, height)
            turn = _orientation(opened)
            opened.load()
            image, converted = _to_rgb(opened)
            # Pillow turns a TIFF while loading it.
            if turn in UPRIGHT and _orientation(opened) == turn:
                image = image.transpose(UPRIGHT[turn][0])
            notes = (
                f"reduced from {width}x{height}" if small else "",
                converted,
                UPRIGHT[turn][1] if turn in UPRIGHT else "",
                _frames(content),
            )
            return Decoded(image, "; ".join(filter(None, notes)))
    except Unreadable:
        raise
    except Image.DecompressionBombError as error:
        raise Unreadable("it has too many pixels to be decoded safely") from error
    except Exception as error:  # damaged files make every kind of error in Pillow's readers
        # Pillow prints the address of the buffer that it could not identify.
        foreign = "cannot identify image file" in str(error)
        reason = "not an image file" if foreign else first_line(error)
        raise Unreadable(f"it cannot be decoded ({reason})") from error


def first_line(error: Exception) -> str:
    """What an error says, short enough for a sentence of ours."""
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ORIENTATION, 1)
    except Exception:  # damaged metadata must not cost the image
        return 1


def _frames(content: bytes) -> str:
    """A separate pass: a later frame may be damaged, or change the first one while counted."""
    with Image.open(io.BytesIO(content)) as opened:
        try:
            frames = getattr(opened, "n_frames", 1)
        except Exception:
            return "first of several frames, of which a later one is damaged"
    return f"first of {frames} frames" if frames > 1 else ""


def _to_rgb(image: ImageFile.ImageFile) -> tuple[Image.Image, str]:
    mode = image.mode
    if mode == "RGB" and "transparency" not in image.info:
        return image.copy(), ""
    if mode == "F":
        raise Unreadable(
            "it holds floating-point numbers, whose range is not known: save it with 8 or 16 bits"
        )
    if mode == "I" or mode.startswith("I;16"):
        return _from_deep_grey(image)
    note = f"from {NAMES.get(mode, mode)}"
    if "A" not in mode.upper().replace("LAB", "") and "transparency" not in image.info:
        return image.convert("RGB"), note
    layers = image.convert("RGBA")
    if layers.getextrema()[3][0] == 255:
        return layers.convert("RGB"), note
    white = Image.new("RGBA", layers.size, "white")
    return Image.alpha_composite(white, layers).convert("RGB"), f"from {mode}, laid on white"


def _from_deep_grey(image: ImageFile.ImageFile) -> tuple[Image.Image, str]:
    levels = np.asarray(image).astype(np.int64)
    if levels.min() < 0 or levels.max() >= 1 << 16:
        raise Unreadable(
            "its grey levels are not within 0 to 65,535, so that their range is not known: save it "
            "with 8 or 16 bits"
        )
    bits = image.tag_v2.get(BITS, (16,))[0] if image.format == "TIFF" else 16
    if bits > 16:
        # The file does not tell which of its 32 bits it uses.
        bits = 8 if levels.max() < 1 << 8 else 16
    grey, note = levels >> (bits - 8), f"from {bits}-bit grey"
    clear = image.info.get("transparency")
    if clear is not None:
        grey, note = np.where(levels == clear, 255, grey), f"{note}, laid on white"
    return Image.fromarray(grey.clip(0, 255).astype(np.uint8)).convert("RGB"), note
