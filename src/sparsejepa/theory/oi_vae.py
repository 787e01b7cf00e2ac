"""oi-VAE on bars: the model that SparseJEPA's penalty is from, on data whose answer is known.

In the output-interpretable VAE (Ainsworth et al., ICML 2018, arXiv 1802.06765) latents z ~ N(0, I)
drive groups of observed variables, x^(g) ~ N(f^(g)(W^(g) z), sigma²). A group lasso on the columns
W^(g)_{.,k} says which latent k drives which group g. Groups are the rows of images, of which one is
lit: every latent should end up with a row of its own.
"""

import functools
import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from sparsejepa.model.penalties import group_column_norms, proximal_step
from sparsejepa.randomness import generator


@dataclass(frozen=True)
class BarsConfig:
    """Data, model and training; the paper's code has these values except where it says "ours".

    Ours too: gradients of the whole set instead of batches of 64, whose noise brings dead columns
    back for a step; the expectation over z in closed form instead of by a sample; and a learned
    noise sigma, starting from `brightness`.
    """

    size: int = 8  # pixels along a side; the rows are the groups
    images: int = 2048
    brightness: float = 0.5  # of the lit row
    noise: float = 0.05  # standard deviation of every pixel's noise
    latents: int = 8  # dim z
    strength: float = 2.0  # lambda, nats for a unit of column norm; 1 in the paper's code
    proximal: bool = True  # False: the subgradient of the penalty in the step instead
    steps: int = 2000  # ours; 20,000 in the paper's code
    learning_rate: float = 1e-2  # of Adam, for all but W
    weight_learning_rate: float = 1e-3  # eta of the plain SGD on W; ours, ten times the paper's


def recovered(norms: Float64[Tensor, "G K"]) -> bool:
    """Each latent drives exactly one row, each row has exactly one latent: all else is zero."""
    alive = norms > 0
    return bool((alive.sum(0) == 1).all() and (alive.sum(1) == 1).all())


def bars_experiment(config: BarsConfig, seed: int) -> Float64[Tensor, "G K"]:
    """||W^(g)_{.,k}|| of rows g and latents k of an oi-VAE trained on bars: two seconds on a core.

    Encoder and decoders are linear. W, the maps W^(g) stacked, is stepped by plain SGD and shrunk
    by the proximal operator of eta lambda sum_g sum_k ||W^(g)_{.,k}||; with `proximal` off by the
    subgradient of this penalty. `seed` fixes data and initial weights.
    """
    images = draw_bars(config, seed)
    mean = images.mean(dim=0)
    covariance = (images - mean).T @ (images - mean) / len(images)
    parameters = initial_parameters(config, seed)
    weight, *others = parameters.values()
    adam = torch.optim.Adam(others, config.learning_rate)
    # The input W^(g) z of a group's generator has one dimension: W^(g) is one row of W.
    groups = torch.arange(config.size).view(-1, 1)
    eta, strength = config.weight_learning_rate, config.strength
    for _ in range(config.steps):
        adam.zero_grad()
        weight.grad = None
        sum(negative_elbo(parameters, mean, covariance).values()).backward()
        adam.step()
        with torch.no_grad():
            if config.proximal:
                weight.sub_(eta * weight.grad)
                proximal_step(weight, groups, eta * strength)
            else:
                norms = group_column_norms(weight, groups).double()
                direction = weight / norms.clamp(min=1e-30)
                weight.sub_(eta * (weight.grad + strength * direction))
    return group_column_norms(weight.detach(), groups).double()


def draw_bars(config: BarsConfig, seed: int) -> Float64[Tensor, "N D"]:
    """Images of one lit row and Gaussian noise, pixels in raster order."""
    draw = generator(seed, "bars")
    lit = torch.randint(config.size, (config.images,), generator=draw)
    shape = (config.images, config.size, config.size)
    images = config.noise * torch.randn(shape, generator=draw, dtype=torch.float64)
    images[torch.arange(config.images), lit] += config.brightness
    return images.flatten(1)


def initial_parameters(config: BarsConfig, seed: int) -> dict[str, Tensor]:
    """Initial values. W is N(0, 1) as in the paper's code: large, lest columns die at once."""
    size, latents = config.size, config.latents
    options = {"generator": generator(seed, "oi-VAE"), "dtype": torch.float64}
    normal, zeros = functools.partial(torch.randn, **options), torch.zeros
    values = {
        "weight": normal(size, latents),  # W [G, K]
        "generator": 0.1 * normal(size, size),  # of f^(g): pixels of row g for an input of 1
        "bias": zeros(size * size),  # of f^(g), all rows
        "encoder": 0.1 * normal(latents, size * size),  # mean of q(z | x), linear in x
        "encoder_bias": zeros(latents),
        "log_std": zeros(latents),  # of q(z | x); for linear decoders the best is constant in x
        "log_noise": torch.tensor(config.brightness, dtype=torch.float64).log(),
    }
    return {name: value.double().requires_grad_() for name, value in values.items()}


def negative_elbo(
    parameters: dict[str, Tensor], mean: Float64[Tensor, "D"], covariance: Float64[Tensor, "D D"]
) -> dict[str, Float64[Tensor, ""]]:
    """The loss beside the group lasso, in nats an image, exact.

    reconstruction: -E log p(x | z) over images and z ~ N(A x + a, diag(s²)); kl: to N(0, I); prior:
    -log p of the generators' weights and biases ~ N(0, 1), up to a constant, once an image as in
    the paper's code: without it W could shrink and the generators grow.
    """
    weight, pixels = parameters["weight"], parameters["generator"]
    decoder = (pixels.unsqueeze(2) * weight.unsqueeze(1)).flatten(0, 1)
    encoder, variance = parameters["encoder"], (2 * parameters["log_std"]).exp()
    latent_mean = encoder @ mean + parameters["encoder_bias"]
    residual = torch.eye(len(mean), dtype=mean.dtype) - decoder @ encoder
    offset = mean - decoder @ latent_mean - parameters["bias"]
    squared = ((residual @ covariance) * residual).sum() + offset.square().sum()
    squared = squared + (decoder.square().sum(dim=0) * variance).sum()
    log_noise = parameters["log_noise"]
    normaliser = len(mean) * (log_noise + 0.5 * math.log(2 * math.pi))
    second_moment = ((encoder @ covariance) * encoder).sum() + latent_mean.square().sum()
    return {
        "reconstruction": squared / 2 * (-2 * log_noise).exp() + normaliser,
        "kl": 0.5 * (second_moment + (variance - 1 - variance.log()).sum()),
        "prior": 0.5 * (pixels.square().sum() + parameters["bias"].square().sum()),
    }
