from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
import torch.nn.functional as F

from sparsejepa.data.image_set import ImageSet, load_image_set
from sparsejepa.data.scenes import draw_scenes
from sparsejepa.probing.low_level import (
    count_classes,
    cross_validate,
    distance_classes,
    label_named,
    low_level_labels,
    resized,
    stratified_folds,
)
from sparsejepa.randomness import generator
from tests.data.tiny_parquet import pixels, png, structs

OBJECTS = [3, 10, 7, 4]
DISTANCES = [7.3, 8.0, 9.7, 12.0]


@pytest.fixture
def clevr(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ImageSet:
    """Four images in the columns of CLEVR's Parquet."""
    monkeypatch.setenv("SPARSEJEPA_DATA", str(tmp_path))
    monkeypatch.setenv("SPARSEJEPA_CACHE", str(tmp_path / "cache"))
    (tmp_path / "clevr").mkdir()
    rows = pa.table(
        {
            "image": structs([png(image) for image in pixels(4)]),
            "count": OBJECTS,
            "closest_distance": DISTANCES,
            "closest_distance_label": [0, 0, 4, 5],
        }
    )
    pq.write_table(rows, tmp_path / "clevr" / "train-00000-of-00001.parquet")
    return load_image_set("clevr", "train")


def drawn(count: int) -> ImageSet:
    found = draw_scenes(count, 0, "test")
    return ImageSet(
        "scenes", "test", found.images, found.labels, found.label_names, "", "drawn", found.factors
    )


def test_clevr_columns_become_vtab_classes(clevr: ImageSet) -> None:
    """Counts from 3 become classes from 0, the distance's label is taken as it is."""
    labels = low_level_labels(clevr)
    assert labels["count"].tolist() == [0, 7, 4, 1]
    assert torch.equal(labels["distance"], distance_classes(torch.tensor(DISTANCES)))


def test_distance_bins_are_those_of_vtab() -> None:
    """Edges 8, 8.5, 9, 9.5, 10, each in the nearer bin, as VTAB's comparison of thresholds has it.

    VTAB takes the last of the thresholds 0, 8, 8.5, 9, 9.5, 10, 100 below the distance.
    """
    distances = torch.linspace(6, 14, 801, dtype=torch.float64)
    distances = torch.cat([distances, torch.tensor([8, 8.5, 9, 9.5, 10]).double()])
    thresholds = np.array([0.0, 8.0, 8.5, 9.0, 9.5, 10.0, 100.0])
    expected = [int(np.flatnonzero(thresholds - d < 0).max()) for d in distances.tolist()]
    assert distance_classes(distances).tolist() == expected
    assert set(expected) == set(range(6))


def test_scenes_bring_both_tasks() -> None:
    """Drawn scenes: the classes agree with the factors that the images were drawn from."""
    scenes = drawn(40)
    labels = low_level_labels(scenes)
    assert torch.equal(labels["count"] + 3, scenes.factors["present"].sum(1))
    assert labels["distance"].min() >= 0 and labels["distance"].max() <= 5


def test_a_set_with_counts_only_has_one_task(clevr: ImageSet) -> None:
    """SHAPES has counts and no distances."""
    del clevr.labels["closest_distance_label"]
    assert low_level_labels(clevr).keys() == {"count"}


def test_a_wrong_label_column_is_one_sentence(clevr: ImageSet) -> None:
    """The name that is not there, and those that are; the float column is no label."""
    for name in ("closest_distance", "fine"):
        with pytest.raises(ValueError, match=f"clevr train has no integer label '{name}'; choose"):
            label_named(clevr, name)
    with pytest.raises(ValueError, match="'count' or 'closest_distance_label'"):
        label_named(clevr, "fine")


@pytest.mark.parametrize("wrong", [2, 11])
def test_counts_outside_the_task_are_refused(wrong: int) -> None:
    """A column that is no count of 3 to 10 objects is not shifted into classes silently."""
    with pytest.raises(ValueError, match=f"3 to 10 objects, but one is {wrong}"):
        count_classes(torch.tensor([3, wrong, 5]))


@pytest.mark.parametrize("wrong", [float("nan"), float("inf"), 0.0, -1.0])
def test_distances_that_are_none_are_refused(wrong: float) -> None:
    """NaN has no bin."""
    with pytest.raises(ValueError, match="positive and finite"):
        distance_classes(torch.tensor([8.2, wrong]))


def test_resizing_keeps_what_fits_and_squeezes_the_rest() -> None:
    """Images of the size are passed through; others are the antialiased mean of what they cover."""
    images = torch.randint(256, (3, 8, 8, 3), generator=generator(0)).byte()
    assert resized(images, 8) is images
    wide = torch.randint(256, (3, 32, 48, 3), generator=generator(1)).byte()
    small = resized(wide, 16)
    assert small.shape == (3, 16, 16, 3) and small.dtype == torch.uint8
    planes = wide.permute(0, 3, 1, 2).double()
    expected = F.interpolate(planes, (16, 16), mode="bilinear", antialias=True)
    assert (small.permute(0, 3, 1, 2) - expected).abs().max() <= 0.501
    flat = torch.full((1, 128, 192, 3), 77, dtype=torch.uint8)
    assert (resized(flat, 32) == 77).all()


def test_every_image_is_in_one_fold_and_classes_are_spread() -> None:
    """Folds of a class differ by one image at most, and the seed decides who is where."""
    labels = torch.randint(5, (103,), generator=generator(2))
    fold = stratified_folds(labels, 4, seed=0)
    counts = torch.zeros(5, 4).index_put((labels, fold), torch.ones(103), accumulate=True)
    assert (counts.amax(1) - counts.amin(1)).max() <= 1
    assert torch.equal(fold, stratified_folds(labels, 4, seed=0))
    assert not torch.equal(fold, stratified_folds(labels, 4, seed=1))
    with pytest.raises(ValueError, match="rows, 103, not 1"):
        stratified_folds(labels, 1, seed=0)


def test_cross_validation_of_planted_and_of_random_labels() -> None:
    """Planted classes are all found; labels without relation are guessed: no row sees its own."""
    y = torch.arange(160) % 4
    x = 10 * torch.eye(4)[y] + torch.randn(160, 4, generator=generator(3))
    options = {"seed": 0, "steps": 100, "weight_decays": (1e-3, 1e-1)}
    assert cross_validate(x, y, **options).correct.all()
    # More columns than rows: a probe that has seen a row's label would know it.
    noise = torch.randn(160, 300, generator=generator(4))
    share = cross_validate(noise, y, **options).correct.double().mean().item()
    # Five standard deviations of 160 guesses at 1/4.
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / 160) ** 0.5


def test_majority_is_that_of_the_other_folds() -> None:
    """100 of 150 images of one class: always answering it is right on those."""
    y = (torch.arange(150) >= 100).long()
    x = torch.randn(150, 3, generator=generator(5))
    result = cross_validate(x, y, seed=0, steps=20)
    assert torch.equal(result.majority, y == 0)


def test_a_class_of_one_image_counts_as_wrong() -> None:
    """No other fold knows it; the other images are probed all the same."""
    y = torch.cat([torch.arange(60) % 2, torch.tensor([2])])
    x = 10 * torch.eye(3)[y] + torch.randn(61, 3, generator=generator(6))
    correct = cross_validate(x, y, seed=0, steps=100).correct
    assert correct[:60].all() and not correct[60]
