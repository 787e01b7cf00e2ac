"""Measures of a representation's spectrum: collapse, effective rank, LiDAR, α-ReQ, spread.

All are of centred features, in float64 on the CPU: a mean that all images share swamps a spectrum.
ValueError of each: fewer than two rows, or values that are not finite.
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sparsejepa.probing.features import TestX, TestY, TrainX, TrainY, as_float

# Of the largest eigenvalue; below it float32 features hold rounding only, as the last one always
# does behind a LayerNorm, which takes off the channels' mean.
_ROUNDING = 1e-9


def spectrum(z: TrainX) -> Float64[Tensor, "d"]:
    """Eigenvalues of the covariance (divided by N), largest first; 0 where it may be rounding."""
    wide = _wide(z)
    centred = wide - wide.mean(dim=0)
    values = torch.linalg.eigvalsh(centred.T @ centred / len(z)).flip(0)
    # Rounding of the features themselves, mean included, leaves eigenvalues of this size.
    return _without_rounding(values, wide.square().mean())


def rankme(z: TrainX) -> float:
    """Effective rank exp(-sum p_i log p_i), p_i = sigma_i / sum sigma (Garrido et al. 2023, eq. 1).

    sigma are the singular values of the centred features, not their squares, the eigenvalues of
    the covariance. From 1 for one direction to d for isotropic features; 0 for a constant.

    Example:
        >>> z = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]])
        >>> round(rankme(z), 6), round(rankme(z * torch.tensor([1.0, 0.0])), 6)
        (2.0, 1.0)
    """
    return _effective_number(spectrum(z).sqrt())


def feature_spread(z: TrainX) -> float:
    """Standard deviation (divided by N) over images, averaged over dimensions; 0 is collapse."""
    return _wide(z).std(dim=0, correction=0).mean().item()


def token_spread(tokens: Float[Tensor, "B N d"]) -> float:
    """Standard deviation over the tokens of an image, averaged over dimensions and images."""
    wide = _wide(tokens.flatten(0, 1)).view(tokens.shape)
    return wide.std(dim=1, correction=0).mean().item()


def lidar(z: TrainX, groups: TrainY, regularisation: float = 1e-4) -> float:
    """Effective rank of linear discriminants between groups (Thilak et al. 2023, arXiv 2312.04000).

    exp(-sum p_i log p_i), p_i = lambda_i / sum lambda (not their roots, as in `rankme`), lambda
    the eigenvalues of S_w^-1/2 S_b S_w^-1/2: covariance S_b of the group means, in units of the
    covariance S_w inside groups. From 1 to min(d, groups - 1) directions that tell groups apart;
    0 if none does.

    Args:
        groups: of each row its image (rows are augmented views, the paper's choice) or class.
        regularisation: added to S_w, times the mean variance of a feature. Without that factor, as
            in the paper, features of small numbers seem to have a small rank.
    """
    total = spectrum(z).sum() / z.shape[1]
    names, group, sizes = groups.cpu().unique(return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"LiDAR compares groups, but all {len(z)} rows are of one group.")
    if sizes.min() < 2:
        alone = names[sizes.argmin()].item()
        raise ValueError(f"Group {alone} has a single row; LiDAR needs 2 or more of each group.")
    if total == 0:
        return 0.0
    wide = _wide(z)
    centred = wide - wide.mean(dim=0)
    means = wide.new_zeros(len(names), z.shape[1]).index_add_(0, group, centred) / sizes[:, None]
    inside = centred - means[group]
    # A row's group is drawn by its size, so that S_b + S_w is the covariance of all rows.
    between = means.T @ (means * sizes[:, None]) / len(z)
    variance, axes = torch.linalg.eigh(inside.T @ inside / len(z))
    whitening = axes / (variance.clamp(min=0) + regularisation * total).sqrt()
    eigenvalues = torch.linalg.eigvalsh(whitening.T @ between @ whitening)
    return _effective_number(_without_rounding(eigenvalues, eigenvalues.abs().max()))


def alpha_req(z: TrainX) -> float | None:
    """Exponent alpha of the power law lambda_i ~ i^-alpha of the eigenvalues; None of a single one.

    Agrawal et al. 2022 (α-ReQ) find the best representations near 1; isotropic features have 0. The
    line is fitted to log lambda_i over log i with weight 1 / i: every doubling of i counts alike.
    """
    values = spectrum(z)
    values = values[values > _ROUNDING * values[0]]
    if len(values) < 2:
        return None
    rank = torch.arange(1, len(values) + 1, dtype=torch.float64)
    weight = 1 / rank
    x, y = rank.log(), values.log()
    x, y = x - (weight * x).sum() / weight.sum(), y - (weight * y).sum() / weight.sum()
    return -((weight * x * y).sum() / (weight * x * x).sum()).item()


def channel_spread(z: TrainX) -> float:
    """Share of channels that carry the variance, (sum v)² / (d sum v²) of the channel variances v.

    k / d when k channels vary alike and the others not at all. Unlike a rank it depends on axes.
    """
    variance = _channel_deviation(z).square()
    share = variance.sum().square() / variance.square().sum() / len(variance)
    return share.nan_to_num(0.0).item()


def dead_channels(z: TrainX) -> float:
    """Share of channels whose standard deviation is at most a hundredth of the largest one."""
    deviation = _channel_deviation(z)
    return (deviation <= 0.01 * deviation.max()).double().mean().item()


def structure(z: TrainX, views: TestX, groups: TestY) -> dict[str, float]:
    """Every measure of features z, and LiDAR of grouped `views`; no alpha of a single direction."""
    found = {"rankme": rankme(z), "lidar": lidar(views, groups)}
    found |= {f.__name__: f(z) for f in (feature_spread, channel_spread, dead_channels)}
    return found if (alpha := alpha_req(z)) is None else found | {"alpha": alpha}


def _wide(z: TrainX) -> Float64[Tensor, "N d"]:
    if len(z) < 2:
        raise ValueError(f"Spread and rank need at least 2 rows of features, not {len(z)}.")
    return as_float(z).double().cpu()


def _channel_deviation(z: TrainX) -> Float64[Tensor, "d"]:
    """Zero where it is rounding only."""
    wide = _wide(z)
    deviation = wide.std(dim=0, correction=0)
    return torch.where(deviation > 1e-12 * wide.abs().amax(dim=0), deviation, 0.0)


def _without_rounding(values: Float64[Tensor, "d"], size: Tensor) -> Float64[Tensor, "d"]:
    """Eigenvalues of a positive semidefinite matrix; zero where rounding of `size` may be all."""
    return torch.where(values > len(values) * torch.finfo(torch.float64).eps * size, values, 0.0)


def _effective_number(values: Float64[Tensor, "d"]) -> float:
    total = values.sum()
    return torch.special.entr(values / total).sum().exp().item() if total > 0 else 0.0
