"""With which values a notebook runs: its `parameters` cell, and presets over its defaults.

All are checked before anything runs. Papermill's own inspection misses defaults that contain `=`
and only warns about unknown names. A preset is `notebooks/presets/<preset>.yml`.
"""

import ast
import contextlib
import difflib
import hashlib
import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, NamedTuple

import yaml
from pydantic import BaseModel, Field, FiniteFloat, TypeAdapter, ValidationError

from sparsejepa.companion.files import label, read_json, read_yaml
from sparsejepa.companion.provenance import notebook_path

# The runner says by this parameter where a notebook writes; it is no choice of the reader's.
RUN_FOLDER = "run_folder"
# The parameter by which a notebook knows its settings, and whose encoders it reads.
PRESET = "preset"
# Runs of no preset: with parameters of one's own, or started by hand.
OWN = "own"

Value = int | float | str | bool
TYPES = {
    "int": TypeAdapter(int),
    "float": TypeAdapter(FiniteFloat),
    "str": TypeAdapter(str),
    "bool": TypeAdapter(bool),
}


class Parameter(NamedTuple):
    """One line `name: type = default` of a parameters cell."""

    kind: str  # "int", "float", "str" or "bool"
    default: Value

    def typed(self, value: Any) -> Value:
        """The value in the declared type, read from text if it is one; ValueError if it is none."""
        # Text comes from a command line or a preset, where every value is text.
        return TYPES[self.kind].validate_python(value, strict=not isinstance(value, str))


def notebook_parameters(notebook: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares, by name, without `run_folder`.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: its cell tagged `parameters` is not of lines `name: type = default`.
    """
    if not notebook.is_file():
        others = ", ".join(sorted(p.stem for p in notebook.parent.glob("*.ipynb"))) or "none"
        raise FileNotFoundError(f"{label(notebook)} does not exist; there are: {others}.")
    cells = [
        "".join(cell["source"])
        for cell in read_json(notebook)["cells"]
        if "parameters" in cell.get("metadata", {}).get("tags", [])
    ]
    if len(cells) != 1:
        raise ValueError(f"{label(notebook)} must have one cell tagged 'parameters'.")
    # Commands of IPython are no parameters.
    lines = ["" if line.lstrip()[:1] in ("%", "!") else line for line in cells[0].splitlines()]
    found = {}
    try:
        for statement in ast.parse("\n".join(lines)).body:
            match statement:
                case ast.AnnAssign(ast.Name(name), ast.Name(kind), ast.expr() as value):
                    default = Parameter(kind, "").typed(ast.literal_eval(value))
                    found[name] = Parameter(kind, default)
                case _:
                    raise ValueError
    except SyntaxError as error:
        raise ValueError(
            f"{label(notebook)}: line {error.lineno} of the parameters cell, {error.text!r}, is no "
            "Python; write it as name: type = default."
        ) from error
    except (ValueError, KeyError) as error:
        raise ValueError(
            f"{label(notebook)}: write the parameter line '{ast.unparse(statement)}' as name: type "
            f"= default, a plain value of one of the types {', '.join(TYPES)}."
        ) from error
    if found.pop(RUN_FOLDER, None) != ("str", ""):
        raise ValueError(f'{label(notebook)} must declare {RUN_FOLDER}: str = "".')
    return found


def check_parameters(notebook: Path, given: Mapping[str, Any], where: str = "") -> dict[str, Value]:
    """`given` with every name known to the notebook and every value of its declared type.

    A text where the notebook wants a number or truth value is read as one. An unknown name or a
    value of another type is a ValueError of one sentence, which begins with `where` they stand.
    """
    declared, checked = notebook_parameters(notebook), {}
    place = ": ".join(filter(None, (where, label(notebook))))
    for name, value in given.items():
        if name not in declared:
            close = difflib.get_close_matches(str(name), declared, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ValueError(
                f"{place} has no parameter {name!r}{hint} Its parameters are {', '.join(declared)}."
            )
        try:
            checked[name] = declared[name].typed(value)
        except ValidationError as error:
            kind = declared[name].kind
            wanted = "a finite float" if kind == "float" else kind
            raise ValueError(f"{place}: {name} must be {wanted}, not {value!r}.") from error
    return checked


def effective_parameters(notebook: Path, given: Mapping[str, Any]) -> dict[str, Value]:
    """Every parameter of the notebook: the given values over its own defaults."""
    defaults = {name: p.default for name, p in notebook_parameters(notebook).items()}
    return defaults | check_parameters(notebook, given)


def parse_overrides(notebook: Path, assignments: list[str]) -> dict[str, Value]:
    """Parses `name=value` as typed on a command line; raises as `check_parameters`."""
    for assignment in assignments:
        if "=" not in assignment:
            raise ValueError(f"Write a parameter as name=value, not {assignment!r}.")
    return check_parameters(notebook, dict(a.split("=", 1) for a in assignments))


def run_command(notebook: Path, options: Sequence[str], given: Mapping[str, Any]) -> str:
    """The command line that runs a notebook with `options` and the given parameters."""
    settings = [f"-p {shlex.quote(f'{name}={value}')}" for name, value in given.items()]
    return " ".join([f"sparsejepa run {label(notebook)}", *options, *settings])


# Values stay text: the notebook's types have the say.
Settings = dict[str, str]
# Of the run's folder too: one level, below its notebook's, so not . or .. alone.
RunName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._+-]*[A-Za-z0-9_+-][A-Za-z0-9._+-]*$")]


class Section(BaseModel, extra="forbid"):
    """What a preset says of one notebook."""

    parameters: Settings = {}
    needs: list[str] = []
    runs: dict[RunName, Settings] = {}


def preset_sections(root: Path, preset: str) -> dict[str, Section]:
    """What a preset says, by notebook.

    FileNotFoundError: there is no such preset; ValueError: it is no YAML, or has unknown keys.
    """
    path = root / "notebooks" / "presets" / f"{preset}.yml"
    with contextlib.suppress(FileNotFoundError):
        # Everything as text: YAML 1.1 takes 1:30 for 90 and 010 for 8.
        return read_yaml(path, TypeAdapter(dict[str, Section]), yaml.BaseLoader)
    known = ", ".join(sorted(p.stem for p in path.parent.glob("*.yml"))) or "none"
    raise FileNotFoundError(f"There is no preset {preset!r}; the presets are {known}.")


def preset_parameters(
    root: Path, preset: str, notebook: str, section: Section | None = None
) -> dict[str, Value]:
    """What a preset, or its section, gives to every run of a notebook; its own name among it."""
    section = section or preset_sections(root, preset).get(notebook, Section())
    source = notebook_path(root, notebook)
    own = {PRESET: preset} if PRESET in notebook_parameters(source) else {}
    return own | check_parameters(source, section.parameters, f"presets/{preset}.yml")


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
