"""Gradient descent on the matrices of a deep linear JEPA or MAE (Littwin et al., 2407.03475, §3-4).

The losses, for an encoder W = W_L … W_1 and one layer V, all d x d and in float64, are
½ E||V W x - stopgrad(W y)||² (JEPA) and ½ E||V W x - y||² (MAE). They depend on the data through
second moments alone.

The theory needs S_xx = E[x x^T] and S_yx = E[y x^T] diagonal in one basis. Else features are the
generalised eigenpairs S_yx e = rho S_xx e. Their rho are the eigenvalues of the regression matrix
S_yx S_xx^-1, and of V at any fixed point of JEPA with an invertible encoder; at any of MAE, V W is
that matrix [derived here]. That JEPA's *order* follows these pairs is a claim of an unreviewed
formalisation [secondary]; `learned_values` measures it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce
from itertools import accumulate
from typing import Literal

import torch
from jaxtyping import Float
from scipy.linalg import eigh
from torch import Generator, Tensor

from sparsejepa.theory.linear_dynamics import Objective, PerFeature

Start = Literal["aligned", "orthogonal", "unbalanced", "gaussian"]
Network = Float[Tensor, "M d d"]  # W_1 … W_L and V
Samples, Pair = Float[Tensor, "N d"], Float[Tensor, "2"]
UNBALANCE = 0.5  # by exp of it the outer layers of an unbalanced start are scaled up or down


@dataclass(frozen=True)
class Moments:
    """Second moments of inputs x and targets y."""

    xx: Float[Tensor, "d d"]  # E[x x^T]
    yx: Float[Tensor, "d d"]  # E[y x^T]


# Moments of all data, or a function that draws those of the next minibatch.
Data = Moments | Callable[[], Moments]


@dataclass(frozen=True)
class Descent:
    """What gradient descent passed through."""

    times: Float[Tensor, "T"]  # the paper's time: depth x learning rate x steps
    encoders: Float[Tensor, "T d d"]  # W
    heads: Float[Tensor, "T d d"]  # V
    last: Network


def initial_network(
    objective: Objective, start: Start, dimension: int, depth: int, epsilon: float, draws: Generator
) -> Network:
    """W_1 … W_L and V of a small start, in which every feature has a gain of about epsilon.

    aligned: epsilon^(1/L) times random orthogonal layers, and a V that decouples features: the
    identity for JEPA, the transpose of the layers' product for MAE. orthogonal: V is random too,
    still balanced. unbalanced: aligned, with layers from e^-½ to e^½ times as large (product 1) and
    V e^½ times as large. gaussian: independent normal entries of variance epsilon^(2/L) / d.
    """
    scale = epsilon ** (1 / depth)
    shape = (depth + 1, dimension, dimension)
    normal = torch.randn(shape, generator=draws, dtype=torch.float64)
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
    objective: Objective, network: Network, data: Data, *, step_size: float, steps: int, every: int
) -> Descent:
    """Gradient descent, recorded at the start and after each `every` steps."""
    *layers, head = (matrix.clone() for matrix in network)
    kept = [(0, product(network[:-1]), network[-1])]
    for step in range(1, steps + 1):
        seen = data if isinstance(data, Moments) else data()
        slopes, head_slope = _slopes(objective, layers, head, seen)
        for layer, slope in zip(layers, slopes, strict=True):
            layer.sub_(slope, alpha=step_size)
        head.sub_(head_slope, alpha=step_size)
        if step % every == 0:
            kept.append((step, product(torch.stack(layers)), head.clone()))
    last = torch.stack([*layers, head])
    if not last.isfinite().all():
        raise FloatingPointError(
            f"Descent diverged at step_size {step_size}; choose a smaller one."
        )
    counts, encoders, heads = zip(*kept, strict=True)
    times = torch.tensor(counts, dtype=torch.float64) * (len(layers) * step_size)
    return Descent(times, torch.stack(encoders), torch.stack(heads), last)


def minibatch(x: Samples, y: Samples, size: int, generator: Generator) -> Moments:
    """Moments of `size` samples drawn with replacement."""
    rows = torch.randint(len(x), (size,), generator=generator)
    return sample_moments(x[rows], y[rows])


def sample_moments(x: Samples, y: Samples) -> Moments:
    """Second moments of samples, not centred."""
    return Moments(x.T @ x / len(x), y.T @ x / len(x))


@dataclass(frozen=True)
class FeatureModel:
    """Pairs x = z + n, y = z' + n' of independent features; at a = 1, two looks at one z.

    z' = a z + b, Var b = (1 - a²) s, is the next value of a stationary process: a stand-in for the
    paper's static and dynamic models, which were not at hand [inferred].
    """

    signal: PerFeature  # s_i = Var z_i, above 0
    noise: PerFeature  # nu_i, variance of the noise on x_i, and of that on y_i
    persistence: PerFeature  # a_i, correlation of z_i and z'_i, above 0 to 1

    @property
    def covariance(self) -> PerFeature:
        """lambda_i = E[x_i y_i] = a_i s_i."""
        return self.persistence * self.signal

    @property
    def regression(self) -> PerFeature:
        """rho_i = lambda_i / E[x_i²] = a_i s_i / (s_i + nu_i)."""
        return self.covariance / (self.signal + self.noise)

    def sample(self, count: int, generator: Generator) -> tuple[Samples, Samples]:
        """`count` independent Gaussian pairs (x, y) in float64."""
        drawn = torch.randn(4, count, len(self.signal), generator=generator, dtype=torch.float64)
        first, innovation, noise_x, noise_y = drawn
        signal, noise, persistence = map(torch.from_numpy, vars(self).values())
        later = persistence * first + (1 - persistence.square()).sqrt() * innovation
        x = signal.sqrt() * first + noise.sqrt() * noise_x
        return x, signal.sqrt() * later + noise.sqrt() * noise_y


def turned_moments(covariance: Pair, regression: Pair, degrees: float) -> Moments:
    """Moments of two features, with E[x x^T] turned; at 0 degrees they commute."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = covariance.new_tensor([[cos, -sin], [sin, cos]])
    return Moments(turn @ (covariance / regression).diag() @ turn.T, covariance.diag())


def diagonal_features(moments: Moments) -> tuple[Pair, Pair]:
    """lambda and rho if off-diagonal moments are ignored."""
    return moments.yx.diagonal(), moments.yx.diagonal() / moments.xx.diagonal()


def generalised_features(moments: Moments) -> tuple[Pair, Pair, Float[Tensor, "2 2"]]:
    """Generalised eigenpairs of symmetric S_yx and positive definite S_xx, smaller rho first.

    lambda_i = e_i^T S_yx e_i of unit directions e_i, rho_i, and the e_i as columns.
    """
    regression, directions = map(torch.from_numpy, eigh(moments.yx.numpy(), moments.xx.numpy()))
    directions = directions / directions.norm(dim=0)
    return (directions * (moments.yx @ directions)).sum(0), regression, directions


def learned_values(
    objective: Objective, descent: Descent, moments: Moments, directions: Float[Tensor, "2 2"]
) -> Float[Tensor, "T 2"]:
    """How much of each rho the network has learned; v_i (JEPA) or v_i w_i (MAE) if decoupled.

    JEPA: the real parts of the two eigenvalues of V, the smaller first. MAE: f^T V W f / f^T f for
    f = S_xx e_i, the right eigenvectors of the regression matrix, lest eigenvalues swap features.
    """
    if objective == "jepa":
        (a, b), (c, d) = descent.heads.permute(1, 2, 0)
        half, spread = (a + d) / 2, ((a - d) / 2).square() + b * c
        root = spread.clamp(min=0).sqrt()
        return torch.stack([half - root, half + root], dim=1)
    right = moments.xx @ directions
    right = right / right.norm(dim=0)
    return (right * (descent.heads @ descent.encoders @ right)).sum(1)


def imbalance(network: Network) -> Float[Tensor, "L d d"]:
    """W_{a+1}^T W_{a+1} - W_a W_a^T, V above W_L included; 0 is balanced, and kept by the flow."""
    return network[1:].mT @ network[1:] - network[:-1] @ network[:-1].mT


def _slopes(objective: Objective, layers: list[Tensor], head: Tensor, moments: Moments) -> tuple:
    """Derivatives of the loss in every layer and in V, for JEPA with the target held.

    R W^T in V and V^T R in W, with R = V W S_xx - W S_yx (JEPA) or V W S_xx - S_yx (MAE)
    (2407.03475, Eqs. 4 and 5 [secondary]; the tests compare with autograd).
    """
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
