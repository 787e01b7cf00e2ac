"""The encoders of finished pretraining runs, for the notebooks that measure them."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import MANIFEST, RESULTS, staleness
from sparsejepa.companion.parameters import OWN, PRESET, load_study, matches
from sparsejepa.companion.provenance import repository_root, runs_root
from sparsejepa.model.vit import Encoder
from sparsejepa.training.artefacts import Training, load_training

COMMITTED = "reference"  # the preset whose runs are in every clone


@dataclass(frozen=True)
class Pretrained:
    """One finished run of `01_pretrain`."""

    name: str  # of the run, as "sparsejepa-seed0"
    method: str  # as "sparsejepa"
    seed: int  # of initial weights, data order, crops and masks
    training: Training  # with its encoder and what the predictor reads of it
    results: dict[str, Any]  # its results.json
    folder: Path  # of the run: which test images its probes got right

    @property
    def encoder(self) -> Encoder:
        """Frozen, in evaluation mode."""
        return self.training.encoder


def pretrained_runs(preset: str, run_names: str = "") -> list[Pretrained]:
    """The pretraining runs of a preset by method and seed, if their names fit `run_names`.

    "own" is for all that were started by hand or with parameters of one's own, "" for the committed
    ones. Of a preset whose named runs are not there, it is those started by hand under it.

    FileNotFoundError: there is no such run; ValueError: one is missing, stale or damaged.
    """
    root, preset, found = repository_root(), preset or COMMITTED, []
    runs, study = runs_root(root), [] if preset == OWN else load_study(root, preset)
    sought = {run.id: run.parameters for run in study if run.notebook == "01_pretrain"}
    if not any((runs / run_id / MANIFEST).is_file() for run_id in sought):
        by_hand = sorted(runs.glob(f"{OWN}/01_pretrain/*/{MANIFEST}"))
        under = [p for p in by_hand if preset in (OWN, read_json(p)["parameters"].get(PRESET))]
        # Own runs have any parameters.
        sought = {p.parent.relative_to(runs).as_posix(): None for p in under} or sought
    sought = {run: given for run, given in sought.items() if matches(Path(run).name, run_names)}
    for run_id, parameters in sought.items():
        if reasons := staleness(root, run_id, parameters):
            wrong = f"The run {run_id} cannot be read: {reasons[0]}"
            how = "by hand, on Colab with the same drive, or by `sparsejepa reproduce`"
            raise ValueError(f"{wrong}. Run 01_pretrain with preset {preset!r} first: {how}.")
        folder = runs / run_id
        results, manifest = read_json(folder / RESULTS), read_json(folder / MANIFEST)
        method, seed = results["method"], manifest["seed"]
        training = load_training(runs / next(iter(manifest["trainings"])))
        found.append(Pretrained(folder.name, method, seed, training, results, folder))
    if not found:
        which = f"pretraining run {run_names}".strip() + f" in preset {preset!r}"
        raise FileNotFoundError(f"There is no {which}: run 01_pretrain first.")
    return sorted(found, key=lambda run: (run.method, run.seed))
