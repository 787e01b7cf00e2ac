"""Outliers, drawn and loaded; plain properties of images; rank correlation."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy import stats

from sparsejepa.density.image_statistics import image_statistics
from sparsejepa.density.outlier_sets import drawn_outliers, outlier_set, resized
from sparsejepa.density.rank_correlation import explained_share, rank_correlation
from tests.data.tiny_parquet import pixels, png, structs

IMAGES = torch.from_numpy(pixels(4, size=16))


def grey_set(folder: Path, split: str, size: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    encoded = [png(image[..., 0]) for image in pixels(3, size=size)]
    table = pa.table({"image": structs(encoded), "label": pa.array([0, 1, 2])})
    pq.write_table(table, folder / f"{split}-00000-of-00001.parquet")


def test_a_grey_set_of_another_size_is_loaded(tmp_path: Path, monkeypatch) -> None:
    """As RGB at the size asked for; the test split is preferred, the training split will do."""
    monkeypatch.setenv("SPARSEJEPA_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSEJEPA_CACHE", str(tmp_path / "cache"))
    grey_set(tmp_path / "letters", "train", 28)
    found = outlier_set("letters", 32)
    assert found.shape == (3, 32, 32, 3)
    assert torch.equal(found[..., 0], found[..., 2])
    grey_set(tmp_path / "letters", "test", 32)
    assert torch.equal(
        outlier_set("letters", 32)[..., 0], torch.from_numpy(pixels(3, size=32))[..., 0]
    )
    with pytest.raises(FileNotFoundError, match=r"digits train is not here: .* holds no Parquet"):
        outlier_set("digits", 32)


def test_resizing_agrees_with_pillow() -> None:
    """Antialiased bilinear to half the size, within a grey level of rounding."""
    expected = [
        Image.fromarray(image.numpy()).resize((8, 8), Image.Resampling.BILINEAR) for image in IMAGES
    ]
    difference = resized(IMAGES, 8).int() - torch.from_numpy(np.stack(expected)).int()
    assert difference.abs().max() <= 1
    assert resized(IMAGES, 16) is IMAGES


def test_drawn_outliers_are_what_they_say() -> None:
    """Each kept and each destroyed property; the same seed draws the same."""
    found = drawn_outliers(IMAGES, 4, seed=0)
    assert all(made.shape == IMAGES.shape and made.dtype == torch.uint8 for made in found.values())
    assert torch.equal(255 - found["inverted"], IMAGES)
    assert (image_statistics(found["plain colours"])["contrast"] == 0).all()
    assert found["noise"].float().std() == pytest.approx(255 / 12**0.5, rel=0.05)

    def patches(images):
        cut = images.view(-1, 4, 4, 4, 4, 3).transpose(2, 3).flatten(3).flatten(1, 2)
        return [{tuple(patch) for patch in image.tolist()} for image in cut]

    shuffled = found["shuffled patches"]
    assert patches(shuffled) == patches(IMAGES) and not torch.equal(shuffled, IMAGES)
    before, after = (image_statistics(x) for x in (IMAGES, found["low contrast"]))
    torch.testing.assert_close(after["contrast"], before["contrast"] / 3, rtol=0.02, atol=0)
    torch.testing.assert_close(after["brightness"], before["brightness"], rtol=0.01, atol=0)
    assert (image_statistics(found["blurred"])["edges"] < before["edges"] / 2).all()
    again = drawn_outliers(IMAGES, 4, seed=0)
    assert all(torch.equal(found[name], again[name]) for name in found)
    assert not torch.equal(drawn_outliers(IMAGES, 4, seed=1)["noise"], found["noise"])
    with pytest.raises(ValueError, match="16 pixels cannot be cut into patches of 5"):
        drawn_outliers(IMAGES, 5, seed=0)


def test_statistics_of_a_checkerboard() -> None:
    """Half 0, half 200: contrast 100, entropy log 2, every neighbour 200 away, brightness 100."""
    board = 200 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)
    images = torch.stack([board, torch.full((8, 8), 100)])[..., None].expand(-1, -1, -1, 3).byte()
    found = image_statistics(images)
    expected = {"contrast": 100, "entropy": math.log(2), "edges": 200, "brightness": 100}
    for name, value in expected.items():
        assert found[name][0].item() == pytest.approx(value)
    assert [found[name][1].item() for name in ("contrast", "entropy", "edges")] == [0, 0, 0]
    assert found["JPEG size"][0] > found["JPEG size"][1] > 0
    assert found["saturation"].tolist() == [0, 0]


def test_saturation_is_the_spread_of_colours() -> None:
    """Half of the pixels (250, 50, 100), half grey: (200 + 0) / 2."""
    image = torch.full((1, 8, 8, 3), 70, dtype=torch.uint8)
    image[:, :4] = torch.tensor([250, 50, 100], dtype=torch.uint8)
    assert image_statistics(image)["saturation"].tolist() == [100]


def test_rank_correlation_is_spearmans() -> None:
    """scipy's number, ties included; inside its interval; monotone is 1, a constant says 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=60).round(1)
    y = x + rng.normal(size=60)
    found = rank_correlation(x, y, seed=0)
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low < found.value < found.high
    assert rank_correlation(y, np.exp(y), seed=0).low == pytest.approx(1)
    assert rank_correlation(y, -y, seed=0).high == pytest.approx(-1)
    assert rank_correlation(np.ones(60), y, seed=0).value == 0
    with pytest.raises(ValueError, match="3 pairs or more"):
        rank_correlation(x, y[1:], seed=0)
    with pytest.raises(ValueError, match="NaN"):
        rank_correlation([1, np.nan, 2], [1, 2, 3], seed=0)


def test_explained_share() -> None:
    """An increasing function of one property is explained whole, noise not, their sum by half."""
    rng = np.random.default_rng(0)
    a, b, noise = rng.normal(size=(3, 2000))
    assert explained_share(np.exp(a), {"a": a, "b": b}, 0).value == pytest.approx(1)
    assert explained_share(noise, {"a": a, "b": b}, 0).value == pytest.approx(0, abs=0.01)
    # Ranks of normal variables with correlation 1/sqrt 2: (6/pi asin(1/(2 sqrt 2)))² = 0.476.
    expected = (6 / math.pi * math.asin(0.5**1.5)) ** 2
    found = explained_share(a + noise, {"a": a, "b": b}, 0)
    assert found.value == pytest.approx(expected, abs=0.03)
    assert found.low < found.value < found.high
    with pytest.raises(ValueError, match="2 properties need 5 images or more, not 4"):
        explained_share(a[:4], {"a": a[:4], "b": b[:4]}, 0)


def test_of_a_constant_nothing_is_left_to_explain() -> None:
    """A collapsed encoder gives every image one score; NaN is refused."""
    a = np.arange(20.0)
    found = explained_share(np.ones(20), {"a": a}, 0)
    assert (found.value, found.low, found.high) == (0, 0, 0)
    with pytest.raises(ValueError, match="NaN or infinite"):
        explained_share(np.where(a > 0, a, np.nan), {"a": a}, 0)
