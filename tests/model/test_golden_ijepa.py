"""I-JEPA written a second time, from formulas alone, gives the same numbers at equal weights.

The implementation below uses nothing of timm and nothing of our model but its weights: plain
float64 arithmetic from the papers (vision transformer 2010.11929, I-JEPA 2301.08243) and from what
the official code is known to do beyond them: LayerNorm eps 1e-6 in the networks and 1e-5 without
affine on the targets, smooth L1 with β = 1, exact GELU.
"""

import math

import pytest
import torch
from torch import Tensor

from sparsejepa.model.jepa import Jepa, ModelConfig
from sparsejepa.model.masks import MaskConfig, Masks, sample_masks
from sparsejepa.model.vit import EncoderConfig, PredictorConfig, use_fused_attention
from sparsejepa.randomness import generator

ENCODER = EncoderConfig(width=32, depth=2, heads=4, mean=(0.5, 0.48, 0.44), std=(0.27, 0.26, 0.28))
PREDICTOR = PredictorConfig(width=24, depth=2, heads=2)
GRID, PATCH = ENCODER.grid, ENCODER.patch_size
Weights = dict[str, Tensor]


def normalise(x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    return centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()


def affine_norm(x: Tensor, w: Weights, name: str) -> Tensor:
    return normalise(x, 1e-6) * w[f"{name}.weight"] + w[f"{name}.bias"]


def linear(x: Tensor, w: Weights, name: str) -> Tensor:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def attention(x: Tensor, w: Weights, name: str, heads: int) -> Tensor:
    """softmax(QKᵀ/√d_h)V for each head in turn; rows of the weight are Q, then K, then V."""
    queries, keys, values = linear(x, w, f"{name}.qkv").chunk(3, dim=-1)
    size = x.shape[-1] // heads
    outputs = []
    for h in range(heads):
        q, k, v = (t[..., h * size : (h + 1) * size] for t in (queries, keys, values))
        outputs.append(torch.softmax(q @ k.transpose(-1, -2) / math.sqrt(size), dim=-1) @ v)
    return linear(torch.cat(outputs, dim=-1), w, f"{name}.proj")


def transformer(x: Tensor, w: Weights, name: str, depth: int, heads: int) -> Tensor:
    """Pre-norm blocks: x + attention(norm x), then x + W₂ GELU(W₁ norm x)."""
    for i in range(depth):
        block = f"{name}.{i}"
        x = x + attention(affine_norm(x, w, f"{block}.norm1"), w, f"{block}.attn", heads)
        hidden = linear(affine_norm(x, w, f"{block}.norm2"), w, f"{block}.mlp.fc1")
        hidden = hidden * 0.5 * (1 + torch.erf(hidden / math.sqrt(2)))
        x = x + linear(hidden, w, f"{block}.mlp.fc2")
    return x


def table(width: int) -> Tensor:
    """[sin yω, sin xω, cos yω, cos xω] of patch (y, x); ω_i = 10000^(-4i/width)."""
    bands = [10000 ** (-4 * i / width) for i in range(width // 4)]
    rows = [
        [wave(place * band) for wave in (math.sin, math.cos) for place in (y, x) for band in bands]
        for y in range(GRID)
        for x in range(GRID)
    ]
    return torch.tensor(rows, dtype=torch.float64)


def patches(images: Tensor, w: Weights, name: str) -> Tensor:
    """Normalised pixels of each patch, flattened as (channel, row, column), through one matrix."""
    mean, std = (torch.tensor(v, dtype=torch.float64) for v in (ENCODER.mean, ENCODER.std))
    pixels = (images - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    cut = [
        pixels[:, :, y * PATCH : (y + 1) * PATCH, x * PATCH : (x + 1) * PATCH].flatten(1)
        for y in range(GRID)
        for x in range(GRID)
    ]
    matrix = w[f"{name}.weight"].flatten(1)
    return torch.stack(cut, dim=1) @ matrix.T + w[f"{name}.bias"]


def encode(images: Tensor, w: Weights, name: str, keep: Tensor | None = None) -> Tensor:
    tokens = patches(images, w, f"{name}.patch_embed.proj") + table(ENCODER.width)
    if keep is not None:
        tokens = torch.stack([row[kept] for row, kept in zip(tokens, keep, strict=True)])
    tokens = transformer(tokens, w, f"{name}.blocks", ENCODER.depth, ENCODER.heads)
    return affine_norm(tokens, w, f"{name}.norm")


def predict(images: Tensor, masks: Masks, w: Weights) -> Tensor:
    """One image and one target block at a time."""
    latents = encode(images, w, "context_encoder.vit", masks.context)
    places, images_out = table(PREDICTOR.width), []
    for latent, context, blocks in zip(latents, masks.context, masks.targets, strict=True):
        known = linear(latent, w, "predictor.projection") + places[context]
        blocks_out = []
        for block in blocks:
            tokens = torch.cat([known, w["predictor.mask_token"] + places[block]])
            tokens = transformer(tokens, w, "predictor.blocks", PREDICTOR.depth, PREDICTOR.heads)
            tokens = affine_norm(tokens, w, "predictor.norm")[len(context) :]
            blocks_out.append(linear(tokens, w, "predictor.output"))
        images_out.append(torch.stack(blocks_out))
    return torch.stack(images_out)


def smooth_l1(images: Tensor, masks: Masks, w: Weights) -> Tensor:
    features = normalise(encode(images, w, "target_encoder.vit"), 1e-5).detach()
    targets = torch.stack(
        [row[blocks] for row, blocks in zip(features, masks.targets, strict=True)]
    )
    gap = (predict(images, masks, w) - targets).abs()
    return torch.where(gap < 1, gap.square() / 2, gap - 0.5).mean()


def set_weights(jepa: Jepa) -> None:
    """Weights of fixed formulas, no random number, large enough that every part matters."""
    with torch.no_grad():
        for index, (name, parameter) in enumerate(jepa.named_parameters()):
            if name.endswith("pos_embed"):
                continue
            count = torch.arange(parameter.numel(), dtype=torch.float64)
            wave = torch.sin(1 + 0.7 * index + 1.3 * count + 0.01 * count.square())
            size = 0.15 if parameter.ndim > 1 else 0.3
            offset = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            parameter.copy_((offset + size * wave).view(parameter.shape))


def fixed_images(count: int) -> Tensor:
    """Pixels in [0, 1] of a fixed formula."""
    index = torch.arange(count * 3 * 32 * 32, dtype=torch.float64)
    return (0.5 + 0.5 * torch.sin(0.9 * index + 0.003 * index.square())).view(count, 3, 32, 32)


def fixed_masks() -> Masks:
    """Two images, two target blocks of 3x3 each, ten context patches."""
    block = torch.tensor([0, 1, 2, 8, 9, 10, 16, 17, 18])
    return Masks(
        torch.tensor(
            [[63, 40, 4, 21, 30, 58, 36, 7, 12, 47], [0, 8, 16, 24, 3, 11, 5, 62, 34, 25]]
        ),
        torch.stack([block, block + 24, block + 36, block + 45]).view(2, 2, 9),
    )


def golden_model() -> Jepa:
    jepa = Jepa(ModelConfig(ENCODER, PREDICTOR), seed=0)
    set_weights(jepa)
    return jepa


def reference_weights(jepa: Jepa) -> Weights:
    return {name: p.detach().double().requires_grad_() for name, p in jepa.named_parameters()}


@pytest.mark.parametrize("fused", [False, True])
def test_loss_predictions_and_gradients_agree(fused: bool):
    """On drawn masks: predictions to 3e-6, loss to 1e-6, every gradient to 1e-5 of its norm."""
    jepa, images = golden_model(), fixed_images(2)
    use_fused_attention(jepa, fused)
    masks = sample_masks(MaskConfig(), 2, generator(0, "golden"))
    weights = reference_weights(jepa)

    latents = jepa.context_encoder(images.float(), masks.context)
    ours = jepa.predictor(latents, masks.context, masks.targets)
    expected = predict(images, masks, weights)
    assert expected.std() > 0.1
    torch.testing.assert_close(ours.double(), expected, rtol=0, atol=3e-6)

    loss = jepa(images.float(), masks, 0).loss
    reference = smooth_l1(images, masks, weights)
    assert loss.item() == pytest.approx(reference.item(), abs=1e-6)
    loss.backward()
    reference.backward()
    for name, parameter in jepa.named_parameters():
        if parameter.requires_grad:
            true = weights[name].grad
            error = (parameter.grad.double() - true).norm() / true.norm()
            assert true.norm() > 0 and error < 1e-5, f"{name}: {error:.1e}"


def test_pinned_numbers():
    """The two implementations can't drift together: numbers once computed by the plain one.

    Weights, images and masks are fixed formulas (above), so no random generator is involved.
    """
    jepa, images, masks = golden_model(), fixed_images(2), fixed_masks()
    weights = reference_weights(jepa)
    with torch.no_grad():
        assert smooth_l1(images, masks, weights).item() == pytest.approx(LOSS, abs=1e-9)
        corner = predict(images, masks, weights)[0, 1, 2, :3]
        assert corner.tolist() == pytest.approx(PREDICTION, abs=1e-9)
        assert jepa(images.float(), masks, 0).loss.item() == pytest.approx(LOSS, abs=1e-6)


# From `smooth_l1` and `predict` of this file, float64, torch 2.14.1.
LOSS = 0.5067224582673714
PREDICTION = [-0.07263246521521982, -0.41963912385890473, -1.2594377023692043]
