"""Takes this machine's paths out of an executed notebook, so that it can be published."""

import os
import re
import sys
import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# In an output these are text; anything else (a picture in base64) is left alone.
TEXT_TYPES = ("text/", "application/json", "image/svg+xml")


def remove_local_paths(text: str, root: Path) -> str:
    """`text` with paths below the checkout made relative, and other local paths made general."""
    home, data = Path.home(), os.environ.get("SPARSEJEPA_DATA")
    general = {str(root): ".", sys.prefix: "$PYTHON", str(home): "~"}
    if root.is_relative_to(home):
        # IPython shortens paths in tracebacks itself.
        general[f"~/{root.relative_to(home)}"] = "."
    if data:
        general[data.rstrip("/")] = "$SPARSEJEPA_DATA"
    for path in sorted(general, key=len, reverse=True):
        if len(path) > 1:
            name = general[path]
            text = re.sub(_whole(path) + "/", "" if name == "." else name + "/", text)
            text = re.sub(_whole(path), name, text)
    for temporary in {tempfile.gettempdir(), "/tmp"}:
        # Below the temporary folder, folders may carry a user's name: keep the file's name only.
        text = re.sub(_whole(temporary) + r"/(?:[^\s/'\"<>:,)]+/)*", "", text)
    return text


def clean_notebook(notebook: Any, root: Path, replacements: Mapping[str, str]) -> None:
    """Cleans an executed notebook in place.

    Local paths go from sources and textual outputs, `replacements` are made in the same places,
    overwritten frames of progress bars and papermill's times per cell go too.
    """

    def clean(text: str) -> str:
        for old, new in replacements.items():
            text = text.replace(old, new)
        return remove_local_paths(text, root)

    notebook.metadata["papermill"] = {
        key: clean_strings(notebook.metadata.get("papermill", {}).get(key), clean)
        for key in ("parameters", "version")
    }
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = clean(cell.source)
        if cell.cell_type == "code":
            # Frames of one progress bar arrive in pieces: merge before dropping them.
            cell.outputs = [_clean_output(o, clean) for o in _merge_streams(cell.outputs)]


def clean_strings(value: Any, clean: Callable[[str], str]) -> Any:
    """`value`, a tree of JSON, with `clean` applied to every string that is not a key."""
    if isinstance(value, str):
        return clean(value)
    if isinstance(value, Mapping):
        return {key: clean_strings(item, clean) for key, item in value.items()}
    if isinstance(value, list):
        return [clean_strings(item, clean) for item in value]
    return value


def _whole(path: str) -> str:
    """A pattern for `path` where it is a whole path, not a part of a longer name."""
    return r"(?<![\w.~-])" + re.escape(path) + r"(?![\w-]|\.\w)"


def _clean_output(output: Any, clean: Callable[[str], str]) -> Any:
    if output.output_type == "stream":
        # A carriage return starts a progress bar's next frame over the last one.
        lines = clean(output.text).replace("\r\n", "\n").split("\n")
        output.text = "\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines)
    elif output.output_type == "error":
        output.evalue = clean(output.evalue)
        output.traceback = [clean(line) for line in output.traceback]
    else:
        output.metadata = clean_strings(output.get("metadata", {}), clean)
        for kind, content in output.data.items():
            if kind.startswith(TEXT_TYPES):
                output.data[kind] = clean_strings(content, clean)
    return output


def _merge_streams(outputs: list[Any]) -> list[Any]:
    """Pieces of one stream that arrived one after another become one output."""
    merged: list[Any] = []
    for output in outputs:
        last = merged[-1] if merged else None
        if last is not None and output.output_type == "stream" == last.output_type:
            if output.name == last.name:
                last.text += output.text
                continue
        merged.append(output)
    return merged
