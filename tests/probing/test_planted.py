"""Probes answer what was planted, guess where nothing is, and say what they cannot work with."""

import pytest
import torch
from scipy import stats
from torch import Tensor

from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import knn_predict
from sparsejepa.randomness import generator

CLASSES, TRAIN, TEST = 6, 600, 900


def planted() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """A one-hot of the class among columns of noise, rotated so that no column shows it."""
    draw = generator(0, "planted")
    y = torch.randint(CLASSES, (TRAIN + TEST,), generator=draw)
    x = torch.randn(TRAIN + TEST, 20, generator=draw)
    x[:, :CLASSES] = 25 * torch.eye(CLASSES)[y] + 0.1 * x[:, :CLASSES]
    x = x @ torch.linalg.qr(torch.randn(20, 20, generator=draw, dtype=torch.float64)).Q.float()
    return x[:TRAIN], y[:TRAIN], x[TRAIN:], y[TRAIN:]


PROBES = {
    "linear": lambda data: linear_probe(*data, seed=0, steps=100).correct,
    "nearest": lambda data: knn_predict(*data[:3], k=20) == data[3],
}


@pytest.mark.parametrize("probe", PROBES)
def test_planted_features_are_read_without_an_error(probe: str) -> None:
    assert PROBES[probe](planted()).all()


@pytest.mark.parametrize("probe", PROBES)
@pytest.mark.parametrize("shuffled", ["test", "all"])
def test_shuffled_labels_are_guessed(probe: str, shuffled: str) -> None:
    """Within the central 99.98 % of the binomial law: no probe sees, or chooses by, test labels."""
    train_x, train_y, test_x, test_y = planted()
    draw = generator(1, "shuffled")
    test_y = torch.randint(CLASSES, (TEST,), generator=draw)
    if shuffled == "all":
        train_y = torch.randint(CLASSES, (TRAIN,), generator=draw)
    correct = PROBES[probe]((train_x, train_y, test_x, test_y))
    low, high = stats.binom.interval(0.9998, TEST, 1 / CLASSES)
    assert low <= int(correct.sum()) <= high
