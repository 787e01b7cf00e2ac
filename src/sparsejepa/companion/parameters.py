"""The parameters of a notebook: read from its `parameters` cell, checked before anything runs.

Papermill's own inspection misses defaults that contain `=` and only warns about unknown names.
"""

import ast
import difflib
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import FiniteFloat, StrictBool, StrictInt, StrictStr, TypeAdapter
from pydantic import ValidationError as NotOfType

from sparsejepa.companion.files import read_json

# The runner says by this parameter where a notebook writes; it is no choice of the reader's.
RUN_FOLDER = "run_folder"

Value = int | float | str | bool


TYPES = {
    "int": TypeAdapter(StrictInt),
    "float": TypeAdapter(FiniteFloat),  # also "1e-3", 1
    "str": TypeAdapter(StrictStr),
    "bool": TypeAdapter(StrictBool),
}
WORDS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


class Parameter(NamedTuple):
    """One line `name: type = default` of a parameters cell."""

    name: str
    kind: str  # "int", "float", "str" or "bool"
    default: Value


def notebook_parameters(notebook_path: Path) -> dict[str, Parameter]:
    """The parameters that a notebook declares, by name, without `run_folder`.

    Raises:
        FileNotFoundError: there is no such notebook.
        ValueError: its cell tagged `parameters` is not of lines `name: type = default`.
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
    # Commands of IPython are no parameters.
    lines = ["" if line.lstrip()[:1] in ("%", "!") else line for line in cells[0].splitlines()]
    try:
        statements = ast.parse("\n".join(lines)).body
    except SyntaxError as error:
        raise ValueError(
            f"{label}: line {error.lineno} of the parameters cell, {error.text!r}, is no Python; "
            "write it as name: type = default."
        ) from error
    found = {p.name: p for p in (_parameter(statement, label) for statement in statements)}
    if found.pop(RUN_FOLDER, None) != (RUN_FOLDER, "str", ""):
        raise ValueError(f'{label} must declare {RUN_FOLDER}: str = "" among its parameters.')
    return found


def check_parameters(
    notebook_path: Path, given: Mapping[str, Any], where: str = ""
) -> dict[str, Value]:
    """`given` with every name known to the notebook and every value of its declared type.

    A text where the notebook wants a number or truth value is read as one. An unknown name or a
    value of another type is a ValueError of one sentence, which begins with `where` they stand.
    """
    declared = notebook_parameters(notebook_path)
    label = ": ".join(filter(None, (where, notebook_label(notebook_path))))
    for name in given:
        if name not in declared:
            close = difflib.get_close_matches(str(name), declared, n=1, cutoff=0.5)
            hint = f"; did you mean {close[0]!r}?" if close else "."
            raise ValueError(
                f"{label} has no parameter {name!r}{hint} Its parameters are {', '.join(declared)}."
            )
    return {name: _typed(value, name, declared[name].kind, label) for name, value in given.items()}


def effective_parameters(notebook_path: Path, given: Mapping[str, Any]) -> dict[str, Value]:
    """Every parameter of the notebook: the given values over its own defaults."""
    defaults = {name: p.default for name, p in notebook_parameters(notebook_path).items()}
    return defaults | check_parameters(notebook_path, given)


def parse_overrides(notebook_path: Path, assignments: list[str]) -> dict[str, Value]:
    """Parses `name=value` as typed on a command line; raises as `check_parameters`."""
    for assignment in assignments:
        if "=" not in assignment:
            raise ValueError(f"Write a parameter as name=value, not {assignment!r}.")
    return check_parameters(notebook_path, dict(a.split("=", 1) for a in assignments))


def run_command(notebook_path: Path, options: Sequence[str], given: Mapping[str, Any]) -> str:
    """The command line that runs a notebook with `options` and the given parameters."""
    settings = [f"-p {shlex.quote(f'{name}={value}')}" for name, value in given.items()]
    return " ".join([f"sparsejepa run {notebook_label(notebook_path)}", *options, *settings])


def notebook_label(notebook_path: Path) -> str:
    """How messages call a notebook: its folder and file, whatever the checkout's place."""
    return f"{notebook_path.parent.name}/{notebook_path.name}"


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
    return Parameter(name, kind, _typed(default, name, kind, label))


def _typed(value: Any, name: str, kind: str, label: str) -> Value:
    read = value
    if isinstance(value, str) and kind == "int":
        # Decimal, whatever the notation: YAML would read 010 as 8.
        read = int(value) if value.lstrip("+-").isdecimal() else value
    if isinstance(value, str) and kind == "bool":
        read = WORDS.get(value.lower(), value)
    if isinstance(value, bool) and kind == "float":
        read = None  # a truth value is no number
    try:
        return TYPES[kind].validate_python(read)
    except NotOfType as error:
        finite = error.errors()[0]["type"] == "finite_number"
        wanted = "a finite number" if finite else kind
        raise ValueError(f"{label}: {name} must be {wanted}, not {value!r}.") from error
