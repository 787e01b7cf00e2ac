"""Where lambda and rho of a feature come from: two generative models, and coupled moments.

The paper's own static and dynamic models were not at hand: `FeatureModel` is a stand-in [inferred].

The theory needs E[x x^T] and E[y x^T] diagonal in one basis. If E[x x^T] is turned against
E[y x^T], what remains of features are the generalised eigenpairs S_yx e = rho S_xx e. Their rho are
the eigenvalues of the regression matrix S_yx S_xx^-1, and of V at any fixed point of JEPA with an
invertible encoder; at any of MAE, V W is that matrix [derived here]. That JEPA's *order* follows
these pairs is a claim of an unreviewed formalisation [secondary]; `learned_values` measures it.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from scipy.linalg import eigh
from torch import Tensor

from sparsejepa.theory.linear_dynamics import Objective
from sparsejepa.theory.linear_networks import Descent, Moments


@dataclass(frozen=True)
class FeatureModel:
    """Pairs x = z + n, y = z' + n' with independent features; at a = 1, two looks at one z.

    z' is the next value of the stationary process z' = a z + b, Var b = (1 - a²) s.
    """

    signal: Float[np.ndarray, "F"]  # s_i = Var z_i, above 0
    noise: Float[np.ndarray, "F"]  # nu_i, variance of the noise on x_i, and of that on y_i
    persistence: Float[np.ndarray, "F"]  # a_i, correlation of z_i and z'_i, above 0 to 1

    @property
    def covariance(self) -> Float[np.ndarray, "F"]:
        """lambda_i = E[x_i y_i] = a_i s_i."""
        return self.persistence * self.signal

    @property
    def regression(self) -> Float[np.ndarray, "F"]:
        """rho_i = lambda_i / E[x_i²] = a_i s_i / (s_i + nu_i)."""
        return self.covariance / (self.signal + self.noise)


def sample(
    model: FeatureModel, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N F"]]:
    """`count` independent Gaussian pairs (x, y) in float64."""
    drawn = torch.randn(4, count, len(model.signal), generator=generator, dtype=torch.float64)
    first, innovation, noise_x, noise_y = drawn
    signal, noise, persistence = map(torch.from_numpy, vars(model).values())
    later = persistence * first + (1 - persistence.square()).sqrt() * innovation
    x = signal.sqrt() * first + noise.sqrt() * noise_x
    return x, signal.sqrt() * later + noise.sqrt() * noise_y


@dataclass(frozen=True)
class FeaturePair:
    """What a pair of features would be to the diagonal theory."""

    covariance: Float[Tensor, "2"]  # lambda_i = e_i^T S_yx e_i of unit directions e_i
    regression: Float[Tensor, "2"]  # rho_i
    directions: Float[Tensor, "2 2"]  # columns e_i


def turned_moments(
    covariance: Float[Tensor, "2"], regression: Float[Tensor, "2"], degrees: float
) -> Moments:
    """Moments of two features, with E[x x^T] turned by an angle; at 0 degrees they commute."""
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    turn = covariance.new_tensor([[cos, -sin], [sin, cos]])
    return Moments(turn @ (covariance / regression).diag() @ turn.T, covariance.diag())


def diagonal_features(moments: Moments) -> FeaturePair:
    """Features if off-diagonal moments are ignored."""
    covariance = moments.yx.diagonal()
    directions = torch.eye(2, dtype=covariance.dtype)
    return FeaturePair(covariance, covariance / moments.xx.diagonal(), directions)


def generalised_features(moments: Moments) -> FeaturePair:
    """Generalised eigenpairs of symmetric S_yx and positive definite S_xx, smaller rho first."""
    regression, directions = map(torch.from_numpy, eigh(moments.yx.numpy(), moments.xx.numpy()))
    directions = directions / directions.norm(dim=0)
    return FeaturePair((directions * (moments.yx @ directions)).sum(0), regression, directions)


def learned_values(
    objective: Objective, descent: Descent, moments: Moments, pair: FeaturePair
) -> Float[Tensor, "T 2"]:
    """How much of each rho the network has learned; v_i (JEPA) or v_i w_i (MAE) if decoupled.

    JEPA: the real parts of the two eigenvalues of V, the smaller first. MAE: f^T V W f / f^T f for
    f = S_xx e_i, the right eigenvectors of the regression matrix: the eigenvalues of V W would swap
    features where the one with the smaller rho comes first.
    """
    if objective == "jepa":
        (a, b), (c, d) = descent.heads.permute(1, 2, 0)
        half, spread = (a + d) / 2, ((a - d) / 2).square() + b * c
        root = spread.clamp(min=0).sqrt()
        return torch.stack([half - root, half + root], dim=1)
    right = moments.xx @ pair.directions
    right = right / right.norm(dim=0)
    return (right * (descent.heads @ descent.encoders @ right)).sum(1)
