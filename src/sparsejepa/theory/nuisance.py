"""From linear theory to small transformers: images with a planted signal and a planted nuisance.

Each patch p of image i gets a_s c_ip of one fixed texture and a_n c'_ip of another, both orthogonal
and of unit norm. A coefficient is shared by the patches of an image in part,

    c_ip = sqrt(kappa) g_i + sqrt(1 - kappa) h_ip, g and h independent standard normal,

so that, between two patches of an image, it has the theory's lambda = a² kappa and rho = kappa. The
signal has high kappa, the nuisance low kappa and a variance a² so much larger that their lambdas
are equal: a high-variance feature of low predictability.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from sparsejepa.data.batches import channel_statistics, to_unit
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.model.pixels import patch_pixels
from sparsejepa.model.vit import (
    Encoder,
    EncoderConfig,
    Predictor,
    PredictorConfig,
    gather_tokens,
    initialise,
)
from sparsejepa.randomness import generator
from sparsejepa.theory.linear_dynamics import Objective

PATCH = 4  # pixels along a side
LEADING = 8  # principal components of the tokens


@dataclass(frozen=True)
class Plant:
    """How strong and how predictable the planted features are."""

    covariance: float = 4.0  # lambda of both, in variances of a standardised pixel
    signal_share: float = 0.9  # kappa = rho of the signal
    nuisance_share: float = 0.1  # kappa = rho of the nuisance
    swapped: bool = False  # exchanges the two textures: a control

    def __post_init__(self) -> None:
        shares = (self.signal_share, self.nuisance_share)
        if not self.covariance > 0 or min(shares) <= 0 or max(shares) > 1:
            raise ValueError(
                f"covariance {self.covariance} must be above 0, signal_share {shares[0]} and "
                f"nuisance_share {shares[1]} above 0 and at most 1."
            )


@dataclass(frozen=True)
class PlantedImages:
    """Standardised images with both textures, and the coefficients in them."""

    images: Float[Tensor, "N 3 H W"]  # channels of mean 0 and variance 1 before planting
    coefficients: dict[str, Float[Tensor, "N P"]]  # signal, nuisance: c_ip, of variance 1


@dataclass(frozen=True)
class TrainingConfig:
    """A run small enough for a figure."""

    steps: int = 300  # of the optimiser
    batch_size: int = 64  # images a step
    width: int = 64  # channels of an encoder token
    depth: int = 3  # encoder blocks
    learning_rate: float = 1e-3  # peak, of AdamW
    first_ema: float = 0.97  # JEPA: momentum of the target at the first step; 1 at the last


def textures(swapped: bool) -> Float[Tensor, "2 3 4 4"]:
    """Signal's and nuisance's: rows or columns of alternating sign, grey, of unit norm."""
    sign = torch.tensor([1.0, -1.0]).repeat(PATCH // 2)
    rows = sign[:, None].expand(3, PATCH, PATCH)
    pair = torch.stack([rows, rows.mT]) / (3 * PATCH * PATCH) ** 0.5
    return pair.flip(0) if swapped else pair


def plant(
    images: UInt8[Tensor, "N H W 3"], config: Plant, generator: torch.Generator
) -> PlantedImages:
    """Standardises images by their own channel statistics and adds both textures."""
    count, height, width = images.shape[:3]
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in channel_statistics(images))
    planted = (to_unit(images) - mean) / std
    grid = (height // PATCH, width // PATCH)
    coefficients = {}
    shares = {"signal": config.signal_share, "nuisance": config.nuisance_share}
    for (name, share), texture in zip(shares.items(), textures(config.swapped), strict=True):
        common = torch.randn(count, 1, 1, generator=generator)
        own = torch.randn(count, *grid, generator=generator)
        values = share**0.5 * common + (1 - share) ** 0.5 * own
        amplitude = (config.covariance / share) ** 0.5
        # A texture tiles the image; each patch of it is scaled by its coefficient.
        planted += amplitude * _enlarge(values)[:, None] * texture.repeat(1, *grid)
        coefficients[name] = values.flatten(1)
    return PlantedImages(planted, coefficients)


def train(
    objective: Objective,
    train_images: Float[Tensor, "N 3 H W"],
    config: TrainingConfig,
    checkpoints: Sequence[int],
    seed: int,
) -> dict[int, Encoder]:
    """Encoders after the given numbers of steps; 0 is the untrained one, the same for both.

    Both objectives have the same encoder, predictor, masks and optimiser and see the same batches.
    They differ in the target: JEPA's is the layer-normalised feature of a moving average of the
    encoder, under smooth L1; MAE's the pixels of the patch, under squared error.

    Raises:
        ValueError: a checkpoint beyond the last step.
    """
    if max(checkpoints) > config.steps:
        raise ValueError(f"checkpoint {max(checkpoints)} lies beyond the {config.steps} steps.")
    grid = train_images.shape[-1] // PATCH
    shape = EncoderConfig(
        train_images.shape[-1], PATCH, config.width, config.depth, 4, (0.0,) * 3, (1.0,) * 3
    )
    encoder = Encoder(shape, generator(seed, "initial encoder"))
    predictor = _predictor(shape, objective, seed)
    target_encoder = copy.deepcopy(encoder).requires_grad_(False)
    optimiser = torch.optim.AdamW(
        [p for m in (encoder, predictor) for p in m.parameters() if p.requires_grad],
        lr=config.learning_rate,
        weight_decay=0.05,
    )
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimiser, config.learning_rate, config.steps, pct_start=0.1, cycle_momentum=False
    )
    mask_config = MaskConfig(grid=grid)
    kept = {0: copy.deepcopy(encoder)} if 0 in checkpoints else {}
    for step in range(1, config.steps + 1):
        draws = generator(seed, "step", step)
        rows = torch.randint(len(train_images), (config.batch_size,), generator=draws)
        images, masks = train_images[rows], sample_masks(mask_config, config.batch_size, draws)
        with torch.no_grad():
            whole = patch_pixels(images, PATCH) if objective == "mae" else target_encoder(images)
            if objective == "jepa":
                whole = F.layer_norm(whole, whole.shape[-1:])
            blocks, length = masks.targets.shape[1:]
            target = gather_tokens(whole, masks.targets.flatten(1))
            target = target.unflatten(1, (blocks, length))
        predicted = predictor(encoder(images, masks.context), masks.context, masks.targets)
        distance = F.mse_loss if objective == "mae" else F.smooth_l1_loss
        optimiser.zero_grad()
        distance(predicted, target).backward()
        optimiser.step()
        schedule.step()
        momentum = config.first_ema + (1 - config.first_ema) * step / config.steps
        with torch.no_grad():
            torch._foreach_lerp_(
                list(target_encoder.parameters()), list(encoder.parameters()), 1 - momentum
            )
        if step in checkpoints:
            kept[step] = copy.deepcopy(encoder)
    return kept


@torch.no_grad()
def decodability(encoder: Encoder, planted: PlantedImages) -> dict[str, dict[str, float]]:
    """How well, and how prominently, an encoder's tokens hold each planted coefficient.

    A token of a whole image is asked for the coefficient of its own patch. decoded: R² of a linear
    readout, fitted on the first half of the images and scored on the second; leading: the same
    from the `LEADING` principal components of the tokens alone; share: the fraction of all the
    tokens' variance that the coefficient explains linearly. In the linear theory nothing but the
    last two could change: a gain is small at first, never zero, and decodable without noise.
    """
    tokens = torch.cat([encoder(batch) for batch in planted.images.split(256)]).double()
    half = len(tokens) // 2
    fit, score = tokens[:half].flatten(0, 1), tokens[half:].flatten(0, 1)
    centred = fit - fit.mean(0)
    axes = torch.linalg.eigh(centred.T @ centred).eigenvectors[:, -LEADING:]
    found = {}
    for name, values in planted.coefficients.items():
        fit_y, score_y = (part.flatten() for part in values.double().tensor_split([half]))
        found[name] = {
            "decoded": readout_score(fit, fit_y, score, score_y),
            "leading": readout_score(fit @ axes, fit_y, score @ axes, score_y),
            "share": explained_share(tokens.flatten(0, 1), values.double().flatten()),
        }
    return found


def readout_score(
    train_x: Float[Tensor, "N d"],
    train_y: Float[Tensor, "N"],
    test_x: Float[Tensor, "M d"],
    test_y: Float[Tensor, "M"],
) -> float:
    """R² on the test rows of a least-squares readout with a slight ridge, in float64."""
    mean, level = train_x.mean(0), train_y.mean()
    centred = train_x - mean
    gram = centred.T @ centred
    # Tokens after a LayerNorm are linearly dependent: the ridge keeps the Gram matrix definite.
    gram += 1e-6 * gram.diagonal().mean() * torch.eye(len(gram), dtype=gram.dtype)
    moment = (centred.T @ (train_y - level))[:, None]
    weights = torch.cholesky_solve(moment, torch.linalg.cholesky(gram))[:, 0]
    left = (test_y - level - (test_x - mean) @ weights).square().sum()
    return 1 - (left / (test_y - test_y.mean()).square().sum()).item()


def explained_share(x: Float[Tensor, "N d"], y: Float[Tensor, "N"]) -> float:
    """sum_k Cov(x_k, y)² / Var(y), over sum_k Var(x_k)."""
    x, y = x - x.mean(0), y - y.mean()
    return ((y @ x).square().sum() / y.square().sum() / x.square().sum()).item()


def _predictor(shape: EncoderConfig, objective: Objective, seed: int) -> Predictor:
    width = shape.width // 2
    with torch.random.fork_rng(devices=[]):
        projection = nn.Linear(shape.width, width)
    draws = generator(seed, "initial predictor")
    initialise(projection, draws)
    outputs = shape.width if objective == "jepa" else 3 * PATCH * PATCH
    return Predictor(PredictorConfig(width, 2, 2), shape, projection, draws, outputs)


def _enlarge(values: Float[Tensor, "N h w"]) -> Float[Tensor, "N H W"]:
    return values.repeat_interleave(PATCH, 1).repeat_interleave(PATCH, 2)
