"""Loading image sets: where from, what is cached, what is refused and in which words."""

import hashlib
import json
import os

import numpy as np
import pyarrow as pa
import pytest
import torch

from sparsejepa.data import image_set
from sparsejepa.data.image_set import load_image_set
from tests.data.tiny_parquet import pixels, png, structs, table


def test_local_parquet_gives_pixels_labels_and_names(write):
    """Pixels come back exactly, integer columns become labels, names come from the metadata."""
    images = pixels(6)
    features = {"fine_label": {"names": ["ant", "bee"], "_type": "ClassLabel"}}
    made = table(
        images,
        fine_label=pa.array([0, 1, 0, 1, 0, 1], pa.int64()),
        count=pa.array([3, 4, 5, 6, 7, 8], pa.int32()),
        depth=pa.array([0.5] * 6, pa.float32()),
        query=pa.array(["?"] * 6),
    ).replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
    # Two files: they are read in the order of their names.
    write(made.slice(0, 4), made.slice(4))
    loaded = load_image_set("toy", "train")
    assert np.array_equal(loaded.images.numpy(), images)
    assert list(loaded.labels) == ["fine", "count"]
    assert loaded.labels["fine"].tolist() == [0, 1, 0, 1, 0, 1]
    assert loaded.labels["count"].tolist() == [3, 4, 5, 6, 7, 8]
    assert loaded.label_names == {"fine": ("ant", "bee")}
    assert loaded.origin == "local Parquet"
    assert loaded.pixel_sha256 == hashlib.sha256(images.tobytes()).hexdigest()
    assert loaded.factors == {}


def test_grey_images_become_rgb(write):
    """A grey image is read as RGB with three equal channels."""
    grey = pixels(2)[..., 0]
    write(pa.table({"image": structs([png(image) for image in grey])}))
    loaded = load_image_set("toy", "train")
    assert np.array_equal(loaded.images.numpy(), np.repeat(grey[..., None], 3, axis=3))


def test_take_is_the_first_images_with_their_own_hash(write):
    """`take(n)` cuts images and labels alike and hashes what is left; 0 means all."""
    images = pixels(5)
    write(table(images, label=list(range(5))))
    loaded = load_image_set("toy", "train")
    first = loaded.take(2)
    assert np.array_equal(first.images.numpy(), images[:2])
    assert first.labels["label"].tolist() == [0, 1]
    assert first.pixel_sha256 == hashlib.sha256(images[:2].tobytes()).hexdigest()
    assert loaded.take(0) is loaded and loaded.take(5) is loaded
    with pytest.raises(ValueError, match="^Cannot take 6 images of toy train: it has 5.$"):
        loaded.take(6)


def test_second_load_reads_the_cache_and_new_content_does_not(write, monkeypatch):
    """Decoding happens once per content: a changed file is decoded anew under its old name."""
    write(table(pixels(4)))
    first = load_image_set("toy", "train")

    def refuse(*_):
        raise AssertionError("decoded again")

    with monkeypatch.context() as patched:
        patched.setattr(image_set, "decode", refuse)
        assert torch.equal(load_image_set("toy", "train").images, first.images)
        write(table(pixels(4, seed=1)))
        with pytest.raises(AssertionError, match="decoded again"):
            load_image_set("toy", "train")
    assert np.array_equal(load_image_set("toy", "train").images.numpy(), pixels(4, seed=1))


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty"])
def test_damaged_cache_is_rebuilt(write, tmp_path, damage):
    """A cache file that was cut or altered is noticed, replaced, and whole again afterwards."""
    write(table(pixels(4)))
    expected = load_image_set("toy", "train").images
    (cache,) = (tmp_path / "cache").iterdir()
    whole = cache.read_bytes()
    changed = {
        "truncated": whole[:-10],
        "flipped": whole[:-1] + bytes([whole[-1] ^ 1]),
        "empty": b"",
    }
    cache.write_bytes(changed[damage])
    assert torch.equal(load_image_set("toy", "train").images, expected)
    assert list((tmp_path / "cache").iterdir()) == [cache]
    # Not byte for byte: safetensors may order its metadata as it likes.
    assert torch.equal(image_set._read_cache(cache), expected)


def test_unwritable_cache_is_no_error(write, tmp_path, monkeypatch):
    """Where the cache folder cannot be made, the set is decoded each time."""
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SPARSEJEPA_CACHE", str(tmp_path / "file" / "cache"))
    write(table(pixels(4)))
    for _ in range(2):
        assert np.array_equal(load_image_set("toy", "train").images.numpy(), pixels(4))


def test_failed_cache_write_leaves_nothing_behind(write, tmp_path, monkeypatch):
    """A full disk while caching costs nothing but time: no error and no half file."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    write(table(pixels(4)))
    assert np.array_equal(load_image_set("toy", "train").images.numpy(), pixels(4))
    assert list((tmp_path / "cache").iterdir()) == []


def test_scenes_are_drawn(monkeypatch):
    """`scenes` needs no files, brings its factors, and other splits are refused."""
    monkeypatch.setattr(image_set, "SCENES", {"train": 30, "test": 20})
    train, test = load_image_set("scenes", "train"), load_image_set("scenes", "test")
    assert train.origin == "drawn" and len(train.images) == 30 and len(test.images) == 20
    assert list(train.labels) == ["label", "count", "distance"]
    assert train.take(7).factors["depth"].shape == (7, 10)
    assert train.pixel_sha256 != test.pixel_sha256
    with pytest.raises(FileNotFoundError, match="scenes has the splits train, test, not 'val'"):
        load_image_set("scenes", "val")


@pytest.mark.skipif(
    "SPARSEJEPA_DATA" not in os.environ, reason="SPARSEJEPA_DATA is not set: no real data here"
)
def test_real_cifar100_is_bit_exact(tmp_path, monkeypatch):
    """The test split, written back as binary records, has the SHA-1 that Apache MXNet publishes."""
    monkeypatch.setenv("SPARSEJEPA_CACHE", str(tmp_path))
    loaded = load_image_set("cifar100", "test")
    assert loaded.images.shape == (10_000, 32, 32, 3)
    assert len(loaded.label_names["fine"]) == 100 and len(loaded.label_names["coarse"]) == 20
    assert (loaded.labels["fine"].bincount() == 100).all()
    planes = loaded.images.permute(0, 3, 1, 2).flatten(1)
    labels = torch.stack((loaded.labels["coarse"], loaded.labels["fine"]), 1).to(torch.uint8)
    records = torch.cat((labels, planes), 1).numpy().tobytes()
    assert hashlib.sha1(records).hexdigest() == "8fb6623e830365ff53cf14adec797474f5478006"
