"""Small networks trained on points of a known density: does JEPA-SCORE find it?

An encoder of two views of a point, x + noise and x + other noise, has to give both the same
embedding. What keeps it from a constant is the objective: VICReg (2105.04906), SIGReg (LeJEPA,
2511.08544) or nothing. Encoders of several seeds are trained side by side as one stack.
"""

from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparsejepa.density.toy_densities import GaussianMixture
from sparsejepa.model.regularisers import (
    covariance_cost,
    epps_pulley,
    unit_vectors,
    variance_hinge,
)
from sparsejepa.randomness import generator

Objective = Literal["VICReg", "SIGReg", "none", "untrained"]


@dataclass(frozen=True)
class ToyConfig:
    """One kind of encoder and its training."""

    objective: Objective  # what prevents collapse; untrained: no training at all
    embedding: int  # K, dimensions of an embedding
    hidden: int = 64  # width of both hidden layers
    steps: int = 1000  # of AdamW, cosine to zero
    batch_size: int = 256  # points a step, two views each
    learning_rate: float = 3e-3  # at the first step
    noise: float = 0.1  # standard deviation of a view's noise, in the units of x
    slices: int = 8  # SIGReg: random directions a step
    weight: float = 0.05  # SIGReg: lambda of (1 - lambda) · invariance + lambda · SIGReg


def train_toys(
    config: ToyConfig, density: GaussianMixture, seeds: tuple[int, ...]
) -> list[nn.Module]:
    """One encoder Float["B D"] to Float["B K"] for each seed, frozen, in evaluation mode.

    Every seed has initial weights, points and noise of its own; the points are new in each step.
    """
    widths = (density.means.shape[1], config.hidden, config.hidden, config.embedding)
    stack = _initial_stack(widths, seeds)
    if config.objective != "untrained":
        parameters = [tensor.requires_grad_() for tensor in stack]
        optimiser = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
        for step in range(config.steps):
            optimiser.zero_grad()
            # The sum over seeds: each one's gradient is its own.
            sum(_loss(config, stack, _views(config, density, seeds, step), seeds, step)).backward()
            optimiser.step()
            schedule.step()
    return [_encoder([tensor.detach()[i] for tensor in stack]) for i in range(len(seeds))]


def _loss(
    config: ToyConfig,
    stack: list[Float[Tensor, "S ..."]],
    views: Float[Tensor, "2 S B D"],
    seeds: tuple[int, ...],
    step: int,
) -> list[Float[Tensor, ""]]:
    """One loss a seed."""
    first, second = (_forward(stack, view) for view in views)
    losses = []
    for seed, z, other in zip(seeds, first, second, strict=True):
        invariance = (z - other).square().mean()
        if config.objective == "none":
            losses.append(invariance)
        elif config.objective == "VICReg":
            spread = (variance_hinge(z) + variance_hinge(other)) / 2
            correlation = (covariance_cost(z) + covariance_cost(other)) / 2
            losses.append(25 * invariance + 25 * spread + correlation)
        else:
            draw = generator(seed, "toy slices", step)
            slices = unit_vectors(config.embedding, config.slices, draw)
            normal = (epps_pulley(z @ slices) + epps_pulley(other @ slices)).mean() / 2
            losses.append((1 - config.weight) * invariance + config.weight * normal)
    return losses


def _views(
    config: ToyConfig, density: GaussianMixture, seeds: tuple[int, ...], step: int
) -> Float[Tensor, "2 S B D"]:
    pairs = []
    for seed in seeds:
        draw = generator(seed, "toy points", step)
        points = density.sample(config.batch_size, draw).float()
        noise = torch.randn(2, *points.shape, generator=draw)
        pairs.append(points + config.noise * noise)
    return torch.stack(pairs, dim=1)


def _initial_stack(widths: tuple[int, ...], seeds: tuple[int, ...]) -> list[Tensor]:
    """Weights [S, in, out] and biases [S, 1, out], in turn, as PyTorch's linear layers start."""
    stack = []
    for layer, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        for name, shape in (("weight", (inputs, outputs)), ("bias", (1, outputs))):
            drawn = [
                torch.rand(shape, generator=generator(seed, "toy initial", layer, name))
                for seed in seeds
            ]
            stack.append((2 * torch.stack(drawn) - 1) / inputs**0.5)
    return stack


def _forward(
    stack: list[Float[Tensor, "S ..."]], x: Float[Tensor, "S B D"]
) -> Float[Tensor, "S B K"]:
    for weight, bias in zip(stack[:-2:2], stack[1:-2:2], strict=True):
        x = F.gelu(torch.baddbmm(bias, x, weight))
    return torch.baddbmm(stack[-1], x, stack[-2])


def _encoder(weights: list[Tensor]) -> nn.Module:
    layers: list[nn.Module] = []
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        linear = nn.Linear(*weight.shape)
        linear.load_state_dict({"weight": weight.T, "bias": bias[0]})
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1]).eval().requires_grad_(False)
