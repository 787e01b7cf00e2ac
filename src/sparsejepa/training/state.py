"""What training changes: network, optimisers, progress. All of it goes into a checkpoint."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from sparsejepa.training.checkpoint import load_checkpoint, save_checkpoint
from sparsejepa.training.muon import Muon
from sparsejepa.training.precision import Precision


@dataclass
class Progress:
    """How far a run has come, and what it has seen in the epoch under way."""

    step: int = 0  # optimiser steps taken
    seconds: float = 0.0  # spent in steps
    history: list[dict[str, int | float]] = field(default_factory=list)  # one entry an epoch
    loss_sum: float = 0.0  # over the steps of this epoch
    spread_sum: float = 0.0  # over the steps of this epoch
    counted: int = 0  # steps in the two sums
    pending: list[Tensor] = field(default_factory=list)  # (loss, spread) not yet read back

    def record(self, measures: Float[Tensor, "2"]) -> None:
        """Keeps a step's loss and spread on the device: reading each one would stall a GPU."""
        self.pending.append(measures)
        self.step += 1
        if len(self.pending) >= 20:
            self.settle()

    def settle(self) -> None:
        """Reads the pending measures back; a loss that is not finite is a FloatingPointError."""
        measured = torch.stack(self.pending).tolist() if self.pending else []
        for step, (loss, spread) in enumerate(measured, start=self.step - len(self.pending)):
            if not math.isfinite(loss):
                raise FloatingPointError(
                    f"The loss is {loss} at step {step}; the last checkpoint before it is kept. "
                    f"Lower the learning rate, or use precision fp32."
                )
            self.loss_sum += loss
            self.spread_sum += spread
        self.counted += len(self.pending)
        self.pending.clear()

    def end_epoch(self, measures: dict[str, float]) -> None:
        """Closes the epoch: its mean loss and spread, with what was measured after it."""
        done = {"epoch": len(self.history) + 1, "step": self.step, "seconds": self.seconds}
        loss, spread = self.loss_sum / self.counted, self.spread_sum / self.counted
        self.history.append(done | {"loss": loss, "target_spread": spread} | measures)
        self.loss_sum, self.spread_sum, self.counted = 0.0, 0.0, 0


class TrainingState:
    """Network and optimisers: AdamW, plain SGD for a penalty's own parameters, and Muon if chosen.

    Muon takes the matrices inside transformer blocks from AdamW; its updates have AdamW's usual
    size, so both share one learning rate.
    """

    def __init__(
        self, jepa: nn.Module, precision: Precision, optimizer: Literal["adamw", "muon"] = "adamw"
    ) -> None:
        self.jepa, self.precision, self.progress = jepa, precision, Progress()
        self.own = jepa.penalty.own_parameters()
        own, matrices = {id(parameter) for parameter in self.own}, []
        groups: dict[bool, list[nn.Parameter]] = {True: [], False: []}
        for name, parameter in jepa.named_parameters():
            if not parameter.requires_grad or id(parameter) in own:
                continue
            if optimizer == "muon" and parameter.ndim == 2 and ".blocks." in name:
                matrices.append(parameter)
            else:
                # Matrices decay; biases, norms and tokens do not (I-JEPA's code decays its mask
                # token, which has three axes there, as timm's register tokens have).
                groups[parameter.ndim > 1 and not name.endswith("reg_token")].append(parameter)
        decaying = [{"params": groups[decays], "decays": decays} for decays in (True, False)]
        self.adamw = torch.optim.AdamW(decaying, lr=0.0, fused=True)
        self.sgd = torch.optim.SGD(self.own, lr=0.0) if self.own else None
        self.muon = Muon(matrices) if matrices else None
        self.scaler = torch.amp.GradScaler(enabled=precision.scale_loss)
        # Sum of gradients of the penalty's own parameters since their last step.
        self.summed = [torch.zeros_like(p) for p in self.own]
        self.summands = 0

    def apply_gradients(self, learning_rate: float, weight_decay: float, sgd_rate: float) -> None:
        """One step of all optimisers, then the penalty's own step."""
        for group in self.adamw.param_groups:
            group["lr"] = learning_rate
            group["weight_decay"] = weight_decay if group["decays"] else 0.0
        self.scaler.step(self.adamw)
        if self.muon:
            self.muon.param_groups[0] |= {"lr": learning_rate, "weight_decay": weight_decay}
            self.scaler.step(self.muon)
        if self.sgd:
            self._step_apart(sgd_rate)
        self.scaler.update()
        self.jepa.zero_grad(set_to_none=True)

    @torch.no_grad()
    def _step_apart(self, learning_rate: float) -> None:
        """Plain SGD on the penalty's own parameters, once every `average_over` minibatches."""
        self.scaler.unscale_(self.sgd)
        for total, parameter in zip(self.summed, self.own, strict=True):
            # An overflow of scaled float16 gradients; AdamW skips such a step too.
            total += parameter.grad.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
        self.summands += 1
        if self.summands == self.jepa.config.sparsity.average_over:
            for total, parameter in zip(self.summed, self.own, strict=True):
                parameter.grad = total / self.summands
                total.zero_()
            self.summands = 0
            self.sgd.param_groups[0]["lr"] = learning_rate
            self.sgd.step()
            self.jepa.penalty.after_step(learning_rate)

    def save(self, path: Path) -> None:
        """Writes all that a bit-equal resume needs; random draws need nothing but the step.

        A tensor that is not finite is a FloatingPointError: an earlier file is better, and is kept.
        """
        moments = {kind: o.state_dict()["state"] for kind, o in self._with_memory().items()}
        tensors = {"jepa": self.jepa.state_dict(), "summed": self.summed} | moments
        for name, tensor in leaves(tensors):
            if not tensor.isfinite().all():
                raise FloatingPointError(
                    f"{name} is not finite after {self.progress.step} steps; the last checkpoint "
                    f"before it is kept. Lower the learning rate, or use precision fp32."
                )
        others = {"scaler": self.scaler.state_dict(), "summands": self.summands}
        save_checkpoint(path, tensors, {"progress": vars(self.progress)} | others)

    def load(self, path: Path) -> None:
        """Restores what `save` wrote; a damaged file is a ValueError."""
        tensors, facts = load_checkpoint(path)
        self.jepa.load_state_dict(tensors["jepa"])
        for kind, optimiser in self._with_memory().items():
            optimiser.load_state_dict(optimiser.state_dict() | {"state": tensors[kind]})
        for total, saved in zip(self.summed, tensors["summed"], strict=True):
            total.copy_(saved)
        self.summands = facts["summands"]
        # Empty if the run began on a device without loss scaling, and goes on on one with it.
        if facts["scaler"]:
            self.scaler.load_state_dict(facts["scaler"])
        self.progress = Progress(**facts["progress"])

    def _with_memory(self) -> dict[str, torch.optim.Optimizer]:
        """Optimisers that remember earlier steps; plain SGD does not."""
        return {"adamw": self.adamw} | ({"muon": self.muon} if self.muon else {})


def leaves(tree: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Everything in nested mappings and lists, with its place."""
    if not isinstance(tree, dict | list | tuple):
        yield name, tree
        return
    for key, part in tree.items() if isinstance(tree, dict) else enumerate(tree):
        yield from leaves(part, f"{name}.{key}" if name else str(key))
