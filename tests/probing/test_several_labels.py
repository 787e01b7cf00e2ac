from collections.abc import Iterator

import jaxtyping
import pytest
import torch

from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import choose_knn, knn_predict
from sparsejepa.probing.several_labels import KNN, LINEAR, TOP5, read_labels
from sparsejepa.randomness import generator

OPTIONS = {"steps": 50, "weight_decays": (1e-4, 1e-2)}


@pytest.fixture
def unchecked() -> Iterator[None]:
    """As users run: without the checks of shapes that tests run with."""
    checking = jaxtyping.config.jaxtyping_disable
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", checking)


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
    readings = read_labels(train_x, test_x, train_y, test_y, seed=0, **OPTIONS)
    assert readings.keys() == {"fine", "coarse"}
    for label, reading in readings.items():
        alone = linear_probe(train_x, train_y[label], test_x, test_y[label], seed=0, **OPTIONS)
        assert torch.equal(reading.correct[LINEAR], alone.correct)
        assert torch.equal(reading.correct[TOP5], alone.correct5)
        rule = choose_knn(train_x, train_y[label], seed=0)
        assert reading.chosen["k"] == rule.k and reading.chosen["temperature"] == rule.temperature
        voted = knn_predict(train_x, train_y[label], test_x, rule.k, rule.temperature)
        assert torch.equal(reading.correct[KNN], voted == test_y[label])
    assert readings["coarse"].correct[TOP5].all()


def test_few_rows_still_have_neighbours() -> None:
    """With fewer than ten training rows the nearest one decides."""
    train_x, test_x, train_y, test_y = nested(40, 9)
    coarse = ({"coarse": train_y["coarse"]}, {"coarse": test_y["coarse"].clamp(max=2)})
    reading = read_labels(train_x, test_x, *coarse, seed=0, **OPTIONS)["coarse"]
    assert reading.chosen["k"] == 1


@pytest.mark.parametrize(
    ("sides", "message"),
    [
        ((("fine", "coarse"), ("coarse",)), "same labels, not fine, coarse and coarse"),
        ((("coarse",), ("fine", "coarse")), "same labels, not coarse and fine, coarse"),
    ],
)
def test_labels_must_be_on_both_sides(
    unchecked: None, sides: tuple[tuple[str, ...], tuple[str, ...]], message: str
) -> None:
    """Names that differ are a one-sentence error; none is passed over, whichever side has more."""
    train_x, test_x, *labels = nested()
    train_y, test_y = (
        {name: y[name] for name in side} for y, side in zip(labels, sides, strict=True)
    )
    with pytest.raises(ValueError, match=message):
        read_labels(train_x, test_x, train_y, test_y, seed=0)


def test_labels_must_be_of_the_rows(unchecked: None) -> None:
    """One label too few: where the checks of shapes are on, they would speak first."""
    train_x, test_x, train_y, test_y = nested()
    with pytest.raises(ValueError, match="400 training features but 399 labels"):
        read_labels(train_x, test_x, {n: y[1:] for n, y in train_y.items()}, test_y, seed=0)
