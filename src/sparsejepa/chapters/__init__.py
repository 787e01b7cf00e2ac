"""What notebooks need beyond the library: a module each, and what they keep in the same way."""

from collections.abc import Iterable
from typing import Any

from sparsejepa.data.image_set import ImageSet, load_image_set
from sparsejepa.intervals import Estimate, Interval


def stored(found: Any) -> dict[str, Any]:
    """Plain numbers of an `Interval` or `Estimate`, or of mappings and records of them."""
    if isinstance(found, Interval):
        kept = {"value": found.value, "interval": [found.low, found.high]}
        of_seeds = isinstance(found, Estimate)
        return kept | ({"seeds": found.seeds, "basis": found.basis} if of_seeds else {})
    cells = found if isinstance(found, dict) else vars(found)
    return {key: stored(cell) for key, cell in cells.items()}


def first_split(name: str, split: str, other: str) -> ImageSet:
    """A split of a local set, or the `other` where that is missing; raises as `load_image_set`."""
    try:
        return load_image_set(name, split)
    except FileNotFoundError:
        return load_image_set(name, other)


def provenance(sets: Iterable[ImageSet]) -> list[dict[str, str]]:
    """Which images a run has read, for its manifest."""
    keys = ("name", "split", "origin", "pixel_sha256")
    return [{key: getattr(images, key) for key in keys} for images in sets]
