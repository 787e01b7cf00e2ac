"""One evaluation for one or many labels, for few labels, and for sets of few images."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.data.image_set import ImageSet
from sparsejepa.data.scenes import draw_scenes
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.probing.evaluate import (
    KNN,
    LINEAR,
    cross_validate,
    data_efficiency,
    evaluate,
    evaluate_labels,
    label_to_probe,
    low_level_labels,
    online_watch,
    stratified_folds,
    stratified_subset,
)
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import choose_knn, knn_predict
from sparsejepa.randomness import generator

OPTIONS = {"steps": 60, "weight_decays": (1e-4, 1e-2)}


def nested(count: int = 700, train: int = 400):
    """Clusters with a fine label of 12 classes and a coarse one of 3."""
    draw = generator(0, "clusters")
    fine = torch.randint(12, (count,), generator=draw)
    x = torch.randn(12, 6, generator=draw)[fine] + 0.5 * torch.randn(count, 6, generator=draw)
    labels = {"fine": fine, "coarse": fine // 4}
    first = {name: y[:train] for name, y in labels.items()}
    return x[:train], x[train:], first, {name: y[train:] for name, y in labels.items()}


def test_each_label_is_read_as_if_alone() -> None:
    """The same predictions as one probe and one vote for every label, image by image."""
    train_x, test_x, train_y, test_y = nested()
    readings = evaluate_labels(train_x, test_x, train_y, test_y, seed=0, **OPTIONS)
    assert readings.keys() == {"fine", "coarse"}
    for label, reading in readings.items():
        alone = linear_probe(train_x, train_y[label], test_x, test_y[label], seed=0, **OPTIONS)
        assert torch.equal(reading.correct[LINEAR], alone.correct)
        assert torch.equal(reading.correct5, alone.correct5)
        rule = choose_knn(train_x, train_y[label], seed=0)
        assert reading.chosen["k"] == rule.k and reading.chosen["temperature"] == rule.temperature
        voted = knn_predict(train_x, train_y[label], test_x, rule.k, rule.temperature)
        assert torch.equal(reading.correct[KNN], voted == test_y[label])
    assert readings["coarse"].correct5.all()


def test_few_rows_still_have_neighbours() -> None:
    """With fewer than ten training rows the nearest one decides."""
    train_x, test_x, train_y, test_y = nested(40, 9)
    coarse = ({"coarse": train_y["coarse"]}, {"coarse": test_y["coarse"].clamp(max=2)})
    reading = evaluate_labels(train_x, test_x, *coarse, seed=0, **OPTIONS)["coarse"]
    assert reading.chosen["k"] == 1


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((("fine", "coarse"), ("coarse",)), "same labels, not fine, coarse and coarse"),
        ((("coarse",), ("fine", "coarse")), "same labels, not coarse and fine, coarse"),
    ],
)
def test_labels_must_be_on_both_sides(
    sides: tuple[tuple[str, ...], tuple[str, ...]], message: str
) -> None:
    """Names that differ are a one-sentence error; none is passed over, whichever side has more."""
    train_x, test_x, *labels = nested()
    train_y, test_y = (
        {name: y[name] for name in side} for y, side in zip(labels, sides, strict=True)
    )
    with pytest.raises(ValueError, match=message):
        evaluate_labels(train_x, test_x, train_y, test_y, seed=0)


def clusters(count: int, classes: int, noise: float):
    draw = generator(0, "clusters")
    y = torch.arange(count) % classes
    y = y[torch.randperm(count, generator=draw)]
    centres = torch.randn(classes, 8, generator=draw)
    return centres[y] + noise * torch.randn(count, 8, generator=draw), y


@given(
    st.integers(1, 6),
    st.integers(6, 200),
    st.floats(0.001, 1.0),
    st.floats(0.001, 1.0),
    st.integers(0, 2**32),
)
def test_subsets_are_stratified_and_nested(classes, count, one, two, seed) -> None:
    """Each class gives its share, rounded, and one row at least; a smaller set lies in a larger."""
    labels = torch.randint(classes, (count,), generator=generator(seed, "labels"))
    small, large = (stratified_subset(labels, f, seed) for f in sorted((one, two)))
    assert set(small.tolist()) <= set(large.tolist())
    for name, total in zip(*labels.unique(return_counts=True), strict=True):
        expected = max(1, round(max(one, two) * total.item()))
        assert (labels[large] == name).sum() == expected
    assert (large.diff() > 0).all()


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_fractions_outside_zero_to_one_are_refused(fraction: float) -> None:
    """One sentence that names the value."""
    with pytest.raises(ValueError, match="above 0 and at most 1, not"):
        stratified_subset(torch.arange(5), fraction, 0)


def test_the_curve_rises_and_ends_at_the_full_probe() -> None:
    """More labels help where there is noise, and the last point is the probe on all rows."""
    x, y = clusters(3000, 10, noise=0.9)
    data = (x[:2000], y[:2000], x[2000:], y[2000:])
    curve = data_efficiency(*data, seed=0, **OPTIONS)
    assert list(curve) == [0.01, 0.1, 1.0]
    top1 = [result.top1 for result in curve.values()]
    assert top1[0] < top1[1] - 0.02 and top1[1] < top1[2]
    full = linear_probe(*data, seed=0, **OPTIONS)
    assert torch.equal(curve[1.0].predictions, full.predictions)


def test_labels_that_are_left_out_are_not_read() -> None:
    """Wrong labels outside the fraction change nothing."""
    x, y = clusters(1500, 5, noise=0.5)
    rows = stratified_subset(y[:1000], 0.1, 0)
    spoilt = y.clone()
    spoilt[:1000] = y[:1000].roll(1)
    spoilt[rows] = y[rows]
    one, two = (
        linear_probe(x[rows], labels[rows], x[1000:], y[1000:], seed=0, **OPTIONS)
        for labels in (y, spoilt)
    )
    assert torch.equal(one.predictions, two.predictions)
    curve = data_efficiency(
        x[:1000], y[:1000], x[1000:], y[1000:], seed=0, fractions=(0.1,), **OPTIONS
    )
    assert torch.equal(curve[0.1].predictions, one.predictions)


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


def test_two_classes_of_which_one_has_one_image() -> None:
    """The fold without it trains on one class, which is then the answer."""
    y = torch.tensor([0] * 29 + [1])
    found = cross_validate(torch.randn(30, 3, generator=generator(7)), y, seed=0, steps=10)
    assert found.majority[:29].all() and not found.correct[29]


def photographs(**columns: list[int]) -> ImageSet:
    """Four images with columns of numbers, as local Parquet gives them."""
    factors = {name: torch.tensor(values) for name, values in columns.items()}
    images = torch.zeros(4, 8, 8, 3, dtype=torch.uint8)
    return ImageSet("clevr", "train", images, {}, {}, "", "local Parquet", factors)


def test_clevr_columns_become_vtab_classes() -> None:
    """Counts from 3 become classes from 0, and the label of the distance is taken as it is."""
    clevr = photographs(count=[3, 10, 7, 4])
    assert low_level_labels(clevr).keys() == {"count"}
    clevr.labels["closest_distance_label"] = torch.tensor([0, 0, 4, 5])
    labels = low_level_labels(clevr)
    assert labels["count"].tolist() == [0, 7, 4, 1]
    assert labels["distance"].tolist() == [0, 0, 4, 5]


def test_scenes_bring_both_tasks() -> None:
    """Drawn scenes: the classes agree with the factors that the images were drawn from."""
    drawn = draw_scenes(40, 0, "test")
    known = (drawn.labels, drawn.label_names, "", "drawn", drawn.factors)
    labels = low_level_labels(ImageSet("scenes", "test", drawn.images, *known))
    assert torch.equal(labels["count"] + 3, drawn.factors["present"].sum(1))
    assert labels["distance"].min() >= 0 and labels["distance"].max() <= 5


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"count": [3, 2, 5, 5]}, "3 to 10 objects, but clevr has 2 to 5"),
        ({"count": [3, 11, 5, 5]}, "3 to 10 objects, but clevr has 3 to 11"),
        ({"size": [1, 2, 3, 4]}, "no column 'count'; it has size"),
    ],
)
def test_a_column_that_is_no_count_is_refused(columns, message: str) -> None:
    """It is not shifted into classes silently."""
    with pytest.raises(ValueError, match=message):
        low_level_labels(photographs(**columns))


def coloured(count: int, classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Images sorted by class, of which every class has its own grey."""
    y = torch.arange(count) * classes // count
    noise = torch.randint(20, (count, 8, 8, 3), generator=generator(8))
    tint = torch.tensor([[255, 0, 0], [0, 255, 0], [0, 0, 255], [255, 255, 0]])
    return (tint[y][:, None, None] * 0.9 + noise).byte(), y


ENCODER = EncoderConfig(image_size=8, patch_size=4, width=16, depth=1, heads=2)


def test_the_watch_reads_a_set_that_is_sorted_by_class() -> None:
    """Its last images are of a class that the first ones lack: both are drawn, else as they are."""
    encoder = Encoder(ENCODER, generator(0, "weights"))
    images, y = coloured(80, 4)
    assert online_watch(images, y, queries=20)(encoder)["knn"] > 0.9
    order = torch.randperm(80, generator=generator(9))
    images, y = images[order], y[order]
    kept = online_watch(images, y, queries=20)(encoder)
    # Rows before the queries and beyond the bank are of no influence.
    images[10:60] = 0
    assert online_watch(images, y, queries=20, bank=10)(encoder)["rankme"] == kept["rankme"]


def test_the_watch_without_labels_has_no_accuracy() -> None:
    """Rank and spread need no label, and are those of the same images."""
    encoder = Encoder(ENCODER, generator(0, "weights"))
    images, y = coloured(40, 4)
    order = torch.randperm(40, generator=generator(9))
    found = online_watch(images[order], y[order], queries=10)(encoder)
    del found["knn"]
    assert online_watch(images[order], None, queries=10)(encoder) == found
    with pytest.raises(ValueError, match="40 images leave none beside 40 queries"):
        online_watch(images, None, queries=40)


def test_wide_features_get_a_smaller_sweep() -> None:
    """One label is the same as many, and raw pixels of 1,200 columns are probed."""
    y = torch.arange(60) % 2
    x = torch.randn(60, 1200, generator=generator(10)) + 3 * y[:, None]
    found = evaluate(x[:40], x[40:], y[:40], y[40:], seed=0)
    assert found.correct[LINEAR].all() and found.chosen["learning_rate"] == 1e-2
    many = evaluate_labels(x[:40], x[40:], {"a": y[:40]}, {"a": y[40:]}, seed=0)["a"]
    assert torch.equal(many.correct[KNN], found.correct[KNN]) and many.chosen == found.chosen


def split(name: str, count: int, candidates: tuple[str, ...] = (), **labels) -> ImageSet:
    """A split of blank images with these labels."""
    known = {key: torch.tensor(values) for key, values in labels.items()}
    images = torch.zeros(count, 8, 8, 3, dtype=torch.uint8)
    return ImageSet("toy", name, images, known, {}, "", "local Parquet", {}, candidates)


def test_labels_are_checked_before_training() -> None:
    """The label that is probed, none, or a sentence about what would fail hours later."""
    train = split("train", 6, label=[0, 1, 2] * 2)
    assert label_to_probe(train, split("test", 2, label=[0, 1])) == "label"
    assert label_to_probe(split("train", 6), split("test", 2)) is None
    for images, answers, message in (
        (split("train", 6, ("shape", "count")), split("test", 2), "unclear .* shape, count"),
        (train, split("test", 2), "toy test has no label 'label'"),
        (train, split("test", 2, label=[0, -1]), "test label -1 is outside 0 to 2"),
        (train, split("test", 2, label=[0, 3]), "test label 3 is outside 0 to 2"),
        (split("train", 6, label=[1] * 6), split("test", 2, label=[1] * 2), "All 6 training"),
        (train, split("test", 1, label=[0]), "2 test images, not 6 and 1"),
        (split("train", 5, label=[0, 1, 0, 1, 0]), split("test", 2, label=[0, 1]), "not 5 and 2"),
    ):
        with pytest.raises(ValueError, match=message):
            label_to_probe(images, answers)
