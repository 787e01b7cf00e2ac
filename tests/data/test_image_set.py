"""Loading image sets: which pixels, which labels, what is refused and in which words."""

import hashlib
import json
import os

import datasets
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from sparsejepa.data import image_set
from sparsejepa.data.decoding import decode_image
from sparsejepa.data.image_set import load_image_set
from tests.data.tiny_parquet import pixels, png, structs, table

NAMES = ["eel", "cat", "dog", "cat", "eel", "eel"]


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Writes tables as Parquet files of the set `toy`, the only one there is."""
    monkeypatch.setenv("SPARSEJEPA_DATA", str(tmp_path / "sets"))

    def write(*tables: pa.Table, name: str = "toy"):
        folder = tmp_path / "sets" / name
        folder.mkdir(parents=True, exist_ok=True)
        for index, one in enumerate(tables):
            pq.write_table(one, folder / f"train-{index:05d}-of-{len(tables):05d}.parquet")
        return folder / f"train-00000-of-{len(tables):05d}.parquet"

    return write


def refused(name: object = "toy", **options) -> str:
    """The one sentence with which a set is refused."""
    with pytest.raises((ValueError, FileNotFoundError)) as error:
        load_image_set(str(name), **options)
    text = str(error.value)
    assert text.endswith(".") and "\n" not in text
    return text


def named(made: pa.Table, **classes: list[str]) -> pa.Table:
    """With the Hub's metadata of class labels."""
    features = {name: {"names": names, "_type": "ClassLabel"} for name, names in classes.items()}
    return made.replace_schema_metadata(
        {"huggingface": json.dumps({"info": {"features": features}})}
    )


def test_local_parquet_gives_pixels_labels_and_names(write):
    """Pixels come back exactly; class labels come first, whatever stands before them."""
    images = pixels(6)
    made = table(
        images,
        count=pa.array([3, 4, 5, 6, 7, 8], pa.int32()),
        fine_label=pa.array([0, 1, 0, 1, 0, 1], pa.int64()),
        depth=pa.array([0.5] * 6, pa.float32()),
        round=pa.array([True, False] * 3),
        query=pa.array(["?"] * 6),
    )
    made = named(made, fine_label=["ant", "bee"])
    # Two files, in the order of their names; the columns of one are in another order.
    write(made.slice(0, 4), made.slice(4).select(made.column_names[::-1]))
    loaded = load_image_set("toy")
    assert np.array_equal(loaded.images.numpy(), images)
    assert {name: y.tolist() for name, y in loaded.labels.items()} == {"fine": [0, 1, 0, 1, 0, 1]}
    assert loaded.label_names == {"fine": ("ant", "bee")}
    # Other numbers are kept, floats and booleans too, and are no labels.
    assert list(loaded.factors) == ["count", "depth", "round"]
    assert loaded.factors["round"].tolist() == [True, False] * 3
    assert loaded.origin == "local Parquet" and loaded.name == "toy"
    assert loaded.pixel_sha256 == hashlib.sha256(images.tobytes()).hexdigest()


@pytest.mark.parametrize(
    ("columns", "label", "values", "names"),
    [
        ({"idx": range(6), "label": [1, 0, 1, 0, 1, 1]}, "label", [1, 0, 1, 0, 1, 1], None),
        ({"width": [9] * 3 + [8] * 3, "Class": [0, 1] * 3}, "Class", [0, 1] * 3, None),
        ({"count": [3] * 6, "kind_label": [2, 1] * 3}, "kind", [2, 1] * 3, None),
        ({"label": NAMES}, "label", [2, 0, 1, 0, 2, 2], ("cat", "dog", "eel")),
        ({"target": pd.Categorical(NAMES)}, "target", [2, 0, 1, 0, 2, 2], ("cat", "dog", "eel")),
        ({"label": [True, False] * 3}, "label", [1, 0] * 3, ("False", "True")),
        ({"label": [1.0, 0.0] * 3}, "label", [1, 0] * 3, None),
        ({"label": [10**9, 7 * 10**9] * 3}, "label", [0, 1] * 3, ("1000000000", "7000000000")),
        ({"idx": range(6), "text": list("abcdef"), "digit": [4, 5] * 3}, "digit", [4, 5] * 3, None),
        ({"s": [0.5] * 6, "animal": NAMES}, "animal", [2, 0, 1, 0, 2, 2], ("cat", "dog", "eel")),
    ],
)  # fmt: skip
def test_the_label_is_what_its_name_says(write, columns, label, values, names):
    """A name that says label, else the only column of few values; text and codes are numbered."""
    frame = pa.Table.from_pandas(pd.DataFrame(columns))
    images = structs([png(image) for image in pixels(6)])
    write(frame.append_column("image", images))
    loaded = load_image_set("toy")
    assert {name: y.tolist() for name, y in loaded.labels.items()} == {label: values}
    assert loaded.label_names.get(label) == names


def test_text_has_the_same_classes_in_every_split(write):
    """A split without some class numbers the others as the split that has them all."""
    folder = write(table(pixels(6), label=NAMES)).parent
    pq.write_table(table(pixels(2), label=["eel", "dog"]), folder / "test.parquet")
    test = load_image_set("toy", "test")
    assert test.labels["label"].tolist() == [2, 1]
    assert test.label_names["label"] == ("cat", "dog", "eel")
    pq.write_table(table(pixels(2), label=[1, 0]), folder / "test.parquet")
    assert "holds mixed-integer values" in refused(split="test")


def test_an_unclear_label_is_asked_for(write):
    """Without a name that says it, no column of several is taken: the set has no labels so far."""
    write(table(pixels(6), shape=[0, 1] * 3, animal=NAMES, row_id=range(6)))
    loaded = load_image_set("toy")
    assert loaded.labels == {} and loaded.candidates == ("shape", "animal")
    assert "shape, animal: name one with label=" in loaded.why_no_labels()
    asked = load_image_set("toy", "train", label="animal")
    assert list(asked.labels) == ["animal"] and asked.candidates == ()
    none = load_image_set("toy", "train", label="none")
    assert none.candidates == () and "toy has no labels" in none.why_no_labels()
    assert "no column 'colour'; choose from shape, animal, row_id" in refused(label="colour")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([1, None], pa.int64()), "missing"),
        (pa.array([0.5, 1.5]), "floating"),
        (pa.array([[1], [2, 3]]), "mixed"),
    ],
)
def test_a_label_that_is_none_is_refused(write, column, message):
    """And not passed over for another column."""
    write(table(pixels(2), label=column, other=[0, 1]))
    assert f"holds {message} values" in refused() and "Column 'label' in" in refused()
    assert load_image_set("toy", "train", label="none").labels == {}


def test_training_sees_the_pixels_that_score_sees(write):
    """Deep grey by its upper bits and transparency on white, as the decoder has them."""
    deep = np.linspace(0, 65535, 64).reshape(8, 8).astype(np.uint16)
    cells = [png(deep), png(np.zeros((8, 8, 4), np.uint8))]
    write(pa.table({"image": structs(cells)}))
    found = load_image_set("toy").images.numpy()
    for image, cell in zip(found, cells, strict=True):
        assert np.array_equal(image, np.asarray(decode_image(cell, 8).image))
    assert np.array_equal(found[0, ..., 1], deep >> 8) and found[1].min() == 255


@pytest.fixture
def photos(tmp_path):
    """Class folders of two splits, with what lies about in folders."""
    for index, place in enumerate(("train/cat", "train/eel", "test/eel", "test/dog")):
        folder = tmp_path / "photos" / place
        folder.mkdir(parents=True)
        Image.fromarray(pixels(1, seed=index)[0]).save(folder / "1.png")
        (folder / "notes.txt").write_text("no image")
        (folder / ".hidden.png").write_text("no image")
    return tmp_path / "photos"


def test_folders_of_classes(photos, tmp_path):
    """Labels are the names of the folders, numbered over both splits; links are followed."""
    (tmp_path / "far").mkdir()
    Image.fromarray(pixels(1, seed=9)[0]).save(tmp_path / "far" / "2.PNG")
    (photos / "train" / "eel" / "link").symlink_to(tmp_path / "far")
    train, test = load_image_set(str(photos), "train"), load_image_set(f"{photos}/", "test")
    assert train.name == "photos" and train.origin == "local folder"
    assert train.labels["label"].tolist() == [0, 2, 2]
    assert test.labels["label"].tolist() == [1, 2]
    assert train.label_names == test.label_names == {"label": ("cat", "dog", "eel")}
    assert np.array_equal(train.images[2].numpy(), pixels(1, seed=9)[0])
    assert "holds only the splits test, train." in refused(photos, split="val")
    # One split alone needs no folder `train`; without class folders there are no labels.
    whole = load_image_set(str(photos / "train"))
    assert whole.labels["label"].tolist() == [0, 1, 1] and len(whole.images) == 3
    # Classes take turns: the first images of a long set are of all classes.
    Image.fromarray(pixels(1)[0]).save(photos / "train" / "cat" / "2.png")
    assert load_image_set(str(photos / "train")).labels["label"].tolist() == [0, 1, 0, 1]
    assert load_image_set(str(photos / "train" / "cat")).labels == {}
    Image.fromarray(pixels(1)[0]).save(photos / "train" / "loose.png")
    assert "images beside folders of classes, such as loose.png" in refused(photos)


def test_a_home_folder_and_names_of_files(photos, monkeypatch):
    """`~` is expanded in the variable and in a path; train.parquet and subfolders are found."""
    monkeypatch.setenv("HOME", str(photos.parent))
    monkeypatch.setenv("SPARSEJEPA_DATA", "~")
    assert len(load_image_set("photos", "test").images) == 2
    assert len(load_image_set("~/photos", "test").images) == 2
    for place in ("one/train.parquet", "two/data/train-0-of-1.parquet", "three/train/0.parquet"):
        file = photos.parent / place
        file.parent.mkdir(parents=True)
        pq.write_table(table(pixels(3), label=[0, 1, 0]), file)
        assert len(load_image_set(place.split("/")[0], "train").images) == 3
    # The image may lie beside the table that names it.
    image = pa.array([{"bytes": None, "path": "test/eel/1.png"}], structs([b""]).type)
    pq.write_table(pa.table({"image": image}), photos / "train.parquet")
    assert np.array_equal(load_image_set("photos").images[0].numpy(), pixels(1, seed=2)[0])


def test_sizes(write):
    """Other shapes are refused where an encoder needs squares, and `size` makes them square."""
    tall = np.zeros((16, 8, 3), np.uint8)
    tall[4:12] = 200
    write(pa.table({"img": structs([png(tall)] * 2)}))
    loaded = load_image_set("toy")
    assert loaded.images.shape == (2, 16, 8, 3)
    with pytest.raises(ValueError, match="8x16 pixels, and an encoder takes square.*size=8"):
        _ = loaded.side
    small = load_image_set("toy", size=4)
    assert small.side == 4 and small.images.min() > 180
    write(pa.table({"img": structs([png(pixels(1)[0]), png(pixels(1, size=9)[0])])}))
    assert "Image 1 in" in refused() and "9x9 pixels and the first is 8x8" in refused()
    assert load_image_set("toy", size=8).images.shape == (2, 8, 8, 3)


def test_take_is_the_first_images_with_their_own_hash(write):
    """`take(n)` cuts images and labels alike and hashes what is left; 0 means all."""
    images = pixels(5)
    write(table(images, label=list(range(5)), depth=[0.5, 1.5, 2.5, 3.5, 4.5]))
    loaded = load_image_set("toy")
    first = loaded.take(2)
    assert first.factors["depth"].tolist() == [0.5, 1.5]
    assert np.array_equal(first.images.numpy(), images[:2])
    assert first.labels["label"].tolist() == [0, 1]
    assert first.pixel_sha256 == hashlib.sha256(images[:2].tobytes()).hexdigest()
    assert loaded.take(0) is loaded and loaded.take(5) is loaded
    with pytest.raises(ValueError, match="^Cannot take 6 images of toy train: it has 5.$"):
        loaded.take(6)


@pytest.mark.parametrize(("name", "most"), [("scenes", 10), ("objects", 3)])
def test_two_sets_are_drawn(monkeypatch, name: str, most: int):
    """They need no files, bring their factors, begin alike, and other splits are refused."""
    monkeypatch.setattr(image_set, "DRAWN", {"train": 30, "test": 20})
    train, test = load_image_set(name, "train"), load_image_set(name, "test")
    assert train.origin == "drawn" and len(train.images) == 30 and len(test.images) == 20
    assert list(train.labels) == ["label", "count", "distance"]
    few, same = load_image_set(name, "train", first=7), train.take(7)
    assert few.factors["depth"].shape == (7, most) and few.pixel_sha256 == same.pixel_sha256
    assert all(torch.equal(few.labels[label], same.labels[label]) for label in same.labels)
    assert train.pixel_sha256 != test.pixel_sha256
    assert f"{name} has the splits train, test, not 'val'" in refused(name, split="val")


@pytest.mark.skipif(
    "SPARSEJEPA_DATA" not in os.environ, reason="SPARSEJEPA_DATA is not set: no real data here"
)
def test_real_cifar100_is_bit_exact():
    """The test split, written back as binary records, has the SHA-1 that Apache MXNet publishes."""
    loaded = load_image_set("cifar100", "test")
    assert loaded.images.shape == (10_000, 32, 32, 3)
    assert len(loaded.label_names["fine"]) == 100 and len(loaded.label_names["coarse"]) == 20
    planes = loaded.images.permute(0, 3, 1, 2).flatten(1)
    labels = torch.stack((loaded.labels["coarse"], loaded.labels["fine"]), 1).to(torch.uint8)
    records = torch.cat((labels, planes), 1).numpy().tobytes()
    assert hashlib.sha1(records).hexdigest() == "8fb6623e830365ff53cf14adec797474f5478006"


def test_what_is_damaged_is_named(write):
    """A broken or a missing image by its row, a cut file by its path."""
    for bad, message in ((b"no image", "cannot be"), (None, "is missing")):
        file = write(pa.table({"img": structs([png(pixels(1)[0]), bad])}))
        assert refused().startswith("Image 1 in ") and message in refused()
    file.write_bytes(file.read_bytes()[:-100])
    assert str(file) in refused() and "no complete Parquet file" in refused()


def test_columns(write):
    """The image column is found beside text of the same name; files of two sets are refused."""
    picture = structs([png(image) for image in pixels(1)])
    write(pa.table({"img": ["a.png"], "picture": picture}))
    assert len(load_image_set("toy").images) == 1
    write(pa.table({"image": picture, "thumbnail": picture}))
    assert len(load_image_set("toy").images) == 1
    write(pa.table({"left": picture, "right": picture}))
    assert "one column of encoded images" in refused() and "left (struct" in refused()
    write(table(pixels(0)))
    assert "no images in" in refused()
    write(table(pixels(1), label=[1]), table(pixels(1), count=[1]))
    assert "00002.parquet" in refused() and "differs in its columns" in refused()


def test_what_is_not_there(write, monkeypatch):
    """The splits that are there, and without SPARSEJEPA_DATA the variable."""
    write(table(pixels(1)))
    assert "which holds only the splits train." in refused(split="test")
    monkeypatch.delenv("SPARSEJEPA_DATA")
    assert "needed in $SPARSEJEPA_DATA/toy, which holds no images." in refused()
    with pytest.raises(ConnectionError, match="SPARSEJEPA_DATA.*Hub did not give uoft-cs/cifar100"):
        load_image_set("cifar100", "train")


def test_other_pixels_under_a_known_name_are_refused(write):
    """A folder called cifar100 with other images in it is never used quietly."""
    write(table(pixels(3), fine_label=[0, 1, 2]), name="cifar100")
    assert "not the known 4e457917601a…: this is another" in refused("cifar100")


def test_hub_is_asked_for_the_pinned_revision(write, monkeypatch):
    """Without local files the pinned revision is loaded, and its columns read as local ones are."""
    images = pixels(3)
    made = named(
        table(images, coarse_label=[1, 0, 0], fine_label=[2, 0, 1]), fine_label=list("abc")
    )
    file = write(made)
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
