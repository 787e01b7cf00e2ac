"""What tests about the repository itself need: its root, its text files, its requirements."""

import json
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).resolve().parents[1]
TEXT = {".py", ".md", ".toml", ".txt", ".yml", ".yaml", ".cff", ".json", ".bib", ".ipynb", ".css"}


def pyproject() -> dict:
    return tomllib.loads((ROOT / "pyproject.toml").read_text())


def address() -> str:
    """The repository's address, from its one place."""
    return pyproject()["project"]["urls"]["Repository"]


def requirements() -> dict[str, list[Requirement]]:
    """Extra -> requirements; "" are those that every installation has."""
    project = pyproject()["project"]
    lists = {"": project["dependencies"], **project["optional-dependencies"]}
    return {extra: [Requirement(line) for line in lines] for extra, lines in lists.items()}


def constraints() -> dict[str, str]:
    """Canonical name -> the pinned version."""
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pins = (line.split("==") for line in lines if line and not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins}


def text_files() -> Iterator[Path]:
    """Every text file that belongs to a checkout: sources, pages, settings, reference runs."""
    yield from (path for path in ROOT.iterdir() if path.is_file() and _is_text(path))
    for folder in (".ci", ".github", "book", "notebooks", "src", "tests"):
        for path in (ROOT / folder).rglob("*"):
            parts = path.relative_to(ROOT).parts
            own_run = parts[:2] == ("book", "runs") and parts[2:3] != ("reference",)
            made = any(re.match(r"\.|__pycache__|.*\.egg-info$", part) for part in parts[1:])
            if path.is_file() and _is_text(path) and not (own_run or made):
                yield path


def notebook_sources() -> dict[str, list[str]]:
    """Notebook's file name -> the source of each of its code cells."""
    return {
        path.name: [
            "".join(cell["source"])
            for cell in json.loads(path.read_text())["cells"]
            if cell["cell_type"] == "code"
        ]
        for path in sorted((ROOT / "notebooks").glob("*.ipynb"))
    }


def without_magics(cell: str) -> str:
    """A cell's Python: `!pip ...` and `%magic` lines become `pass`."""
    return re.sub(r"^(\s*)[!%].*$", r"\1pass", cell, flags=re.MULTILINE)


def _is_text(path: Path) -> bool:
    names = {"Makefile", "Snakefile", "LICENSE", ".gitignore", "run"}
    return path.suffix in TEXT or path.name in names
