"""Two features whose moments do not commute: outside the theory, what takes its place?

The theory needs E[x x^T] and E[y x^T] diagonal in one basis. Here E[x x^T] is turned against
E[y x^T]. What survives of a feature are the generalised eigenpairs S_yx e = rho S_xx e: each e is a
left eigenvector of the regression matrix S_yx S_xx^-1 and rho its eigenvalue. Any fixed point of
JEPA with an invertible encoder has V W S_xx = W S_yx, so that V is similar to that matrix and has
the same eigenvalues; any of MAE has V W equal to it [derived here]. That JEPA's *order* follows
these pairs is a claim of an unreviewed formalisation [secondary]; `learned_values` measures it.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from sparsejepa.theory.linear_dynamics import Objective
from sparsejepa.theory.linear_networks import Descent, Moments


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
    angle = math.radians(degrees)
    turn = covariance.new_tensor(
        [[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]]
    )
    return Moments(turn @ (covariance / regression).diag() @ turn.T, covariance.diag())


def diagonal_features(moments: Moments) -> FeaturePair:
    """The features that one sees who ignores the off-diagonal moments."""
    covariance = moments.yx.diagonal()
    directions = torch.eye(2, dtype=covariance.dtype)
    return FeaturePair(covariance, covariance / moments.xx.diagonal(), directions)


def generalised_features(moments: Moments) -> FeaturePair:
    """Generalised eigenpairs of a symmetric S_yx and S_xx, the smaller rho first.

    Raises:
        ValueError: S_yx is not symmetric, or S_xx not positive definite.
    """
    variances, axes = torch.linalg.eigh(moments.xx)
    if variances[0] <= 0 or not torch.allclose(moments.yx, moments.yx.T, rtol=0, atol=1e-12):
        raise ValueError(
            "Generalised eigenpairs need a symmetric E[y x^T] and a positive definite E[x x^T]."
        )
    whitening = axes @ variances.rsqrt().diag() @ axes.T
    regression, turned = torch.linalg.eigh(whitening @ moments.yx @ whitening)
    directions = whitening @ turned
    directions = directions / directions.norm(dim=0)
    covariance = (directions * (moments.yx @ directions)).sum(0)
    return FeaturePair(covariance, regression, directions)


def learned_values(
    objective: Objective, descent: Descent, moments: Moments, pair: FeaturePair
) -> Float[Tensor, "T 2"]:
    """How much of each rho the network has learned; v_i (JEPA) or v_i w_i (MAE) if decoupled.

    JEPA: the two eigenvalues of V, the smaller first, or their real part where they are complex.
    They do not depend on the basis of the latent space. MAE: f^T V W f / f^T f for f = S_xx e_i,
    the right eigenvectors of the regression matrix: the eigenvalues of V W would swap features
    where the one with the smaller rho comes first.
    """
    if objective == "jepa":
        (a, b), (c, d) = descent.heads.permute(1, 2, 0)
        half, spread = (a + d) / 2, ((a - d) / 2).square() + b * c
        root = spread.clamp(min=0).sqrt()
        return torch.stack([half - root, half + root], dim=1)
    right = moments.xx @ pair.directions
    right = right / right.norm(dim=0)
    return (right * (descent.heads @ descent.encoders @ right)).sum(1)
