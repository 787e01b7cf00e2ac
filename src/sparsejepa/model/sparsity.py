"""Group penalties of SparseJEPA: groups, the group lasso, its proximal step, and its readings.

The paper leaves open what exactly is penalised. A *reading* answers that behind the interface
`Penalty`; the objective and the training loop know nothing else of it.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, get_args, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

Reading = Literal["none", "R1"]
Grouping = Literal["contiguous", "heads", "random"]


@dataclass(frozen=True)
class SparsityConfig:
    """Which reading of SparseJEPA, and its strength."""

    reading: Reading = "none"  # none: plain JEPA; R1: proximal group lasso on W^(g)
    groups: int = 8  # G, parts of the predictor's input width
    grouping: Grouping = "contiguous"  # how channels are parted; random is the control
    strength: float = 0.0  # lambda, of sum_g sum_k ||W^(g)_{.,k}||_2
    learning_rate: float = 16.0  # eta at its peak, of the plain SGD on W^(g)
    average_over: int = 32  # minibatches whose mean gradient makes one step of W^(g)

    def __post_init__(self) -> None:
        for name, options in (("reading", get_args(Reading)), ("grouping", get_args(Grouping))):
            if getattr(self, name) not in options:
                raise ValueError(
                    f"{name} {getattr(self, name)!r} is unknown; choose {' or '.join(options)}."
                )
        if not (self.strength >= 0 and self.learning_rate > 0 and self.average_over > 0):
            raise ValueError(
                f"strength {self.strength} must be at least 0, learning_rate "
                f"{self.learning_rate} and average_over {self.average_over} above 0."
            )


@runtime_checkable
class Penalty(Protocol):
    """What a reading adds to JEPA."""

    def loss(self, latents: Float[Tensor, "B K d"]) -> Tensor:
        """Scalar added to the prediction loss."""

    def own_parameters(self) -> list[nn.Parameter]:
        """Parameters that plain SGD at `learning_rate` steps, instead of AdamW."""

    def after_step(self, learning_rate: float) -> None:
        """Called after every SGD step of the own parameters, with its learning rate."""

    def measures(self) -> dict[str, float]:
        """Sparsity that no rescaling can feign, for the log."""


class NoPenalty:
    """Plain JEPA."""

    def loss(self, latents: Float[Tensor, "B K d"]) -> Tensor:
        return latents.new_zeros(())

    def own_parameters(self) -> list[nn.Parameter]:
        return []

    def after_step(self, learning_rate: float) -> None:
        pass

    def measures(self) -> dict[str, float]:
        return {}


class ProximalGroupLasso:
    """Reading R1: oi-VAE's (1802.06765) proximal group lasso on the columns of W^(1) … W^(G).

    Stacked, the maps W^(g) of shape [p_g, d] are the weight W [p, d] of the predictor's input
    projection. Column k of W^(g) says whether group g reads latent k. The penalty
    lambda · sum_g sum_k ||W^(g)_{.,k}||_2 never enters the differentiated loss: W is stepped by
    plain SGD and then shrunk by the penalty's proximal operator, which makes exact zeros.

    A step uses the mean gradient of several minibatches. With each one's own, a dead column came
    back for a step whenever the noise of that minibatch exceeded lambda: there were columns a
    thousandth of the others, but few zeros.
    """

    def __init__(
        self, weight: nn.Parameter, groups: Int64[Tensor, "G p_g"], strength: float
    ) -> None:
        self.weight, self.groups, self.strength = weight, groups, strength

    def loss(self, latents: Float[Tensor, "B K d"]) -> Tensor:
        return latents.new_zeros(())

    def own_parameters(self) -> list[nn.Parameter]:
        return [self.weight]

    @torch.no_grad()
    def after_step(self, learning_rate: float) -> None:
        proximal_step(self.weight, self.groups, learning_rate * self.strength)

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        return column_sparsity(group_column_norms(self.weight, self.groups))


def make_penalty(
    config: SparsityConfig, weight: nn.Parameter, groups: Int64[Tensor, "G p_g"]
) -> Penalty:
    """The reading that `config` names, bound to the weight of the predictor's input projection."""
    if config.reading == "none":
        return NoPenalty()
    return ProximalGroupLasso(weight, groups, config.strength)


def make_groups(
    width: int, groups: int, grouping: Grouping, heads: int, generator: torch.Generator
) -> Int64[Tensor, "G p_g"]:
    """Partition of `width` channels: row g holds the channels of group g.

    `heads` takes the predictor's attention heads as groups; `random` draws the partition.

    Raises:
        ValueError: the width can't be split into that many groups of equal size.
    """
    count = heads if grouping == "heads" else groups
    if count < 1 or width % count:
        raise ValueError(f"{width} channels can't be split into {count} groups of equal size.")
    channels = torch.arange(width)
    if grouping == "random":
        channels = torch.randperm(width, generator=generator)
    return channels.view(count, -1)


def group_column_norms(
    weight: Float[Tensor, "p d"], groups: Int64[Tensor, "G p_g"]
) -> Float[Tensor, "G d"]:
    """||W^(g)_{.,k}||_2 for every group g and latent k."""
    return weight[groups].float().norm(dim=1)


def group_lasso(weight: Float[Tensor, "p d"], groups: Int64[Tensor, "G p_g"]) -> Float[Tensor, ""]:
    """sum_g sum_k ||W^(g)_{.,k}||_2, oi-VAE's penalty without lambda."""
    return group_column_norms(weight, groups).sum()


@torch.no_grad()
def proximal_step(
    weight: Float[Tensor, "p d"], groups: Int64[Tensor, "G p_g"], threshold: float
) -> None:
    """In place W^(g)_{.,k} <- W^(g)_{.,k} · max(0, 1 - threshold / ||W^(g)_{.,k}||_2).

    This is argmin_V ½||V - W||² + threshold · group_lasso(V): a column whose norm is at most
    `threshold` becomes exactly zero. `threshold` is the step's eta · lambda.
    """
    norms = group_column_norms(weight, groups)
    # A zero column stays zero; the clamp keeps 0/0 out of it.
    factor = ((norms - threshold).clamp(min=0) / norms.clamp(min=1e-30)).clamp(max=1)
    weight[groups] = weight[groups] * factor.unsqueeze(1).to(weight.dtype)


def column_sparsity(norms: Float[Tensor, "G d"]) -> dict[str, float]:
    """Scale-free sparsity of a group × latent norm matrix.

    zero_columns: share of exact zeros; groups_per_latent: mean number of groups that read a
    latent; unread_latents: share of latents that no group reads; hoyer: 0 when all norms are
    equal, 1 when at most one is left (Hoyer 2004).
    """
    alive = norms > 0
    flat = norms.flatten().double()
    root = flat.numel() ** 0.5
    ratio = (flat.sum() / flat.norm()).item() if alive.any() else 1.0
    return {
        "zero_columns": 1 - alive.float().mean().item(),
        "groups_per_latent": alive.sum(0).float().mean().item(),
        "unread_latents": 1 - alive.any(0).float().mean().item(),
        "hoyer": (root - ratio) / (root - 1),
    }
