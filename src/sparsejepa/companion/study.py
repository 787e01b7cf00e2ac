"""A study: all named runs of a preset, in the order in which they need each other."""

import graphlib
import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    RootModel,
    ValidationError,
)

from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import MANIFEST, input_hashes, staleness
from sparsejepa.companion.parameters import Value, check_parameters, notebook_parameters
from sparsejepa.companion.provenance import runs_root

# The name of a run is that of its folder: one level, below its notebook's.
RUN_NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._+-]+")
# The parameter of notebooks that read other runs: the preset of these.
PRESET = "preset"
EMPTY = ("", "null", "~")  # a key without a value


def _run_name(name: str) -> str:
    if not RUN_NAME.fullmatch(name):
        raise ValueError(
            "a run is named by letters, digits and . _ + - only, and not . or .. alone"
        )
    return name


def _or(empty: type) -> BeforeValidator:
    return BeforeValidator(lambda value: empty() if value in EMPTY else value)


# Values stay text: the notebook's types have the say.
Settings = Annotated[dict[str, str], _or(dict)]
Runs = Annotated[dict[Annotated[str, AfterValidator(_run_name)], Settings], _or(dict)]


class Section(BaseModel):
    """What a preset says of one notebook."""

    model_config = ConfigDict(extra="forbid")
    parameters: Settings = {}
    needs: Annotated[list[str], _or(list)] = []
    runs: Runs = {}


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
    sections, where = _sections(root, preset), f"presets/{preset}.yml"
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


def own_folder(notebook: str, base: str, overrides: Mapping[str, Value]) -> Path:
    """Where a run goes that is no named run, relative to the folder of all runs.

    Different overrides never share a folder, and named runs are never overwritten.

    Args:
        base: the preset, with the run's name if one was named.
    """
    pieces = [base]
    for name, value in sorted(overrides.items()):
        pieces.append(f"{name}=" + re.sub(r"[^A-Za-z0-9._+-]", "_", str(value)))
    slug = "-".join(pieces)
    if len(slug) > 100 or any(re.search(r"[^A-Za-z0-9.+-]", str(v)) for v in overrides.values()):
        exact = repr(sorted(overrides.items())).encode()
        slug = f"{slug[:90]}-{hashlib.sha256(exact).hexdigest()[:8]}"
    return Path("own", notebook, slug)


def notebook_path(root: Path, notebook: str) -> Path:
    """The source of a notebook of that name."""
    return root / "notebooks" / f"{notebook}.ipynb"


def _sections(root: Path, preset: str) -> dict[str, Section]:
    folder = root / "notebooks" / "presets"
    path = folder / f"{preset}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in folder.glob("*.yml")))
        raise FileNotFoundError(
            f"There is no preset {preset!r}; the presets are {known or 'none'}."
        )
    try:
        # Everything as text: YAML 1.1 takes 1:30 for 90 and 010 for 8.
        content = yaml.load(path.read_text(encoding="utf-8"), yaml.BaseLoader)
        return Preset.model_validate(content or {}).root
    except ValidationError as error:
        raise ValueError(f"presets/{preset}.yml, {_first(error)}") from error
    # ValueError: bytes that are no text.
    except (yaml.YAMLError, ValueError) as error:
        text = " ".join(str(error).split())
        raise ValueError(f"presets/{preset}.yml is not YAML: {text}.") from error


def _first(error: ValidationError) -> str:
    """One sentence of what pydantic says in many."""
    first = error.errors()[0]
    place = [part for part in first["loc"] if part != "[key]"]
    return f"{', '.join(map(repr, place)) or 'the file'}: {first['msg']}, not {first['input']!r}."
