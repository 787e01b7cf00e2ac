"""Plain values to MyST Markdown: escaping, numbers, tables. Knows nothing of Sphinx or of runs."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any


def text(value: Any) -> str:
    """`value` as MyST text on one line: every ASCII punctuation mark escaped."""
    line = " ".join(str(value).split())
    return re.sub(r"([!-/:-@\[-`{-~])", r"\\\1", line)


def code(value: Any) -> str:
    """`value` as an inline code span on one line, whatever backticks it holds."""
    line = " ".join(str(value).split())
    if not line:
        return "(empty)"
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    pad = " " if longest else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def list_table(rows: Iterable[Sequence[str]], header: bool = False, classes: str = "") -> str:
    """Rows of Markdown cells as a `list-table`; the first column is a header of its row."""
    lines = [":::{list-table}", f":header-rows: {int(header)}", ":stub-columns: 1"]
    if classes:
        lines.append(f":class: {classes}")
    lines.append("")
    for row in rows:
        lines += [f"{'* -' if not i else '  -'} {cell}" for i, cell in enumerate(row)]
    return "\n".join([*lines, ":::"])


def dropdown(title: str, body: str) -> str:
    """`body` folded away under `title`."""
    return f"::::{{dropdown}} {title}\n{body}\n::::"


def number(value: Any, form: str = "") -> str:
    """A result as text, with its interval in brackets where it has one.

    `value` is a number, a text, or `{"value": number, "interval": [low, high]}`. `form` is a
    Python format specification; one that ends in `%` takes a fraction.

    Raises:
        ValueError: `value` is none of these, or `form` does not suit it.
    """
    if isinstance(value, Mapping):
        if "value" not in value:
            raise ValueError(f"{_brief(value)} is no number: it has no key 'value'")
        shown = number(value["value"], form)
        interval = value.get("interval")
        if interval is None:
            return shown
        # The unit stands once, before the bracket.
        low, high = (number(bound, form).removesuffix("\u202f%") for bound in interval)
        return f"{shown} [{low}, {high}]"
    if isinstance(value, str):
        return value
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{_brief(value)} is no number")
    if not form:
        return str(value) if isinstance(value, int) else f"{value:.4g}"
    shown = format(value, form)
    return shown[:-1] + "\u202f%" if form.endswith("%") else shown


def look_up(results: Any, key: str) -> Any:
    """The value at the dotted `key`; a part that is a number counts into a list.

    Raises:
        KeyError: there is no such value; the message names the keys that exist at that place.
    """
    place, walked = results, []
    for part in key.split("."):
        if isinstance(place, Mapping) and part in place:
            place = place[part]
        elif isinstance(place, list) and part.isdigit() and int(part) < len(place):
            place = place[int(part)]
        else:
            there = ", ".join(map(str, place)) if isinstance(place, Mapping) else _brief(place)
            raise KeyError(f"no {part!r} in {'.'.join(walked) or 'the results'} (there: {there})")
        walked.append(part)
    return place


def _brief(value: Any) -> str:
    shown = json.dumps(value, ensure_ascii=False, default=str)
    return shown if len(shown) <= 80 else shown[:77] + "..."
