"""The JEPA objective: predict the target encoder's features of masked blocks."""

import copy
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sparsejepa.model.masks import Masks
from sparsejepa.model.sparsity import Penalty, SparsityConfig, make_groups, make_penalty
from sparsejepa.model.vit import (
    Encoder,
    EncoderConfig,
    Predictor,
    PredictorConfig,
    gather_tokens,
    initialise,
)
from sparsejepa.randomness import generator


@dataclass(frozen=True)
class ModelConfig:
    """All that fixes the network and its loss."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)  # context and target encoder
    predictor: PredictorConfig = field(default_factory=PredictorConfig)  # narrow transformer
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)  # reading of SparseJEPA


@dataclass(frozen=True)
class JepaOutput:
    """One step's loss and what is watched beside it."""

    loss: Float[Tensor, ""]  # prediction + penalty: what is differentiated
    prediction_loss: Float[Tensor, ""]  # smooth L1
    target_spread: Float[Tensor, ""]  # std over the batch of the target features; 0 is collapse


class Jepa(nn.Module):
    """Context encoder, target encoder (its moving average) and predictor (I-JEPA §3)."""

    def __init__(self, config: ModelConfig, seed: int) -> None:
        super().__init__()
        encoder, predictor = config.encoder, config.predictor
        self.config = config
        self.context_encoder = Encoder(encoder, generator(seed, "initial encoder"))
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)
        with torch.random.fork_rng(devices=[]):
            projection = nn.Linear(encoder.width, predictor.width)
        initialise(projection, generator(seed, "initial projection"))
        self.predictor = Predictor(
            predictor, encoder, projection, generator(seed, "initial predictor")
        )
        self.groups = make_groups(
            predictor.width,
            config.sparsity.groups,
            config.sparsity.grouping,
            predictor.heads,
            generator(seed, "groups"),
        )
        self.penalty: Penalty = make_penalty(config.sparsity, projection.weight, self.groups)

    def forward(self, images: Float[Tensor, "B 3 H W"], masks: Masks) -> JepaOutput:
        """The loss of a batch of images in [0, 1]."""
        targets = self.targets(images, masks.targets)
        latents = self.context_encoder(images, masks.context)
        predictions = self.predictor(latents, masks.context, masks.targets)
        prediction_loss = F.smooth_l1_loss(predictions.float(), targets)
        return JepaOutput(
            loss=prediction_loss + self.penalty.loss(latents),
            prediction_loss=prediction_loss.detach(),
            target_spread=targets.flatten(0, 2).std(0).mean(),
        )

    @torch.no_grad()
    def targets(
        self, images: Float[Tensor, "B 3 H W"], indices: Int64[Tensor, "B M T"]
    ) -> Float[Tensor, "B M T d"]:
        """Target features: the whole image through the moving average, LayerNorm without affine.

        The normalisation is the official code's; the paper does not mention it.
        """
        features = self.target_encoder(images).float()
        features = F.layer_norm(features, features.shape[-1:])
        batch, blocks, length = indices.shape
        return gather_tokens(features, indices.flatten(1)).view(batch, blocks, length, -1)

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """target <- momentum · target + (1 - momentum) · context, in float32."""
        torch._foreach_lerp_(
            list(self.target_encoder.parameters()),
            list(self.context_encoder.parameters()),
            1 - momentum,
        )
