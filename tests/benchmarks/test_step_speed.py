"""How many times faster a training step is in the number format and attention that we choose."""

import pytest
import torch

from sparsejepa.model.jepa import Jepa, ModelConfig
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.model.vit import use_fused_attention
from sparsejepa.randomness import generator
from tests.benchmarks.interleaved import best_seconds, ratio_table

BATCH, ROUNDS = 64, 4


def step(jepa: Jepa, optimizer: torch.optim.Optimizer, bf16: bool, fused: bool) -> float:
    """Loss, gradients, AdamW and moving average for one batch of noise."""
    use_fused_attention(jepa, fused)
    images = torch.rand(BATCH, 3, 32, 32, generator=generator(0))
    masks = sample_masks(MaskConfig(), BATCH, generator(1))
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=bf16):
        loss = jepa(images, masks, 0).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    jepa.update_target(0.996)
    return loss.item()


@pytest.mark.slow
@pytest.mark.benchmark
def test_step_ratio(capsys):
    """The same network (width 128, 6 blocks), batch and masks; ratios are printed, not asserted."""
    jepa = Jepa(ModelConfig(), seed=0)
    trained = [p for p in jepa.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=1e-4, fused=True)
    settings = {
        "float32, fused attention": (False, True),
        "float32, plain attention": (False, False),
        "bfloat16, fused attention": (True, True),
        "bfloat16, plain attention (ours on such a CPU)": (True, False),
    }
    seconds = best_seconds(
        {name: lambda s=s: step(jepa, optimizer, *s) for name, s in settings.items()}, ROUNDS
    )
    with capsys.disabled():
        print(ratio_table(f"training step, images of a batch of {BATCH}", seconds, BATCH))
