"""A study: all named runs of a preset, in the order in which they need each other."""

import os
import subprocess
import sys
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from sparsejepa.companion import manifest, parameters
from sparsejepa.companion.files import read_json
from sparsejepa.companion.provenance import notebook_path, runs_root
from sparsejepa.training.code import code_sha256


@dataclass(frozen=True)
class StudyRun:
    """One named run of a preset."""

    preset: str  # the preset's name, as "reference"
    notebook: str  # the notebook's name, as "01_pretrain"
    name: str  # the run's name, as "jepa-seed0"
    parameters: dict[str, parameters.Value]  # the preset's parameters, with the run's own over them
    needs: tuple[str, ...]  # notebooks whose runs of this preset come first

    @property
    def id(self) -> str:
        """preset/notebook/run; also its folder, relative to that of all runs."""
        return f"{self.preset}/{self.notebook}/{self.name}"

    @property
    def command(self) -> list[str]:
        """What makes it, in a process whose working folder is the checkout."""
        run = ["run", f"notebooks/{self.notebook}.ipynb", "--preset", self.preset]
        return [sys.executable, "-m", "sparsejepa.cli", *run, "--run", self.name]


def load_study(root: Path, preset: str) -> list[StudyRun]:
    """Reads and checks `notebooks/presets/<preset>.yml`, where needed notebooks stand first.

    Raises:
        FileNotFoundError: there is no such preset, or no notebook of a section's name.
        ValueError: no YAML; an unknown key or parameter; an ill-typed value; a run's name that is
            no folder's; a need that does not stand above.
    """
    above, runs, where = set(), [], f"presets/{preset}.yml"
    for notebook, section in parameters.preset_sections(root, preset).items():
        if unknown := set(section.needs) - above:
            raise ValueError(f"{where}, {notebook}: needs {min(unknown)!r}, which is not above it.")
        above.add(notebook)
        common = parameters.preset_parameters(root, preset, notebook, section)
        for name, own in section.runs.items():
            source = notebook_path(root, notebook)
            checked = parameters.check_parameters(source, own, f"{where}, run {name}")
            runs.append(StudyRun(preset, notebook, name, common | checked, tuple(section.needs)))
    return runs


def needed_runs(study: list[StudyRun], run: StudyRun) -> list[StudyRun]:
    """The runs whose results `run` reads."""
    return [other for other in study if other.notebook in run.needs]


def finished_needs(root: Path, study: list[StudyRun], run: StudyRun) -> dict[str, dict[str, str]]:
    """Content of what `run` reads of the runs that it needs: SHA-256 by file, for its manifest.

    ValueError: one of them has not been run, or is stale.
    """
    for need in needed_runs(study, run):
        if reasons := manifest.staleness(root, need.id, need.parameters):
            raise ValueError(
                f"{run.notebook} needs {need.id}, but {reasons[0]}: run `sparsejepa reproduce "
                f"--preset {run.preset}`, or `sparsejepa certify` where only code has changed."
            )
    return {need.id: manifest.input_hashes(root, need.id) for need in needed_runs(study, run)}


def stale_runs(root: Path, preset: str) -> list[tuple[StudyRun, list[str]]]:
    """The runs of a study that have to be made, needed runs first, each with the reasons."""
    stale: dict[str, tuple[StudyRun, list[str]]] = {}
    study = load_study(root, preset)
    for run in study:
        reasons = manifest.staleness(root, run.id, run.parameters)
        needs = [need.id for need in needed_runs(study, run)]
        path = runs_root(root) / run.id / manifest.MANIFEST
        if not reasons and set(read_json(path)["needs"]) != set(needs):
            reasons.append("its inputs are other runs now")
        reasons += [f"its input {need} has to be run" for need in needs if need in stale]
        if reasons:
            stale[run.id] = (run, reasons)
    return list(stale.values())


def trains(root: Path, run: StudyRun, kept: set[Path]) -> bool:
    """Whether making a stale run trains, or only reports of trainings that are kept.

    `kept` are the trainings that `manifest.certified_trainings` lists. Any other parameter counts
    as another training.
    """
    folder, source = runs_root(root) / run.id, notebook_path(root, run.notebook)
    try:
        made, times = (read_json(folder / n) for n in (manifest.MANIFEST, manifest.TIMING))
    except (FileNotFoundError, ValueError):
        return not run.needs
    if not made["trainings"]:
        return not run.needs or times["training_seconds"] > 0
    if manifest.changed_parameters(source, made, run.parameters):
        return True
    facts = [runs_root(root) / place / "training.json" for place in made["trainings"]]
    here = code_sha256(root / "src" / "sparsejepa")
    return not all(
        path.is_file() and (path.parent in kept or read_json(path)["code_sha256"] == here)
        for path in facts
    )


def reproduce(root: Path, runs: list[StudyRun], jobs: int, threads: int) -> None:
    """Makes what is given, needed runs first, each in a process of its own, `jobs` at a time.

    What needs a failed run is left out, all else is made; `threads` are those of each run.
    """
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL")}
    made: dict[str, Future] = {}

    def make(run: StudyRun) -> bool:
        # Needed runs were begun before: none of them waits for this one.
        needed = [made[need.id].result() for need in needed_runs(runs, run)]
        return all(needed) and not subprocess.call(run.command, cwd=root, env=environment)

    pool = ThreadPoolExecutor(jobs)
    try:
        # What needs nothing comes first: there is always something to do.
        for run in sorted(runs, key=lambda run: len(run.needs) > 0):
            made[run.id] = pool.submit(make, run)
        wait(made.values())
    finally:
        # Ctrl-C reaches the processes that run too.
        pool.shutdown(cancel_futures=True)
