"""JSON files, and results in JSON's own types."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsejepa.atomic_files import write_atomically


def write_json(path: Path, content: Any) -> None:
    """Writes indented JSON; raises ValueError for NaN and infinities, OSError as `write_with`."""
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file; FileNotFoundError without it, ValueError if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}; delete it and run again.") from error


def plain(value: Any, where: str) -> Any:
    """`value` in JSON's own types; raises ValueError with `where`, as "results['knn'] is nan"."""
    if isinstance(value, Mapping):
        return {str(key): plain(item, f"{where}[{str(key)!r}]") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item, f"{where}[{index}]") for index, item in enumerate(value)]
    if hasattr(value, "tolist"):
        # NumPy and PyTorch scalars and arrays; scalars become plain numbers.
        return plain(value.tolist(), where)
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"{where} is {value}: a result must be a finite number (None if unknown).")
    if value is None or isinstance(value, str | int | float):
        return value
    raise ValueError(f"{where} is a {type(value).__name__}, which cannot be written as JSON.")
