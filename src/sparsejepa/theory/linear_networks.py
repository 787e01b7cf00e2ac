"""Gradient descent on the matrices of a deep linear JEPA or MAE (Littwin et al., 2407.03475, §3-4).

The losses, for an encoder W = W_L … W_1 and one layer V, all d x d and in float64, are
½ E||V W x - stopgrad(W y)||² (JEPA) and ½ E||V W x - y||² (MAE). They depend on the data through
second moments alone, which need not commute.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from sparsejepa.theory.linear_dynamics import Objective

Start = Literal["aligned", "orthogonal", "unbalanced", "gaussian"]

# exp of this, by which the outer layers of an unbalanced start are scaled up or down.
UNBALANCE = 0.5


@dataclass(frozen=True)
class Moments:
    """Second moments of inputs x and targets y."""

    xx: Float[Tensor, "d d"]  # E[x x^T]
    yx: Float[Tensor, "d d"]  # E[y x^T]


@dataclass(frozen=True)
class Descent:
    """What gradient descent passed through."""

    times: Float[Tensor, "T"]  # the paper's time: depth x learning rate x steps
    encoders: Float[Tensor, "T d d"]  # W = W_L … W_1
    heads: Float[Tensor, "T d d"]  # V
    last: Float[Tensor, "M d d"]  # W_1 … W_L and V after the last step


def initial_network(
    objective: Objective,
    start: Start,
    dimension: int,
    depth: int,
    epsilon: float,
    generator: torch.Generator,
) -> Float[Tensor, "M d d"]:
    """W_1 … W_L and V of a small start, in which every feature has a gain of about epsilon.

    aligned: each layer is epsilon^(1/L) times a random orthogonal matrix; V is epsilon^(1/L) times
    the identity for JEPA and times the transpose of the layers' product for MAE, without which
    features do not decouple. orthogonal: V is a random orthogonal matrix too, still balanced.
    unbalanced: aligned, with layers from e^-½ to e^½ times as large (product 1) and V e^½ times as
    large. gaussian: independent normal entries of variance epsilon^(2/L) / d.
    """
    scale = epsilon ** (1 / depth)
    shape = (depth + 1, dimension, dimension)
    normal = torch.randn(shape, generator=generator, dtype=torch.float64)
    if start == "gaussian":
        return normal * scale / math.sqrt(dimension)
    turns, upper = torch.linalg.qr(normal)
    # With a positive diagonal of R, Q is uniform over the orthogonal matrices.
    turns = turns * upper.diagonal(dim1=-2, dim2=-1).sign()[:, None, :]
    if start != "orthogonal":
        identity = torch.eye(dimension, dtype=torch.float64)
        turns[-1] = identity if objective == "jepa" else product(turns[:-1]).T
    if start == "unbalanced":
        ends = UNBALANCE if depth > 1 else 0.0
        spread = torch.linspace(-ends, ends, depth, dtype=torch.float64)
        turns = turns * torch.cat([spread, spread.new_tensor([UNBALANCE])]).exp()[:, None, None]
    return scale * turns


def product(layers: Float[Tensor, "L d d"]) -> Float[Tensor, "d d"]:
    """W_L … W_1."""
    return reduce(lambda lower, layer: layer @ lower, layers)


def gradient_descent(
    objective: Objective,
    network: Float[Tensor, "M d d"],
    moments: Moments | Callable[[], Moments],
    *,
    step_size: float,
    steps: int,
    every: int,
) -> Descent:
    """Gradient descent, recorded at the start and after each `every` steps.

    `moments` are those of all data, or a function that draws those of the next minibatch.
    """
    *layers, head = (matrix.clone() for matrix in network)
    kept = [(0, product(network[:-1]), network[-1])]
    for step in range(1, steps + 1):
        seen = moments if isinstance(moments, Moments) else moments()
        slopes, head_slope = _slopes(objective, layers, head, seen)
        for layer, slope in zip(layers, slopes, strict=True):
            layer.sub_(slope, alpha=step_size)
        head.sub_(head_slope, alpha=step_size)
        if step % every == 0:
            kept.append((step, product(torch.stack(layers)), head.clone()))
    last = torch.stack([*layers, head])
    if not last.isfinite().all():
        raise FloatingPointError(
            f"Gradient descent diverged at step_size {step_size}; choose a smaller one."
        )
    counts, encoders, heads = zip(*kept, strict=True)
    times = torch.tensor(counts, dtype=torch.float64) * (len(layers) * step_size)
    return Descent(times, torch.stack(encoders), torch.stack(heads), last)


def minibatches(
    x: Float[Tensor, "N d"], y: Float[Tensor, "N d"], size: int, generator: torch.Generator
) -> Callable[[], Moments]:
    """Moments of `size` samples drawn with replacement, others at every call."""

    def draw() -> Moments:
        rows = torch.randint(len(x), (size,), generator=generator)
        return sample_moments(x[rows], y[rows])

    return draw


def sample_moments(x: Float[Tensor, "N d"], y: Float[Tensor, "N d"]) -> Moments:
    """Second moments of samples, not centred."""
    return Moments(x.T @ x / len(x), y.T @ x / len(x))


def imbalance(network: Float[Tensor, "M d d"]) -> Float[Tensor, "L d d"]:
    """W_{a+1}^T W_{a+1} - W_a W_a^T, V above W_L included; 0 is balanced, and kept by the flow."""
    lower, upper = network[:-1], network[1:]
    return upper.mT @ upper - lower @ lower.mT


def _slopes(
    objective: Objective, layers: list[Tensor], head: Tensor, moments: Moments
) -> tuple[list[Tensor], Tensor]:
    """Derivatives of the loss in every layer and in V, for JEPA with the target held.

    With R = V W S_xx - W S_yx (JEPA) or V W S_xx - S_yx (MAE), the derivative in V is R W^T and
    that in W is V^T R (2407.03475, Eqs. 4 and 5 [secondary]; the tests compare with autograd).
    """
    # below[a] is the product of the layers up to index a.
    below = list(accumulate(layers, lambda lower, layer: layer @ lower))
    encoder = below[-1]
    target = encoder @ moments.yx if objective == "jepa" else moments.yx
    residual = head @ encoder @ moments.xx - target
    above, slopes = head.T @ residual, []
    for index in range(len(layers) - 1, 0, -1):
        slopes.append(above @ below[index - 1].T)
        above = layers[index].T @ above
    slopes.append(above)
    return slopes[::-1], residual @ encoder.T
