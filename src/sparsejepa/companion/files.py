"""JSON files, and results in JSON's own types."""

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparsejepa.atomic_files import write_atomically


def write_json(path: Path, content: Any) -> None:
    """Writes `content` as indented JSON with a final newline.

    Raises:
        ValueError: `content` holds NaN or an infinity, which JSON does not know.
        OSError: the folder cannot be written or the disk is full; `path` is as it was.
    """
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    write_atomically(path, text.encode())


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"{path} is damaged: {error}; delete it and run again.") from error


def plain(value: Any, where: str) -> Any:
    """`value` in JSON's own types.

    Raises:
        ValueError: with `where`, the place of the value, as "results['knn']['top1'] is nan".
    """
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
