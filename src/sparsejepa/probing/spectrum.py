"""Measures of a representation's spectrum: collapse, effective rank, LiDAR, α-ReQ, spread.

All are computed in float64 on the CPU, of centred features: a mean that all images share swamps the
spectrum (isotropic 64-dimensional features plus a constant 5 would get a small RankMe).
"""

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from sparsejepa.probing.features import TestX, TestY, TrainX, TrainY, as_float

# Of the largest eigenvalue; below it float32 features hold rounding only. Behind a LayerNorm the
# last eigenvalue always is such: the channels' mean has been taken off.
_ROUNDING = 1e-9


def spectrum(z: TrainX) -> Float64[Tensor, "d"]:
    """Eigenvalues of the covariance (divided by N) of the features, largest first.

    Those that rounding cannot tell from zero are zero. ValueError: fewer than two rows, or values
    that are not finite; of every measure here.
    """
    wide = _wide(z)
    centred = wide - wide.mean(dim=0)
    values = torch.linalg.eigvalsh(centred.T @ centred / len(z)).flip(0)
    # Rounding of the features themselves, mean included, leaves eigenvalues of this size.
    return _without_rounding(values, wide.square().mean())


def rankme(z: TrainX) -> float:
    """Effective rank exp(-sum p_i log p_i), p_i = sigma_i / sum sigma (Garrido et al. 2023, eq. 1).

    sigma are the singular values of the centred features, not the covariance's eigenvalues
    (their squares, which would give a smaller number). From 1 for one direction to d for isotropic
    features; 0, the rank of a constant, for total collapse.

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
    covariance S_w inside groups. From 1 for one direction that tells groups apart to
    min(d, groups - 1); 0 if none does.

    Args:
        groups: of each row, the number of its image (rows are augmented views, the paper's choice)
            or of its class.
        regularisation: added to S_w, times the mean variance of a feature, a factor that the paper
            lacks, so that features of small numbers seem to have a small rank there.
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


def alpha_req(z: TrainX) -> float:
    """Exponent alpha of the power law lambda_i ~ i^-alpha of the eigenvalues (α-ReQ).

    Agrawal et al. 2022 find the best representations near alpha = 1; isotropic features have 0. The
    line is fitted to log lambda_i over log i with weight 1 / i, so that every doubling of i counts
    alike, without the eigenvalues that float32 cannot tell from zero.
    """
    values = spectrum(z)
    if (alive := _directions(values)) < 2:
        raise ValueError(f"A power law needs 2 non-zero eigenvalues or more, not {alive}.")
    rank = torch.arange(1, alive + 1, dtype=torch.float64)
    weight = 1 / rank
    x, y = rank.log(), values[:alive].log()
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
    return found | ({"alpha": alpha_req(z)} if _directions(spectrum(z)) > 1 else {})


def _wide(z: TrainX) -> Float64[Tensor, "N d"]:
    if len(z) < 2:
        raise ValueError(f"Spread and rank need at least 2 rows of features, not {len(z)}.")
    return as_float(z).double().cpu()


def _directions(values: Float64[Tensor, "d"]) -> int:
    return int((values > _ROUNDING * values[0]).sum())


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
