"""Runs of well under a second, and processes that may be killed."""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from sparsejepa.model.jepa import ModelConfig
from sparsejepa.model.masks import MaskConfig
from sparsejepa.model.penalties import SparsityConfig
from sparsejepa.model.vit import EncoderConfig, PredictorConfig
from sparsejepa.randomness import generator
from sparsejepa.training import pretrain as module
from sparsejepa.training.pretrain import PretrainConfig, PretrainResult, pretrain
from sparsejepa.training.state import leaves

MODEL = ModelConfig(
    EncoderConfig(image_size=16, patch_size=4, width=16, depth=1, heads=2),
    PredictorConfig(width=8, depth=1, heads=2),
)
R1 = SparsityConfig("R1", groups=2, strength=0.05, learning_rate=0.1, average_over=3)
SPARSE = ModelConfig(MODEL.encoder, MODEL.predictor, R1)


def tiny_config(**changes: Any) -> PretrainConfig:
    """Five steps an epoch on 40 images, a checkpoint an epoch unless `changes` say otherwise."""
    masks = MaskConfig(grid=4, context_length=4)
    defaults = {"epochs": 2, "batch_size": 8, "precision": "fp32", "checkpoint_minutes": 9.0}
    return PretrainConfig(**({"model": MODEL, "masks": masks} | defaults | changes))


def tiny_images(count: int = 40, seed: int = 0) -> Tensor:
    """Random bytes [count, 16, 16, 3]."""
    draws = generator(seed, "images")
    return torch.randint(0, 256, (count, 16, 16, 3), dtype=torch.uint8, generator=draws)


def nothing(encoder: torch.nn.Module) -> dict[str, float]:
    """Measures nothing after an epoch."""
    return {}


def train(folder: Path, images: Tensor | None = None, **changes: Any) -> PretrainResult:
    """A tiny run on the CPU."""
    images = tiny_images() if images is None else images
    return pretrain(tiny_config(**changes), images, folder, nothing, device="cpu")


def before_step(monkeypatch: pytest.MonkeyPatch, step: int, act: Callable[[], None]) -> None:
    """Calls `act` when the run is about to take step `step`."""
    real = module.train_step

    def train_step(*arguments: Any) -> None:
        if arguments[4].progress.step == step:
            act()
        real(*arguments)

    monkeypatch.setattr(module, "train_step", train_step)


def interrupt() -> None:
    raise KeyboardInterrupt


def cut(folder: Path, step: int, **changes: Any) -> None:
    """A run that ends before step `step`, as by Ctrl-C."""
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        before_step(patch, step, interrupt)
        train(folder, **changes)


def weights(result: PretrainResult) -> dict[str, Tensor]:
    """Every tensor of the network."""
    return dict(result.jepa.state_dict())


def timeless(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """A history without what no two runs have in common."""
    return [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in history]


def same_bits(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    """The same names with the same bits, NaN equal to itself."""
    return first.keys() == second.keys() and all(
        a.dtype == second[name].dtype and a.numpy().tobytes() == second[name].numpy().tobytes()
        for name, a in first.items()
    )


def flat(tree: Any) -> dict[str, Tensor]:
    """The tensors of a checkpoint by their places."""
    return dict(leaves(tree))


def start(target: Any, *arguments: Any) -> tuple[BaseProcess, Connection]:
    """Runs `target(pipe, *arguments)` in a process of its own, forked from one with torch loaded.

    A fork of this process itself would inherit its autograd threads.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["timm.models.vision_transformer", "sparsejepa.training.pretrain"]
    )
    ours, theirs = context.Pipe()
    process = context.Process(target=target, args=(theirs, *arguments), daemon=True)
    process.start()
    theirs.close()
    return process, ours


def train_here(pipe: Connection, folder: Path, changes: dict[str, Any]) -> None:
    """A tiny run in a process that `start` started; says when it begins."""
    torch.set_num_threads(1)
    pipe.send("begins")
    train(folder, **changes)


def train_until(
    pipe: Connection, folder: Path, changes: dict[str, Any], name: str, count: int, after: bool
) -> None:
    """As `train_here`, but kills itself at the `count`-th call of `os.<name>`, or right after."""
    real, calls = getattr(os, name), iter(range(1, 10**6))

    def fatal(*arguments: Any) -> Any:
        last = next(calls) == count
        if last and not after:
            os.kill(os.getpid(), signal.SIGKILL)
        value = real(*arguments)
        if last:
            os.kill(os.getpid(), signal.SIGKILL)
        return value

    setattr(os, name, fatal)
    train_here(pipe, folder, changes)
