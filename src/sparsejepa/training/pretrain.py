"""The one training loop: JEPA and every SparseJEPA reading, on a CPU, one GPU or several."""

import dataclasses
import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from jaxtyping import UInt8
from torch import Tensor, nn
from tqdm.std import tqdm

from sparsejepa.atomic_files import write_atomically
from sparsejepa.config import check_choices
from sparsejepa.data.batches import crop_and_resize, draw_crops, draw_flips, epoch_order
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.model.objective import Jepa, ModelConfig
from sparsejepa.model.vit import Encoder, use_fused_attention
from sparsejepa.randomness import generator
from sparsejepa.training.precision import Precision, Wish, choose_precision
from sparsejepa.training.schedules import cosine, learning_rate, linear
from sparsejepa.training.state import Progress, TrainingState

Watch = Callable[[Encoder], dict[str, float]]


@dataclass(frozen=True)
class PretrainConfig:
    """Everything that decides what a run computes."""

    model: ModelConfig = field(default_factory=ModelConfig)  # network and penalty
    masks: MaskConfig = field(default_factory=MaskConfig)  # multi-block sampling
    seed: int = 0  # initial weights, data order, crops, masks
    epochs: int = 20  # passes over the images
    minutes: float = 0.0  # if > 0: fewer steps, as many as fit this much training on this machine
    batch_size: int = 256  # images a step, over all processes
    crop_scale: tuple[float, float] = (0.3, 1.0)  # RandomResizedCrop area; I-JEPA
    flip: bool = True  # mirror half of the images; I-JEPA does not, see the appendix
    optimizer: Literal["adamw", "muon"] = "adamw"  # of block matrices; all else has AdamW (I-JEPA)
    peak_learning_rate: float = 1.5e-3  # AdamW and Muon; I-JEPA has 1e-3 at batch 2048
    warmup: float = 0.1  # share of the steps with rising learning rate; I-JEPA 40 of 300 epochs
    final_learning_rate: float = 1e-6  # at the last step; I-JEPA
    weight_decay: tuple[float, float] = (0.04, 0.4)  # first and last step, cosine; I-JEPA
    ema: tuple[float, float] = (0.996, 1.0)  # target momentum, first and last step, linear; I-JEPA
    precision: Wish = "auto"  # auto: best the device really has
    checkpoint_minutes: float = 5.0  # longest training time that a kill can cost

    def __post_init__(self) -> None:
        if self.epochs < 1 or self.batch_size < 1:
            raise ValueError(f"epochs {self.epochs} and batch_size {self.batch_size} must be > 0.")
        check_choices(self)
        if self.masks.grid != self.model.encoder.grid:
            raise ValueError(
                f"masks.grid {self.masks.grid} is not the encoder's {self.model.encoder.grid}."
            )


@dataclass(frozen=True)
class PretrainResult:
    """A finished run."""

    jepa: Jepa  # probe jepa.target_encoder, as I-JEPA does
    history: list[dict[str, int | float]]  # one entry an epoch
    steps: int  # optimiser steps taken
    seconds: float  # time in steps, over all resumed parts, without the watch
    precision: Precision  # number format that was used


def pretrain(
    config: PretrainConfig,
    images: UInt8[Tensor, "N H W 3"],
    folder: Path,
    watch: Watch,
    device: Literal["auto", "cpu"] = "auto",
) -> PretrainResult:
    """Trains, or resumes from `folder`; on CPU the result is the same to the bit either way.

    `watch` measures the target encoder after every epoch: the loss alone misleads.

    Raises:
        ValueError: fewer images than a batch; a batch that the processes can't share; another
            configuration's run or a damaged checkpoint in `folder`.
        FloatingPointError: the loss is not finite; the last good checkpoint is kept.
        OSError: a checkpoint can't be written.
    """
    # accelerate would keep a process's first device, and add `launch`'s mixed precision to ours.
    AcceleratorState._reset_state(reset_partial_state=True)
    accelerator = Accelerator(cpu=device == "cpu", mixed_precision="no")
    processes, batch = accelerator.num_processes, config.batch_size
    if len(images) < batch:
        raise ValueError(f"{len(images)} images do not fill one batch of {batch}.")
    if batch % processes:
        raise ValueError(f"batch_size {batch} is no multiple of the {processes} processes.")
    precision = choose_precision(accelerator.device, config.precision)
    images = images.to(accelerator.device)
    steps = _planned_steps(config, images, folder, accelerator, precision)

    state = _new_state(config, accelerator, precision)
    checkpoint = folder / "checkpoint.safetensors"
    progress = state.load(checkpoint) if checkpoint.exists() else Progress()
    model = accelerator.prepare_model(state.jepa)
    per_epoch = len(images) // batch
    started = saved = time.perf_counter()
    bar = tqdm(
        total=steps, initial=progress.step, unit="step", disable=not accelerator.is_main_process
    )
    while progress.step < steps:
        train_step(config, steps, images, model, state, progress, accelerator)
        bar.update()
        epoch_ends = progress.step % per_epoch == 0 or progress.step == steps
        if epoch_ends or time.perf_counter() - saved > 60 * config.checkpoint_minutes:
            progress.settle()
            progress.seconds += time.perf_counter() - started
            if epoch_ends:
                progress.end_epoch(watch(state.jepa.target_encoder) | state.jepa.measures())
            if accelerator.is_main_process:
                if epoch_ends:
                    bar.write("  ".join(f"{k} {v:.4g}" for k, v in progress.history[-1].items()))
                state.save(checkpoint, progress)
            started = saved = time.perf_counter()
    bar.close()
    return PretrainResult(state.jepa, progress.history, steps, progress.seconds, precision)


def train_step(
    config: PretrainConfig,
    steps: int,
    images: UInt8[Tensor, "N H W 3"],
    model: nn.Module,
    state: TrainingState,
    progress: Progress,
    accelerator: Accelerator,
) -> None:
    """One optimiser step. Every process draws the whole batch's choices and computes its share."""
    step, device = progress.step, accelerator.device
    epoch, position = divmod(step, len(images) // config.batch_size)
    order = epoch_order(len(images), config.seed, epoch)
    share = config.batch_size // accelerator.num_processes
    mine = slice(accelerator.process_index * share, (accelerator.process_index + 1) * share)

    chosen = order[position * config.batch_size :][: config.batch_size][mine].to(device)
    crops = generator(config.seed, "crops", step)
    size = config.model.encoder.image_size
    boxes = draw_crops(
        config.batch_size, images.shape[1], images.shape[2], crops, scale=config.crop_scale
    )
    flips = draw_flips(config.batch_size, crops) & config.flip
    batch = crop_and_resize(images[chosen], boxes[mine].to(device), flips[mine].to(device), size)
    masks = sample_masks(config.masks, config.batch_size, generator(config.seed, "masks", step))
    masks = masks.rows(mine.start, mine.stop).to(device)

    dtype = state.precision.autocast
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        output = model(batch, masks, step)
    state.scaler.scale(output.loss).backward()
    warmup = round(config.warmup * steps)
    rate = learning_rate(step, steps, warmup, config.peak_learning_rate, config.final_learning_rate)
    sgd_rate = config.model.sparsity.learning_rate * rate / config.peak_learning_rate
    state.apply_gradients(rate, cosine(step, steps, *config.weight_decay), sgd_rate)
    state.jepa.update_target(linear(step, steps, *config.ema))
    # Over all processes; the spread is the mean of each one's own.
    measures = torch.stack([output.prediction_loss, output.target_spread])
    progress.record(accelerator.reduce(measures, "mean"))


def _new_state(
    config: PretrainConfig, accelerator: Accelerator, precision: Precision
) -> TrainingState:
    jepa = Jepa(config.model, config.seed).to(accelerator.device)
    use_fused_attention(jepa, precision.fused_attention)
    return TrainingState(jepa, precision, config.optimizer)


def _planned_steps(
    config: PretrainConfig,
    images: UInt8[Tensor, "N H W 3"],
    folder: Path,
    accelerator: Accelerator,
    precision: Precision,
) -> int:
    """Length of the run, fixed once: a resumed run keeps the plan that its first part made."""
    path = folder / "plan.json"
    asked = json.loads(json.dumps(dataclasses.asdict(config)))
    asked["images"] = hashlib.sha256(images.cpu().contiguous().numpy()).hexdigest()
    planned = path.exists()
    # All have looked before the first one writes.
    accelerator.wait_for_everyone()
    if planned:
        try:
            plan = json.loads(path.read_text())
            differing = _differing(plan["config"], asked)
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is damaged; delete {folder} to start anew.") from error
        if differing:
            raise ValueError(
                f"{folder} holds a run with another configuration ({'; '.join(differing)}); "
                f"choose another folder, or delete this one to start anew."
            )
        return plan["steps"]
    steps = config.epochs * (len(images) // config.batch_size)
    if config.minutes > 0:
        steps = min(steps, _steps_in(config, images, accelerator, precision))
        # Processes may have measured different speeds: all follow the first.
        steps = broadcast_object_list([steps])[0]
    if accelerator.is_main_process:
        write_atomically(path, json.dumps({"steps": steps, "config": asked}).encode())
    accelerator.wait_for_everyone()
    return steps


def _steps_in(
    config: PretrainConfig,
    images: UInt8[Tensor, "N H W 3"],
    accelerator: Accelerator,
    precision: Precision,
) -> int:
    """How many steps fit `config.minutes`, by timing a few on a copy that is thrown away."""
    state, progress, seconds = _new_state(config, accelerator, precision), Progress(), []
    model = accelerator.prepare_model(state.jepa)
    for _ in range(12):
        started = time.perf_counter()
        train_step(config, 10**6, images, model, state, progress, accelerator)
        progress.settle()
        seconds.append(time.perf_counter() - started)
    # The first steps allocate memory and choose kernels.
    return max(1, int(60 * config.minutes / sorted(seconds[4:])[4]))


def _differing(old: dict, new: dict, prefix: str = "") -> list[str]:
    """Fields that differ, as 'name old -> new'; how often to save is no difference."""
    found = []
    for key in sorted(old.keys() | new.keys()):
        name, before, after = f"{prefix}{key}", old.get(key), new.get(key)
        if isinstance(before, dict) and isinstance(after, dict):
            found += _differing(before, after, f"{name}.")
        elif before != after and name != "checkpoint_minutes":
            found.append(f"{name} {before!r} -> {after!r}")
    return found
