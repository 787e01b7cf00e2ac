"""What notebooks keep of their estimates and of their images."""

from types import SimpleNamespace

from sparsejepa.chapters import provenance, stored
from sparsejepa.intervals import Interval
from tests.companion.tiny_yardstick import image_set_of
from tests.training.tiny import tiny_images


def test_intervals_become_plain_numbers():
    """Of mappings and records, at any depth."""
    cell = Interval(0.5, 0.25, 0.75, 0.95)
    kept = {"value": 0.5, "interval": [0.25, 0.75]}
    found = stored({"a": cell, "b": {"c": SimpleNamespace(auroc=cell)}})
    assert found == {"a": kept, "b": {"c": {"auroc": kept}}}


def test_provenance_names_the_images():
    """Name, split, origin and hash of each set."""
    images = image_set_of(tiny_images(2), (1, 1, 1))
    known = {"name": "tiny", "split": "train", "origin": "drawn"}
    assert provenance([images]) == [known | {"pixel_sha256": images.pixel_sha256}]
