"""Fingerprints of what a run depends on: the notebook's source and the library's code.

Both ignore what cannot change a result, so that "stale" means that a result may differ.
"""

import ast
import hashlib
import io
import tokenize
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

from sparsejepa.companion.files import read_json

# What papermill adds to the executed copy of a notebook.
ADDED_BY_PAPERMILL = {"injected-parameters", "papermill-error-cell-tag"}

# These start, record and name runs; they compute nothing that a run reports, so a run does not
# depend on them. What draws figures or computes intervals is not in this list.
BOOKKEEPING = frozenset(
    {
        "sparsejepa.atomic_files",
        "sparsejepa.cli",
        "sparsejepa.companion",
        *(
            f"sparsejepa.companion.{name}"
            for name in (
                "attempts",
                "doctor",
                "environment",
                "files",
                "hashes",
                "local_paths",
                "manifest",
                "parameters",
                "run_files",
                "runs",
                "study",
            )
        ),
    }
)

# Tokens that carry no meaning beyond layout and remarks.
LAYOUT = {tokenize.COMMENT, tokenize.NL, tokenize.ENCODING, tokenize.ENDMARKER}


def source_hash(notebook_path: Path) -> str:
    """SHA-256 over the `code_hash` of a notebook's code cells, in order.

    Prose, outputs, metadata and the cells that papermill injects do not count: an executed copy
    has the hash of the notebook that it was made from, and mending a sentence (the book shows the
    source's prose beside the run's outputs) does not ask for another long training.
    """
    digest = hashlib.sha256()
    for cell in read_json(notebook_path)["cells"]:
        added = ADDED_BY_PAPERMILL & set(cell.get("metadata", {}).get("tags", []))
        if cell["cell_type"] == "code" and not added:
            digest.update(code_hash("".join(cell["source"])).encode())
    return digest.hexdigest()


def code_hash(source: str) -> str:
    """SHA-256 over the tokens of Python code without comments, docstrings and layout.

    The same on every supported Python: `ast.dump` and `ast.unparse` are not, nor are the tokens
    inside an f-string, which 3.12 began to split; an f-string counts as its source text here.

    Raises:
        SyntaxError: `source` is not Python.
    """
    digest = hashlib.sha256()
    for text in _meaningful_tokens(source):
        digest.update(text.encode() + b"\0")
    return digest.hexdigest()


def library_hashes(modules: Mapping[str, ModuleType]) -> dict[str, str]:
    """`code_hash` of every sparsejepa module among `modules`, by module name.

    Called with `sys.modules` at the end of a run, this is what the run really used. The modules of
    `BOOKKEEPING` are left out.
    """
    return {
        name: file_hash(Path(module.__file__))
        for name, module in sorted(modules.items())
        if name.split(".")[0] == "sparsejepa"
        and name not in BOOKKEEPING
        and getattr(module, "__file__", None)
    }


def file_hash(path: Path) -> str:
    """`code_hash` of a Python file."""
    return code_hash(path.read_text(encoding="utf-8"))


def module_path(name: str, source_root: Path) -> Path:
    """Where `source_root` holds a module: a package's `__init__.py`, else the file."""
    path = source_root.joinpath(*name.split("."))
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


def _meaningful_tokens(source: str) -> Iterator[str]:
    docstrings = list(_docstring_spans(source))
    previous = "\n"
    for kind, text, start in _tokens(source):
        if kind in LAYOUT or any(first <= start < last for first, last in docstrings):
            continue
        if kind == tokenize.NEWLINE and previous in ("\n", "<indent>"):
            continue  # The end of a line that held nothing but a docstring.
        marks = {tokenize.NEWLINE: "\n", tokenize.INDENT: "<indent>", tokenize.DEDENT: "<dedent>"}
        previous = marks.get(kind, text)
        yield previous


def _tokens(source: str) -> Iterator[tuple[int, str, tuple[int, int]]]:
    """(kind, text, start) of every token, an f-string as one token."""
    lines = source.splitlines(keepends=True)
    opening = {getattr(tokenize, f"{k}STRING_START", None) for k in "FT"} - {None}
    closing = {getattr(tokenize, f"{k}STRING_END", None) for k in "FT"} - {None}
    depth, begun = 0, (0, 0)
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in opening:
            begun = begun if depth else token.start
            depth += 1
        elif token.type in closing:
            depth -= 1
            if depth == 0:
                yield tokenize.STRING, _between(lines, begun, token.end), begun
        elif depth == 0:
            yield token.type, token.string, token.start


def _between(lines: list[str], start: tuple[int, int], end: tuple[int, int]) -> str:
    if start[0] == end[0]:
        return lines[start[0] - 1][start[1] : end[1]]
    inner = lines[start[0] : end[0] - 1]
    return "".join([lines[start[0] - 1][start[1] :], *inner, lines[end[0] - 1][: end[1]]])


def _docstring_spans(source: str) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
    """Start and end (line, column in characters) of every docstring."""
    lines = source.splitlines(keepends=True)
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            yield (
                (text.lineno, _characters(lines[text.lineno - 1], text.col_offset)),
                (text.end_lineno, _characters(lines[text.end_lineno - 1], text.end_col_offset)),
            )


def _characters(line: str, byte_offset: int) -> int:
    """ast counts bytes where tokenize counts characters."""
    return len(line.encode()[:byte_offset].decode())
