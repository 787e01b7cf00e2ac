"""A study: all named runs of a preset, in the order in which they need each other."""

import graphlib
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, RootModel, ValidationError

from sparsejepa.companion import manifest
from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import MANIFEST, TIMING, staleness
from sparsejepa.companion.parameters import Value, check_parameters, notebook_parameters
from sparsejepa.companion.provenance import notebook_path, runs_root

# The parameter of notebooks that read other runs: the preset of these.
PRESET = "preset"


def _run_name(name: str) -> str:
    """The name of a run is that of its folder: one level, below its notebook's."""
    if not re.fullmatch(r"(?!\.\.?$)[A-Za-z0-9._+-]+", name):
        raise ValueError("a run is named by letters, digits and . _ + - only, not . or .. alone")
    return name


def _or(empty: type) -> BeforeValidator:
    """What stands for a key without a value."""
    return BeforeValidator(lambda value: empty() if value in ("", "null", "~") else value)


# Values stay text: the notebook's types have the say.
Settings = Annotated[dict[str, str], _or(dict)]


class Section(BaseModel, extra="forbid"):
    """What a preset says of one notebook."""

    parameters: Settings = {}
    needs: Annotated[list[str], _or(list)] = []
    runs: Annotated[dict[Annotated[str, AfterValidator(_run_name)], Settings], _or(dict)] = {}


class Preset(RootModel):
    """A preset file: sections by notebook."""

    root: Annotated[dict[str, Annotated[Section, _or(dict)]], _or(dict)]


@dataclass(frozen=True)
class StudyRun:
    """One named run of a preset."""

    preset: str  # the preset's name, as "reference"
    notebook: str  # the notebook's name, as "01_pretrain"
    name: str  # the run's name, as "jepa-seed0"
    parameters: dict[str, Value]  # the preset's parameters, with the run's own over them
    needs: tuple[str, ...]  # notebooks whose runs of this preset come first

    @property
    def id(self) -> str:
        """preset/notebook/run."""
        return f"{self.preset}/{self.notebook}/{self.name}"

    @property
    def folder(self) -> Path:
        """The run's folder, relative to the folder of all runs."""
        return Path(self.id)

    @property
    def command(self) -> list[str]:
        """What makes it, in a process whose working folder is the checkout."""
        command = [
            sys.executable,
            "-m",
            "sparsejepa.cli",
            "run",
            f"notebooks/{self.notebook}.ipynb",
        ]
        return [*command, "--preset", self.preset, "--run", self.name]


def load_study(root: Path, preset: str) -> list[StudyRun]:
    """Reads and checks `notebooks/presets/<preset>.yml`, needed runs first.

    Raises:
        FileNotFoundError: there is no such preset, or no notebook of a section's name.
        ValueError: no YAML; an unknown key, parameter or need; an ill-typed value; a run's name
            that is no folder's; needs in a circle.
    """
    sections, where = _sections(root, preset), f"presets/{preset}.yml"
    for notebook, section in sections.items():
        for need in section.needs:
            if need not in sections:
                raise ValueError(f"{where}, {notebook}: needs {need!r}, which has no section.")
    try:
        needs = {notebook: section.needs for notebook, section in sections.items()}
        notebooks = list(graphlib.TopologicalSorter(needs).static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ValueError(f"{where}: notebooks need each other: {circle}.") from error
    runs = []
    for notebook in notebooks:
        section, source = sections[notebook], notebook_path(root, notebook)
        common = _common(source, preset, section)
        for name, own in section.runs.items():
            checked = check_parameters(source, own, f"{where}, run {name}")
            runs.append(StudyRun(preset, notebook, name, common | checked, tuple(section.needs)))
    return runs


def preset_parameters(root: Path, preset: str, notebook: str) -> dict[str, Value]:
    """What a preset gives to every run of a notebook; nothing if it does not mention it."""
    section = _sections(root, preset).get(notebook, Section())
    return _common(notebook_path(root, notebook), preset, section)


def _common(source: Path, preset: str, section: Section) -> dict[str, Value]:
    # Whose runs a notebook reads: those of the preset that it runs under.
    own = {PRESET: preset} if PRESET in notebook_parameters(source) else {}
    return own | check_parameters(source, section.parameters, f"presets/{preset}.yml")


def _sections(root: Path, preset: str) -> dict[str, Section]:
    folder = root / "notebooks" / "presets"
    path = folder / f"{preset}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yml")))
        sentence = f"There is no preset {preset!r}; the presets are {known or 'none'}."
        raise FileNotFoundError(sentence)
    try:
        # Everything as text: YAML 1.1 takes 1:30 for 90 and 010 for 8.
        content = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
        return Preset.model_validate(content or {}).root
    except ValidationError as error:
        first = error.errors()[0]
        place = ", ".join(repr(part) for part in first["loc"] if part != "[key]") or "the file"
        wrong = f"{first['msg']}, not {first['input']!r}"
        raise ValueError(f"presets/{preset}.yml, {place}: {wrong}.") from error
    # ValueError: bytes that are no text.
    except (yaml.YAMLError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"presets/{preset}.yml is not YAML: {text}.") from error


def needed_runs(study: list[StudyRun], run: StudyRun) -> list[StudyRun]:
    """The runs whose results `run` reads."""
    return [other for other in study if other.notebook in run.needs]


def finished_needs(root: Path, study: list[StudyRun], run: StudyRun) -> dict[str, dict[str, str]]:
    """Content of what `run` reads of the runs that it needs: SHA-256 by file, for its manifest.

    Raises:
        ValueError: one of them has not been run, or is stale.
    """
    found = {}
    for need in needed_runs(study, run):
        if reasons := staleness(root, need.id, need.parameters):
            raise ValueError(
                f"{run.notebook} needs {need.id}, but {reasons[0]}: run `sparsejepa reproduce "
                f"--preset {run.preset}`, or `sparsejepa certify` where only code has changed."
            )
        found[need.id] = manifest.input_hashes(root, need.id)
    return found


def stale_runs(root: Path, preset: str) -> list[tuple[StudyRun, list[str]]]:
    """The runs of a study that have to be made, needed runs first, each with the reasons."""
    stale: dict[str, tuple[StudyRun, list[str]]] = {}
    study = load_study(root, preset)
    for run in study:
        reasons = staleness(root, run.id, run.parameters)
        needs = [need.id for need in needed_runs(study, run)]
        if not reasons and set(read_json(runs_root(root) / run.id / MANIFEST)["needs"]) != {*needs}:
            reasons.append("its inputs are other runs now")
        reasons += [f"its input {need} has to be run" for need in needs if need in stale]
        if reasons:
            stale[run.id] = (run, reasons)
    return list(stale.values())


def trains(root: Path, run: StudyRun, reasons: list[str], code_sha256: Callable[[], str]) -> bool:
    """Whether making a stale run trains, or only reports of trainings that are kept.

    `code_sha256` gives the hash of the code that trains here, as artefacts have it.
    """
    folder = runs_root(root) / run.id
    try:
        trainings, times = read_json(folder / MANIFEST)["trainings"], read_json(folder / TIMING)
    except (FileNotFoundError, ValueError):
        return not run.needs
    if not trainings:
        return not run.needs or times["training_seconds"] > 0
    if any(reason.startswith("the parameter") for reason in reasons):
        return True
    certified = manifest.certified_trainings(root)
    facts = (runs_root(root) / place / "training.json" for place in trainings)
    return not all(
        path.is_file()
        and (path.parent in certified or read_json(path)["code_sha256"] == code_sha256())
        for path in facts
    )


def reproduce(root: Path, runs: list[StudyRun], jobs: int, threads: int) -> None:
    """Makes what is given, needed runs first, each in a process of its own, `jobs` at a time.

    What needs a failed run is left out, all else is made; `threads` are those of each run.
    """
    waiting, running = list(runs), {}
    unfinished = {run.id: run.notebook for run in runs}
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL")}

    def ready() -> list[StudyRun]:
        return [run for run in waiting if not set(run.needs) & set(unfinished.values())]

    try:
        while running or ready():
            for run in ready()[: jobs - len(running)]:
                waiting.remove(run)
                running[run.id] = subprocess.Popen(run.command, cwd=root, env=environment)
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    # A failed run stays unfinished, so that what needs it does not start.
                    if process.returncode == 0:
                        del unfinished[name]
            time.sleep(0.2)
    finally:
        for process in running.values():
            process.terminate()
