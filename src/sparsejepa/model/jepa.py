"""The JEPA objective, its variants, and the table of methods that combines their parts."""

import contextlib
import copy
import dataclasses
from dataclasses import dataclass, field
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64
from torch import Tensor, nn

from sparsejepa.config import check_choices, check_ranges
from sparsejepa.model.masks import Masks
from sparsejepa.model.penalties import PENALTIES, SparsityConfig
from sparsejepa.model.regularisers import Regulariser, RegulariserConfig
from sparsejepa.model.vit import (
    Encoder,
    EncoderConfig,
    Predictor,
    PredictorConfig,
    initialise,
    positions,
)
from sparsejepa.randomness import generator


@dataclass(frozen=True)
class ModelConfig:
    """All that fixes the network and its loss; `METHODS` lists the combinations with a name."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)  # context and target encoder
    predictor: PredictorConfig = field(default_factory=PredictorConfig)  # narrow transformer
    sparsity: SparsityConfig = field(default_factory=SparsityConfig)  # reading of SparseJEPA
    regulariser: RegulariserConfig = field(default_factory=RegulariserConfig)  # of a peer
    # What is predicted of a hidden patch. moving average: the features of the averaged encoder;
    # shared: those of the context encoder itself, with their gradient; pixels: its pixels.
    target: Literal["moving average", "shared", "pixels"] = "moving average"
    # Above 1: the mean of the layer-normalised outputs of the last ones, as data2vec (2202.03555).
    target_blocks: int = 1
    # centred: without the batch's mean at each position, which all images share; standardised: then
    # with variance 1 of each feature over images and positions; each process of its own share.
    batch_targets: Literal["as they are", "centred", "standardised"] = "as they are"
    # Mean 0, variance 1 over the features, or pixels, of a patch: I-JEPA's code, not its paper.
    normalise_targets: bool = True
    rectify_targets: bool = False  # ReLU, after the normalisation if any
    distance: Literal["smooth L1", "squared"] = "smooth L1"  # of prediction and target
    condition: bool = False  # tell each encoder the positions of the other's window

    def __post_init__(self) -> None:
        check_choices(self)
        check_ranges(self, target_blocks=(1, self.encoder.depth))


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
        self.config, encoder, predictor = config, config.encoder, config.predictor
        self.context_encoder = Encoder(encoder, generator(seed, "initial encoder"))
        self.target_encoder = copy.deepcopy(self.context_encoder).requires_grad_(False)
        projection = nn.utils.skip_init(nn.Linear, encoder.width, predictor.width)
        initialise(projection, generator(seed, "initial projection"))
        outputs = 3 * encoder.patch_size**2 if config.target == "pixels" else encoder.width
        draws = generator(seed, "initial predictor")
        self.predictor = Predictor(predictor, encoder, projection, draws, outputs)
        penalty = PENALTIES[config.sparsity.reading]
        self.penalty = penalty(config.sparsity, encoder, predictor, projection.weight, seed)
        self.regulariser = self.context_windows = self.target_windows = None
        if config.regulariser.term != "none":
            self.regulariser = Regulariser(config.regulariser, seed)
        if config.condition:
            table = positions(encoder.grid, encoder.width)
            self.context_windows = WindowTokens(table, generator(seed, "initial window tokens"))
            self.target_windows = copy.deepcopy(self.context_windows).requires_grad_(False)

    def forward(self, images: Float[Tensor, "B 3 H W"], masks: Masks, step: int) -> JepaOutput:
        """The loss of a batch of images in [0, 1]; random draws are a function of (seed, step)."""
        whole = self._whole(images, masks)
        targets = self._cut(whole, masks)
        windows = self.context_windows(masks.targets) if self.context_windows else None
        latents = self.context_encoder(images, masks.context, windows)
        read, penalty_loss = self.penalty(latents, step)
        predictions = self.predictor(read, masks.context, masks.targets).float()
        distance = F.mse_loss if self.config.distance == "squared" else F.smooth_l1_loss
        prediction_loss = distance(predictions, targets)
        loss = prediction_loss + penalty_loss
        if self.regulariser:
            weights = self.config.regulariser
            pooled = (whole if self.config.target == "shared" else latents.float()).mean(1)
            loss = weights.prediction_weight * prediction_loss + penalty_loss
            loss = loss + weights.weight * self.regulariser(pooled, step)
        spread = targets.detach().flatten(0, 2).std(0).mean()
        # Not detached here: it may be the loss itself, and a compiler would detach both.
        return JepaOutput(loss, prediction_loss, spread)

    @torch.no_grad()
    def targets(self, images: Float[Tensor, "B 3 H W"], masks: Masks) -> Float[Tensor, "B M T D"]:
        """The features, or pixels, that are predicted of each target patch."""
        return self._cut(self._whole(images, masks), masks)

    def measures(self) -> dict[str, float]:
        """Sparsity measures of penalty and regulariser after the last step, for the log."""
        return self.penalty.measures() | (self.regulariser.measures() if self.regulariser else {})

    @torch.no_grad()
    def update_target(self, momentum: float) -> None:
        """target <- momentum · target + (1 - momentum) · context, in float32.

        Where no moving average is predicted, it is a copy: of every method the target encoder is
        probed. Buffers, such as BatchNorm's, are copied.
        """
        share = 1 - momentum if self.config.target == "moving average" else 1.0
        pairs = [(self.target_encoder, self.context_encoder)]
        if self.context_windows:
            pairs.append((self.target_windows, self.context_windows))
        for target, context in pairs:
            torch._foreach_lerp_(list(target.parameters()), list(context.parameters()), share)
            for ours, theirs in zip(target.buffers(), context.buffers(), strict=True):
                ours.copy_(theirs)

    def _whole(self, images: Float[Tensor, "B 3 H W"], masks: Masks) -> Float[Tensor, "B N D"]:
        """The target of every patch, before any normalisation."""
        if self.config.target == "pixels":
            encoder = self.context_encoder
            return patch_pixels((images - encoder.mean) / encoder.std, encoder.config.patch_size)
        shared = self.config.target == "shared"
        encoder = self.context_encoder if shared else self.target_encoder
        tokens = self.context_windows if shared else self.target_windows
        blocks = self.config.target_blocks
        with contextlib.nullcontext() if shared else torch.no_grad():
            windows = tokens(masks.context.unsqueeze(1)) if tokens else None
            whole = encoder(images, extra=windows, last=blocks).float()
            if blocks > 1:
                layers = whole.unflatten(-1, (blocks, -1))
                whole = F.layer_norm(layers, layers.shape[-1:]).mean(-2)
            return whole

    def _cut(self, whole: Float[Tensor, "B N D"], masks: Masks) -> Float[Tensor, "B M T D"]:
        """The target patches, centred, standardised, normalised and rectified as configured."""
        if self.config.batch_targets != "as they are":
            whole = whole - whole.mean(0, keepdim=True)
        if self.config.batch_targets == "standardised":
            whole = whole / whole.square().mean((0, 1)).add(1e-5).sqrt()
        if self.config.normalise_targets:
            whole = F.layer_norm(whole, whole.shape[-1:])
        if self.config.rectify_targets:
            whole = whole.relu()
        chosen = masks.targets.flatten(1).unsqueeze(-1)
        return whole.take_along_dim(chosen, 1).unflatten(1, masks.targets.shape[1:])


class WindowTokens(nn.Module):
    """EC-IJEPA (2410.10773): one extra token a window, from its patches' mean position vector.

    Each encoder is told the other's windows [verified: abstract]; the linear map is ours.
    """

    def __init__(self, positions: Float[Tensor, "N d"], generator: torch.Generator) -> None:
        super().__init__()
        width = positions.shape[1]
        self.projection = nn.utils.skip_init(nn.Linear, width, width)
        initialise(self.projection, generator)
        self.register_buffer("positions", positions, persistent=False)

    def forward(self, windows: Int64[Tensor, "B M T"]) -> Float[Tensor, "B M d"]:
        """Tokens of M windows of T patches each."""
        return self.projection(self.positions[windows].mean(2))


def patch_pixels(images: Float[Tensor, "B C H W"], patch_size: int) -> Float[Tensor, "B N D"]:
    """The D = C · patch_size² pixels of each patch, patches in raster order: MAE's targets."""
    rows = images.unflatten(2, (-1, patch_size)).unflatten(4, (-1, patch_size))
    return rows.permute(0, 2, 4, 3, 5, 1).flatten(3).flatten(1, 2)


# Sizes, groups and strengths are those of the run; all else is the row's.
METHODS: dict[str, ModelConfig] = {
    "jepa": ModelConfig(),
    "sparsejepa": ModelConfig(sparsity=SparsityConfig("R1")),
    "sparsejepa-r1b": ModelConfig(sparsity=SparsityConfig("R1b")),
    "sparsejepa-r2": ModelConfig(sparsity=SparsityConfig("R2")),
    "sparsejepa-r3": ModelConfig(sparsity=SparsityConfig("R3")),
    "l1": ModelConfig(sparsity=SparsityConfig("L1")),
    # Weights 25, 25, 1 of invariance (JEPA's prediction), variance and covariance: VICReg.
    "cjepa": ModelConfig(regulariser=RegulariserConfig("VICReg", 25.0, 25.0)),
    # Controls: does a group penalty bring more than any term that spreads images apart? 0.01 is
    # U-MAE's weight for CIFAR-100.
    "jepa-uniformity": ModelConfig(regulariser=RegulariserConfig("uniformity", 1.0, 0.01)),
    "jepa-sigreg": ModelConfig(regulariser=RegulariserConfig("SIGReg", 0.98, 0.02)),
    # (1 - lambda) · prediction + lambda · SIGReg, lambda = 0.02: LeJEPA's own example.
    "sigreg": ModelConfig(
        regulariser=RegulariserConfig("SIGReg", 0.98, 0.02),
        target="shared",
        normalise_targets=False,
        distance="squared",
    ),
    # 25 · prediction + 125 · RDMReg, 512 slices: Rectified LpJEPA's setting of its ViT.
    "rectified": ModelConfig(
        regulariser=RegulariserConfig("RDMReg", 25.0, 125.0, slices=512),
        target="shared",
        normalise_targets=False,
        rectify_targets=True,
        distance="squared",
    ),
    "ec-ijepa": ModelConfig(condition=True),
    "tjepa": ModelConfig(encoder=EncoderConfig(register_tokens=1)),
    "mae": ModelConfig(target="pixels", distance="squared"),
}


def method_config(
    name: str, encoder: EncoderConfig, predictor: PredictorConfig, sparsity: SparsityConfig
) -> ModelConfig:
    """The method `name` in the given sizes, with the groups and strengths of its penalty if any.

    A penalty that no row has is a method of its own name. A ValueError if there is no such method.
    """
    taken = {row.sparsity.reading for row in METHODS.values()}
    own = {own: ModelConfig(sparsity=SparsityConfig(own)) for own in PENALTIES if own not in taken}
    methods = METHODS | own
    if name not in methods:
        raise ValueError(f"method must be one of {', '.join(methods)}, not {name!r}.")
    row, reading = methods[name], methods[name].sparsity.reading
    if reading != "none":
        row = dataclasses.replace(row, sparsity=dataclasses.replace(sparsity, reading=reading))
    encoder = dataclasses.replace(encoder, register_tokens=row.encoder.register_tokens)
    return dataclasses.replace(row, encoder=encoder, predictor=predictor)
