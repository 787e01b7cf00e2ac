"""Group penalties of SparseJEPA: groups, the group lasso, its proximal step, and reading R1.

The paper leaves open what exactly is penalised. A *reading* answers that behind the interface
`Penalty`; the objective and the training loop know nothing else of it. The other readings are in
`readings.py`.
"""

from dataclasses import dataclass
from typing import Literal, Protocol, runtime_checkable

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sparsejepa.config import check_choices
from sparsejepa.model.vit import EncoderConfig, PredictorConfig
from sparsejepa.randomness import generator

Reading = Literal["none", "R1", "R1b", "R2", "R3", "L1"]
Grouping = Literal["contiguous", "heads", "random"]


@dataclass(frozen=True)
class SparsityConfig:
    """Which reading of SparseJEPA, and its strength."""

    # none: plain JEPA; R1: proximal group lasso on W^(g); R1b: the same penalty inside AdamW;
    # R2: group norms of the latents; R3: R2 with noisy latents and their KL divergence; L1: the
    # proximal step of R1 for single weights, the control without groups.
    reading: Reading = "none"
    groups: int = 8  # G, parts of the predictor's input width (R2, R3: of the encoder's width)
    grouping: Grouping = "contiguous"  # how channels are parted; random is the control
    strength: float = 0.0  # lambda, of the reading's sum of norms
    learning_rate: float = 16.0  # R1, L1: eta at its peak, of the plain SGD on W
    average_over: int = 32  # R1, L1: minibatches whose mean gradient makes one step of W
    beta: float = 1e-4  # R3: weight of the KL divergence, in nats a token; ours

    def __post_init__(self) -> None:
        check_choices(self)
        if not (self.strength >= 0 and self.learning_rate > 0 and self.average_over > 0):
            raise ValueError(
                f"strength {self.strength} must be at least 0, learning_rate "
                f"{self.learning_rate} and average_over {self.average_over} above 0."
            )
        if not self.beta >= 0:
            raise ValueError(f"beta {self.beta} must be at least 0.")


@runtime_checkable
class Penalty(Protocol):
    """What a reading adds to JEPA. A module, so that its groups follow the network to a device."""

    def __call__(
        self, latents: Float[Tensor, "B K d"], step: int
    ) -> tuple[Float[Tensor, "B K d"], Float[Tensor, ""]]:
        """From the context latents: what the predictor reads, and what is added to the loss."""

    def own_parameters(self) -> list[nn.Parameter]:
        """Parameters that plain SGD at `learning_rate` steps, instead of AdamW."""

    def after_step(self, learning_rate: float) -> None:
        """Called after every SGD step of the own parameters, with its learning rate."""

    def measures(self) -> dict[str, float]:
        """Sparsity that no rescaling can feign, for the log."""


class NoPenalty(nn.Module):
    """Plain JEPA."""

    def forward(
        self, latents: Float[Tensor, "B K d"], step: int
    ) -> tuple[Float[Tensor, "B K d"], Float[Tensor, ""]]:
        return latents, latents.new_zeros(())

    def own_parameters(self) -> list[nn.Parameter]:
        return []

    def after_step(self, learning_rate: float) -> None:
        pass

    def measures(self) -> dict[str, float]:
        return {}


class ProximalGroupLasso(nn.Module):
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
        super().__init__()
        # In a list: the weight stays the projection's and is not registered a second time.
        self.own, self.strength = [weight], strength
        self.register_buffer("groups", groups, persistent=False)

    def forward(
        self, latents: Float[Tensor, "B K d"], step: int
    ) -> tuple[Float[Tensor, "B K d"], Float[Tensor, ""]]:
        return latents, latents.new_zeros(())

    def own_parameters(self) -> list[nn.Parameter]:
        return self.own

    @torch.no_grad()
    def after_step(self, learning_rate: float) -> None:
        proximal_step(self.own[0], self.groups, learning_rate * self.strength)

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        return column_sparsity(group_column_norms(self.own[0], self.groups))


def make_penalty(
    config: SparsityConfig,
    encoder: EncoderConfig,
    predictor: PredictorConfig,
    weight: nn.Parameter,
    seed: int,
) -> Penalty:
    """The reading that `config` names, bound to the weight of the predictor's input projection."""
    if config.reading == "none":
        return NoPenalty()
    if config.reading == "R1":
        groups = projection_groups(config, predictor, seed)
        return ProximalGroupLasso(weight, groups, config.strength)
    # Imported where it is used: a change of another reading leaves runs of R1 as they are.
    from sparsejepa.model.readings import make_reading

    return make_reading(config, encoder, predictor, weight, seed)


def projection_groups(
    config: SparsityConfig, predictor: PredictorConfig, seed: int
) -> Int64[Tensor, "G p_g"]:
    """Groups of the predictor's input channels, that is of the rows of W.

    Raises:
        ValueError: the predictor's width can't be split into that many groups of equal size.
    """
    return make_groups(
        predictor.width,
        config.groups,
        config.grouping,
        predictor.heads,
        generator(seed, "groups"),
    )


def make_groups(
    width: int, groups: int, grouping: Grouping, heads: int, generator: torch.Generator
) -> Int64[Tensor, "G p_g"]:
    """Partition of `width` channels: row g holds the channels of group g.

    `heads` takes the attention heads as groups; `random` draws the partition.

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


def strongest_group(norms: Float[Tensor, "G d"]) -> Int64[Tensor, "d"]:
    """The group that reads each latent most, a partition of the latents; -1 where none reads it."""
    largest, group = norms.max(dim=0)
    return group.where(largest > 0, -1)


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

    zero_columns: share of exact zeros; small_columns: share below a hundredth of the largest, zeros
    included; groups_per_latent: mean number of groups that read a latent; unread_latents: share of
    latents that no group reads; hoyer: 0 when all norms are equal, 1 when at most one is left
    (Hoyer 2004).
    """
    alive = norms > 0
    flat = norms.flatten().double()
    root = flat.numel() ** 0.5
    ratio = (flat.sum() / flat.norm()).item() if alive.any() else 1.0
    return {
        "zero_columns": 1 - alive.float().mean().item(),
        "small_columns": (norms <= 0.01 * norms.max()).float().mean().item(),
        "groups_per_latent": alive.sum(0).float().mean().item(),
        "unread_latents": 1 - alive.any(0).float().mean().item(),
        "hoyer": (root - ratio) / (root - 1),
    }
