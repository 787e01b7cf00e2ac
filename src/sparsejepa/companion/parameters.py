"""With which values a notebook runs: its `parameters` cell, and presets over its defaults.

All are checked before anything runs. A preset is `notebooks/presets/<preset>.yml`.
"""

import ast
import difflib
import hashlib
import re
import shlex
import sys
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from sparsejepa.companion.files import label, read_json, read_yaml
from sparsejepa.companion.provenance import notebook_path

RUN_FOLDER = "run_folder"  # the parameter by which the runner says where a notebook writes
PRESET = "preset"  # the one by which a notebook knows its settings, and whose encoders it reads
OWN = "own"  # runs of no preset: with parameters of one's own, or started by hand

Value = int | float | str | bool
TYPES = {kind.__name__: TypeAdapter(kind) for kind in (int, str, bool)}
TYPES["float"] = TypeAdapter(FiniteFloat)


def notebook_parameters(notebook: Path) -> dict[str, Value]:
    """The parameters that a notebook declares with their defaults, without `run_folder`.

    FileNotFoundError: no such notebook; ValueError: a parameter line is no `name: type = default`.
    """
    if not notebook.is_file():
        others = ", ".join(sorted(p.stem for p in notebook.parent.glob("*.ipynb"))) or "none"
        raise FileNotFoundError(f"{label(notebook)} does not exist; there are: {others}.")
    tagged = [(c["metadata"].get("tags", []), c["source"]) for c in read_json(notebook)["cells"]]
    cells = ["".join(source) for tags, source in tagged if "parameters" in tags]
    found = {}
    for line in "\n".join(cells).splitlines():
        # Commands of IPython are no parameters.
        if re.match(r"\s*([#%!]|$)", line):
            continue
        try:
            ((name, kind, value),) = re.findall(r"^(\w+)\s*:\s*(\w+)\s*=(.+)", line)
            found[name] = _typed(kind, ast.literal_eval(value))
        except (SyntaxError, ValueError, KeyError) as error:
            how = f"name: type = default, a plain value of one of the types {', '.join(TYPES)}"
            raise ValueError(f"{label(notebook)}: write '{line}' as {how}.") from error
    if len(cells) != 1 or found.pop(RUN_FOLDER, None) != "":
        wanted = f"one cell tagged 'parameters', with a line {RUN_FOLDER}: str = \"\""
        raise ValueError(f"{label(notebook)} must have {wanted}.")
    return found


def _typed(kind: str, value: Any) -> Value:
    """The value in the declared type, read from text if it is one; ValueError if it is none."""
    return TYPES[kind].validate_python(value, strict=not isinstance(value, str))


def check_parameters(notebook: Path, given: Mapping[str, Any], where: str = "") -> dict[str, Value]:
    """`given` with every value in its declared type; text is read as a number or truth value.

    ValueError: an unknown name or a value of another type; begins with `where` they stand.
    """
    declared, checked = notebook_parameters(notebook), {}
    place = ": ".join(filter(None, (where, label(notebook))))
    for name, value in given.items():
        if name not in declared:
            close = difflib.get_close_matches(str(name), declared, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            known = ", ".join(declared)
            raise ValueError(f"{place} has no parameter {name!r}{hint} Its parameters are {known}.")
        kind = type(declared[name]).__name__
        try:
            checked[name] = _typed(kind, value)
        except ValidationError as error:
            wanted = "a finite float" if kind == "float" else kind
            raise ValueError(f"{place}: {name} must be {wanted}, not {value!r}.") from error
    return checked


def parse_overrides(notebook: Path, assignments: list[str]) -> dict[str, Value]:
    """Parses `name=value` as typed on a command line; raises as `check_parameters`."""
    if wrong := [assignment for assignment in assignments if "=" not in assignment]:
        raise ValueError(f"Write a parameter as name=value, not {wrong[0]!r}.")
    return check_parameters(notebook, dict(a.split("=", 1) for a in assignments))


def matches(run: str, patterns: str) -> bool:
    """Whether a run's name fits one of the patterns, as "jepa-seed[0-2], sigreg-*"; "" fits all."""
    return not patterns or any(fnmatchcase(run, p.strip()) for p in patterns.split(","))


def run_command(run_id: str, given: Mapping[str, Any] | None = None) -> str:
    """The command line that makes `preset/notebook/run`, of which preset and run may be empty."""
    preset, notebook, run = run_id.split("/")
    words = ["sparsejepa", "run", f"notebooks/{notebook}.ipynb"]
    words += ["--preset", preset] * bool(preset) + ["--run", run] * bool(run)
    for name, value in (given or {}).items():
        words += ["-p", f"{name}={value}"]
    return shlex.join(words)


def own_folder(notebook: str, base: str, overrides: Mapping[str, Value]) -> Path:
    """Where a run goes that is no named run; `base` is the preset, with a named run's name."""
    given = sorted(overrides.items())
    slug = "-".join([base, *(f"{k}=" + re.sub(r"[^A-Za-z0-9._+-]", "_", str(v)) for k, v in given)])
    if len(slug) > 100 or any(re.search(r"[^A-Za-z0-9.+-]", str(value)) for _, value in given):
        slug = f"{slug[:90]}-{hashlib.sha256(repr(given).encode()).hexdigest()[:8]}"
    return Path(OWN, notebook, slug)


# A folder's too: one level, below its notebook's, so not . or .. alone.
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]*[A-Za-z0-9_+-][A-Za-z0-9._+-]*$")]


class Section(BaseModel, extra="forbid"):
    """What a preset says of one notebook, as text: the notebook's types have the say."""

    parameters: dict[str, str] = {}
    needs: list[str] = []
    runs: dict[RunName, dict[str, str]] = {}


class StudyRun(NamedTuple):
    """One named run of a preset."""

    preset: str  # as "reference"
    notebook: str  # as "01_pretrain"
    name: str  # as "jepa-seed0"
    parameters: dict[str, Value]  # the preset's parameters, with the run's own over them
    needs: tuple["StudyRun", ...]  # whose results it reads

    @property
    def id(self) -> str:
        """preset/notebook/run; also its folder, relative to that of all runs."""
        return f"{self.preset}/{self.notebook}/{self.name}"

    @property
    def command(self) -> list[str]:
        """What makes it, in a process whose working folder is the checkout."""
        return [sys.executable, "-m", "sparsejepa.cli", *shlex.split(run_command(self.id))[1:]]


def preset_sections(root: Path, preset: str) -> dict[str, Section]:
    """What a preset says, by notebook; FileNotFoundError without it, ValueError as `read_yaml`."""
    path = root / "notebooks" / "presets" / f"{preset}.yml"
    if not path.is_file():
        known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml"))) or "none"
        raise FileNotFoundError(f"There is no preset {preset!r}; the presets are {known}.")
    # Everything as text: YAML 1.1 takes 1:30 for 90 and 010 for 8.
    return read_yaml(path, TypeAdapter(dict[str, Section]), yaml.BaseLoader)


def preset_parameters(
    root: Path, preset: str, notebook: str, section: Section | None = None
) -> dict[str, Value]:
    """What a preset, or its section, gives to every run of a notebook; its own name among it."""
    section = section or preset_sections(root, preset).get(notebook, Section())
    source = notebook_path(root, notebook)
    own = {PRESET: preset} if PRESET in notebook_parameters(source) else {}
    return own | check_parameters(source, section.parameters, f"presets/{preset}.yml")


def load_study(root: Path, preset: str) -> list[StudyRun]:
    """All named runs of a preset, checked; those that others need stand before them.

    FileNotFoundError: no such preset or notebook; ValueError: no YAML, an unknown key or parameter,
    an ill-typed value, a run's name that is no folder's, a need that does not stand above.
    """
    study, above, where = [], set(), f"presets/{preset}.yml"
    for notebook, section in preset_sections(root, preset).items():
        if unknown := set(section.needs) - above:
            raise ValueError(f"{where}, {notebook}: needs {min(unknown)!r}, which is not above it.")
        above.add(notebook)
        common = preset_parameters(root, preset, notebook, section)
        above_it = [run for run in study if run.notebook in section.needs]
        for name, own in section.runs.items():
            checked = check_parameters(notebook_path(root, notebook), own, f"{where}, run {name}")
            given = common | checked
            needs = [run for run in above_it if matches(run.name, given.get("run_names", ""))]
            study.append(StudyRun(preset, notebook, name, given, tuple(needs)))
    return study
