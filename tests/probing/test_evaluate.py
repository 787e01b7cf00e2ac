"""One evaluation for one or many labels, for few labels, and for sets of few images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.data.image_set import ImageSet
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.probing.evaluate import (
    KNN,
    LINEAR,
    cross_validate,
    data_efficiency,
    evaluate_labels,
    label_to_probe,
    low_level_labels,
    online_watch,
    stratified_subset,
)
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import choose_knn, knn_predict
from sparsejepa.randomness import generator

OPTIONS = {"steps": 60, "weight_decays": (1e-4, 1e-2)}


def nested(count: int = 700, train: int = 400, noise: float = 0.5):
    """Clusters with a fine label of 12 classes and a coarse one of 3."""
    draw = generator(0, "clusters")
    fine = torch.randint(12, (count,), generator=draw)
    x = torch.randn(12, 6, generator=draw)[fine] + noise * torch.randn(count, 6, generator=draw)
    labels = {"fine": fine, "coarse": fine // 4}
    first = {name: y[:train] for name, y in labels.items()}
    return x[:train], x[train:], first, {name: y[train:] for name, y in labels.items()}


def test_each_label_is_read_as_if_alone() -> None:
    train_x, test_x, train_y, test_y = nested()
    readings = evaluate_labels(train_x, test_x, train_y, test_y, seed=0, **OPTIONS)
    assert readings.keys() == {"fine", "coarse"}
    for label, reading in readings.items():
        alone = linear_probe(train_x, train_y[label], test_x, test_y[label], seed=0, **OPTIONS)
        assert torch.equal(reading.correct[LINEAR], alone.correct)
        assert torch.equal(reading.correct5, alone.correct5)
        rule = choose_knn(train_x, train_y[label], seed=0)
        assert (reading.chosen["k"], reading.chosen["temperature"]) == rule
        voted = knn_predict(train_x, train_y[label], test_x, *rule)
        assert torch.equal(reading.correct[KNN], voted == test_y[label])
    assert readings["coarse"].correct5.all()


shares = st.floats(0.001, 1.0)


@given(st.integers(1, 6), st.integers(6, 200), shares, shares, st.integers(0, 2**32))
def test_subsets_are_stratified_and_nested(classes, count, one, two, seed) -> None:
    """Each class gives its share, rounded, and one row at least; a smaller set lies in a larger."""
    labels = torch.randint(classes, (count,), generator=generator(seed, "labels"))
    small, large = (stratified_subset(labels, f, seed) for f in sorted((one, two)))
    assert set(small.tolist()) <= set(large.tolist())
    for name, total in zip(*labels.unique(return_counts=True), strict=True):
        expected = max(1, round(max(one, two) * total.item()))
        assert (labels[large] == name).sum() == expected
    assert (large.diff() > 0).all()


def test_the_curve_rises_and_ends_at_the_full_probe() -> None:
    """More labels help where there is noise, and the last point is the probe on all rows."""
    train_x, test_x, train_y, test_y = nested(3000, 2000, noise=0.9)
    data = (train_x, train_y["fine"], test_x, test_y["fine"])
    curve = data_efficiency(*data, seed=0, **OPTIONS)
    assert list(curve) == [0.01, 0.1, 1.0]
    top1 = [result.top1 for result in curve.values()]
    assert top1[0] < top1[1] - 0.02 and top1[1] < top1[2]
    full = linear_probe(*data, seed=0, **OPTIONS)
    assert torch.equal(curve[1.0].predictions, full.predictions)


def test_cross_validation_of_planted_and_of_random_labels() -> None:
    """Planted classes are all found; labels without relation are guessed: no row sees its own."""
    y = torch.arange(160) % 4
    x = 10 * torch.eye(4)[y] + torch.randn(160, 4, generator=generator(3))
    options = {"seed": 0, "steps": 100, "weight_decays": (1e-3, 1e-1)}
    assert cross_validate(x, y, **options).correct.all()
    # More columns than rows: a probe that has seen a row's label would know it.
    noise = torch.randn(160, 300, generator=generator(4))
    share = cross_validate(noise, y, **options).correct.double().mean().item()
    assert abs(share - 0.25) < 5 * (0.25 * 0.75 / 160) ** 0.5  # standard deviations


def test_a_class_of_one_image_counts_as_wrong() -> None:
    y = torch.cat([torch.arange(60) % 2, torch.tensor([2])])
    x = 10 * torch.eye(3)[y] + torch.randn(61, 3, generator=generator(6))
    correct = cross_validate(x, y, seed=0, steps=100).correct
    assert correct[:60].all() and not correct[60]
    # The fold without the only image of a class trains on one class, which is then the answer.
    y = torch.tensor([0] * 29 + [1])
    found = cross_validate(torch.randn(30, 3, generator=generator(7)), y, seed=0, steps=10)
    assert torch.equal(found.majority, y == 0) and not found.correct[29]


def split(name: str, rows: int, candidates: tuple[str, ...] = (), **labels) -> ImageSet:
    known = {key: torch.tensor(values) for key, values in labels.items()}
    images = torch.zeros(rows, 8, 8, 3, dtype=torch.uint8)
    return ImageSet("toy", name, images, known, {}, "", "local Parquet", {}, candidates)


def test_clevr_columns_become_vtab_classes() -> None:
    clevr = split("train", 4, count=[3, 10, 7, 4], closest_distance_label=[0, 0, 4, 5])
    labels = {name: classes.tolist() for name, classes in low_level_labels(clevr).items()}
    assert labels == {"count": [0, 7, 4, 1], "distance": [0, 0, 4, 5]}
    with pytest.raises(ValueError, match="3 to 10 objects, but toy has 2 to 5"):
        low_level_labels(split("train", 4, count=[3, 2, 5, 5]))
    with pytest.raises(ValueError, match="no column 'count'; it has .'size'"):
        low_level_labels(split("train", 4, size=[1, 2, 3, 4]))


def test_the_watch_reads_a_set_that_is_sorted_by_class() -> None:
    """Its last images are of a class that the first ones lack: both are drawn, else as they are."""
    config = EncoderConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2)
    encoder = Encoder(config, generator(0, "weights"))
    y = torch.arange(80) * 4 // 80
    tint = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]])[y]
    noise = torch.randint(20, (80, 8, 8, 3), generator=generator(8))
    images = (tint[:, None, None] * 0.9 + noise).byte()
    assert online_watch(images, y, queries=20)(encoder)["knn"] > 0.9
    order = torch.randperm(80, generator=generator(9))
    images, y = images[order], y[order]
    kept = online_watch(images, y, queries=20)(encoder)
    # Rows before the queries and beyond the bank are of no influence.
    images[10:60] = 0
    assert online_watch(images, y, queries=20, bank=10)(encoder)["rankme"] == kept["rankme"]
    del kept["knn"]
    assert online_watch(images, None, queries=20)(encoder) == kept
    with pytest.raises(ValueError, match="80 images leave none beside 80 queries"):
        online_watch(images, None, queries=80)


def test_labels_are_checked_before_training() -> None:
    train = split("train", 6, label=[0, 1, 2] * 2)
    assert label_to_probe(train, split("test", 2, label=[0, 1])) == "label"
    assert label_to_probe(split("train", 6), split("test", 2)) is None
    for images, answers, message in (
        (split("train", 6, ("shape", "count")), split("test", 2), "unclear .* shape, count"),
        (train, split("test", 2), "toy test has no label 'label'"),
        (train, split("test", 2, label=[0, -1]), "test label -1 is outside 0 to 2"),
        (train, split("test", 1, label=[0]), "2 test images, not 6 and 1"),
        (split("train", 5, label=[0, 1, 0, 1, 0]), split("test", 2, label=[0, 1]), "not 5 and 2"),
    ):
        with pytest.raises(ValueError, match=message):
            label_to_probe(images, answers)
