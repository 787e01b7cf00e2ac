"""Probes answer what was planted, guess where nothing is, and say what they cannot work with."""

from collections.abc import Callable

import pytest
import torch
from scipy import stats
from torch import Tensor

from sparsejepa.data.scenes import draw_scenes
from sparsejepa.probing.features import pixel_features, pooled_features
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import knn_predict
from sparsejepa.randomness import generator
from tests.probing.test_features import encoder

CLASSES, TRAIN, TEST = 6, 600, 900
Data = tuple[Tensor, Tensor, Tensor, Tensor]


def planted(seed: int = 0) -> Data:
    """A one-hot of the class among columns of noise, rotated so that no column shows it."""
    draw = generator(seed, "planted")
    y = torch.randint(CLASSES, (TRAIN + TEST,), generator=draw)
    x = torch.randn(TRAIN + TEST, 20, generator=draw)
    x[:, :CLASSES] = 25 * torch.eye(CLASSES)[y] + 0.1 * x[:, :CLASSES]
    x = x @ torch.linalg.qr(torch.randn(20, 20, generator=draw, dtype=torch.float64)).Q.float()
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


def linear(data: Data, seed: int = 0) -> Tensor:
    return linear_probe(*data, seed=seed, steps=100).correct


def nearest(data: Data, seed: int = 0) -> Tensor:
    return knn_predict(*data[:3], k=20) == data[3]


PROBES = [linear, nearest]


def assert_guessed(correct: Tensor, classes: int) -> None:
    """As many right as guesses would be, within the central 99.98 % of the binomial law."""
    low, high = stats.binom.interval(0.9998, len(correct), 1 / classes)
    assert low <= int(correct.sum()) <= high


@pytest.mark.parametrize("probe", PROBES)
def test_planted_features_are_read_without_an_error(probe: Callable[..., Tensor]) -> None:
    """100 % of 900 test rows."""
    assert probe(planted()).all()


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("shuffled", ["test", "all"])
def test_shuffled_labels_are_guessed(probe: Callable[..., Tensor], shuffled: str) -> None:
    """Chance: test labels have no relation to the features, and training labels may have none.

    A probe that saw test labels, or chose its settings by them, would be above it.
    """
    train_x, train_y, test_x, test_y = planted()
    draw = generator(1, "shuffled")
    test_y = torch.randint(CLASSES, (TEST,), generator=draw)
    if shuffled == "all":
        train_y = torch.randint(CLASSES, (TRAIN,), generator=draw)
    assert_guessed(probe((train_x, train_y, test_x, test_y)), CLASSES)


@pytest.mark.parametrize("probe", PROBES)
def test_labels_shuffled_over_an_encoders_features_are_guessed(
    probe: Callable[..., Tensor],
) -> None:
    """Features of scenes, which hold much, but nothing about these labels."""
    shown = draw_scenes(500, 0, "train").images[:, ::4, ::4].contiguous()
    x = pooled_features(encoder(), shown)
    y = torch.randint(4, (500,), generator=generator(2))
    assert_guessed(probe((x[:200], y[:200], x[200:], y[200:])), 4)


def test_planted_pixels_are_read() -> None:
    """The raw-pixel control reads a class that is written into the image."""
    y = torch.arange(400) % 3
    shown = torch.randint(60, (400, 4, 4, 3), generator=generator(3)).byte()
    shown[torch.arange(400), 0, y, 1] = 255
    x, q = pixel_features(shown[:300], shown[300:])
    assert linear_probe(x, y[:300], q, y[300:], seed=0, steps=100).top1 == 1.0
