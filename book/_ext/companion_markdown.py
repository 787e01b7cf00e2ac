"""Plain values to MyST Markdown: escaping, numbers, tables."""

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
    fence, pad = "`" * (longest + 1), " " if longest else ""
    return f"{fence}{pad}{line}{pad}{fence}"


def command_block(command: str) -> str:
    """A command as a block of its own, whatever backticks it holds."""
    fence = "```"
    while fence in command:
        fence += "`"
    return f"{fence}bash\n{command}\n{fence}"


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
    if isinstance(value, Mapping) and "value" in value:
        shown = number(value["value"], form)
        # The unit stands once, before the bracket.
        ends = [number(end, form).removesuffix("\u202f%") for end in value.get("interval") or ()]
        return f"{shown} [{', '.join(ends)}]" if ends else shown
    if isinstance(value, str):
        return value
    if not isinstance(value, Real) or isinstance(value, bool):
        raise ValueError(f"{value!r:.80} is no number")
    return format(value, form or ("" if isinstance(value, int) else ".4g")).replace("%", "\u202f%")
