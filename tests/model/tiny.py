"""A tiny JEPA, images and masks, for the tests of this folder."""

import torch
from torch import Tensor

from sparsejepa.model.jepa import Jepa, ModelConfig
from sparsejepa.model.masks import MaskConfig, Masks, sample_masks
from sparsejepa.model.penalties import SparsityConfig
from sparsejepa.model.vit import EncoderConfig, PredictorConfig
from sparsejepa.randomness import generator

ENCODER = EncoderConfig(width=32, depth=2, heads=2)
PREDICTOR = PredictorConfig(width=24, depth=2, heads=2)
R1 = SparsityConfig("R1", groups=4, strength=3.0)


def model(sparsity: SparsityConfig | None = None) -> Jepa:
    """A tiny network."""
    return Jepa(ModelConfig(ENCODER, PREDICTOR, sparsity or SparsityConfig(groups=4)), seed=0)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=generator(seed, "images"))


def masks(count: int) -> Masks:
    return sample_masks(MaskConfig(), count, generator(1, "masks"))


def predictions(jepa: Jepa, batch: Tensor, kept: Masks) -> Tensor:
    return jepa.predictor(jepa.context_encoder(batch, kept.context), kept.context, kept.targets)
