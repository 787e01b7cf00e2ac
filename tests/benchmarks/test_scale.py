"""Cost of training by size of the network: computed, and compared with two steps measured here."""

import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils.flop_counter import FlopCounterMode

from sparsejepa.model.jepa import Jepa, ModelConfig
from sparsejepa.model.masks import MaskConfig, Masks, sample_masks
from sparsejepa.model.vit import EncoderConfig, PredictorConfig, use_fused_attention
from sparsejepa.randomness import generator
from tests.benchmarks.interleaved import best_seconds, show

# Width, blocks and heads; timm's names.
SIZES = {"ViT-Ti": (192, 12, 3), "ViT-S": (384, 12, 6), "ViT-B": (768, 12, 12)}
# Pixels, pixels of a patch, and images of a training: 100 epochs of CIFAR-100 and of ImageNet-100.
SETTINGS = ((32, 4, 100 * 50_000), (224, 16, 100 * 126_689))
# Dense half-precision peaks of the makers' data sheets, in operations a second.
PEAKS = {"T4": 65e12, "H100": 989e12}
UTILISATION = 0.3  # share of the peak that a training reaches: an assumption
RUNS, BATCH = 40, 64
# Of every weight of encoder and predictor: itself, its gradient and AdamW's two moments; of the
# target encoder itself. In float32.
BYTES_TRAINED, BYTES_TARGET = 16, 4


def network(width: int, depth: int, heads: int, side: int, patch: int) -> tuple[Jepa, MaskConfig]:
    """A JEPA with a predictor of half the width and depth; a quarter of the patches is context."""
    encoder = EncoderConfig(side, patch, width, depth, heads)
    predictor = PredictorConfig(width // 2, depth // 2, heads)
    masks = MaskConfig(encoder.grid, context_length=encoder.grid**2 // 4)
    jepa = Jepa(ModelConfig(encoder, predictor), seed=0)
    use_fused_attention(jepa, False)
    return jepa, masks


def loss_of(jepa: Jepa, images: torch.Tensor, masks: Masks) -> torch.Tensor:
    with torch.autocast("cpu", dtype=torch.bfloat16):
        return jepa(images, masks, 0).loss


def computed(*size: int) -> tuple[float, float]:
    """Operations of a training step an image, and bytes that a step of BATCH images holds.

    Counted on tensors without content: products of matrices and attention, forwards and backwards,
    and what is kept for the way back.
    """
    jepa, config = network(*size)
    masks = sample_masks(config, BATCH, generator(0))
    kept = {}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        kept[tensor.untyped_storage()._cdata] = tensor
        return tensor

    hooks = torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor)
    with FakeTensorMode(allow_non_fake_inputs=True) as fake:
        images = torch.rand(BATCH, 3, size[3], size[3])
        given = Masks(*map(fake.from_tensor, masks))
        with FlopCounterMode(display=False) as counter, hooks:
            loss_of(jepa, images, given).backward()
    weights = {
        trained: sum(p.numel() for p in jepa.parameters() if p.requires_grad == trained)
        for trained in (True, False)
    }
    memory = weights[True] * BYTES_TRAINED + weights[False] * BYTES_TARGET
    memory += sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
    return counter.get_total_flops() / BATCH, memory


def measured_seconds(*size: int) -> float:
    """Of forward and backward pass of a batch here, without the optimiser; the best of a few."""
    jepa, config = network(*size)
    images = torch.rand(BATCH, 3, size[3], size[3], generator=generator(0))
    masks = sample_masks(config, BATCH, generator(0))

    def step() -> None:
        loss_of(jepa, images, masks).backward()
        jepa.zero_grad(set_to_none=True)

    return best_seconds({"step": step}, rounds=5)["step"]


def measured_memory(*size: int) -> float:
    """Bytes by which a process grows while it makes a network and two steps with AdamW."""
    code = (
        "import psutil, resource; from tests.benchmarks.test_scale import *\n"
        f"before = psutil.Process().memory_info().rss\njepa, config = network(*{size})\n"
        "adamw = torch.optim.AdamW([p for p in jepa.parameters() if p.requires_grad])\n"
        "masks = sample_masks(config, BATCH, generator(0))\n"
        f"images = torch.rand(BATCH, 3, {size[3]}, {size[3]})\n"
        "for _ in range(2):\n    loss_of(jepa, images, masks).backward()\n    adamw.step()\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before)\n"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return float(found.stdout.split()[-1])


@pytest.mark.slow
def test_cost_by_size(capsys):
    """A table of the book; what is measured here is for networks that a CPU can run."""
    rows, rate = [], None
    for side, patch, images in SETTINGS:
        for name, shape in SIZES.items():
            size = (*shape, side, patch)
            operations, memory = computed(*size)
            an_image = [operations / (UTILISATION * peak) for peak in PEAKS.values()]
            row = [f"{name}/{patch}, {side} px", f"{operations / 1e9:.2f}", f"{memory / 1e9:.2f}"]
            row += [f"{1000 * BATCH * each:.2f}" for each in an_image]
            row += [f"{RUNS * images * each / 3600:,.1f}" for each in an_image]
            if side == 32 and name != "ViT-B":
                seconds, grown = measured_seconds(*size), measured_memory(*size)
                # The first measured size fixes this processor's rate; the next one tests it.
                rate = rate or BATCH * operations / seconds
                row += [f"{1000 * seconds:.0f}", f"{1000 * BATCH * operations / rate:.0f}"]
                row += [f"{grown / 1e9:.2f}"]
            rows.append(row + [""] * (10 - len(row)))
    header = ["Network", "GFLOP an image", "GB a step", *(f"ms a step, {d}" for d in PEAKS)]
    header += [f"h of {RUNS} runs, {d}" for d in PEAKS]
    header += ["ms here", "ms by formula", "GB here"]
    show(capsys, header, rows, "scale.csv")
