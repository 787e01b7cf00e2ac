"""Every kind of file becomes upright 8-bit RGB with a note, or says why not."""

import numpy as np
import pytest
from PIL import Image

from sparsejepa.density.decoding import Unreadable, decode_image
from tests.density.tiny_images import awkward, encoded, plain

FILES = awkward() | {"opaque.png": encoded(plain().convert("RGBA"))}


def array(content: bytes) -> np.ndarray:
    return np.asarray(decode_image(content, 16).image)


@pytest.mark.parametrize(
    ("name", "note"),
    [
        ("plain.png", ""),
        ("grey.png", "from grey"),
        ("grey16.png", "from 16-bit grey"),
        ("cmyk.jpg", "from CMYK"),
        ("palette.gif", "from a palette; first of 2 frames"),
        ("transparent.png", "from RGBA, laid on white"),
        ("opaque.png", "from RGBA"),
        ("turned.jpg", "turned upright"),
    ],
)
def test_it_becomes_rgb_and_says_from_what(name: str, note: str) -> None:
    found = decode_image(FILES[name], 16)
    assert (found.image.mode, found.note) == ("RGB", note)


def test_pixels_are_those_of_the_image() -> None:
    """Plain bytes stay, as under an opaque alpha channel; the upper 8 of 16 bits are kept."""
    for image in (plain(), plain().convert("RGBA")):
        assert np.array_equal(array(encoded(image)), np.asarray(plain()))
    deep = (np.arange(24 * 24).reshape(24, 24) * 113).astype(np.uint16)
    assert np.array_equal(array(FILES["grey16.png"])[..., 0], deep >> 8)
    mixed = np.asarray(plain(1, 24)) * (100 / 255) + 155  # transparent over white
    assert np.abs(array(FILES["transparent.png"]) - mixed).max() <= 1
    assert array(FILES["turned.jpg"]).shape == (24, 16, 3)  # stored 24 wide, 16 high


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("corrupt.png", r"cannot be decoded \(.*\)"),
        ("text.jpg", r"cannot be decoded \(not an image file\)"),
        ("empty.png", "cannot be decoded"),
        ("float.tif", "floating-point numbers"),
    ],
)
def test_what_cannot_be_read_says_why(name: str, reason: str) -> None:
    with pytest.raises(Unreadable, match=reason):
        decode_image(FILES[name], 16)


def test_a_strip_is_skipped() -> None:
    """Resized by its shorter side to what a network takes, it would fill the memory."""
    decode_image(encoded(Image.new("RGB", (200, 2))), 16)
    with pytest.raises(Unreadable, match="aspect ratio is above 100:1 .2x201 pixels."):
        decode_image(encoded(Image.new("RGB", (2, 201))), 16)


def test_huge_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A JPEG above Pillow's limit is decoded at a fraction; what is far above it is refused."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 160 * 120 - 1)
    found = decode_image(FILES["huge.jpg"], 16)
    assert found.note == "reduced from 160x120"
    assert found.image.size == (40, 30)
    whole = decode_image(encoded(plain().resize((160, 125))), 16)
    assert whole.note == "" and whole.image.size == (160, 125)
    with pytest.raises(Unreadable, match="too many pixels"):
        decode_image(FILES["too_huge.png"], 16)
