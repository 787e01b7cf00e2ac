"""Where a run computes, and in which number format."""

from dataclasses import dataclass
from typing import Literal

import torch

Wish = Literal["auto", "fp32", "bf16", "fp16"]


@dataclass(frozen=True)
class Precision:
    """Outcome of `choose_precision`. Weights, EMA, targets and losses are float32 in every case."""

    name: str  # fp32, bf16 or fp16
    autocast: torch.dtype | None  # dtype of matrix products, None for float32
    scale_loss: bool  # float16 gradients underflow unless the loss is scaled
    fused_attention: bool  # PyTorch's fused kernel; on CPUs the plain form is faster


def choose_device() -> torch.device:
    """CUDA where there is one, else the CPU: a Mac's mps has no float64, which measures need."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def choose_precision(device: torch.device, wish: Wish = "auto") -> Precision:
    """bf16 where the hardware really has it, else float16 on CUDA, else float32.

    `is_bf16_supported()` alone says yes on a T4, which only emulates it, slowly.

    fp16 on a CPU is a ValueError: there is no loss scaling.
    """
    dtypes = {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
    cuda, name = device.type == "cuda", wish
    if wish == "auto" and cuda:
        name = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    elif wish == "auto":
        name = "bf16" if _cpu_has_bf16() else "fp32"
    if name == "fp16" and not cuda:
        raise ValueError(f"precision fp16 needs a CUDA device, not {device.type}; use bf16.")
    return Precision(name, dtypes[name], name == "fp16", cuda)


def _cpu_has_bf16() -> bool:
    # Without these instructions bf16 products are emulated and slower than float32.
    return torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
