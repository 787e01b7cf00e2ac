"""Statistical terms of JEPA's peers: a batch of embeddings should have a given distribution.

All see one pooled embedding an image: a batch of these is an independent sample, of each process.
"""

import math
from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsejepa.config import ABOVE_ZERO, AT_LEAST_ONE, AT_LEAST_ZERO, check_choices, check_ranges
from sparsejepa.model.penalties import activation_sparsity
from sparsejepa.randomness import generator

LAPLACE_SCALE = 1 / math.sqrt(2)  # sigma, at which a Laplace variable has variance 1


@dataclass(frozen=True)
class RegulariserConfig:
    """A statistical term; the loss is prediction_weight · prediction + weight · term.

    An image's embedding is the mean of all its tokens where the target is shared, else of the
    context's.
    """

    term: Literal["none", "VICReg", "uniformity", "SIGReg", "RDMReg"] = "none"
    prediction_weight: float = 1.0  # of the prediction loss
    weight: float = 1.0  # of the term; VICReg: of the variance, its covariance has 1/25 of it
    slices: int = 256  # SIGReg, RDMReg: random directions a step
    location: float = 0.0  # RDMReg: mu of the wanted distribution; lower is sparser

    def __post_init__(self) -> None:
        check_choices(self)
        check_ranges(self, prediction_weight=ABOVE_ZERO, weight=AT_LEAST_ZERO, slices=AT_LEAST_ONE)


class Regulariser(nn.Module):
    """The term that a configuration names, of pooled embeddings."""

    seen: Tensor | None = None  # embeddings of the last batch

    def __init__(self, config: RegulariserConfig, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed

    def forward(self, embeddings: Float[Tensor, "B d"], step: int) -> Float[Tensor, ""]:
        """The term, without its weight; random slices are a function of (seed, step)."""
        # Sums over a batch and products of small differences: float32 in every case.
        with torch.autocast(embeddings.device.type, enabled=False):
            embeddings = embeddings.float()
            if self.config.term == "RDMReg":
                embeddings = embeddings.relu()
            self.seen = embeddings.detach()
            if self.config.term == "VICReg":
                return variance_hinge(embeddings) + covariance_cost(embeddings) / 25
            if self.config.term == "uniformity":
                return uniformity(embeddings)
            draws = generator(self.seed, "regulariser", step)
            slices = unit_vectors(embeddings.shape[1], self.config.slices, draws)
            slices = slices.to(embeddings.device)
            if self.config.term == "SIGReg":
                return epps_pulley(embeddings @ slices).mean()
            wanted = rectified_laplace(embeddings.shape, self.config.location, draws)
            return sliced_wasserstein(embeddings, wanted.to(embeddings.device), slices)

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        """Sparsity of the last batch's embeddings (RDMReg: rectified) and their mean deviation."""
        if self.seen is None:
            return {}
        spread = self.seen.std(0).mean().item()
        return {"embedding_spread": spread} | activation_sparsity(self.seen)


def variance_hinge(embeddings: Float[Tensor, "B d"]) -> Float[Tensor, ""]:
    """mean_k max(0, 1 - √(var_k + 0.0001)), VICReg's variance term (2105.04906)."""
    return (1 - (embeddings.var(0) + 1e-4).sqrt()).relu().mean()


def covariance_cost(embeddings: Float[Tensor, "B d"]) -> Float[Tensor, ""]:
    """(1/d) Σ_{i≠j} cov_ij², VICReg's covariance term (2105.04906)."""
    centred = embeddings - embeddings.mean(0)
    covariance = centred.T @ centred / (len(embeddings) - 1)
    everything = covariance.square().sum()
    return (everything - covariance.diagonal().square().sum()) / embeddings.shape[1]


def uniformity(embeddings: Float[Tensor, "B d"]) -> Float[Tensor, ""]:
    """Mean squared cosine over pairs of different images, U-MAE's spectral term (2210.08344)."""
    unit = nn.functional.normalize(embeddings, dim=1)
    squares = (unit @ unit.T).square()
    return (squares.sum() - squares.diagonal().sum()) / (len(unit) * (len(unit) - 1))


def epps_pulley(
    samples: Float[Tensor, "N S"], knots: int = 17, limit: float = 3.0
) -> Float[Tensor, "S"]:
    """N ∫ |φ_N(t) - e^(-t²/2)|² e^(-t²/2) dt over [-limit, limit], for each column of samples.

    φ_N is the empirical characteristic function. The integrand is even, so the trapezoidal rule on
    `knots` points of [0, limit] counts twice (LeJEPA, 2511.08544; knots and range as there).
    """
    t = torch.linspace(0, limit, knots, device=samples.device, dtype=samples.dtype)
    gaussian = (-t.square() / 2).exp()
    weights = torch.full_like(t, 2 * limit / (knots - 1))
    # Not by a list of places, which would be copied to a GPU.
    weights[0] /= 2
    weights[-1] /= 2
    angles = samples.unsqueeze(-1) * t
    gap = (angles.cos().mean(0) - gaussian).square() + angles.sin().mean(0).square()
    return len(samples) * gap @ (weights * gaussian)


def sliced_wasserstein(
    embeddings: Float[Tensor, "B d"], wanted: Float[Tensor, "B d"], slices: Float[Tensor, "d S"]
) -> Float[Tensor, ""]:
    """Mean squared 2-Wasserstein distance over slices: pairs of sorted values (2602.01456)."""
    projected, target = ((sample @ slices).sort(dim=0).values for sample in (embeddings, wanted))
    return (projected - target).square().mean()


def unit_vectors(width: int, count: int, generator: torch.Generator) -> Float[Tensor, "width S"]:
    """`count` directions, uniform on the sphere."""
    drawn = torch.randn(width, count, generator=generator)
    return drawn / drawn.norm(dim=0)


def rectified_laplace(
    shape: tuple[int, ...], location: float, generator: torch.Generator
) -> Float[Tensor, "*shape"]:
    """ReLU(mu + sigma · x), x Laplace: the Rectified Generalised Gaussian at p = 1 (2602.01456)."""
    sizes = torch.empty(shape).exponential_(generator=generator)
    signs = 2 * torch.randint(0, 2, shape, generator=generator) - 1
    return (location + LAPLACE_SCALE * signs * sizes).relu()
