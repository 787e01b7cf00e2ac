"""Presets: what `notebooks/presets/<preset>.yml` gives to the runs of each notebook."""

import hashlib
import re
from collections.abc import Mapping
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

from sparsejepa.companion.parameters import Value, check_parameters, notebook_parameters

# The name of a run is that of its folder: one level, below its notebook's.
RUN_NAME = re.compile(r"(?!\.\.?$)[A-Za-z0-9._+-]+")
# The parameter by which a notebook knows its settings, and whose encoders it reads.
PRESET = "preset"
# Runs of no preset: with a reader's own parameters, or started by hand.
OWN = "own"
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


def preset_parameters(root: Path, preset: str, notebook: str) -> dict[str, Value]:
    """What a preset gives to every run of a notebook, its own name among it."""
    source, section = notebook_path(root, notebook), preset_sections(root, preset).get(notebook)
    name = {PRESET: preset} if PRESET in notebook_parameters(source) else {}
    given = section.parameters if section else {}
    return name | check_parameters(source, given, f"presets/{preset}.yml")


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
    return Path(OWN, notebook, slug)


def notebook_path(root: Path, notebook: str) -> Path:
    """The source of a notebook of that name."""
    return root / "notebooks" / f"{notebook}.ipynb"


def preset_sections(root: Path, preset: str) -> dict[str, Section]:
    """What a preset says, by notebook.

    Raises:
        FileNotFoundError: there is no such preset.
        ValueError: it is no YAML, or has unknown keys.
    """
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
