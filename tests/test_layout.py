"""The library stays small, and its rooms know only the rooms above them."""

import ast
from pathlib import Path

import pytest

from tests.repository import ROOT, notebook_sources

LIBRARY = ROOT / "src" / "sparsejepa"
# In the order in which data flows. What stands in one line may use each other only in that order.
ROOMS = (
    *("config", "errors", "randomness", "atomic_files", "intervals"),
    *("data", "model", "training", "probing", "information", "density", "theory"),
    *("plots", "chapters", "companion", "cli"),
)
RESEARCH = ROOMS[: ROOMS.index("plots")]
# Loaded when asked for: the front door, and commands that start in an instant.
LAZY = ("__init__", "cli")


def room(path: Path) -> str:
    """The first part of a file's path in the library."""
    return path.relative_to(LIBRARY).parts[0].removesuffix(".py")


def imports(path: Path) -> list[tuple[str, bool]]:
    """Modules of the library that a file imports, and whether inside a function."""
    tree = ast.parse(path.read_text())
    top = {id(node) for node in tree.body}
    guarded = {
        id(inner)
        for node in tree.body
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test)
        for inner in ast.walk(node)
    }
    found = []
    for node in ast.walk(tree):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sparsej"):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names if alias.name.startswith("sparsejepa.")]
        if id(node) not in guarded:
            found += [(name.split(".", 1)[1], id(node) not in top) for name in names]
    return found


def lines(*folders: str) -> int:
    """Of all Python files below the folders."""
    paths = [p for folder in folders for p in [ROOT / folder] if p.is_file()]
    paths += [p for folder in folders for p in (ROOT / folder).rglob("*.py")]
    return sum(len(path.read_text().splitlines()) for path in paths)


FILES = sorted(path for path in LIBRARY.rglob("*.py") if room(path) not in LAZY)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(LIBRARY)))
def test_arrows_point_one_way(path: Path):
    """A room imports itself and rooms above it."""
    for name, _ in imports(path):
        assert ROOMS.index(name.split(".")[0]) <= ROOMS.index(room(path)), name


def test_no_import_hides_in_a_function():
    """Save the one that keeps torch out of a report of numbers alone."""
    hidden = {
        (str(path.relative_to(LIBRARY)), name)
        for path in FILES
        for name, inside in imports(path)
        if inside
    }
    assert hidden <= {
        ("companion/manifest.py", "training.artefacts.Trainings"),
        ("companion/doctor.py", "training.precision.choose_precision"),
        ("companion/doctor.py", "training.precision.choose_device"),
    }


def test_no_two_files_import_each_other():
    """No circle, of whatever length."""
    modules = {
        ".".join(path.relative_to(LIBRARY).with_suffix("").parts).removesuffix(".__init__"): path
        for path in FILES
    }
    graph = {
        module: {
            found
            for name, inside in imports(path)
            for found in (name, name.rpartition(".")[0])
            if found in modules and found != module and not inside
        }
        for module, path in modules.items()
    }
    while graph:
        leaves = {module for module, needed in graph.items() if not needed & graph.keys()}
        assert leaves, f"circle among {sorted(graph)}"
        graph = {m: needed for m, needed in graph.items() if m not in leaves}


@pytest.mark.parametrize(
    ("most", "folders"),
    [
        (9911, ["src"]),
        (6328, [f"src/sparsejepa/{name}" for name in RESEARCH] + ["src/sparsejepa/__init__.py"]),
        (1698, ["src/sparsejepa/companion"]),
        (869, ["book"]),
        (12_121, ["tests"]),
    ],
    ids=lambda value: value if isinstance(value, int) else "",
)
def test_the_whole_is_small(most: int, folders: list[str]):
    """Totals that only fall, not a limit for each file: a file has one idea, whatever its length.

    Meant are 8,000 in src/, 5,400 that a researcher imports, 1,600, 900 and 10,000.
    """
    folders = [f if (ROOT / f).exists() else f"{f}.py" for f in folders]
    assert lines(*folders) <= most


def test_notebooks_are_prose_with_short_cells():
    """Parameters, the second cell, may be many: each is a line of its own."""
    sizes = [[len(c.splitlines()) for c in cells] for cells in notebook_sources().values()]
    assert sum(map(sum, sizes)) <= 2200
    assert all(max(cells[:1] + cells[2:]) <= 30 for cells in sizes)
