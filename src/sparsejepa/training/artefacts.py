"""Finished trainings, kept by what decides them: configuration with its seed, pixels and code.

A notebook takes a training from here or makes it; a killed one goes on from its last checkpoint.
"""

import dataclasses
import hashlib
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float, UInt8
from safetensors.torch import load_file, save
from torch import Tensor

from sparsejepa.atomic_files import write_atomically
from sparsejepa.model.penalties import group_column_norms, projection_groups, strongest_group
from sparsejepa.model.vit import (
    Encoder,
    load_encoder,
    round_to_half,
    save_encoder,
    use_fused_attention,
)
from sparsejepa.training.code import code_sha256
from sparsejepa.training.pretrain import BEST, PretrainConfig, Watch, pretrain

FACTS, TIMES = "training.json", "timing.json"


@dataclass(frozen=True, eq=False)
class Training:
    """A finished training."""

    folder: Path  # of the artefact
    encoder: Encoder  # the target encoder, frozen, in evaluation mode
    norms: Float[Tensor, "G d"]  # ||W^(g)_{.,k}|| of the predictor's input projection
    projection: Float[Tensor, "p d"] | None  # W; not kept by the first edition
    history: list[dict[str, int | float]]  # an entry an epoch
    steps: int  # optimiser steps
    precision: str  # number format of the training
    predictor_parameters: int  # how many numbers the predictor has
    seconds: float  # spent in steps, over all resumed parts


@dataclass
class Trainings:
    """The artefacts below a folder, and those of other folders that may serve too."""

    folder: Path  # new trainings are written here
    others: tuple[Path, ...] = ()  # also looked into
    # Whether other code, which does the same, made an artefact.
    certified: Callable[[Path], bool] = lambda folder: False
    made: Mapping[str, Any] = field(default_factory=dict)  # provenance, written into the artefact
    used: list[Path] = field(default_factory=list)  # artefacts handed out, for the manifest

    def get(
        self,
        config: PretrainConfig,
        images: UInt8[Tensor, "N H W 3"],
        pixel_sha256: str,
        watch: Watch,
        name: str = "training",
        half: bool = False,
    ) -> Training:
        """The training of `config` on `images`: the one that is kept, or a new one.

        `name` begins the name of the artefact's folder; with `half`, float16 weights are kept, and
        the encoder has these values. Where online kNN was better after an earlier epoch, that
        encoder lies beside, for a diagnosis. Raises what `pretrain` raises.
        """
        key = training_key(config, pixel_sha256)
        for place in (self.folder, *self.others):
            for path in sorted(place.glob(f"*/{FACTS}")):
                # Not by the folder's name: an earlier edition named it by exact digits.
                facts = json.loads(path.read_text(encoding="utf-8"))
                if _key(facts["config"], facts["pixel_sha256"]) != key:
                    continue
                if facts["code_sha256"] == code_sha256() or self.certified(path.parent):
                    return self._hand_out(path.parent)
                print(
                    f"{path.parent.name} was trained by other code and is not used: `sparsejepa "
                    "certify` says whether the code here computes the same.",
                    flush=True,
                )
        folder = self.folder / f"{name}-{key}"
        checkpoints = folder / "checkpoints"
        _discard_other_code(checkpoints)
        result = pretrain(config, images, checkpoints, watch)
        encoder = result.jepa.target_encoder
        if half:
            round_to_half(encoder)
        save_encoder(folder / "encoder.safetensors", encoder, half)
        weight = result.jepa.predictor.projection.weight.detach().float().cpu()
        groups = projection_groups(config.model.sparsity, config.model.predictor, config.seed)
        norms = group_column_norms(weight, groups)
        kept = {"norms": norms, "strongest_group": strongest_group(norms), "projection": weight}
        write_atomically(folder / "groups.safetensors", save(kept))
        history, seconds = result.history, [row.pop("seconds") for row in result.history]
        times = {"training_seconds": result.seconds, "epochs_seconds": seconds}
        facts = {
            "config": _without_defaults(config),
            "pixel_sha256": pixel_sha256,
            "seed": config.seed,
            "steps": result.steps,
            "precision": result.precision.name,
            "predictor_parameters": sum(p.numel() for p in result.jepa.predictor.parameters()),
            "history": history,
            "code_sha256": code_sha256(),
            **self.made,
        }
        write_atomically(folder / TIMES, _json(times))
        found = [row.get("knn", 0.0) for row in history]
        if found[-1] < max(found) and (checkpoints / BEST).is_file():
            os.replace(checkpoints / BEST, folder / BEST)
        # Last: an artefact with these facts is whole.
        write_atomically(folder / FACTS, _json(facts))
        shutil.rmtree(checkpoints)
        return self._hand_out(folder)

    def _hand_out(self, folder: Path) -> Training:
        self.used.append(folder)
        training = load_training(folder)
        # As it was trained, so that a kept and a new training are measured alike, to the bit.
        use_fused_attention(training.encoder, torch.cuda.is_available())
        return training


def load_training(folder: Path) -> Training:
    """The artefact in a folder; a FileNotFoundError or ValueError if it is absent or damaged."""
    facts, times = (json.loads((folder / f).read_text(encoding="utf-8")) for f in (FACTS, TIMES))
    groups = load_file(folder / "groups.safetensors")
    told = ("history", "steps", "precision", "predictor_parameters")
    return Training(
        folder,
        load_encoder(folder / "encoder.safetensors").requires_grad_(False),
        groups["norms"],
        groups.get("projection"),
        *(facts[name] for name in told),
        times["training_seconds"],
    )


def training_key(config: PretrainConfig, pixel_sha256: str) -> str:
    """Names all that decides a training but its code.

    Fields with their defaults do not count: one that a later version adds changes no key. Of
    numbers twelve digits do: the last ones of the images' mean and deviation differ by processor.
    """
    return _key(_without_defaults(config), pixel_sha256)


def _key(settings: Mapping[str, Any], pixel_sha256: str) -> str:
    text = json.dumps([settings, pixel_sha256], sort_keys=True)
    rounded = json.loads(text, parse_float=lambda digits: f"{float(digits):.12g}")
    return hashlib.sha256(json.dumps(rounded).encode()).hexdigest()[:16]


def _without_defaults(config: Any) -> dict[str, Any]:
    """Fields that differ from their defaults, nested, and decide what is computed."""
    found = {}
    for part in dataclasses.fields(config):
        value, made = getattr(config, part.name), part.default_factory
        default = part.default if made is dataclasses.MISSING else made()
        # How often to save decides nothing, and a CPU has no compiler by default.
        idle = part.name == "checkpoint_minutes" or (part.name, value) == ("compile", "off")
        if dataclasses.is_dataclass(value):
            if inner := _without_defaults(value):
                found[part.name] = inner
        elif value != default and not idle:
            found[part.name] = value
    return json.loads(json.dumps(found))


def _discard_other_code(checkpoints: Path) -> None:
    """Checkpoints of other code are no beginning of this training."""
    mark = checkpoints / "code_sha256"
    if checkpoints.is_dir() and (not mark.is_file() or mark.read_text() != code_sha256()):
        print("Starting anew: the code that trains has changed since the checkpoint.", flush=True)
        shutil.rmtree(checkpoints)
    write_atomically(mark, code_sha256().encode())


def _json(content: Any) -> bytes:
    return (json.dumps(content, indent=1) + "\n").encode()
