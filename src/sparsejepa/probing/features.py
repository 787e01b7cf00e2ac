"""Frozen features: one vector for each image, from an encoder or of its pixels."""

import torch
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor, nn

from sparsejepa.data.batches import to_unit

# Features, a row an image, and labels; what is trained on and what is asked.
TrainX, TrainY = Float[Tensor, "N d"], Int64[Tensor, "N"]
TestX, TestY = Float[Tensor, "M d"], Int64[Tensor, "M"]
BATCH = 512  # images in a pass; memory and time only
Images = UInt8[Tensor, "_ H W 3"]


def as_float(features: Shaped[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Features as probes and measures take them, finite; half precision becomes float32."""
    features = features.detach().to(torch.promote_types(features.dtype, torch.float32))
    if not features.isfinite().all():
        raise ValueError("Features contain NaN or infinity: the encoder's weights are damaged.")
    return features


def pooled_features(
    encoder: nn.Module, images: Images, last: int = 1, autocast: torch.dtype | None = None
) -> Float[Tensor, "N D"]:
    """Patch tokens after the final norm, averaged over the patches (I-JEPA, appendix A.2).

    Args:
        encoder: maps images in [0, 1] to tokens Float["B N d"], in evaluation mode.
        last: 1 for the last block (D = d); n for the last n blocks side by side (D = n d), by
            `last_layers(images, n)`, the other protocol of I-JEPA's linear probe.
        autocast: precision of the pass; None keeps the weights' own. Features are float32 on the
            CPU.
    """
    device, was_training = next(encoder.parameters()).device, encoder.training
    means = []
    encoder.eval()
    try:
        with torch.inference_mode(), torch.autocast(device.type, autocast, autocast is not None):
            for batch in images.split(BATCH):
                unit = to_unit(batch.to(device))
                tokens = encoder(unit) if last == 1 else encoder.last_layers(unit, last)
                # Averaged in float32: a bf16 sum over patches would lose bits of the feature.
                means.append(tokens.float().mean(dim=1).cpu())
    finally:
        encoder.train(was_training)
    # Cloned outside: an inference tensor cannot be saved for a later backward pass.
    return torch.cat(means).clone()


def pixel_features(*image_sets: Images) -> list[Float[Tensor, "_ d"]]:
    """Raw pixels as features, centred by the mean of the first set: the control of every probe."""
    flat = [to_unit(images).flatten(1) for images in image_sets]
    mean = flat[0].mean(0)
    return [x.sub_(mean) for x in flat]


def pooled(encoder: nn.Module) -> nn.Module:
    """Our encoder as a map to one vector an image: its tokens, averaged over the patches."""
    return nn.Sequential(encoder, _MeanOverPatches()).train(encoder.training)


class _MeanOverPatches(nn.Module):
    def forward(self, tokens: Float[Tensor, "B N d"]) -> Float[Tensor, "B d"]:
        return tokens.mean(dim=1)
