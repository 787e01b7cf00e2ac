"""What the spectrum of a representation looks like: LiDAR, α-ReQ, and spread over channels.

`collapse.py` asks whether features are alive; the measures here compare features that are. All are
computed in float64, from the covariance of centred features.
"""

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from sparsejepa.probing.collapse import feature_spread, rankme, spectrum

# Of the largest eigenvalue; below it float32 features hold rounding only. Behind a LayerNorm the
# last eigenvalue always is such: the channels' mean has been taken off.
_ROUNDING = 1e-9


def lidar(
    z: Float[Tensor, "N d"], groups: Int64[Tensor, "N"], regularisation: float = 1e-4
) -> float:
    """Effective rank of linear discriminants between groups (Thilak et al. 2023, arXiv 2312.04000).

    exp(-sum p_i log p_i), p_i = lambda_i / sum lambda, where lambda are the eigenvalues of
    S_w^-1/2 S_b S_w^-1/2: covariance S_b of the group means, in units of the covariance S_w inside
    groups. From 1 for one direction that tells groups apart to min(d, groups - 1); 0 if none does.
    The eigenvalues themselves are shares here, not their roots as in `rankme`.

    Args:
        groups: rows of one number belong together for a reason that is no feature's: augmented
            views of one image (the paper's choice), or images of one class.
        regularisation: added to S_w, times the mean variance of a feature. In the paper it is 1e-4
            without that factor, so that features of small numbers seem to have a small rank.

    Raises:
        ValueError: as `spectrum`, one group only, or a group of a single row: it has no inside.
    """
    if len(groups) != len(z):
        raise ValueError(f"There are {len(z)} rows of features but {len(groups)} group numbers.")
    total = spectrum(z).sum() / z.shape[1]
    names, group, sizes = groups.cpu().unique(return_inverse=True, return_counts=True)
    if len(names) < 2:
        raise ValueError(f"LiDAR compares groups, but all {len(z)} rows are of one group.")
    if sizes.min() < 2:
        raise ValueError(
            f"Group {names[sizes.argmin()].item()} has a single row; LiDAR needs 2 or more of each "
            "group, such as several augmented views of each image."
        )
    if total == 0:
        return 0.0
    wide = z.detach().double().cpu()
    wide = wide - wide.mean(dim=0)
    means = wide.new_zeros(len(names), z.shape[1]).index_add_(0, group, wide) / sizes[:, None]
    inside = wide - means[group]
    # A row's group is drawn by its size, so that S_b + S_w is the covariance of all rows.
    between = means.T @ (means * sizes[:, None]) / len(z)
    within = inside.T @ inside / len(z)
    variance, axes = torch.linalg.eigh(within)
    whitening = axes / (variance.clamp(min=0) + regularisation * total).sqrt()
    eigenvalues = torch.linalg.eigvalsh(whitening.T @ between @ whitening)
    return _effective_number(_without_rounding(eigenvalues))


def alpha_req(z: Float[Tensor, "N d"], first: int = 1, last: int | None = None) -> float:
    """Exponent alpha of the power law lambda_i ~ i^-alpha of the eigenvalues (α-ReQ).

    Agrawal et al. 2022 find the best representations near alpha = 1; isotropic features have 0,
    collapsing ones a large one. The line is fitted to log lambda_i over log i, with weight 1 / i:
    every doubling of i counts alike, where plain least squares would see the tail alone.

    Args:
        first, last: the ranks i that are fitted, from 1; all eigenvalues unless given. Those that
            float32 cannot tell from zero are left out.

    Raises:
        ValueError: as `spectrum`, or fewer than two non-zero eigenvalues in that range.
    """
    values = spectrum(z)
    alive = _directions(values)
    last = alive if last is None else min(last, alive)
    if not 1 <= first < last:
        raise ValueError(
            f"A power law needs 2 non-zero eigenvalues or more; of ranks {first} to {last} of "
            f"{alive} there are {max(0, last - first + 1)}."
        )
    rank = torch.arange(first, last + 1, dtype=torch.float64)
    weight = 1 / rank
    x, y = rank.log(), values[first - 1 : last].log()
    x, y = x - (weight * x).sum() / weight.sum(), y - (weight * y).sum() / weight.sum()
    return -((weight * x * y).sum() / (weight * x * x).sum()).item()


def channel_spread(z: Float[Tensor, "N d"]) -> float:
    """Share of channels that carry the variance, (sum v)² / (d sum v²) of the channel variances v.

    1 when all channels vary alike, k / d when k vary alike and the others not at all, 0 for total
    collapse. Unlike a rank it depends on the axes, which is what a penalty on groups of channels
    acts on.

    Raises:
        ValueError: as `spectrum`.
    """
    variance = _channel_deviation(z).square()
    total = variance.sum()
    if total == 0:
        return 0.0
    return (total.square() / variance.square().sum() / len(variance)).item()


def dead_channels(z: Float[Tensor, "N d"]) -> float:
    """Share of channels whose standard deviation is at most a hundredth of the largest one.

    Raises:
        ValueError: as `spectrum`.
    """
    deviation = _channel_deviation(z)
    return (deviation <= 0.01 * deviation.max()).double().mean().item()


def structure(
    z: Float[Tensor, "N d"], views: Float[Tensor, "M d"], groups: Int64[Tensor, "M"]
) -> dict[str, float]:
    """The table's row: every measure of features z, and LiDAR of grouped `views`.

    Only `alpha` may be missing: features of a single direction have no power law.

    Raises:
        ValueError: as `lidar`.
    """
    measures = {
        "rankme": rankme(z),
        "lidar": lidar(views, groups),
        "feature_spread": feature_spread(z),
        "channel_spread": channel_spread(z),
        "dead_channels": dead_channels(z),
    }
    if _directions(spectrum(z)) > 1:
        measures["alpha"] = alpha_req(z)
    return measures


def _directions(values: Float64[Tensor, "d"]) -> int:
    return int((values > _ROUNDING * values[0]).sum())


def _channel_deviation(z: Float[Tensor, "N d"]) -> Float64[Tensor, "d"]:
    """Standard deviation of every channel over rows; zero where it is rounding only."""
    feature_spread(z)  # refuses what has no spread
    wide = z.detach().double().cpu()
    deviation = wide.std(dim=0, correction=0)
    return torch.where(deviation > 1e-12 * wide.abs().amax(dim=0), deviation, 0.0)


def _without_rounding(values: Float64[Tensor, "d"]) -> Float64[Tensor, "d"]:
    """Eigenvalues of a positive semidefinite matrix, those that rounding made set to zero."""
    noise = len(values) * torch.finfo(torch.float64).eps * values.abs().max()
    return torch.where(values > noise, values, 0.0)


def _effective_number(values: Float64[Tensor, "d"]) -> float:
    total = values.sum()
    if total == 0:
        return 0.0
    return torch.special.entr(values / total).sum().exp().item()
