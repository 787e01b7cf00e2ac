"""The JEPA objective, and the parts that its readings and peers change of it."""

import copy
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparsejepa.config import check_choices
from sparsejepa.model.masks import Masks
from sparsejepa.model.sparsity import Penalty, SparsityConfig, make_penalty
from sparsejepa.model.vit import (
    Encoder,
    EncoderConfig,
    Predictor,
    PredictorConfig,
    gather_tokens,
    initialise,
    positions,
)
from sparsejepa.randomness import generator


@dataclass(frozen=True)
class RegulariserConfig:
    """A statistical term; the loss is prediction_weight · prediction + weight · term.

    It sees one embedding an image: the mean of the whole image's tokens where the target is shared,
    else of the context's.
    """

    term: Literal["none", "VICReg", "SIGReg", "RDMReg"] = "none"
    prediction_weight: float = 1.0  # of the prediction loss
    weight: float = 1.0  # of the term; VICReg: of the variance, its covariance has 1/25 of it
    slices: int = 256  # SIGReg, RDMReg: random directions a step
    location: float = 0.0  # RDMReg: mu of the wanted distribution; lower is sparser

    def __post_init__(self) -> None:
        check_choices(self)
        if not (self.prediction_weight > 0 and self.weight >= 0 and self.slices > 0):
            raise ValueError(
                f"prediction_weight {self.prediction_weight} and slices {self.slices} must be "
                f"above 0, weight {self.weight} at least 0."
            )


@dataclass(frozen=True)
class ModelConfig:
    """All that fixes the network and its loss; `methods.py` lists the combinations with a name."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)  # context and target encoder
    predictor: PredictorConfig = field(default_factory=PredictorConfig)  # narrow transformer
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)  # reading of SparseJEPA
    regulariser: RegulariserConfig = field(default_factory=RegulariserConfig)  # of a peer
    # What is predicted of a hidden patch. moving average: the features of the averaged encoder;
    # shared: those of the context encoder itself, with their gradient; pixels: its pixels.
    target: Literal["moving average", "shared", "pixels"] = "moving average"
    normalise_targets: bool = True  # mean 0, variance 1 over the features, or pixels, of a patch
    rectify_targets: bool = False  # ReLU, after the normalisation if any
    distance: Literal["smooth L1", "squared"] = "smooth L1"  # of prediction and target
    condition: bool = False  # tell each encoder the positions of the other's window

    def __post_init__(self) -> None:
        check_choices(self)


@dataclass(frozen=True)
class JepaOutput:
    """One step's loss and what is watched beside it."""

    loss: Float[Tensor, ""]  # prediction, penalty and regulariser: what is differentiated
    prediction_loss: Float[Tensor, ""]  # mean distance of predictions and targets
    target_spread: Float[Tensor, ""]  # std over the batch of the targets; 0 is collapse


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
        pixels = 3 * encoder.patch_size**2
        self.predictor = Predictor(
            predictor,
            encoder,
            projection,
            generator(seed, "initial predictor"),
            outputs=pixels if config.target == "pixels" else encoder.width,
        )
        self.penalty: Penalty = make_penalty(
            config.sparsity, encoder, predictor, projection.weight, seed
        )
        # What only a peer needs is imported only for it: a change there leaves other runs as they
        # are.
        self.regulariser = self.context_windows = self.target_windows = None
        if config.regulariser.term != "none":
            from sparsejepa.model.regularisers import Regulariser

            self.regulariser = Regulariser(config.regulariser, seed)
        if config.condition:
            from sparsejepa.model.conditioning import WindowTokens

            table = positions(encoder.grid, encoder.width)
            self.context_windows = WindowTokens(table, generator(seed, "initial window tokens"))
            self.target_windows = copy.deepcopy(self.context_windows).requires_grad_(False)

    def forward(self, images: Float[Tensor, "B 3 H W"], masks: Masks, step: int = 0) -> JepaOutput:
        """The loss of a batch of images in [0, 1]; random draws are a function of (seed, step)."""
        whole = self._whole(images, masks)
        targets = self._cut(whole, masks)
        windows = self.context_windows(masks.targets) if self.context_windows else None
        latents = self.context_encoder(images, masks.context, windows)
        read, penalty_loss = self.penalty(latents, step)
        predictions = self.predictor(read, masks.context, masks.targets).float()
        squared = self.config.distance == "squared"
        distance = F.mse_loss if squared else F.smooth_l1_loss
        prediction_loss = distance(predictions, targets)
        loss = prediction_loss + penalty_loss
        if self.regulariser:
            weights = self.config.regulariser
            pooled = (whole if self.config.target == "shared" else latents.float()).mean(1)
            loss = weights.prediction_weight * prediction_loss + penalty_loss
            loss = loss + weights.weight * self.regulariser(pooled, step)
        return JepaOutput(
            loss=loss,
            prediction_loss=prediction_loss.detach(),
            target_spread=targets.detach().flatten(0, 2).std(0).mean(),
        )

    @torch.no_grad()
    def targets(self, images: Float[Tensor, "B 3 H W"], masks: Masks) -> Float[Tensor, "B M T D"]:
        """What the predictor should say of each target patch.

        JEPA: the whole image through the moving average, LayerNorm without affine. The
        normalisation is the official code's; the paper does not mention it.
        """
        return self._cut(self._whole(images, masks), masks)

    def measures(self) -> dict[str, float]:
        """What penalty and regulariser say of sparsity after the last step, for the log."""
        return self.penalty.measures() | (self.regulariser.measures() if self.regulariser else {})

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """target <- momentum · target + (1 - momentum) · context, in float32.

        Where no moving average is predicted, the target encoder is a copy of the context encoder,
        so that the encoder to probe is the same one for every method.
        """
        pairs = [(self.target_encoder, self.context_encoder)]
        if self.context_windows:
            pairs.append((self.target_windows, self.context_windows))
        for target, context in pairs:
            torch._foreach_lerp_(
                list(target.parameters()),
                list(context.parameters()),
                1 - momentum if self.config.target == "moving average" else 1.0,
            )

    def _whole(self, images: Float[Tensor, "B 3 H W"], masks: Masks) -> Float[Tensor, "B N D"]:
        """Of every patch that which is to be predicted, before any normalisation."""
        if self.config.target == "pixels":
            from sparsejepa.model.pixels import patch_pixels

            encoder = self.context_encoder
            return patch_pixels((images - encoder.mean) / encoder.std, encoder.config.patch_size)
        shared = self.config.target == "shared"
        encoder = self.context_encoder if shared else self.target_encoder
        tokens = self.context_windows if shared else self.target_windows
        with torch.set_grad_enabled(shared and torch.is_grad_enabled()):
            windows = tokens(masks.context.unsqueeze(1)) if tokens else None
            return encoder(images, extra=windows).float()

    def _cut(self, whole: Float[Tensor, "B N D"], masks: Masks) -> Float[Tensor, "B M T D"]:
        """The target patches, normalised and rectified as configured."""
        if self.config.normalise_targets:
            whole = F.layer_norm(whole, whole.shape[-1:])
        if self.config.rectify_targets:
            whole = whole.relu()
        batch, blocks, length = masks.targets.shape
        return gather_tokens(whole, masks.targets.flatten(1)).view(batch, blocks, length, -1)
