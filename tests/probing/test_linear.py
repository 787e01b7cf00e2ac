import dataclasses

import pytest
import torch
from sklearn.linear_model import LogisticRegression

from sparsejepa.probing.linear import VALIDATION_FRACTION, linear_probe, whiten
from sparsejepa.randomness import generator


def problem(count: int, classes: int, width: int, gap: float, seed: int = 0):
    """Gaussian classes seen through a badly conditioned mixing, as features of an encoder are."""
    draw = generator(seed, "problem")
    centres = gap * torch.randn(classes, width, generator=draw)
    labels = torch.randint(classes, (count,), generator=draw)
    labels[:classes] = torch.arange(classes)
    x = centres[labels] + torch.randn(count, width, generator=draw)
    mixing = torch.randn(width, width, generator=draw) * torch.logspace(0, -2, width)[:, None]
    return x @ mixing + 3, labels


def halves(x: torch.Tensor, y: torch.Tensor, count: int):
    return x[:count], y[:count], x[count:], y[count:]


def scikit_learn(train_x, train_y, decay: float):
    """Scores of logistic regression on standardised features, trained to convergence."""
    x = train_x.double()
    mean, std = x.mean(0), x.std(0)
    model = LogisticRegression(C=1 / (decay * len(x)), solver="newton-cholesky", tol=1e-8)
    model.fit((x - mean) / std, train_y)
    return lambda test_x, test_y: model.score((test_x.double() - mean) / std, test_y)


def test_sweep_agrees_with_scikit_learn() -> None:
    """Within 0.3 points of logistic regression whose C was chosen on the same validation rows.

    The problem is neither trivial nor hopeless, and five of eight is easier than one.
    """
    x, y = problem(12_000, 8, 24, gap=0.45)
    train_x, train_y, test_x, test_y = halves(x, y, 2_000)
    decays = (1e-4, 1e-2, 1.0)
    order = torch.randperm(2_000, generator=generator(0, "probe split"))
    held, rest = order.tensor_split([round(VALIDATION_FRACTION * 2_000)])

    def validation(decay: float) -> float:
        return scikit_learn(train_x[rest], train_y[rest], decay)(train_x[held], train_y[held])

    best = max(decays, key=validation)
    expected = scikit_learn(train_x, train_y, best)(test_x, test_y)
    result = linear_probe(train_x, train_y, test_x, test_y, seed=0, weight_decays=decays)
    assert result.weight_decay == best
    assert result.top1 == pytest.approx(expected, abs=0.003)
    assert 0.5 < result.top1 < 0.8 < result.top5 < 1.0


def test_test_labels_do_not_influence_the_choice() -> None:
    train_x, train_y, test_x, test_y = halves(*problem(500, 5, 8, gap=0.7), 400)
    options = {"seed": 0, "steps": 100}
    result = linear_probe(train_x, train_y, test_x, test_y, **options)
    permuted = linear_probe(train_x, train_y, test_x, test_y.flip(0), **options)
    for name in ("learning_rate", "weight_decay", "validation_top1"):
        assert getattr(permuted, name) == getattr(result, name)
    assert torch.equal(permuted.predictions, result.predictions)
    assert permuted.top1 != result.top1


def test_deterministic_to_the_bit_and_by_seed() -> None:
    data = halves(*problem(500, 5, 8, gap=0.5), 400)
    first, again, other = (linear_probe(*data, seed=s, steps=50) for s in (0, 0, 1))
    for field in dataclasses.fields(first):
        one, two = getattr(first, field.name), getattr(again, field.name)
        assert torch.equal(one, two) if isinstance(one, torch.Tensor) else one == two
    assert first.validation_top1 != other.validation_top1


def test_units_of_features_do_not_matter() -> None:
    train_x, train_y, test_x, test_y = halves(*problem(500, 5, 8, gap=0.7), 400)
    scale, shift = torch.logspace(-2, 2, 8), torch.linspace(-3, 3, 8)
    one, two = (
        linear_probe(a * train_x + b, train_y, a * test_x + b, test_y, seed=0, steps=100)
        for a, b in ((1, 0), (scale, shift))
    )
    assert (one.predictions == two.predictions).double().mean() >= 0.98


def test_constant_and_repeated_features_are_harmless() -> None:
    """Dead and duplicate units make the covariance singular, not the probe."""
    x, y = problem(600, 4, 8, gap=6.0)
    wide = torch.cat([x, x, torch.full((600, 3), 0.3)], dim=1)
    assert linear_probe(*halves(wide, y, 400), seed=0, steps=300).top1 == 1.0


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        (1, -1, "training label -1 is outside 0 to 3"),
        (3, 9, "test label 9 is outside 0 to 3"),
        (1, 2, "All 40 training labels are 2; a probe needs at least 2"),
        (2, float("inf"), "Features contain NaN or infinity"),
    ],
)
def test_bad_values_are_refused(part: int, value: float, message: str) -> None:
    data = [t.clone() for t in halves(*problem(60, 4, 3, gap=1.0), 40)]
    data[part][7 if "All" not in message else slice(None)] = value
    with pytest.raises(ValueError, match=message):
        linear_probe(*data, seed=0)


def test_whitening_in_parts_is_whitening() -> None:
    """More rows than are read at once: coordinates of mean 0 and covariance 1, to rounding."""
    x = torch.randn(5000, 3, generator=generator(0)) @ torch.tensor(
        [[1.0, 2.0, 0.0], [0.0, 3.0, 1.0], [0.0, 0.0, 0.1]]
    )
    coordinates = whiten(x)(x)[:, :-1].double()
    torch.testing.assert_close(
        coordinates.T @ coordinates / len(x), torch.eye(3).double(), rtol=0, atol=1e-4
    )
    assert coordinates.mean(dim=0).abs().max() < 1e-4
