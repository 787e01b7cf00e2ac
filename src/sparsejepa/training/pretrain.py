"""The one training loop: JEPA and every variant, on a CPU, one GPU or several."""

import copy
import dataclasses
import json
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from accelerate.utils import broadcast_object_list
from jaxtyping import Bool, Int64
from torch import Tensor, nn
from tqdm.std import tqdm

from sparsejepa.atomic_files import write_atomically
from sparsejepa.config import (
    ABOVE_ZERO,
    AT_LEAST_ONE,
    AT_LEAST_ZERO,
    check_choices,
    check_ranges,
    from_mapping,
)
from sparsejepa.data.batches import (
    Images,
    channel_statistics,
    crop_and_resize,
    draw_crops,
    draw_flips,
    epoch_order,
)
from sparsejepa.data.image_set import ImageSet, pixel_sha256
from sparsejepa.model.jepa import Jepa, JepaOutput, ModelConfig, method_config
from sparsejepa.model.masks import MaskConfig, Masks, sample_masks
from sparsejepa.model.penalties import SparsityConfig
from sparsejepa.model.vit import (
    Encoder,
    EncoderConfig,
    PredictorConfig,
    save_encoder,
    use_fused_attention,
)
from sparsejepa.randomness import generator
from sparsejepa.training.precision import Precision, Wish, choose_device, choose_precision
from sparsejepa.training.state import TrainingState, leaves

Watch = Callable[[Encoder], dict[str, float]]
Network = Callable[[Tensor, Masks, int], JepaOutput]  # a Jepa, shared and compiled or not
# Images of a batch, their crops, which of them are mirrored, and masks.
Draws = tuple[Int64[Tensor, "B"], Int64[Tensor, "B 4"], Bool[Tensor, "B"], Masks]
# What may change when a run goes on. After a change of `compile`, or of the machine, it ends as it
# would have to rounding, else to the bit.
FREE = ("checkpoint_minutes", "compile")
BEST = "best.safetensors"  # weights after the epoch of the best online kNN, in float16


@dataclass(frozen=True)
class PretrainConfig:
    """All that decides what a run computes."""

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
    # torch.compile takes a minute or more; weights then differ by rounding. auto: for 1,000 steps
    # and more on a GPU.
    compile: Literal["auto", "off", "on"] = "auto"

    def __post_init__(self) -> None:
        check_choices(self)
        counts = ("seed", "minutes", "final_learning_rate", "weight_decay", "checkpoint_minutes")
        check_ranges(self, **dict.fromkeys(counts, AT_LEAST_ZERO), epochs=AT_LEAST_ONE)
        check_ranges(self, batch_size=AT_LEAST_ONE, peak_learning_rate=ABOVE_ZERO)
        check_ranges(self, warmup=(0, 1), ema=(0, 1), crop_scale=(1e-6, 1))
        if self.crop_scale[0] > self.crop_scale[1]:
            raise ValueError(f"crop_scale {self.crop_scale} must have the smaller share first.")
        if self.masks.grid != self.model.encoder.grid:
            grid = self.model.encoder.grid
            raise ValueError(f"masks.grid {self.masks.grid} is not the encoder's {grid}.")


class PretrainResult(NamedTuple):
    """A finished run."""

    jepa: nn.Module  # probe jepa.target_encoder, as I-JEPA does
    history: list[dict[str, int | float]]  # one entry an epoch
    steps: int  # optimiser steps taken
    seconds: float  # time in steps, over all resumed parts, without the watch
    precision: Precision  # number format that was used


def pretrain(
    method: PretrainConfig | str | nn.Module,
    images: ImageSet | Images,
    folder: Path | str,
    watch: Watch | None = None,
    *,
    device: Literal["auto", "cpu"] = "auto",
    **settings: Any,
) -> PretrainResult:
    """Trains, or resumes from `folder`; on CPU the result is the same to the bit either way.

    Args:
        method: name of a row of `METHODS`, or of an own one of `PENALTIES`; or a module, a `Jepa`
            with parts of your own; or a whole configuration.
        folder: where checkpoints go. Killed, the same call goes on from the last one.
        watch: measures the target encoder after every epoch: the loss alone misleads.
        device: "auto" is CUDA where there is one, else the CPU.
        settings: fields of `PretrainConfig`. With a method's name also those of `EncoderConfig`
            and `SparsityConfig`, such as width=192 or strength=0.01, and `predictor`.

    Example:
        >>> result = pretrain("sparsejepa", images, "run", epochs=5, strength=0.003)
        >>> result.jepa.target_encoder, result.history[-1]["loss"]

    Raises:
        ValueError: settings that make no sense, with these images or processes; another
            configuration's run or a damaged checkpoint in `folder`.
        FloatingPointError: the loss is not finite; the last good checkpoint is kept.
        OSError: a checkpoint can't be written.
    """
    images = images if isinstance(images, Tensor) else images.images
    config, folder = _configured(method, images, settings), Path(folder).expanduser()
    # accelerate would keep a process's first device, and add `launch`'s mixed precision to ours.
    AcceleratorState._reset_state(reset_partial_state=True)
    cpu = device == "cpu" or choose_device().type == "cpu"
    accelerator = Accelerator(cpu=cpu, mixed_precision="no")
    processes, batch = accelerator.num_processes, config.batch_size
    if len(images) < batch:
        raise ValueError(f"{len(images)} images do not fill one batch of {batch}.")
    if batch % processes:
        raise ValueError(f"batch_size {batch} is no multiple of the {processes} processes.")
    precision = choose_precision(accelerator.device, config.precision)
    images = images.to(accelerator.device)
    jepa = method if isinstance(method, nn.Module) else Jepa(config.model, config.seed)
    use_fused_attention(jepa.to(accelerator.device), precision.fused_attention)
    state = TrainingState(jepa, precision, config.optimizer)
    steps = _planned_steps(config, images, folder, state, accelerator)
    checkpoint = folder / "checkpoint.pt"
    if checkpoint.exists():
        state.load(checkpoint)
    model, progress = _prepared(config, images, jepa, accelerator), state.progress
    started, main = time.perf_counter(), accelerator.is_main_process
    bar = tqdm(total=steps, initial=progress.step, unit="step", disable=not main)
    while progress.step < steps:
        train_step(config, steps, images, model, state, accelerator)
        bar.update()
        epoch_ends = progress.step % (len(images) // batch) == 0 or progress.step == steps
        if epoch_ends or time.perf_counter() - started > 60 * config.checkpoint_minutes:
            progress.settle()
            progress.seconds += time.perf_counter() - started
            if epoch_ends:
                seen = watch(jepa.target_encoder) if watch else {}
                progress.end_epoch(seen | jepa.measures())
            if epoch_ends and main:
                bar.write("  ".join(f"{k} {v:.4g}" for k, v in progress.history[-1].items()))
                found = [row.get("knn", -math.inf) for row in progress.history]
                # For a diagnosis: the last encoder is probed.
                if isinstance(jepa.target_encoder, Encoder) and -math.inf < found[-1] == max(found):
                    save_encoder(folder / BEST, jepa.target_encoder)
            if main:
                state.save(checkpoint)
            started = time.perf_counter()
    bar.close()
    return PretrainResult(jepa, progress.history, steps, progress.seconds, precision)


def draw(config: PretrainConfig, images: Images, step: int, share: slice) -> Draws:
    """A process's share of the draws of a step, on the CPU: a GPU computes meanwhile."""
    size = config.batch_size
    epoch, position = divmod(step, len(images) // size)
    chosen = epoch_order(len(images), config.seed, epoch)[position * size :][:size]
    crops = generator(config.seed, "crops", step)
    boxes = draw_crops(size, *images.shape[1:3], crops, scale=config.crop_scale)
    flips = draw_flips(size, crops) & config.flip
    masks = sample_masks(config.masks, size, generator(config.seed, "masks", step))
    return chosen[share], boxes[share], flips[share], Masks(*(kept[share] for kept in masks))


def compute_loss(
    config: PretrainConfig, images: Images, draws: Draws, model: Network, state: TrainingState
) -> JepaOutput:
    """The loss of a step on the device of the images, which is never waited for."""
    device, dtype, (chosen, boxes, flips, masks) = images.device, state.precision.autocast, draws
    chosen = images[chosen.to(device, non_blocking=True)]
    batch = crop_and_resize(chosen, boxes, flips, config.model.encoder.image_size)
    with torch.autocast(device.type, dtype=dtype, enabled=dtype is not None):
        return model(batch, masks.to(device), state.progress.step)


def train_step(
    config: PretrainConfig,
    steps: int,
    images: Images,
    model: Network,
    state: TrainingState,
    accelerator: Accelerator,
) -> None:
    """One optimiser step. Every process draws the whole batch's choices and computes its share."""
    step, size = state.progress.step, config.batch_size // accelerator.num_processes
    share = slice(accelerator.process_index * size, (accelerator.process_index + 1) * size)
    output = compute_loss(config, images, draw(config, images, step, share), model, state)
    state.scaler.scale(output.loss).backward()
    warmup, peak = round(config.warmup * steps), config.peak_learning_rate
    rate = learning_rate(step, steps, warmup, peak, config.final_learning_rate)
    sgd_rate = config.model.sparsity.learning_rate * rate / peak
    state.apply_gradients(rate, cosine(step, steps, *config.weight_decay), sgd_rate)
    state.jepa.update_target(linear(step, steps, *config.ema))
    # Over all processes; the spread is the mean of each one's own.
    measures = torch.stack([output.prediction_loss, output.target_spread]).detach()
    state.progress.record(accelerator.reduce(measures, "mean"))


def learning_rate(step: int, steps: int, warmup: int, peak: float, final: float) -> float:
    """Linear from 0 to `peak` over `warmup` steps, then cosine to `final` at `steps - 1`."""
    if step < warmup:
        return peak * step / warmup
    return cosine(step - warmup, steps - warmup, peak, final)


def cosine(step: int, steps: int, first: float, last: float) -> float:
    """Half a cosine from `first` at step 0 to `last` at `steps - 1`."""
    progress = min(1.0, step / max(1, steps - 1))
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(step: int, steps: int, first: float, last: float) -> float:
    """Straight line from `first` at step 0 to `last` at `steps - 1` (I-JEPA's EMA momentum)."""
    return first + (last - first) * min(1.0, step / max(1, steps - 1))


def _configured(
    method: PretrainConfig | str | nn.Module, images: Images, settings: dict[str, Any]
) -> PretrainConfig:
    """The configuration that `pretrain` was asked for."""
    if isinstance(method, PretrainConfig):
        return from_mapping(PretrainConfig, vars(method) | settings) if settings else method
    if isinstance(method, nn.Module):
        model = method.config
    else:
        mean, std = channel_statistics(images)
        # The strength of the book's runs.
        given = {"image_size": images.shape[1], "mean": mean, "std": std, "strength": 1e-3}
        settings = given | {"predictor": PredictorConfig()} | settings
        encoder, sparsity = (
            from_mapping(
                part, {n: settings.pop(n) for n in part.__dataclass_fields__ if n in settings}
            )
            for part in (EncoderConfig, SparsityConfig)
        )
        model = method_config(method, encoder, settings.pop("predictor"), sparsity)
    if "masks" not in settings:
        # A quarter of the patches is context, as on the book's 8x8 grid.
        grid = model.encoder.grid
        settings = {"masks": MaskConfig(grid, context_length=max(1, grid**2 // 4))} | settings
    return from_mapping(PretrainConfig, {"model": model} | settings)


def _prepared(
    config: PretrainConfig, images: Images, jepa: nn.Module, accelerator: Accelerator
) -> Network:
    """The network as all processes share it, compiled where `config.compile` says so."""
    model = accelerator.prepare_model(jepa)
    long = config.epochs * (len(images) // config.batch_size) >= 1000
    if config.compile == "off" or config.compile == "auto" and not (long and images.is_cuda):
        return model
    compiled = torch.compile(model)

    def network(batch: Tensor, masks: Masks, step: int) -> JepaOutput:
        # Target blocks of every size share one graph where the compiler can make it.
        torch._dynamo.maybe_mark_dynamic(masks.targets, 2)
        return compiled(batch, masks, step)

    return network


def _planned_steps(
    config: PretrainConfig,
    images: Images,
    folder: Path,
    state: TrainingState,
    accelerator: Accelerator,
) -> int:
    """Length of the run: a resumed run keeps the plan that its first part made."""
    path, asked = folder / "plan.json", dataclasses.asdict(config)
    asked |= {"images": pixel_sha256(images), "network": type(state.jepa).__qualname__}
    planned = path.exists()
    # All have looked before the first one writes.
    accelerator.wait_for_everyone()
    if planned:
        try:
            plan = json.loads(path.read_text())
            old, new, steps = dict(leaves(plan["config"])), dict(leaves(asked)), plan["steps"]
        except (ValueError, KeyError) as error:
            raise ValueError(f"{path} is damaged; delete {folder} to start anew.") from error
        names = sorted((old.keys() | new.keys()) - set(FREE))
        pairs = [(name, old.get(name), new.get(name)) for name in names]
        if differing := [f"{name} {a!r} -> {b!r}" for name, a, b in pairs if a != b]:
            raise ValueError(
                f"{folder} holds a run with another configuration ({'; '.join(differing)}); "
                f"choose another folder, or delete this one to start anew."
            )
        return steps
    steps = config.epochs * (len(images) // config.batch_size)
    if config.minutes > 0:
        steps = min(steps, _steps_in(config, images, state, accelerator))
        # Processes may have measured different speeds: all follow the first.
        steps = broadcast_object_list([steps])[0]
    if accelerator.is_main_process:
        write_atomically(path, json.dumps({"steps": steps, "config": asked}).encode())
    accelerator.wait_for_everyone()
    return steps


def _steps_in(
    config: PretrainConfig, images: Images, state: TrainingState, accelerator: Accelerator
) -> int:
    """How many steps fit `config.minutes`, by timing a few on a copy that is thrown away."""
    copied = TrainingState(copy.deepcopy(state.jepa), state.precision, config.optimizer)
    model, seconds = _prepared(config, images, copied.jepa, accelerator), []
    for _ in range(12):
        started = time.perf_counter()
        train_step(config, 10**6, images, model, copied, accelerator)
        copied.progress.settle()
        seconds.append(time.perf_counter() - started)
    # accelerate holds what it has prepared.
    accelerator.free_memory()
    # The first steps allocate memory and choose kernels.
    return max(1, int(60 * config.minutes / sorted(seconds[4:])[4]))
