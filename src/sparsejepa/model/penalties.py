"""Penalties of SparseJEPA: readings of the paper, which leaves open what exactly is penalised."""

from dataclasses import dataclass
from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sparsejepa.config import ABOVE_ZERO, AT_LEAST_ONE, AT_LEAST_ZERO, check_choices, check_ranges
from sparsejepa.model.vit import EncoderConfig, PredictorConfig
from sparsejepa.randomness import generator

# Under the root of a norm that is differentiated: the gradient at zero is 0 and not 0/0.
EPSILON = 1e-12
# Below this share of the root mean square, an activation, or a unit's spread, counts as none.
SMALL = 0.01

Grouping = Literal["contiguous", "heads", "random"]
Latents = Float[Tensor, "B K d"]
Loss = Float[Tensor, ""]
Groups = Int64[Tensor, "G p_g"]  # row g holds the channels of group g


@dataclass(frozen=True)
class SparsityConfig:
    """Which reading of SparseJEPA, and its strength."""

    reading: str = "none"  # a key of PENALTIES
    groups: int = 8  # G, parts of the predictor's input width (R2, R3: of the encoder's width)
    grouping: Grouping = "contiguous"  # how channels are parted; random is the control
    strength: float = 0.0  # lambda, of the reading's sum of norms
    learning_rate: float = 16.0  # R1, L1: eta at its peak, of the plain SGD on W
    average_over: int = 32  # R1, L1: minibatches whose mean gradient makes one step of W
    beta: float = 1e-4  # R3: weight of the KL divergence, in nats a token; ours

    def __post_init__(self) -> None:
        check_choices(self)
        if self.reading not in PENALTIES:
            known = ", ".join(PENALTIES)
            raise ValueError(f"reading must be one of {known}, not {self.reading!r}.")
        check_ranges(self, strength=AT_LEAST_ZERO, beta=AT_LEAST_ZERO)
        check_ranges(self, learning_rate=ABOVE_ZERO, average_over=AT_LEAST_ONE)


class Penalty(nn.Module):
    """What a reading adds to JEPA; this one adds nothing. Override what differs.

    `self.projection_weight` is the weight W [p, d] of the predictor's input projection;
    `self.groups` [G, channels a group] parts the channels that `groups_of` names.
    """

    groups_of: Literal["none", "encoder", "predictor"] = "none"  # whose channels are grouped
    groups: Tensor

    def __init__(
        self,
        config: SparsityConfig,
        encoder: EncoderConfig,
        predictor: PredictorConfig,
        weight: nn.Parameter,
        seed: int,
    ) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        # The weight stays the projection's and is not registered a second time.
        self.__dict__["projection_weight"] = weight
        sizes = {"encoder": encoder, "predictor": predictor}.get(self.groups_of)
        none = torch.zeros(0, 0, dtype=torch.int64)
        groups = projection_groups(config, sizes, seed) if sizes else none
        self.register_buffer("groups", groups, persistent=False)
        self.seen: Tensor | None = None

    def forward(self, latents: Latents, step: int) -> tuple[Latents, Loss]:
        """From the context latents: what the predictor reads, and what is added to the loss."""
        return latents, latents.new_zeros(())

    def own_parameters(self) -> list[nn.Parameter]:
        """Parameters that plain SGD at `learning_rate` steps, instead of AdamW."""
        return []

    def after_step(self, learning_rate: float) -> None:
        """Called after every SGD step of the own parameters, with its learning rate."""

    def measures(self) -> dict[str, float]:
        """Sparsity measures for the log, which no rescaling changes."""
        return {}


class GroupLassoInLoss(Penalty):
    """Reading R1b: R1's penalty inside the differentiated loss, stepped by AdamW.

    A gradient step never lands on zero: columns get small and jump about it by a learning rate.
    """

    groups_of = "predictor"

    def forward(self, latents: Latents, step: int) -> tuple[Latents, Loss]:
        squares = self.projection_weight[self.groups].square().sum(1)
        return latents, self.config.strength * (squares + EPSILON).sqrt().sum()

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        return column_sparsity(group_column_norms(self.projection_weight, self.groups))


class ProximalGroupLasso(GroupLassoInLoss):
    """Reading R1: oi-VAE's (1802.06765) proximal group lasso on the columns of W^(1) … W^(G).

    Stacked, the maps W^(g) [p_g, d] are the weight W [p, d] of the predictor's input projection:
    group g reads latent k by column k of W^(g). Plain SGD steps W, then the proximal operator of
    lambda · sum_g sum_k ||W^(g)_{.,k}||_2, which is no part of the loss, makes exact zeros. A step
    has the mean gradient of several minibatches: of single ones, noise revived dead columns.
    """

    forward = Penalty.forward

    def own_parameters(self) -> list[nn.Parameter]:
        return [self.projection_weight]

    def after_step(self, learning_rate: float) -> None:
        proximal_step(self.projection_weight, self.groups, learning_rate * self.config.strength)


class ProximalL1(ProximalGroupLasso):
    """L1, the control without groups: the proximal step of single weights, otherwise as R1."""

    @torch.no_grad()
    def after_step(self, learning_rate: float) -> None:
        threshold = learning_rate * self.config.strength
        self.projection_weight.copy_(F.softshrink(self.projection_weight, threshold))

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        zero = (self.projection_weight == 0).float().mean().item()
        return {"zero_weights": zero} | super().measures()


class GroupNormPenalty(Penalty):
    """Reading R2: lambda · mean over batch and tokens of sum_g ||z_{S_g}||_2.

    z are the context latents that the predictor reads; S_g are groups of the encoder's channels.
    The final norm's weights can lower the scale of z, and the penalty with it, while the
    predictor's projection makes up for it: `measures` has both beside what no scale changes.
    """

    groups_of = "encoder"

    def forward(self, latents: Latents, step: int) -> tuple[Latents, Loss]:
        self.seen = latents.detach()
        return latents, self.config.strength * group_norms(latents, self.groups)

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        if self.seen is None:
            return {}
        tokens = self.seen.float().flatten(0, 1)
        return {
            "group_norms": group_norms(self.seen, self.groups).item(),
            "latent_scale": tokens.square().mean().sqrt().item(),
            **group_sparsity(tokens, self.groups),
            **activation_sparsity(tokens),
        }


class NoisyGroupNormPenalty(GroupNormPenalty):
    """Reading R3: R2 of mu, and beta · KL(N(mu, sigma²) || N(0, I)) of noisy latents.

    The latents are the means mu, which a probe reads; a linear map of them gives ln sigma²; the
    predictor reads mu + sigma · noise. Var-JEPA (ICML 2026, PMLR 306) derives KL terms for a JEPA
    from one bound [verified: abstract]; how SparseJEPA would have them is not known.
    """

    def __init__(self, *bound: Any) -> None:
        super().__init__(*bound)
        width = self.projection_weight.shape[1]
        self.log_variance = nn.utils.skip_init(nn.Linear, width, width)
        # The prior's own sigma = 1 to begin with.
        nn.init.zeros_(self.log_variance.weight)
        nn.init.zeros_(self.log_variance.bias)

    def forward(self, latents: Latents, step: int) -> tuple[Latents, Loss]:
        mean, group_loss = super().forward(latents.float(), step)
        log_variance = self.log_variance(latents).float()
        draws = generator(self.seed, "latent noise", step)
        noise = torch.randn(mean.shape, generator=draws).to(mean.device)
        # KL(N(mean, diag exp(log_variance)) || N(0, I)) in nats.
        divergence = 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1).mean()
        self.divergence = divergence.detach()
        noisy = mean + (0.5 * log_variance).exp() * noise
        return noisy, group_loss + self.config.beta * divergence

    def measures(self) -> dict[str, float]:
        found = super().measures()
        return {"divergence": self.divergence.item()} | found if found else {}


PENALTIES: dict[str, type[Penalty]] = {
    "none": Penalty,
    "R1": ProximalGroupLasso,
    "R1b": GroupLassoInLoss,
    "R2": GroupNormPenalty,
    "R3": NoisyGroupNormPenalty,
    "L1": ProximalL1,
}


def projection_groups(
    config: SparsityConfig, sizes: EncoderConfig | PredictorConfig, seed: int
) -> Groups:
    """Partition of the channels of the predictor, which are the rows of W, or of the encoder.

    A ValueError if they can't be split into that many groups of equal size.
    """
    count, width = sizes.heads if config.grouping == "heads" else config.groups, sizes.width
    if count < 1 or width % count:
        raise ValueError(f"{width} channels can't be split into {count} groups of equal size.")
    if config.grouping == "random":
        return torch.randperm(width, generator=generator(seed, "groups")).view(count, -1)
    return torch.arange(width).view(count, -1)


def group_column_norms(weight: Float[Tensor, "p d"], groups: Groups) -> Float[Tensor, "G d"]:
    """||W^(g)_{.,k}||_2 for every group g and latent k."""
    return weight[groups].float().norm(dim=1)


def strongest_group(norms: Float[Tensor, "G d"]) -> Int64[Tensor, "d"]:
    """The group that reads each latent most, a partition of the latents; -1 where none reads it."""
    largest, group = norms.max(dim=0)
    return group.where(largest > 0, -1)


@torch.no_grad()
def proximal_step(weight: Float[Tensor, "p d"], groups: Groups, threshold: float) -> None:
    """In place W^(g)_{.,k} <- W^(g)_{.,k} · max(0, 1 - threshold / ||W^(g)_{.,k}||_2).

    This is argmin_V ½||V - W||² + threshold · sum_g sum_k ||V^(g)_{.,k}||: columns of at most this
    norm become exactly zero.
    """
    norms = group_column_norms(weight, groups)
    # A zero column stays zero; the clamp keeps 0/0 out of it.
    factor = ((norms - threshold).clamp(min=0) / norms.clamp(min=1e-30)).clamp(max=1)
    weight[groups] = weight[groups] * factor.unsqueeze(1).to(weight.dtype)


def group_norms(latents: Float[Tensor, "B K d"], groups: Groups) -> Float[Tensor, ""]:
    """Mean over batch and tokens of sum_g ||z_{S_g}||_2."""
    squares = latents.float()[..., groups].square().sum(-1)
    return (squares + EPSILON).sqrt().sum(-1).mean()


def column_sparsity(norms: Float[Tensor, "G d"]) -> dict[str, float]:
    """Scale-free sparsity of a group × latent norm matrix.

    small_columns: share below a hundredth of the largest, zeros included; groups_per_latent: mean
    number of groups that read a latent; unread_latents: share of latents that no group reads;
    hoyer: 0 when all norms are equal, 1 when at most one is left (Hoyer 2004).
    """
    norms = norms.cpu()  # mps has no float64
    alive = norms > 0
    flat = norms.flatten().double()
    root = flat.numel() ** 0.5
    ratio = (flat.sum() / flat.norm()).item() if alive.any() else 1.0
    return {
        "zero_columns": 1 - alive.float().mean().item(),
        "small_columns": (norms <= SMALL * norms.max()).float().mean().item(),
        "groups_per_latent": alive.sum(0).float().mean().item(),
        "unread_latents": 1 - alive.any(0).float().mean().item(),
        "hoyer": (root - ratio) / (root - 1),
    }


@torch.no_grad()
def group_sparsity(activations: Float[Tensor, "n d"], groups: Groups) -> dict[str, float]:
    """How each vector's norm spreads over G groups of its units, averaged over the vectors.

    hoyer: from 0, all groups have one norm, to 1, one group has all (Hoyer 2004); effective_groups:
    (sum of the norms)² / sum of their squares, from G to 1; zero vectors count as one group.
    """
    norms = activations.cpu().double()[:, groups.cpu()].norm(dim=-1)
    total = norms.norm(dim=-1)
    ratio = torch.where(total > 0, norms.sum(-1) / total.clamp(min=1e-300), 1.0)
    root = len(groups) ** 0.5
    hoyer = (root - ratio) / (root - 1) if root > 1 else torch.zeros_like(ratio)
    return {"hoyer": hoyer.mean().item(), "effective_groups": ratio.square().mean().item()}


@torch.no_grad()
def activation_sparsity(activations: Float[Tensor, "n d"]) -> dict[str, float]:
    """Sparsity of n activation vectors of d units, which no rescaling changes.

    activation_density: share of entries above a hundredth of the root mean square of all;
    dead_units: share of units whose standard deviation is at most a hundredth of that of all.
    """
    activations = activations.cpu().double()
    size = activations.square().mean().sqrt()
    spread = activations.std(0, correction=0)
    typical = spread.square().mean().sqrt()
    # A constant unit's spread is rounding noise, which must not count as life.
    dead = spread <= torch.maximum(SMALL * typical, 1e-6 * size)
    return {
        "activation_density": (activations.abs() > SMALL * size).double().mean().item(),
        "dead_units": dead.double().mean().item(),
    }
