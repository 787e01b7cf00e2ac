"""JSON and YAML files, and results in JSON's own types."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import TypeAdapter, ValidationError

from sparsejepa.atomic_files import write_atomically


def label(path: Path) -> str:
    """How messages call a file: its folder and name, whatever the checkout's place."""
    return f"{path.parent.name}/{path.name}"


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON; raises ValueError for NaN and infinities, OSError as `write_with`."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file; FileNotFoundError without it, ValueError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is damaged: {error}; delete it and run again.") from error


def read_yaml(path: Path, kind: TypeAdapter, loader: type) -> Any:
    """The content of a YAML file, as `kind` wants it; FileNotFoundError without the file.

    ValueError: says the place, where an entry of a list goes by its `id`, and what is wrong there.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), loader)
        return kind.validate_python(content)
    except ValidationError as error:
        first, place, names = error.errors()[0], content, []
        for part in first["loc"]:
            inside = isinstance(place, list) or (isinstance(place, dict) and part in place)
            place = place[part] if inside else None
            names.append(place.get("id", part) if isinstance(place, dict) else part)
        where = ".".join(str(name) for name in names if name != "[key]").strip() or "the file"
        given = "" if isinstance(first["input"], dict | list) else f", not {first['input']!r}"
        wrong = first["msg"].removeprefix("Value error, ") + given
        raise ValueError(f"{label(path)}, {where}: {wrong}.") from error
    # ValueError: bytes that are no text.
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{label(path)} is not YAML: {' '.join(str(error).split())}.") from error


def plain(value: Any, where: str) -> Any:
    """`value` in JSON's own types; raises ValueError with `where`, as "results['knn'] is nan"."""
    if hasattr(value, "tolist"):  # scalars and arrays of NumPy and PyTorch
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}[{str(key)!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    finite = isinstance(value, float) and math.isfinite(value)
    if finite or value is None or isinstance(value, str | int):
        return value
    raise ValueError(f"{where} is {value!r:.80}: give a finite number, a text, or None (unknown).")
