"""What notebooks need beyond the library: a module each, and what they keep in the same way."""

from collections.abc import Iterable
from typing import Any

from sparsejepa.data.image_set import ImageSet
from sparsejepa.intervals import Interval


def stored(found: Any) -> dict[str, Any]:
    """Value and interval of an `Interval`; of mappings and records of them, one by one."""
    if isinstance(found, Interval):
        return {"value": found.value, "interval": [found.low, found.high]}
    cells = found if isinstance(found, dict) else vars(found)
    return {key: stored(cell) for key, cell in cells.items()}


def provenance(sets: Iterable[ImageSet]) -> list[dict[str, str]]:
    """Which images a run has read, for its manifest."""
    keys = ("name", "split", "origin", "pixel_sha256")
    return [{key: getattr(images, key) for key in keys} for images in sets]
