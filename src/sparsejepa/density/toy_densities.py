"""Densities that can be written down, to calibrate a score that claims to be one."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from sparsejepa.randomness import generator


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """sum_c weights_c N(x; means_c, axes_c diag(scales_c²) axes_cᵀ)."""

    weights: Float64[Tensor, "C"]  # sum to 1
    means: Float64[Tensor, "C D"]
    axes: Float64[Tensor, "C D D"]  # columns are orthonormal principal axes
    scales: Float64[Tensor, "C D"]  # standard deviations along them

    def log_density(self, x: Float64[Tensor, "N D"]) -> Float64[Tensor, "N"]:
        """log p(x), nats."""
        away = torch.einsum("ncd,cde->nce", x[:, None] - self.means, self.axes) / self.scales
        volume = self.scales.log().sum(dim=1) + 0.5 * x.shape[1] * math.log(2 * math.pi)
        return torch.logsumexp(self.weights.log() - volume - 0.5 * away.square().sum(2), dim=1)

    def sample(self, count: int, draw: torch.Generator) -> Float64[Tensor, "N D"]:
        """Independent draws."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=draw)
        normal = torch.randn(count, self.means.shape[1], dtype=torch.float64, generator=draw)
        along = normal * self.scales[component]
        return self.means[component] + torch.einsum("nde,ne->nd", self.axes[component], along)


def drawn_mixture(dimensions: int, components: int, seed: int) -> GaussianMixture:
    """A mixture whose density varies much between and within its components.

    Means are normal with standard deviation 2, scales log-uniform from 0.3 to 1.2, axes random,
    weights proportional to uniform draws from 0.2 to 1.
    """
    draw = generator(seed, "mixture", dimensions, components)
    shape = (components, dimensions)
    options = {"dtype": torch.float64, "generator": draw}
    low, high = math.log(0.3), math.log(1.2)
    weights = 0.2 + 0.8 * torch.rand(components, **options)
    return GaussianMixture(
        weights / weights.sum(),
        2 * torch.randn(shape, **options),
        torch.linalg.qr(torch.randn(*shape, dimensions, **options)).Q,
        (low + (high - low) * torch.rand(shape, **options)).exp(),
    )
