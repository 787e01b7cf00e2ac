"""Is the representation alive? Spread and effective rank of features, in float64.

All functions centre the features first: a mean shared by all images says nothing about them,
and left in it swamps the spectrum (isotropic 64-dimensional features plus a constant 5 would get
a small RankMe).
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor


def spectrum(z: Float[Tensor, "N d"]) -> Float64[Tensor, "d"]:
    """Eigenvalues of the covariance (divided by N) of the features, largest first, on the CPU.

    Eigenvalues below what rounding can tell from zero are zero.

    Raises:
        ValueError: fewer than two rows, or values that are not finite.
    """
    wide = _checked(z)
    centred = wide - wide.mean(dim=0)
    values = torch.linalg.eigvalsh(centred.T @ centred / len(z)).flip(0)
    # Rounding of the features themselves, mean included, leaves eigenvalues of this size.
    noise = wide.shape[1] * torch.finfo(torch.float64).eps * wide.square().mean()
    return torch.where(values > noise, values, 0.0)


def rankme(z: Float[Tensor, "N d"]) -> float:
    """Effective rank exp(-sum p_i log p_i), p_i = sigma_i / sum sigma (Garrido et al. 2023, eq. 1).

    sigma are the singular values of the centred features, not the covariance's eigenvalues
    (their squares, which would give a smaller number). From 1 for one direction to d for isotropic
    features; 0, the rank of a constant, for total collapse.

    Raises:
        ValueError: as `spectrum`.
    """
    sigma = spectrum(z).sqrt()
    total = sigma.sum()
    if total == 0:
        return 0.0
    return torch.special.entr(sigma / total).sum().exp().item()


def feature_spread(z: Float[Tensor, "N d"]) -> float:
    """Standard deviation (divided by N) over images, averaged over dimensions; 0 is collapse.

    Raises:
        ValueError: as `spectrum`.
    """
    return _checked(z).std(dim=0, correction=0).mean().item()


def token_spread(tokens: Float[Tensor, "B N d"]) -> float:
    """Standard deviation over the tokens of an image, averaged over dimensions and images.

    Zero while `feature_spread` is not: the encoder says the same of every patch of an image.

    Raises:
        ValueError: as `spectrum`, of one image's tokens.
    """
    wide = _checked(tokens.flatten(0, 1)).view(tokens.shape)
    return wide.std(dim=1, correction=0).mean().item()


def _checked(z: Float[Tensor, "N d"]) -> Float64[Tensor, "N d"]:
    if len(z) < 2:
        raise ValueError(f"Spread and rank need at least 2 rows of features, not {len(z)}.")
    wide = z.detach().double().cpu()
    if not wide.isfinite().all():
        raise ValueError("Features contain NaN or infinity: the encoder's weights are damaged.")
    return wide
