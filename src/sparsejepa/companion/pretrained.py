"""The encoders of finished pretraining runs, for the notebooks that measure them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsejepa.companion.environment import repository_root
from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import runs_root
from sparsejepa.model.vit import Encoder
from sparsejepa.randomness import generator
from sparsejepa.training.checkpoint import load_encoder


@dataclass(frozen=True)
class Pretrained:
    """One finished run of `01_pretrain`."""

    name: str  # of the run, as "sparsejepa-seed0"
    method: str  # as "sparsejepa"
    seed: int  # of initial weights, data order, crops and masks
    encoder: Encoder  # frozen, in evaluation mode
    results: dict[str, Any]  # its results.json
    folder: Path  # where its other files are


def pretrained_runs(preset: str, methods: tuple[str, ...] = ()) -> list[Pretrained]:
    """All finished pretraining runs of a preset, by method and seed.

    Args:
        methods: only runs of these; all if empty.

    Raises:
        FileNotFoundError: there is none.
        ValueError: a file of weights is damaged.
    """
    found = []
    folder = runs_root(repository_root()) / preset / "01_pretrain"
    for manifest_path in sorted(folder.glob("*/manifest.json")):
        run = manifest_path.parent
        results, seed = read_json(run / "results.json"), read_json(manifest_path)["seed"]
        if not methods or results["method"] in methods:
            encoder = load_encoder(run / "encoder.safetensors").requires_grad_(False)
            found.append(Pretrained(run.name, results["method"], seed, encoder, results, run))
    if not found:
        wanted = " or ".join(methods) or "any method"
        raise FileNotFoundError(
            f"There is no finished pretraining run of {wanted} in preset {preset!r}: "
            f"run `sparsejepa reproduce --preset {preset}` first."
        )
    return sorted(found, key=lambda run: (run.method, run.seed))


def untrained(encoder: Encoder, seed: int) -> Encoder:
    """An encoder of the same architecture as it was before any training with that seed."""
    return Encoder(encoder.config, generator(seed, "initial encoder")).eval().requires_grad_(False)
