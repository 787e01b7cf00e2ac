"""Linear probe: multinomial logistic regression, the whole sweep in one batched pass."""

import itertools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor

from sparsejepa.probing.features import TestX, TestY, TrainX, TrainY, as_float
from sparsejepa.randomness import generator

LEARNING_RATES = (1e-2, 3e-2)
WEIGHT_DECAYS = (1e-8, 1e-7, 1e-6, 1e-5, 1e-4, 1e-3, 1e-2, 1e-1)
BATCH = 512  # rows of a step
_ROWS = 4096  # of features in float64 at a time
VALIDATION_FRACTION = 0.1  # of the training rows, drawn by the seed


@dataclass(frozen=True)
class LinearProbeResult:
    """What the chosen probe, trained on all training rows, does on the test rows."""

    top1: float  # share of test rows that are `correct`, 0 to 1
    top5: float  # share of test rows that are `correct5`, 0 to 1
    learning_rate: float  # chosen on the validation rows
    weight_decay: float  # chosen likewise; 1 / (C N) in scikit-learn's terms
    validation_top1: float  # of that choice, before retraining, 0 to 1
    predictions: Int64[Tensor, "M"]  # best class of each test row
    correct: Bool[Tensor, "M"]  # predictions == labels, for intervals and paired comparisons
    correct5: Bool[Tensor, "M"]  # the label is among the best min(5, classes)


def linear_probe(
    train_x: TrainX,
    train_y: TrainY,
    test_x: TestX,
    test_y: TestY,
    *,
    seed: int,
    learning_rates: tuple[float, ...] = LEARNING_RATES,
    weight_decays: tuple[float, ...] = WEIGHT_DECAYS,
    steps: int = 1500,
    whitening: "Whitening | None" = None,
) -> LinearProbeResult:
    """Trains all learning rates x weight decays together, keeps the best on held-out training rows.

    The linear evaluation of I-JEPA (Assran et al. 2023, appendix A.2), `steps` of Adam on 512 rows.
    The test rows are read once, after the choice. Classes are 0 to the largest training label. Runs
    on the device of `train_x`, in float32 or, of float64 features, float64. The seed fixes
    split and batches. `whitening` is `whiten(train_x)`, if known already.

    ValueError: lengths that differ, features that are not finite, labels as in `check_labels`.

    Example:
        >>> y = torch.arange(40) % 2
        >>> x = torch.stack([y - 0.5, torch.ones(40)], dim=1)
        >>> linear_probe(x[:20], y[:20], x[20:], y[20:], seed=0, steps=50).top1
        1.0
    """
    for name, rows, y in (("training", train_x, train_y), ("test", test_x, test_y)):
        if len(rows) != len(y):
            raise ValueError(f"There are {len(rows)} {name} features but {len(y)} labels.")
    train_x, test_x = as_float(train_x), as_float(test_x)
    test_x, classes = test_x.to(train_x), check_labels(train_y, test_y)
    train_y, test_y = (y.long().to(train_x.device) for y in (train_y, test_y))
    grid = list(itertools.product(learning_rates, weight_decays))
    rates, decays = torch.tensor(grid, device=train_x.device).unbind(dim=1)
    order = torch.randperm(len(train_x), generator=generator(seed, "probe split")).to(rates.device)
    held, rest = order.tensor_split([max(1, round(VALIDATION_FRACTION * len(order)))])
    # One change of coordinates for both fits: it reads no label, and costs a d x d eigenproblem.
    whitening = whiten(train_x) if whitening is None else whitening
    x = whitening(train_x)
    penalty = whitening.penalty[:, None, None] * decays[:, None]
    weights = _train(x, train_y, rest, rates, penalty, steps, seed)
    right = _logits(weights, x[held]).argmax(dim=-1) == train_y[held, None]
    validation = right.double().mean(dim=0)
    best = int(validation.argmax())
    weights = _train(x, train_y, order, rates[[best]], penalty[:, [best]], steps, seed)
    logits = _logits(weights, whitening(test_x))[:, 0]
    predictions = logits.argmax(dim=1)
    correct5 = logits.topk(min(5, classes), dim=1).indices.eq(test_y[:, None]).any(dim=1)
    found = [found.cpu() for found in (predictions, predictions == test_y, correct5)]
    top1, top5 = (right.double().mean().item() for right in found[1:])
    return LinearProbeResult(top1, top5, *grid[best], validation[best].item(), *found)


def check_labels(train_y: TrainY, test_y: TestY) -> int:
    """The number of classes, after refusing labels that no probe can be trained or scored on."""
    n, m = len(train_y), len(test_y)
    if n < 2 or m < 1:
        raise ValueError(f"A probe needs 2 training and 1 test rows, not {n} and {m}.")
    if (train_y == train_y[0]).all():
        same = train_y[0].item()
        raise ValueError(f"All {n} training labels are {same}; a probe needs at least 2 classes.")
    classes = int(train_y.max()) + 1
    for name, y in (("training", train_y), ("test", test_y)):
        if len(wrong := y[(y < 0) | (y >= classes)]):
            what = f"The {name} label {wrong[0].item()} is outside 0 to {classes - 1}"
            raise ValueError(f"{what}, the training labels: pass labels of one set of classes.")
    return classes


def _train(
    x: Float[Tensor, "N D"],
    y: TrainY,
    used: Int64[Tensor, "n"],
    rates: Float[Tensor, "P"],
    penalty: Float[Tensor, "D P 1"],
    steps: int,
    seed: int,
) -> Float[Tensor, "D P C"]:
    """Adam on cross-entropy + penalty / 2 |W|^2, cosine to zero, for P probes at once."""
    # The penalty is part of the loss, lest learning rates differ in their minimum.
    weights = x.new_zeros(x.shape[1], len(rates), int(y.max()) + 1)
    first, second = torch.zeros_like(weights), torch.zeros_like(weights)
    beta1, beta2 = 0.9, 0.99
    step, epochs = 0, math.ceil(steps / math.ceil(len(used) / BATCH))
    for epoch in range(epochs):
        order = torch.randperm(len(used), generator=generator(seed, "probe order", epoch))
        for rows in used[order.to(x.device)].split(BATCH)[: steps - step]:
            batch = x[rows]
            # Softmax minus one-hot is the gradient of cross-entropy: no graph is needed.
            error = _logits(weights, batch).softmax(dim=-1)
            error[torch.arange(len(rows), device=x.device), :, y[rows]] -= 1
            gradient = (batch.T @ error.flatten(1)).view_as(weights) / len(rows)
            gradient.addcmul_(penalty, weights)
            first.lerp_(gradient, 1 - beta1)
            second.lerp_(gradient.square_(), 1 - beta2)
            step += 1
            cosine = 0.5 * (1 + math.cos(math.pi * step / steps))
            size = rates[:, None] * (cosine / (1 - beta1**step))
            root = (second / (1 - beta2**step)).sqrt_().add_(1e-8)
            weights.addcmul_(first / root, size, value=-1)
    return weights


def _logits(weights: Float[Tensor, "D P C"], x: Float[Tensor, "N D"]) -> Float[Tensor, "N P C"]:
    return (x @ weights.flatten(1)).view(len(x), *weights.shape[1:])


@dataclass(frozen=True)
class Whitening:
    """An affine change of coordinates of features, and what it does to the penalty |W|^2.

    First-order steps on the correlated features of a vision transformer need thousands of epochs;
    in uncorrelated coordinates of unit variance the same loss takes tens.
    """

    mean: Float[Tensor, "d"]  # of the training features
    axes: Float[Tensor, "d r"]  # standardise, rotate to principal axes, scale to variance 1
    penalty: Float[Tensor, "D"]  # of each squared coordinate of W; D = r + 1, 0 for the bias

    def __call__(self, x: Float[Tensor, "N d"]) -> Float[Tensor, "N D"]:
        """Coordinates of features, and a constant 1 for the bias."""
        coordinates = x.new_ones(len(x), self.axes.shape[1] + 1)
        for part, into in zip(x.split(_ROWS), coordinates.split(_ROWS), strict=True):
            into[:, :-1] = (part - self.mean) @ self.axes
        return coordinates


def whiten(x: TrainX) -> Whitening:
    """The whitening of training features, computed in float64."""
    x = as_float(x)
    # A few rows at a time: a float64 copy of all raw pixels of CIFAR-100 is 1.2 GB.
    mean = torch.stack([part.double().sum(dim=0) for part in x.split(_ROWS)]).sum(dim=0) / len(x)
    covariance = mean.new_zeros(x.shape[1], x.shape[1])
    for part in x.split(_ROWS):
        centred = part.double() - mean
        covariance.addmm_(centred.T, centred, alpha=1 / len(x))
    std = covariance.diagonal().sqrt()
    # A constant feature, up to the rounding of its mean, stays at zero instead of dividing by it.
    std = std.where(std > 1e-12 * mean.abs(), torch.inf)
    variance, axes = torch.linalg.eigh(covariance / std / std[:, None])
    # Below this, float32 features hold rounding only, and any weight would amplify it.
    real = variance > 1e-9 * variance.max()
    variance, axes = variance[real], axes[:, real]
    penalty = torch.cat([1 / variance, variance.new_zeros(1)])
    axes = axes / std[:, None] / variance.sqrt()
    return Whitening(mean.to(x.dtype), axes.to(x.dtype), penalty.to(x.dtype))
