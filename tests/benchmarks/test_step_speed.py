"""A training step of ours against a plain one in bf16, at equal tokens, and where its time goes."""

import time
from collections.abc import Callable
from contextlib import contextmanager

import pytest
import torch
from torch import nn

from sparsejepa.data.batches import crop_and_resize, draw_crops, draw_flips
from sparsejepa.model.jepa import Jepa, ModelConfig
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.model.vit import use_fused_attention
from sparsejepa.randomness import generator
from sparsejepa.training.precision import Precision
from sparsejepa.training.state import TrainingState
from tests.benchmarks.interleaved import race, show

BATCH, ROUNDS = 64, 4
BF16 = Precision("bf16", torch.bfloat16, scale_loss=False, fused_attention=False)
IMAGES = torch.randint(0, 256, (4096, 32, 32, 3), dtype=torch.uint8, generator=generator(0))


class Clock:
    """Milliseconds by part of a step, of the fastest turn of each."""

    def __init__(self) -> None:
        self.parts: dict[str, float] = {}

    @contextmanager
    def __call__(self, part: str):
        start = time.perf_counter()
        yield
        took = 1000 * (time.perf_counter() - start)
        self.parts[part] = min(took, self.parts.get(part, took))


def plain(muon: bool, clock: Clock, fused: bool = True) -> Callable[[], object]:
    """As one writes it: autocast, timm's attention, torch's optimisers, a loop for the average."""
    jepa = Jepa(ModelConfig(), seed=0)
    use_fused_attention(jepa, fused)
    trained = {name: p for name, p in jepa.named_parameters() if p.requires_grad}
    blocks = [p for n, p in trained.items() if muon and ".blocks." in n and p.ndim == 2]
    rest = [p for p in trained.values() if all(p is not block for block in blocks)]
    optimisers: list[torch.optim.Optimizer] = [torch.optim.AdamW(rest, lr=1e-4)]
    optimisers += [torch.optim.Muon(blocks, lr=1e-4)] if blocks else []

    def update() -> None:
        for optimiser in optimisers:
            optimiser.step()
            optimiser.zero_grad()

    return lambda: step(jepa, update, lambda: average(jepa), clock)


@torch.no_grad()
def average(jepa: Jepa) -> None:
    """The moving average, one parameter after the other."""
    pairs = zip(jepa.target_encoder.parameters(), jepa.context_encoder.parameters(), strict=True)
    for target, context in pairs:
        target.mul_(0.996).add_(context.detach(), alpha=0.004)


def ours(optimizer: str, clock: Clock, compiled: bool = False) -> Callable[[], object]:
    """As `train_step`: fused AdamW, Muon in batches, no fused attention on a CPU."""
    jepa = Jepa(ModelConfig(), seed=0)
    use_fused_attention(jepa, False)
    state = TrainingState(jepa, BF16, optimizer)
    network = torch.compile(jepa) if compiled else jepa

    def update() -> None:
        state.apply_gradients(1e-4, 0.04, 1e-4)

    return lambda: step(network, update, lambda: jepa.update_target(0.996), clock)


def step(
    network: nn.Module, update: Callable[[], None], follow: Callable[[], None], clock: Clock
) -> None:
    """Draws, loss, gradients, optimisers and moving average of one batch."""
    with clock("draws and crops"):
        draws = generator(1)
        rows = torch.randint(0, len(IMAGES), (BATCH,), generator=draws)
        boxes, flips = draw_crops(BATCH, 32, 32, draws), draw_flips(BATCH, draws)
        images = crop_and_resize(IMAGES[rows], boxes, flips, 32)
        masks = sample_masks(MaskConfig(), BATCH, draws)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with clock("loss"):
            loss = network(images, masks, 0).loss
    with clock("backward"):
        loss.backward()
    with clock("optimiser"):
        update()
    with clock("moving average"):
        follow()


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # the compiler's, of the checks of types that tests add
def test_step_ratio(capsys):
    """The same network (width 128, 6 blocks), batch and masks."""
    parts: dict[str, dict[str, float]] = {}
    for name in ("AdamW", "Muon"):
        muon, clocks = name == "Muon", [Clock() for _ in range(4)]
        ways = {
            f"plain, {name}": plain(muon, clocks[0]),
            f"plain, {name}, attention not fused": plain(muon, clocks[1], fused=False),
            f"ours, {name}": ours(name.lower(), clocks[2]),
            f"ours, {name}, compiled": ours(name.lower(), clocks[3], compiled=True),
        }
        race(capsys, f"training step in bfloat16, {name}, images", ways, ROUNDS, BATCH)
        parts |= {way: clock.parts for way, clock in zip(ways, clocks, strict=True)}
    rows = [[way, *(f"{took:.1f}" for took in clock.values())] for way, clock in parts.items()]
    show(capsys, ["Milliseconds of a step", *parts["ours, AdamW"]], rows, "step.csv")
