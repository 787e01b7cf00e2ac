"""The Colab contract: a notebook runs there with nothing installed that would move torch or numpy.

Colab has imported numpy before the first cell runs, so the notebooks install this package with
`--no-deps` and what the library imports has to be there already, in a version that it supports.
"""

import ast
import re
import sys
from importlib.metadata import distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from tests.repository import ROOT, notebook_sources, pyproject, requirements, without_magics

SRC = ROOT / "src"
# Import name -> (package, version) preinstalled on Colab: googlecolab/backend-info, runtime of
# August 2026 (Python 3.13.15); PIL, pyarrow, typer and yaml as in its list of June 2026; pydantic
# and filelock, which its torch and datasets bring, at the least version that is certain.
COLAB_PYTHON = "3.13.15"
COLAB = {
    "torch": ("torch", "2.11.0"),
    "torchvision": ("torchvision", "0.26.0"),
    "timm": ("timm", "1.0.28"),
    "accelerate": ("accelerate", "1.14.0"),
    "datasets": ("datasets", "4.0.0"),
    "huggingface_hub": ("huggingface_hub", "1.27.0"),
    "safetensors": ("safetensors", "0.8.0"),
    "numpy": ("numpy", "2.1.3"),
    "pandas": ("pandas", "2.2.3"),
    "scipy": ("scipy", "1.16.3"),
    "sklearn": ("scikit-learn", "1.6.1"),
    "matplotlib": ("matplotlib", "3.10.0"),
    "seaborn": ("seaborn", "0.13.2"),
    "tqdm": ("tqdm", "4.67.3"),
    "ipykernel": ("ipykernel", "6.17.1"),
    "pydantic": ("pydantic", "2.12.3"),
    "filelock": ("filelock", "3.20.0"),
    "PIL": ("pillow", "11.3.0"),
    "pyarrow": ("pyarrow", "18.1.0"),
    "typer": ("typer", "0.25.1"),
    "yaml": ("PyYAML", "6.0.3"),
}
# IPython and google.colab are there by being Colab.
PRESENT = {*sys.stdlib_module_names, "sparsejepa", "IPython", "google", *COLAB}
# Run and build the book: not on Colab, so only where a notebook does not get to.
ORCHESTRATION = {"papermill", "snakemake", "jupyter_book", "nbformat", "nbclient"}


def imports(source: str, *, lazy: bool) -> set[str]:
    """Dotted names that the code imports; with `lazy`, those inside functions too."""
    names = set()
    waiting: list[ast.AST] = [ast.parse(source)]
    while waiting:
        node = waiting.pop()
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
        elif lazy or not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            waiting.extend(ast.iter_child_nodes(node))
    return names


def missing(source: str, *, lazy: bool, installed: set[str]) -> set[str]:
    """Packages that the code imports and Colab lacks."""
    return {name.split(".")[0] for name in imports(source, lazy=lazy)} - PRESENT - installed


def installed_by(first_cell: str) -> set[str]:
    """Packages that the call of pip in a notebook's first cell names."""
    call = re.search(r"pip\W+install\b([^])]*)", first_cell)
    names = re.findall(r"(?<![\w/.-])[A-Za-z][\w-]+", call[1]) if call else []
    return {name.replace("-", "_") for name in names}


def library_files(name: str) -> list[Path]:
    """The files of the library that importing a dotted name runs."""
    path, files = SRC, []
    for part in name.split("."):
        path = path / part
        files += [f for f in (path / "__init__.py", path.with_suffix(".py")) if f.exists()]
    return files


def reached_by(cells: list[str]) -> set[Path]:
    """The files of the library that a notebook imports, directly or through one another."""
    found: set[Path] = set()
    waiting = [name for cell in cells for name in imports(without_magics(cell), lazy=True)]
    while waiting:
        for path in library_files(waiting.pop()):
            if path not in found:
                found.add(path)
                waiting.extend(imports(path.read_text(), lazy=False))
    return found


def test_the_contract_sees_imports():
    """What the checks below rest on: lazy and direct imports are told apart."""
    source = "import torch.nn as nn\ndef f():\n    from papermill import execute\n"
    assert imports(source, lazy=False) == {"torch.nn"}
    assert missing(source, lazy=True, installed=set()) == {"papermill"}
    line = "pip install -q --no-deps ./companion jaxtyping wadler-lindig"
    assert installed_by(f"# torch\n!{line}") == {"jaxtyping", "wadler_lindig"}
    assert installed_by(f"run([{', '.join(map(repr, line.split()))}])") == installed_by(line)
    assert installed_by("import jaxtyping") == set()


def test_colab_has_supported_versions():
    """`pip install --no-deps` on Colab leaves versions that pyproject.toml allows."""
    versions = {canonicalize_name(package): version for package, version in COLAB.values()}
    asked = [needed for group in ("", "train") for needed in requirements()[group]]
    bounded = {canonicalize_name(needed.name): needed.specifier for needed in asked}
    for package, version in versions.items():
        assert package in bounded, f"{package} is no requirement of ours"
        assert bounded[package].contains(version), f"Colab has {package} {version}"


def test_colab_has_a_supported_python():
    """The package installs on Colab's Python."""
    assert SpecifierSet(pyproject()["project"]["requires-python"]).contains(COLAB_PYTHON)


@pytest.mark.parametrize("name", notebook_sources())
def test_a_notebook_imports_only_what_colab_has(name: str):
    """Its cells, and the library's files that they reach, need nothing beyond its pip line."""
    cells = notebook_sources()[name]
    installed = installed_by(cells[0])
    for cell in cells:
        assert missing(without_magics(cell), lazy=True, installed=installed) == set()
    for path in reached_by(cells):
        absent = missing(path.read_text(), lazy=False, installed=installed)
        assert absent == set(), path.relative_to(SRC)


@pytest.mark.parametrize("name", notebook_sources())
def test_a_pip_line_brings_what_its_packages_need(name: str):
    """It says --no-deps, so that nothing moves; a dependency that Colab lacks is named beside."""
    first_cell = notebook_sources()[name][0]
    assert "--no-deps" in first_cell
    for package in installed_by(first_cell):
        needed = [Requirement(line) for line in distribution(package).requires or []]
        always = {r.name.replace("-", "_") for r in needed if not r.marker}
        assert always <= installed_by(first_cell) | PRESENT, package


def test_only_the_companion_and_the_command_line_run_notebooks():
    """Everything else imports what Colab has, or jaxtyping, which the notebooks install."""
    for path in SRC.rglob("*.py"):
        orchestrates = path.parent.name == "companion" or path.name == "cli.py"
        absent = missing(path.read_text(), lazy=True, installed={"jaxtyping"})
        assert absent <= (ORCHESTRATION if orchestrates else set()), path.relative_to(SRC)
