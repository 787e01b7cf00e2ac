"""The code of the page on own parts runs as it stands there."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from sparsejepa.data.image_set import load_image_set
from sparsejepa.model.penalties import PENALTIES
from tests.repository import ROOT

PAGE = (ROOT / "book" / "how_to_extend.md").read_text()
BLOCKS = re.findall(r"^```python\n(.*?)^```", PAGE, flags=re.M | re.S)


def test_recipes_are_short():
    """Three of them, of at most twelve lines of code each."""
    lines = [[line for line in block.splitlines() if line.strip()] for block in BLOCKS]
    assert len(BLOCKS) == 3 and max(map(len, lines)) <= 12


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What all Python blocks of the page define, run in their order in an empty folder."""
    found: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("script"))
        for block in BLOCKS:
            exec(compile(block, "how_to_extend.md", "exec"), found)
    del PENALTIES["mean-absolute"]
    return found


@pytest.mark.slow
def test_penalty_and_backbone_are_trained(names: dict[str, Any]):
    """The own penalty is in the network; the backbone has timm's blocks and is loaded again."""
    assert isinstance(names["result"].jepa.penalty, names["MeanAbsolute"])
    assert names["result"].jepa.penalty.config.strength == 0.1
    assert 0 < names["result"].history[-1]["loss"] < 10
    assert names["again"].config == names["trained"].jepa.config.encoder
    assert (names["again"].config.width, names["again"].config.depth) == (192, 2)


@pytest.mark.slow
def test_folder_becomes_an_image_set(names, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Pixels of a PNG of the right size come back exactly, with the class's name."""
    monkeypatch.setenv("SPARSEJEPA_DATA", str(tmp_path / "data"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hub"))
    for split in ("train", "test"):
        for shade, name in ((20, "dark"), (200, "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32), (shade, 0, 0)).save(folder / "0.png")
    names["to_parquet"](tmp_path / "photos", "my_images")
    files = sorted(os.listdir(tmp_path / "data" / "my_images"))
    assert files == ["test-0.parquet", "train-0.parquet"]
    found = load_image_set("my_images", "train")
    # In any order: the recipe shuffles.
    shades = zip(found.images[:, 0, 0, 0].tolist(), found.labels["label"].tolist(), strict=True)
    assert set(shades) == {(20, 0), (200, 1)}
    assert found.label_names["label"] == ("dark", "light")
