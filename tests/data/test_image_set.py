"""Loading image sets: where from, what is cached, what is refused and in which words."""

import hashlib
import io
import json
import os

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sparsejepa.data import image_set
from sparsejepa.data.image_set import load_image_set
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


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes tables as Parquet files of the set `toy`, the only one there is."""
    monkeypatch.setenv("SPARSEJEPA_DATA", str(tmp_path / "sets"))
    monkeypatch.setenv("SPARSEJEPA_CACHE", str(tmp_path / "cache"))

    def write(*tables: pa.Table, name: str = "toy"):
        folder = tmp_path / "sets" / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, one in enumerate(tables):
            pq.write_table(one, folder / f"train-{index:05d}-of-{len(tables):05d}.parquet")
        return folder / f"train-00000-of-{len(tables):05d}.parquet"

    return write


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


def one_sentence(error: pytest.ExceptionInfo) -> str:
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text
    return text


def test_truncated_parquet(write):
    """A cut file is named, with what to do."""
    file = write(table(pixels(20)))
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError) as error:
        load_image_set("toy", "train")
    text = one_sentence(error)
    assert str(file) in text and "no complete Parquet file" in text and "fetch it again" in text


def test_parquet_damaged_in_the_middle(write):
    """Overwritten bytes inside are noticed: as a damaged file or as an image that won't open."""
    file = write(table(pixels(20)))
    content = bytearray(file.read_bytes())
    content[500:1500] = bytes(1000)
    file.write_bytes(content)
    with pytest.raises(ValueError, match="fetch (it|the files) again.$"):
        load_image_set("toy", "train")


def test_missing_image_column(write):
    """The columns that are there are listed beside the names that are needed."""
    write(pa.table({"picture": [1], "label": [2]}))
    with pytest.raises(ValueError) as error:
        load_image_set("toy", "train")
    text = one_sentence(error)
    assert "picture, label" in text and "'img' or 'image' is needed" in text


def test_image_column_of_another_type(write):
    """A column named `img` that holds no images is named with its type."""
    write(pa.table({"img": ["a.png"]}))
    with pytest.raises(ValueError) as error:
        load_image_set("toy", "train")
    assert "'img'" in one_sentence(error) and "holds string, not images" in one_sentence(error)


def test_images_of_several_sizes(write):
    """The first image of another size is named with both sizes."""
    encoded = [png(pixels(1)[0]), png(pixels(1, size=9)[0])]
    write(pa.table({"img": structs(encoded)}))
    with pytest.raises(ValueError) as error:
        load_image_set("toy", "train")
    assert "Image 1" in one_sentence(error) and "9x9 pixels and the first is 8x8" in str(
        error.value
    )


@pytest.mark.parametrize("bad", [b"no image", png(pixels(1)[0])[:60], None])
def test_image_that_cannot_be_decoded(write, bad):
    """A broken or absent image is named by its row."""
    write(pa.table({"img": structs([png(pixels(1)[0]), bad])}))
    with pytest.raises(ValueError) as error:
        load_image_set("toy", "train")
    assert one_sentence(error).startswith("Image 1 in ") and "cannot be decoded" in str(error.value)


def test_missing_labels_and_empty_tables(write):
    """A label with gaps and a table without rows are refused."""
    write(table(pixels(2), label=pa.array([1, None], pa.int64())))
    with pytest.raises(ValueError, match="Column 'label' in .* has missing values"):
        load_image_set("toy", "train")
    write(table(pixels(0)))
    with pytest.raises(ValueError, match="no images in .*: the table has no rows"):
        load_image_set("toy", "train")


def test_files_with_different_columns(write):
    """Files of two data sets in one folder are refused."""
    write(table(pixels(1), label=[1]), table(pixels(1), count=[1]))
    with pytest.raises(ValueError, match="differ in their columns .*one data set per folder.$"):
        load_image_set("toy", "train")


def test_missing_set_names_the_variable(monkeypatch):
    """Without SPARSEJEPA_DATA, an unknown set asks for it."""
    monkeypatch.delenv("SPARSEJEPA_DATA", raising=False)
    with pytest.raises(FileNotFoundError) as error:
        load_image_set("toy", "train")
    assert "set SPARSEJEPA_DATA to the folder that holds toy/train-*.parquet" in one_sentence(error)


def test_missing_split_names_those_that_are_there(write):
    """A split that is not there is answered with the splits that are."""
    write(table(pixels(1)))
    with pytest.raises(FileNotFoundError) as error:
        load_image_set("toy", "test")
    assert "only the splits train" in one_sentence(error) and "SPARSEJEPA_DATA" in str(error.value)


def test_no_network_and_no_local_data_names_the_variable(monkeypatch):
    """CIFAR-100 neither local nor on the Hub: one sentence, with the variable and the reason."""
    monkeypatch.delenv("SPARSEJEPA_DATA", raising=False)
    with pytest.raises(ConnectionError) as error:
        load_image_set("cifar100", "train")
    text = one_sentence(error)
    assert "set SPARSEJEPA_DATA" in text and "the Hub did not give uoft-cs/cifar100" in text


def test_a_name_is_no_path(monkeypatch):
    """A name that leads out of the folder is refused."""
    monkeypatch.setenv("SPARSEJEPA_DATA", "sets")
    with pytest.raises(ValueError, match="named after a folder in SPARSEJEPA_DATA, not '../toy'"):
        load_image_set("../toy", "train")


def test_other_pixels_under_a_known_name_are_refused(write):
    """A folder called cifar100 with other images in it is never used quietly."""
    write(table(pixels(3), fine_label=[0, 1, 2]), name="cifar100")
    with pytest.raises(ValueError, match="not the known 4e457917601a…: this is another"):
        load_image_set("cifar100", "train")


def test_hub_is_asked_for_the_pinned_revision(write, monkeypatch):
    """Without local files the pinned revision is loaded, and its columns read as local ones are."""
    import datasets

    images = pixels(3)
    file = write(table(images, fine_label=[2, 0, 1], coarse_label=[1, 0, 0]))
    monkeypatch.delenv("SPARSEJEPA_DATA")
    monkeypatch.setattr(image_set, "KNOWN_PIXELS", {})
    asked = []

    def load_dataset(repository, *, revision, split):
        asked.append((repository, revision, split))
        return datasets.Dataset.from_parquet(str(file), cache_dir=str(file.parent / "arrow"))

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    loaded = load_image_set("cifar100", "train")
    revision = "aadb3af77e9048adbea6b47c21a81e47dd092ae5"
    assert asked == [("uoft-cs/cifar100", revision, "train")]
    assert loaded.origin == f"Hub uoft-cs/cifar100@{revision}"
    assert np.array_equal(loaded.images.numpy(), images)
    assert list(loaded.labels) == ["fine", "coarse"]
    assert loaded.labels["fine"].tolist() == [2, 0, 1]


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
