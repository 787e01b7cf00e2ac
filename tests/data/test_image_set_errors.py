"""Bad input: one clear sentence, and nothing lost."""

import numpy as np
import pyarrow as pa
import pytest

from sparsejepa.data import image_set
from sparsejepa.data.image_set import load_image_set
from tests.data.tiny_parquet import pixels, png, structs, table


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
