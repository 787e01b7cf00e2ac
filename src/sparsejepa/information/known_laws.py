"""Laws whose multiinformation is known in closed form: what estimators are calibrated on."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float64, Shaped
from scipy.special import gammaln, psi
from torch import Tensor


@dataclass(frozen=True)
class Law:
    """A family of laws, one for every number of columns d."""

    name: str
    kind: str  # gaussian; monotone (increasing functions of Gaussian columns); density; discrete
    truth: Callable[[int], float]  # d -> nats
    draw: Callable[[int, int, torch.Generator], Shaped[Tensor, "N d"]]  # rows, d, generator


def equicorrelated(d: int, rho: float) -> float:
    """Nats of d Gaussian columns with all correlations rho.

    -½ ln det R with the eigenvalues 1 - rho, d - 1 times, and 1 + (d - 1) rho.
    """
    return -0.5 * ((d - 1) * math.log(1 - rho) + math.log(1 + (d - 1) * rho))


def autoregressive(d: int, rho: float) -> float:
    """Nats of d Gaussian columns with correlations rho^|i-j|: every step adds those of a pair."""
    return -0.5 * (d - 1) * math.log(1 - rho**2)


def student(d: int, degrees: int) -> float:
    """Nats of the d-variate Student t with R = I: columns uncorrelated, yet dependent.

    d h_1 - h_d with the entropies h_k of the t of k dimensions.
    """

    def entropy(k: int) -> float:
        half = (degrees + k) / 2
        normaliser = gammaln(half) - gammaln(degrees / 2) - k / 2 * math.log(degrees * math.pi)
        return float(half * (psi(half) - psi(degrees / 2)) - normaliser)

    return d * entropy(1) - entropy(d)


def equicorrelation(d: int, rho: float) -> Float64[Tensor, "d d"]:
    """The correlation matrix of `equicorrelated`."""
    return (1 - rho) * torch.eye(d, dtype=torch.float64) + rho


def autoregression(d: int, rho: float) -> Float64[Tensor, "d d"]:
    """The correlation matrix of `autoregressive`."""
    step = torch.arange(d, dtype=torch.float64)
    return rho ** (step[:, None] - step).abs()


def gaussian_rows(
    n: int, correlation: Float64[Tensor, "d d"], generator: torch.Generator
) -> Float64[Tensor, "n d"]:
    """n draws of N(0, R)."""
    white = torch.randn(n, len(correlation), generator=generator, dtype=torch.float64)
    return white @ torch.linalg.cholesky(correlation).T


def student_rows(
    n: int, d: int, degrees: int, generator: torch.Generator
) -> Float64[Tensor, "n d"]:
    """n draws of the Student t with R = I."""
    white = torch.randn(n, d + degrees, generator=generator, dtype=torch.float64)
    return white[:, :d] / (white[:, d:].square().sum(1, keepdim=True) / degrees).sqrt()


def _parity_rows(n: int, d: int, generator: torch.Generator) -> Shaped[Tensor, "n d"]:
    bits = torch.randint(2, (n, d - 1), generator=generator)
    return torch.cat([bits, bits.sum(1, keepdim=True) % 2], dim=1)


def _giant_bit_rows(n: int, d: int, generator: torch.Generator) -> Shaped[Tensor, "n d"]:
    return torch.randint(2, (n, 1), generator=generator).expand(n, d)


LAWS = (
    Law(
        "independent Gaussian",
        "gaussian",
        lambda d: 0.0,
        lambda n, d, g: gaussian_rows(n, torch.eye(d, dtype=torch.float64), g),
    ),
    Law(
        "equicorrelated Gaussian, 0.3",
        "gaussian",
        lambda d: equicorrelated(d, 0.3),
        lambda n, d, g: gaussian_rows(n, equicorrelation(d, 0.3), g),
    ),
    Law(
        "autoregressive Gaussian, 0.8",
        "gaussian",
        lambda d: autoregressive(d, 0.8),
        lambda n, d, g: gaussian_rows(n, autoregression(d, 0.8), g),
    ),
    Law(
        "log-normal, 0.6",
        "monotone",
        lambda d: equicorrelated(d, 0.6),
        lambda n, d, g: gaussian_rows(n, equicorrelation(d, 0.6), g).exp(),
    ),
    Law(
        "Student t, 3 degrees",
        "density",
        lambda d: student(d, 3),
        lambda n, d, g: student_rows(n, d, 3, g),
    ),
    Law("parity", "discrete", lambda d: math.log(2), _parity_rows),
    Law("giant bit", "discrete", lambda d: (d - 1) * math.log(2), _giant_bit_rows),
)


def stated_range(method: str, law: Law, n: int, d: int) -> bool:
    """Whether intervals are claimed to hold there, as the head of each estimator's module says."""
    if method == "discrete":
        values = {"parity": 2 ** (d - 1), "giant bit": 2}.get(law.name, np.inf)
        return law.kind == "discrete" and n >= 5 * values
    if n < 50 * d:
        return False
    if method == "ksg":
        return law.kind != "discrete" and d <= 3 and n >= 100 * d
    kinds = {"gaussian": ("gaussian",), "copula": ("gaussian", "monotone")}
    return law.kind in kinds[method]
