"""Frozen features: one vector for each image, from an encoder that is only read."""

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn

from sparsejepa.data.batches import to_unit


def pooled_features(
    encoder: nn.Module,
    images: UInt8[Tensor, "N H W 3"],
    batch_size: int = 512,
    last: int = 1,
    autocast: torch.dtype | None = None,
) -> Float[Tensor, "N D"]:
    """Patch tokens after the final norm, averaged over the patches (I-JEPA, appendix A.2).

    Args:
        encoder: maps Float["B 3 H W"] in [0, 1] to tokens Float["B N d"]; with `last` above 1 it
            also needs `last_layers(images, last)`. It is put in evaluation mode and back.
        images: on any device; batches move to the encoder's.
        batch_size: images in a pass; changes memory and time only.
        last: 1 for the last block (D = d); n for the concatenation of the last n blocks (D = n d),
            the other protocol of I-JEPA's linear probe.
        autocast: precision of the pass, such as torch.bfloat16; None keeps the weights' own.

    Returns:
        float32 features on the CPU.

    Raises:
        ValueError: no images, or `last` below 1.
    """
    if len(images) == 0:
        raise ValueError("There are no images to compute features of; pass at least one.")
    if last < 1:
        raise ValueError(f"last must be at least 1 block, not {last}.")
    device = next(encoder.parameters()).device
    was_training = encoder.training
    encoder.eval()
    pooled = []
    try:
        with (
            torch.inference_mode(),
            torch.autocast(device.type, dtype=autocast, enabled=autocast is not None),
        ):
            for batch in images.split(batch_size):
                unit = to_unit(batch.to(device))
                tokens = encoder(unit) if last == 1 else encoder.last_layers(unit, last)
                # Averaged in float32: a bf16 sum over patches would lose bits of the feature.
                pooled.append(tokens.float().mean(dim=1).cpu())
    finally:
        encoder.train(was_training)
    # Cloned outside: an inference tensor cannot be saved for a later backward pass.
    return torch.cat(pooled).clone()
