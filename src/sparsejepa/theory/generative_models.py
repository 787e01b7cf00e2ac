"""Where lambda and rho come from: two generative models of pairs (x, y).

The paper speaks of a static and a dynamic linear model; their formulas were not at hand. These are
stand-ins [inferred] with the same names. In both, feature i has a signal of variance s_i under
noise of variance nu_i, so that E[x_i²] = s_i + nu_i, and a *noisy feature* is one with large s_i
and larger nu_i: high covariance lambda_i, low regression coefficient rho_i.
"""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor


@dataclass(frozen=True)
class FeatureModel:
    """Pairs x = z + n, y = z' + n' with independent features; static if z' = z."""

    signal: Float[np.ndarray, "F"]  # s_i = Var z_i
    noise: Float[np.ndarray, "F"]  # nu_i, variance of the noise on x_i, and of that on y_i
    persistence: Float[np.ndarray, "F"]  # a_i, correlation of z_i and z'_i; 1 is the static model

    def __post_init__(self) -> None:
        if (self.signal <= 0).any() or (self.noise < 0).any():
            raise ValueError("signal must be above 0 and noise at least 0, for every feature.")
        if (self.persistence <= 0).any() or (self.persistence > 1).any():
            raise ValueError(
                "persistence must lie above 0 and at most at 1: else y has no positive regression "
                "on x, or the process has no stationary variance."
            )

    @property
    def covariance(self) -> Float[np.ndarray, "F"]:
        """lambda_i = E[x_i y_i] = a_i s_i."""
        return self.persistence * self.signal

    @property
    def regression(self) -> Float[np.ndarray, "F"]:
        """rho_i = lambda_i / E[x_i²] = a_i s_i / (s_i + nu_i)."""
        return self.covariance / (self.signal + self.noise)


def static_model(signal: Float[np.ndarray, "F"], noise: Float[np.ndarray, "F"]) -> FeatureModel:
    """Two noisy looks at one z: x = z + n, y = z + n'."""
    return FeatureModel(signal, noise, np.ones_like(signal))


def dynamic_model(
    signal: Float[np.ndarray, "F"],
    noise: Float[np.ndarray, "F"],
    persistence: Float[np.ndarray, "F"],
) -> FeatureModel:
    """Two consecutive noisy looks at the stationary process z' = a z + b, Var b = (1 - a²) s."""
    return FeatureModel(signal, noise, persistence)


def model_of(
    covariance: Float[np.ndarray, "F"], regression: Float[np.ndarray, "F"]
) -> FeatureModel:
    """The static model that has these lambda and rho.

    Raises:
        ValueError: a lambda that is not positive, or a rho outside 0 to 1, which no noise gives.
    """
    if (covariance <= 0).any() or (regression <= 0).any() or (regression > 1).any():
        raise ValueError("The static model needs lambda above 0 and rho above 0 and at most at 1.")
    return static_model(covariance, covariance * (1 / regression - 1))


def sample(
    model: FeatureModel, count: int, generator: torch.Generator
) -> tuple[Float[Tensor, "N F"], Float[Tensor, "N F"]]:
    """`count` independent Gaussian pairs (x, y) in float64."""
    shape = (4, count, len(model.signal))
    first, innovation, noise_x, noise_y = torch.randn(
        shape, generator=generator, dtype=torch.float64
    )
    signal, noise, persistence = (
        torch.from_numpy(values) for values in (model.signal, model.noise, model.persistence)
    )
    later = persistence * first + (1 - persistence.square()).sqrt() * innovation
    x = signal.sqrt() * first + noise.sqrt() * noise_x
    return x, signal.sqrt() * later + noise.sqrt() * noise_y
