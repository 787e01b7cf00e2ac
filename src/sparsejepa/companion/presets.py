"""Presets: what `notebooks/presets/<preset>.yml` gives to the runs of each notebook."""

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, RootModel, ValidationError

from sparsejepa.companion.parameters import Value, check_parameters, notebook_parameters
from sparsejepa.companion.provenance import notebook_path

# The parameter by which a notebook knows its settings, and whose encoders it reads.
PRESET = "preset"
# Runs of no preset: with parameters of one's own, or started by hand.
OWN = "own"


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


def preset_parameters(root: Path, preset: str, notebook: str) -> dict[str, Value]:
    """What a preset gives to every run of a notebook; nothing if it does not mention it."""
    section = preset_sections(root, preset).get(notebook, Section())
    return common_parameters(notebook_path(root, notebook), preset, section)


def common_parameters(source: Path, preset: str, section: Section) -> dict[str, Value]:
    """What a section gives to every run of its notebook, the preset's own name among it."""
    own = {PRESET: preset} if PRESET in notebook_parameters(source) else {}
    return own | check_parameters(source, section.parameters, f"presets/{preset}.yml")


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


def own_folder(notebook: str, base: str, overrides: Mapping[str, Value]) -> Path:
    """Where a run goes that is no named run, relative to the folder of all runs.

    Different overrides never share a folder, and named runs are never overwritten. `base` is the
    preset, with the run's name if one was named.
    """
    given = sorted(overrides.items())
    slug = "-".join([base, *(f"{k}=" + re.sub(r"[^A-Za-z0-9._+-]", "_", str(v)) for k, v in given)])
    if len(slug) > 100 or any(re.search(r"[^A-Za-z0-9.+-]", str(value)) for _, value in given):
        slug = f"{slug[:90]}-{hashlib.sha256(repr(given).encode()).hexdigest()[:8]}"
    return Path(OWN, notebook, slug)
