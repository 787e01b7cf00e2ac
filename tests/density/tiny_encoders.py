"""Small networks of every ending that a backbone may have, with random weights."""

import torch
from timm.models.convnext import ConvNeXt
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sparsejepa.density.jepa_score import pooled
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.randomness import generator

VIT = {"img_size": 32, "patch_size": 8, "embed_dim": 24, "depth": 2, "num_heads": 2}


def tiny_vit(**options) -> VisionTransformer:
    encoder = seeded(lambda: VisionTransformer(**VIT, num_classes=0, **options))
    if encoder.cls_token is not None:
        # timm starts it at 1e-6, below LayerNorm's eps; training brings it to the size of tokens.
        encoder.cls_token += torch.randn(24, generator=generator(0, "class token"))
    return encoder


def tiny_convnext() -> ConvNeXt:
    return seeded(lambda: ConvNeXt(depths=(1, 1, 1, 1), dims=(8, 12, 16, 24), num_classes=0))


def tiny_encoder(seed: int = 0) -> nn.Module:
    """Ours, pooled: LayerNorm, then the mean over patches."""
    config = EncoderConfig(patch_size=8, width=24, depth=2, heads=2)
    return pooled(Encoder(config, generator(seed)).eval())


def seeded(make) -> nn.Module:
    """timm draws initial weights from the global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make().eval().requires_grad_(False)


def images(count: int, seed: int = 0) -> torch.Tensor:
    """Noise in [0, 1], [count, 3, 32, 32]."""
    return torch.rand(count, 3, 32, 32, generator=generator(seed, "images"))
