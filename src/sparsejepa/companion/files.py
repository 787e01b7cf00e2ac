"""JSON files, results in JSON's own types, and what stands at a key of them."""

import json
import math
import re
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


def look_up(results: Any, key: str) -> Any:
    """The value at the dotted `key`; of names that hold dots themselves, the longest is taken.

    Of a list, a part is a position (-1 is the last), or `[L=2; method=jepa]`: the one entry with
    these values.

    Raises:
        ValueError: there is no such value; names the keys that exist at that place.
    """
    place, walked, parts = results, [], key.split(".")
    while parts:
        for length in range(len(parts), 0, -1):
            found = _step(place, ".".join(parts[:length]))
            if found:
                break
        else:
            there = ", ".join(map(str, place)) if isinstance(place, Mapping) else str(place)[:80]
            raise ValueError(
                f"no {parts[0]!r} in {'.'.join(walked) or 'the results'} (there: {there})"
            )
        (place,) = found
        walked += parts[:length]
        parts = parts[length:]
    return place


def _step(place: Any, part: str) -> list[Any]:
    """What `part` names in `place`, in a list of its own; empty if nothing, or several entries."""
    if isinstance(place, Mapping):
        return [place[part]] if part in place else []
    if not isinstance(place, list):
        return []
    if re.fullmatch(r"-?[0-9]+", part):
        return [place[int(part)]] if -len(place) <= int(part) < len(place) else []
    if not re.fullmatch(r"\[.*\]", part):
        return []
    wanted = [pair.partition("=")[::2] for pair in part[1:-1].split("; ")]
    found = [
        entry
        for entry in place
        if isinstance(entry, Mapping) and all(str(entry.get(k)) == v for k, v in wanted)
    ]
    return found if len(found) == 1 else []
