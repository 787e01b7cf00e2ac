"""The code of the page on own parts runs as it stands there."""

import os
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from sparsejepa.data.image_set import load_image_set
from tests.repository import ROOT


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What all Python blocks of the page define, run in their order."""
    page = (ROOT / "book" / "how_to_extend.md").read_text()
    found: dict[str, Any] = {}
    for block in re.findall(r"^```python\n(.*?)^```", page, flags=re.M | re.S):
        exec(compile(block, "how_to_extend.md", "exec"), found)
    return found


@pytest.mark.slow
def test_penalty_and_backbone_are_trained(names: dict[str, Any]):
    """The penalty has seen latents, the loss of both is a number, the blocks are the new ones."""
    assert names["MeanAbsolute"](1.0)(torch.full((1, 2, 3), -2.0), 0)[1].item() == 2
    assert 0 < names["loss"] < 10
    encoders = names["jepa"].context_encoder, names["jepa"].target_encoder
    assert all(type(e.vit.blocks[0].mlp).__name__ == "GluMlp" for e in encoders)
    moved = [
        (a - b).abs().max().item()
        for a, b in zip(*(e.vit.blocks.parameters() for e in encoders), strict=True)
    ]
    assert min(moved) > 0


@pytest.mark.slow
def test_folder_becomes_an_image_set(
    names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Pixels of a PNG of the right size come back exactly, with the class's name."""
    monkeypatch.setenv("SPARSEJEPA_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("SPARSEJEPA_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", str(tmp_path / "hub"))
    for split in ("train", "test"):
        for shade, name in ((20, "dark"), (200, "light")):
            folder = tmp_path / "photos" / split / name
            folder.mkdir(parents=True)
            Image.new("RGB", (32, 32), (shade, 0, 0)).save(folder / "0.png")
    names["to_parquet"](tmp_path / "photos", "my_images")
    assert sorted(os.listdir(tmp_path / "data" / "my_images")) == [
        "test-0.parquet",
        "train-0.parquet",
    ]
    found = load_image_set("my_images", "train")
    # In any order: the recipe shuffles.
    shades = zip(found.images[:, 0, 0, 0].tolist(), found.labels["label"].tolist(), strict=True)
    assert set(shades) == {(20, 0), (200, 1)}
    assert found.label_names["label"] == ("dark", "light")
