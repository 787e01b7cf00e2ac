"""Maps of known densities to a standard normal: there JEPA-SCORE plus log φ(f) is log p exactly."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float64
from torch import Tensor

from sparsejepa.density.jepa_score import Map
from sparsejepa.randomness import generator


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """A density, points, and the map that makes it standard normal."""

    map: Map
    points: Float64[Tensor, "N D"]
    log_density: Float64[Tensor, "N"]  # the true log p at the points, nats


def closed_forms(points: int, seed: int) -> dict[str, ClosedForm]:
    """Change of variables p(x) = φ(f(x)) |det J_f(x)|, where f is known (papers' eq. 4 at K = D).

    A Gaussian whitened in 4 dimensions (the score is constant: all that differs between points is
    φ); the logistic law in one dimension, f = Φ⁻¹ ∘ F; a mixture of two Gaussians in the plane by
    its triangular (Knothe-Rosenblatt) map.
    """
    return {
        "Gaussian, whitened (4-D)": _gaussian(points, seed),
        "logistic, monotone map (1-D)": _logistic(points),
        "mixture, triangular map (2-D)": _mixture(points, seed),
    }


def _gaussian(points: int, seed: int) -> ClosedForm:
    draw = generator(seed, "closed forms", "gaussian")
    root = torch.randn(4, 4, dtype=torch.float64, generator=draw)
    values, vectors = torch.linalg.eigh(root @ root.T)
    whiten = vectors / values.sqrt() @ vectors.T
    unit = torch.randn(points, 4, dtype=torch.float64, generator=draw)
    constant = 4 * math.log(2 * math.pi) + values.log().sum()
    return ClosedForm(
        lambda x: x @ whiten,
        unit @ (vectors * values.sqrt() @ vectors.T),
        -0.5 * (unit.square().sum(dim=1) + constant),
    )


def _logistic(points: int) -> ClosedForm:
    x = torch.linspace(-6, 6, points, dtype=torch.float64)
    density = torch.sigmoid(x) * torch.sigmoid(-x)
    return ClosedForm(lambda x: torch.special.ndtri(torch.sigmoid(x)), x[:, None], density.log())


def _mixture(points: int, seed: int) -> ClosedForm:
    """f_1 normalises x by its marginal law, f_2 normalises y by its law given x."""
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    at_x, at_y = torch.tensor([[-1.5, 1.0], [2.0, -1.0]], dtype=torch.float64)

    def normal(z: Tensor) -> Tensor:
        return torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)

    def normalise(point: Tensor) -> Tensor:
        x, y = point[:, :1], point[:, 1:]
        share = weights * normal(x - at_x)
        share = share / share.sum(dim=1, keepdim=True)
        first = (weights * torch.special.ndtr(x - at_x)).sum(dim=1)
        second = (share * torch.special.ndtr(y - at_y)).sum(dim=1)
        return torch.special.ndtri(torch.stack([first, second], dim=1))

    draw = generator(seed, "closed forms", "mixture")
    drawn = 1.5 * torch.randn(points, 2, dtype=torch.float64, generator=draw)
    density = (weights * normal(drawn[:, :1] - at_x) * normal(drawn[:, 1:] - at_y)).sum(dim=1)
    return ClosedForm(normalise, drawn, density.log())
