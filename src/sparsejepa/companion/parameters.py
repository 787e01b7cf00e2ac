"""The parameters of a notebook: read from its `parameters` cell, checked before anything runs.

Papermill's own inspection is not used: it misses defaults that contain `=` and only warns about
unknown names.
"""

import ast
import difflib
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from sparsejepa.companion.files import read_json

TYPES = {"int": int, "float": float, "str": str, "bool": bool}

# The runner says by this parameter where a notebook writes; it is no choice of the reader's.
RUN_FOLDER = "run_folder"

Value = int | float | str | bool


@dataclass(frozen=True)
class Parameter:
    """One line `name: type = default` of a parameters cell."""

    name: str
    kind: str  # "int", "float", "str" or "bool"
    default: Value


def notebook_parameters(notebook_path: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares, by name, without `run_folder`.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: the notebook has no single cell tagged `parameters`, a line of it is not
            `name: type = default` with a plain value, or `run_folder: str = ""` is missing.
    """
    label = notebook_label(notebook_path)
    if not notebook_path.is_file():
        others = ", ".join(sorted(p.stem for p in notebook_path.parent.glob("*.ipynb")))
        raise FileNotFoundError(f"{label} does not exist; there are: {others or 'none'}.")
    cells = [
        "".join(cell["source"])
        for cell in read_json(notebook_path)["cells"]
        if "parameters" in cell.get("metadata", {}).get("tags", [])
    ]
    if len(cells) != 1:
        raise ValueError(f"{label} must have one cell tagged 'parameters', not {len(cells)}.")
    found = {}
    for statement in ast.parse(cells[0]).body:
        parameter = _parameter(statement, label)
        found[parameter.name] = parameter
    if found.pop(RUN_FOLDER, None) != Parameter(RUN_FOLDER, "str", ""):
        raise ValueError(f'{label} must declare {RUN_FOLDER}: str = "" among its parameters.')
    return found


def check_parameters(
    notebook_path: Path, given: Mapping[str, Any], where: str = ""
) -> dict[str, Value]:
    """`given` with every name known to the notebook and every value of its declared type.

    Args:
        where: the place of the values in an error, as "presets/demo.yml, run jepa-seed0".

    Raises:
        ValueError: an unknown name, or a value of another type, in one sentence.
    """
    declared = notebook_parameters(notebook_path)
    label, prefix = notebook_label(notebook_path), f"{where}: " if where else ""
    for name in given:
        if name not in declared:
            raise ValueError(f"{prefix}{label} has no parameter {_unknown(str(name), declared)}")
    return {
        name: _checked(value, declared[name], f"{prefix}{label}") for name, value in given.items()
    }


def effective_parameters(notebook_path: Path, given: Mapping[str, Any]) -> dict[str, Value]:
    """Every parameter of the notebook: the given values over its own defaults."""
    defaults = {name: p.default for name, p in notebook_parameters(notebook_path).items()}
    return defaults | check_parameters(notebook_path, given)


def parse_overrides(notebook_path: Path, assignments: list[str]) -> dict[str, Value]:
    """Parses `name=value` as typed on a command line, by the types that the notebook declares.

    Raises:
        ValueError: no `=`, an unknown name, or a value that is not of the parameter's type.
    """
    declared = notebook_parameters(notebook_path)
    given: dict[str, Any] = {}
    for assignment in assignments:
        name, equals, text = assignment.partition("=")
        if not equals:
            raise ValueError(f"Write a parameter as name=value, not {assignment!r}.")
        # "yes" is a word where the notebook wants a word; elsewhere YAML decides.
        is_word = name in declared and declared[name].kind == "str"
        given[name] = text if is_word else _scalar(text)
    return check_parameters(notebook_path, given)


def parameter_changes(then: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """A sentence for each parameter whose value differs between two runs, in order of names."""
    return [
        f"the parameter {name} was {then.get(name)!r} and is {now.get(name)!r} now"
        for name in sorted(set(then) | set(now))
        if then.get(name) != now.get(name)
    ]


def run_command(notebook_path: Path, options: Sequence[str], given: Mapping[str, Any]) -> str:
    """The command line that runs a notebook with `options` and the given parameters."""
    settings = [f"-p {shlex.quote(f'{name}={value}')}" for name, value in given.items()]
    return " ".join([f"sparsejepa run {notebook_label(notebook_path)}", *options, *settings])


def notebook_label(notebook_path: Path) -> str:
    """How messages call a notebook: its folder and file, whatever the checkout's place."""
    return f"{notebook_path.parent.name}/{notebook_path.name}"


def _scalar(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return text


def _parameter(statement: ast.stmt, label: str) -> Parameter:
    plain = isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name)
    if not plain or statement.value is None or ast.unparse(statement.annotation) not in TYPES:
        raise ValueError(
            f"{label}: write the parameter line '{ast.unparse(statement)}' as name: type = default "
            f"with one of the types {', '.join(TYPES)}."
        )
    name, kind = statement.target.id, ast.unparse(statement.annotation)
    try:
        default = ast.literal_eval(statement.value)
    except ValueError as error:
        raise ValueError(f"{label}: the default of {name} must be a plain value.") from error
    return Parameter(name, kind, _checked(default, Parameter(name, kind, default), label))


def _checked(value: Any, parameter: Parameter, label: str) -> Value:
    if parameter.kind == "float" and not isinstance(value, bool):
        # YAML reads 1e-3, without a point, as a word.
        if isinstance(value, str | int):
            try:
                value = float(value)
            except ValueError:
                pass
        if isinstance(value, float) and not math.isfinite(value):
            raise ValueError(f"{label}: {parameter.name} must be a finite number, not {value}.")
    if type(value) is not TYPES[parameter.kind]:
        raise ValueError(f"{label}: {parameter.name} must be {parameter.kind}, not {value!r}.")
    return value


def _unknown(name: str, declared: Mapping[str, Parameter]) -> str:
    close = difflib.get_close_matches(name, declared, n=1, cutoff=0.5)
    hint = f"; did you mean {close[0]!r}?" if close else "."
    return f"{name!r}{hint} Its parameters are {', '.join(declared)}."
