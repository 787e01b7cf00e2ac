"""The house style, as far as a program can see it."""

import ast
import re
import subprocess
import sysconfig
from pathlib import Path

import pytest

from tests.repository import ROOT, text_files

LIBRARY = sorted((ROOT / "src").rglob("*.py"))
# A path of the machine that something was made on: it says nothing to a reader elsewhere.
MACHINE_PATH = re.compile(r"(?<![\w.:/-])/(?:home|Users|root|mnt|scratch|work(?:space)?)/[\w.-]+")


def lint_commands() -> list[str]:
    """The recipe of `make lint`, with the environment that runs the tests."""
    recipe = (ROOT / "Makefile").read_text().split("\nlint:")[1].split("\n\n")[0]
    notebooks = " ".join(str(path) for path in sorted((ROOT / "notebooks").glob("*.ipynb")))
    recipe = recipe.replace("$(VENV)/bin", sysconfig.get_path("scripts"))
    return [line.strip() for line in recipe.replace("$(NOTEBOOKS)", notebooks).splitlines()[1:]]


def silent(path: Path) -> list[str]:
    """Public classes and functions without a docstring, and the module if it has none."""
    tree = ast.parse(path.read_text())
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_")
    ]
    names = [node.name for node in public if not ast.get_docstring(node)]
    return names if ast.get_docstring(tree) or not tree.body else [path.stem, *names]


@pytest.mark.parametrize("command", lint_commands(), ids=lambda c: " ".join(c.split()[:2])[-20:])
def test_lint_passes(command: str):
    """Code and notebooks are formatted and free of lint and typos, sources hold no outputs."""
    done = subprocess.run(command, shell=True, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_annotations_are_real():
    """Postponed annotations would silently switch off the checks of shapes and types."""
    postponed = "from __future__ import annotations"
    assert [path.name for path in LIBRARY if postponed in path.read_text()] == []


def test_what_is_public_says_what_it_is():
    """Modules, public classes and public functions have docstrings."""
    assert {path.name: silent(path) for path in LIBRARY if silent(path)} == {}


def test_no_file_names_a_path_of_one_machine():
    """Neither a source, nor a page, nor a committed run; tests may make paths up."""
    for path in text_files():
        if path.is_relative_to(ROOT / "tests"):
            continue
        found = MACHINE_PATH.search(path.read_text())
        assert not found, f"{path.relative_to(ROOT)} names {found[0]}"
