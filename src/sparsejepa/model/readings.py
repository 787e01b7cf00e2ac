"""Readings of SparseJEPA besides R1, and the control without groups (interface: `Penalty`)."""

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sparsejepa.model.activations import activation_sparsity, group_sparsity
from sparsejepa.model.sparsity import (
    Penalty,
    SparsityConfig,
    column_sparsity,
    group_column_norms,
    make_groups,
    projection_groups,
)
from sparsejepa.model.vit import EncoderConfig, PredictorConfig
from sparsejepa.randomness import generator

# Under the root of a norm that is differentiated: the gradient at zero is 0 and not 0/0.
EPSILON = 1e-12


class GroupLassoInLoss(nn.Module):
    """Reading R1b: R1's penalty inside the differentiated loss, stepped by AdamW like all else.

    Sparsity of W would mean the same as in R1, but a gradient step lands on zero with probability
    zero: columns get small and jump about zero by about a learning rate.
    """

    def __init__(
        self, weight: nn.Parameter, groups: Int64[Tensor, "G p_g"], strength: float
    ) -> None:
        super().__init__()
        # In a list: the weight stays the projection's and is not registered a second time.
        self.shared, self.strength = [weight], strength
        self.register_buffer("groups", groups, persistent=False)

    def forward(
        self, latents: Float[Tensor, "B K d"], step: int
    ) -> tuple[Float[Tensor, "B K d"], Float[Tensor, ""]]:
        squares = self.shared[0][self.groups].square().sum(1)
        return latents, self.strength * (squares + EPSILON).sqrt().sum()

    def own_parameters(self) -> list[nn.Parameter]:
        return []

    def after_step(self, learning_rate: float) -> None:
        pass

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        return column_sparsity(group_column_norms(self.shared[0], self.groups))


class ProximalL1(nn.Module):
    """The control without groups: plain L1 on W, by the proximal step of single weights.

    Otherwise as R1. Sparsity means that a channel of the predictor does not read a latent; a whole
    column of a group is zero only if all its weights happen to be.
    """

    def __init__(
        self, weight: nn.Parameter, groups: Int64[Tensor, "G p_g"], strength: float
    ) -> None:
        super().__init__()
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
        self.own[0].copy_(soft_threshold(self.own[0], learning_rate * self.strength))

    @torch.no_grad()
    def measures(self) -> dict[str, float]:
        zeros = (self.own[0] == 0).float().mean().item()
        columns = column_sparsity(group_column_norms(self.own[0], self.groups))
        return {"zero_weights": zeros} | columns


class GroupNormPenalty(nn.Module):
    """Reading R2: lambda · mean over batch and tokens of sum_g ||z_{S_g}||_2.

    z are the context latents as the predictor reads them, after the final norm with its learned
    scale; S_g are blocks of the encoder's channels. Sparsity means that a token uses few groups.

    The penalty alone says nothing: it is proportional to the scale of z, which the norm's weights
    can lower while the predictor's projection makes up for it. With un-normalised targets the
    prediction loss falls with the scale as well. `measures` therefore shows penalty and scale
    beside what no scale can change, all of the last batch.
    """

    def __init__(self, groups: Int64[Tensor, "G p_g"], strength: float) -> None:
        super().__init__()
        self.strength = strength
        self.register_buffer("groups", groups, persistent=False)
        self.seen: Tensor | None = None

    def forward(
        self, latents: Float[Tensor, "B K d"], step: int
    ) -> tuple[Float[Tensor, "B K d"], Float[Tensor, ""]]:
        self.seen = latents.detach()
        return latents, self.strength * group_norms(latents, self.groups)

    def own_parameters(self) -> list[nn.Parameter]:
        return []

    def after_step(self, learning_rate: float) -> None:
        pass

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


class NoisyGroupNormPenalty(nn.Module):
    """Reading R3: R2, and beta · KL(N(mu, sigma²) || N(0, I)) of noisy latents.

    The latents are the means mu; a linear map of them gives ln sigma²; the predictor reads
    mu + sigma · noise, and the noise is a function of (seed, step). The group norms are those of
    mu, which is what a probe reads. KL terms for a JEPA are derived from one bound in Var-JEPA
    (ICML 2026, PMLR 306) [verified: abstract]; how SparseJEPA would have them is not known.
    """

    def __init__(
        self, groups: Int64[Tensor, "G p_g"], config: SparsityConfig, width: int, seed: int
    ) -> None:
        super().__init__()
        self.group_penalty = GroupNormPenalty(groups, config.strength)
        self.beta, self.seed, self.divergence = config.beta, seed, None
        with torch.random.fork_rng(devices=[]):
            self.log_variance = nn.Linear(width, width)
        # The prior's own sigma = 1 to begin with.
        nn.init.zeros_(self.log_variance.weight)
        nn.init.zeros_(self.log_variance.bias)

    def forward(
        self, latents: Float[Tensor, "B K d"], step: int
    ) -> tuple[Float[Tensor, "B K d"], Float[Tensor, ""]]:
        mean, group_loss = self.group_penalty(latents.float(), step)
        log_variance = self.log_variance(latents).float()
        draws = generator(self.seed, "latent noise", step)
        noise = torch.randn(mean.shape, generator=draws).to(mean.device)
        divergence = gaussian_divergence(mean, log_variance).mean()
        self.divergence = divergence.detach()
        noisy = mean + (0.5 * log_variance).exp() * noise
        return noisy, group_loss + self.beta * divergence

    def own_parameters(self) -> list[nn.Parameter]:
        return []

    def after_step(self, learning_rate: float) -> None:
        pass

    def measures(self) -> dict[str, float]:
        if self.divergence is None:
            return {}
        return {"divergence": self.divergence.item()} | self.group_penalty.measures()


def group_norms(
    latents: Float[Tensor, "B K d"], groups: Int64[Tensor, "G p_g"]
) -> Float[Tensor, ""]:
    """Mean over batch and tokens of sum_g ||z_{S_g}||_2."""
    squares = latents.float()[..., groups].square().sum(-1)
    return (squares + EPSILON).sqrt().sum(-1).mean()


def gaussian_divergence(
    mean: Float[Tensor, "*n d"], log_variance: Float[Tensor, "*n d"]
) -> Float[Tensor, "*n"]:
    """KL(N(mean, diag exp(log_variance)) || N(0, I)) in nats."""
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(-1)


def soft_threshold(weight: Float[Tensor, "*n"], threshold: float) -> Float[Tensor, "*n"]:
    """sign(w) · max(0, |w| - threshold) = argmin_v ½ (v - w)² + threshold · |v|."""
    return weight.sign() * (weight.abs() - threshold).clamp(min=0)


def make_reading(
    config: SparsityConfig,
    encoder: EncoderConfig,
    predictor: PredictorConfig,
    weight: nn.Parameter,
    seed: int,
) -> Penalty:
    """R1b and L1 bound to the predictor's input projection, R2 and R3 to the encoder's latents."""
    if config.reading in ("R1b", "L1"):
        kind = GroupLassoInLoss if config.reading == "R1b" else ProximalL1
        return kind(weight, projection_groups(config, predictor, seed), config.strength)
    groups = make_groups(
        encoder.width, config.groups, config.grouping, encoder.heads, generator(seed, "groups")
    )
    if config.reading == "R2":
        return GroupNormPenalty(groups, config.strength)
    return NoisyGroupNormPenalty(groups, config, encoder.width, seed)
