"""A study: all named runs of a preset, in the order in which they need each other."""

import graphlib
from dataclasses import dataclass
from pathlib import Path

from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import MANIFEST, input_hashes, staleness
from sparsejepa.companion.parameters import Value, check_parameters
from sparsejepa.companion.presets import notebook_path, preset_parameters, preset_sections
from sparsejepa.companion.provenance import runs_root


@dataclass(frozen=True)
class StudyRun:
    """One named run of a preset."""

    preset: str  # the preset's name, as "reference"
    notebook: str  # the notebook's name, as "01_pretrain"
    name: str  # the run's name, as "jepa-seed0"
    parameters: dict[str, Value]  # the preset's parameters, with the run's own over them
    needs: tuple[str, ...]  # notebooks whose runs of this preset come first

    @property
    def folder(self) -> Path:
        """The run's folder, relative to the folder of all runs."""
        return Path(self.preset, self.notebook, self.name)

    @property
    def id(self) -> str:
        """preset/notebook/run."""
        return self.folder.as_posix()


def load_study(root: Path, preset: str) -> list[StudyRun]:
    """Reads and checks `notebooks/presets/<preset>.yml`, needed runs first.

    Raises:
        FileNotFoundError: there is no such preset, or no notebook of a section's name.
        ValueError: no YAML; an unknown key, parameter or need; an ill-typed value; a run's name
            that is no folder's; needs in a circle.
    """
    sections, where = preset_sections(root, preset), f"presets/{preset}.yml"
    order = graphlib.TopologicalSorter()
    for notebook, section in sections.items():
        for need in section.needs:
            if need not in sections:
                raise ValueError(f"{where}, {notebook}: needs {need!r}, which has no section.")
        order.add(notebook, *section.needs)
    try:
        notebooks = list(order.static_order())
    except graphlib.CycleError as error:
        circle = " -> ".join(error.args[1])
        raise ValueError(f"{where}: notebooks need each other: {circle}.") from error
    runs = []
    for notebook in notebooks:
        section, source = sections[notebook], notebook_path(root, notebook)
        common = preset_parameters(root, preset, notebook)
        for name, own in section.runs.items():
            checked = check_parameters(source, own, f"{where}, run {name}")
            runs.append(StudyRun(preset, notebook, name, common | checked, tuple(section.needs)))
    return runs


def find_run(study: list[StudyRun], preset: str, notebook: str, name: str) -> StudyRun:
    """The run of that name.

    Raises:
        ValueError: the preset has no such run of the notebook; says which it has.
    """
    runs = {run.name: run for run in study if run.notebook == notebook}
    if name not in runs:
        raise ValueError(
            f"presets/{preset}.yml has no run {name!r} of {notebook}; its runs are "
            f"{', '.join(runs) or 'none'}."
        )
    return runs[name]


def stale_runs(root: Path, preset: str) -> list[tuple[StudyRun, list[str]]]:
    """The runs of a study that have to be made, needed runs first, each with the reasons."""
    stale: list[tuple[StudyRun, list[str]]] = []
    study = load_study(root, preset)
    for run in study:
        reasons = staleness(root, run.id, run.parameters)
        needs = needed_runs(study, run)
        if not reasons:
            made_from = set(read_json(runs_root(root) / run.folder / MANIFEST)["needs"])
            if made_from != {need.id for need in needs}:
                reasons.append("its inputs are other runs now")
        again = {other.folder for other, _ in stale}
        reasons += [f"its input {need.id} has to be run" for need in needs if need.folder in again]
        if reasons:
            stale.append((run, reasons))
    return stale


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
        reasons = staleness(root, need.id, need.parameters)
        if reasons:
            raise ValueError(
                f"{run.notebook} needs {need.id}, but {reasons[0]}: run `sparsejepa reproduce "
                f"--preset {run.preset}`, or `sparsejepa certify` where only code has changed."
            )
        found[need.id] = input_hashes(root, need.id)
    return found
