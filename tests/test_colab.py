"""The Colab contract: a notebook runs there with nothing installed that would move torch or numpy.

Colab has imported numpy before the first cell runs, so the notebooks install this package with
`--no-deps` and what the library imports has to be there already, in a version that it supports.
"""

import ast
import contextlib
import os
import re
import shutil
import subprocess
import sys
from importlib.metadata import distribution
from pathlib import Path
from typing import Any

import nbclient
import nbformat
import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name

from sparsejepa.companion.files import read_json
from tests.repository import ROOT, notebook_sources, pyproject, requirements, without_magics

CIFAR100 = Path(os.environ.get("SPARSEJEPA_DATA", ""), "cifar100")
# Preinstalled on Colab: googlecolab/backend-info, runtime of August 2026 (Python 3.13.15); pillow,
# pyarrow, typer and PyYAML as in its list of June 2026; pydantic and filelock, which its torch and
# datasets bring, at the least version that is certain.
COLAB_PYTHON = "3.13.15"
COLAB = """torch==2.11.0 torchvision==0.26.0 timm==1.0.28 accelerate==1.14.0 datasets==4.0.0
huggingface_hub==1.27.0 safetensors==0.8.0 numpy==2.1.3 pandas==2.2.3 scipy==1.16.3 tqdm==4.67.3
scikit-learn==1.6.1 matplotlib==3.10.0 seaborn==0.13.2 ipykernel==6.17.1 pydantic==2.12.3
filelock==3.20.0 pillow==11.3.0 pyarrow==18.1.0 typer==0.25.1 PyYAML==6.0.3"""
COLAB = dict(pinned.split("==") for pinned in COLAB.split())
IMPORTED_AS = {"scikit-learn": "sklearn", "pillow": "PIL", "PyYAML": "yaml"}
# IPython and google.colab are there by being Colab.
PRESENT = {*sys.stdlib_module_names, "sparsejepa", "IPython", "google"}
PRESENT |= {IMPORTED_AS.get(package, package) for package in COLAB}
# What every notebook begins by installing.
PIP = re.search(r'"pip install ([^"]*)"', (ROOT / "notebooks" / "colab.py").read_text())[1]
INSTALLED = {name.replace("-", "_") for name in re.findall(r" ([A-Za-z][\w-]+)", PIP)}
# Run and build the book: not on Colab, so only where a notebook does not get to.
ORCHESTRATION = {"papermill", "snakemake", "jupyter_book", "nbformat", "nbclient", "jupyter_client"}


def imports(source: str) -> dict[str, str]:
    """Line -> module of every import, inside functions too."""
    found = {}
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            found[ast.unparse(node)] = getattr(node, "module", None) or node.names[0].name
    return found


def missing(source: str) -> set[str]:
    """Packages that the code imports and Colab lacks."""
    return {name.split(".")[0] for name in imports(source).values()} - PRESENT


def test_colab_has_supported_versions():
    """`pip install --no-deps` on Colab leaves what pyproject.toml allows, Python included."""
    asked = [needed for group in ("", "train") for needed in requirements()[group]]
    bounded = {canonicalize_name(needed.name): needed.specifier for needed in asked}
    for package, version in COLAB.items():
        name = canonicalize_name(package)
        assert name in bounded, f"{package} is no requirement of ours"
        assert bounded[name].contains(version), f"Colab has {package} {version}"
    assert SpecifierSet(pyproject()["project"]["requires-python"]).contains(COLAB_PYTHON)


@pytest.mark.parametrize("name", notebook_sources())
def test_a_notebook_imports_only_what_colab_has(name: str):
    """Its cells need nothing beyond its pip line.

    That says --no-deps, so that nothing moves; a dependency that Colab lacks is named beside.
    """
    assert "--no-deps" in PIP and {"jaxtyping"} <= INSTALLED
    for cell in notebook_sources()[name]:
        assert missing(without_magics(cell)) <= INSTALLED
    for package in INSTALLED:
        needed = [Requirement(line) for line in distribution(package).requires or []]
        always = {r.name.replace("-", "_") for r in needed if not r.marker}
        assert always <= INSTALLED | PRESENT, package


def test_the_library_imports_only_what_colab_has():
    """And jaxtyping, which the notebooks install; only the companion may run notebooks."""
    for path in (ROOT / "src").rglob("*.py"):
        may = ORCHESTRATION if path.parent.name == "companion" else set()
        assert missing(path.read_text()) <= may | {"jaxtyping"}, path
    # What notebooks import of the library does not import what runs them either.
    cells = [without_magics(cell) for cells in notebook_sources().values() for cell in cells]
    lines = {line for cell in cells for line in imports(cell) if "sparsejepa" in line}
    absent = f"import sys; sys.modules.update(dict.fromkeys({sorted(ORCHESTRATION)}))"
    code = "\n".join([absent, *sorted(lines)])
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert len(lines) > 50 and done.returncode == 0, done.stderr


# What code finds of Colab: that the module is there, and the drive.
STUB = """import sys
from importlib.machinery import ModuleSpec
from importlib.util import module_from_spec
from types import SimpleNamespace

colab = sys.modules["google.colab"] = module_from_spec(ModuleSpec("google.colab", None))
colab.drive = SimpleNamespace(mount=print)"""
DRIVE = Path("drive", "MyDrive", "study")
SMALL = {
    "01_pretrain": {
        **{"minutes": 0.01, "epochs": 1, "train_images": 300, "test_images": 100, "width": 48},
        **{"batch_size": 32, "depth": 2, "pixel_control": False},
    },
    "02_probes": {
        **{"train_images": 500, "test_images": 100, "scene_train_images": 200, "probe_steps": 5},
        **{"scene_test_images": 50, "structure_images": 60, "view_images": 8, "views": 2},
        **{"pixel_size": 8, "others": ""},
    },
    "04_jepa_score": {
        **{"data_images": 14, "images_per_set": 4, "fit_images": 200, "classes_shown": 1},
        **{"per_class": 4, "curation_images": 0, "toy_seeds": 2, "toy_steps": 3, "toy_points": 20},
    },
}


def with_values(cell: str, values: dict[str, Any]) -> str:
    """A cell of parameters in which a reader has typed other values."""
    for name, value in values.items():
        cell, count = re.subn(rf"(?m)^({name}(?:: \w+)?) = .*?(  #|$)", rf"\1 = {value!r}\2", cell)
        assert count == 1, name
    return cell


@pytest.fixture
def content(tmp_path: Path) -> Path:
    """The folder /content of a session that has fetched the library."""
    for part in ("notebooks", "src/sparsejepa"):
        leave_out = shutil.ignore_patterns("__pycache__")
        shutil.copytree(ROOT / part, tmp_path / "companion" / part, ignore=leave_out)
    (tmp_path / "companion" / "book" / "runs").mkdir(parents=True)
    return tmp_path


def test_all_notebooks_begin_alike():
    """With one cell for Colab, which does nothing elsewhere."""
    (cell,) = {cells[0] for cells in notebook_sources().values()}
    before = sys.path.copy(), os.getcwd()
    exec(cell, {})
    assert (sys.path, os.getcwd()) == before


@pytest.fixture
def begun(content: Path, monkeypatch: pytest.MonkeyPatch):
    """What a notebook's first cells leave on Colab; without encoders, what to run first."""
    monkeypatch.setitem(sys.modules, "google.colab", None)
    exec(STUB, {})
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.chdir(content)

    def run(notebook: str, **typed: Any) -> dict[str, Any]:
        first, parameters, opening = notebook_sources()[f"{notebook}.ipynb"][:3]
        names: dict[str, Any] = {}
        exec(first.replace("/content", str(content)), names)
        exec(with_values(parameters, typed), names)
        reads = "pretrained_runs(preset" in opening
        error = "Run 01_pretrain with preset '(colab|reference)' first: by hand, on Colab with the"
        with pytest.raises(ValueError, match=error) if reads else contextlib.nullcontext():
            exec(opening, names)
        return names

    return run


def test_colab_has_its_preset(begun, content: Path):
    """CIFAR-100 and the preset's sizes; what the preset leaves open has the notebook's default."""
    for notebook, settings in {
        "01_pretrain": {"dataset": "cifar100", "minutes": 40, "pixel_control": True},
        "02_probes": {"dataset": "cifar100", "probe_steps": 500, "views": 8},
        "03_multiinformation": {"partitions": 200},
        "04_jepa_score": {"dataset": "cifar100", "data_images": 80, "toy_seeds": 3},
    }.items():
        names = begun(notebook)
        assert names.items() >= {"preset": "colab", **settings}.items()
        assert names["run"].folder == content / "companion/book/runs/own" / notebook / "colab"


def test_elsewhere_a_notebook_has_its_own_settings(begun, monkeypatch: pytest.MonkeyPatch):
    """And the committed encoders."""
    monkeypatch.delitem(sys.modules, "google.colab")
    for notebook, dataset in (("01_pretrain", "objects"), ("04_jepa_score", "cifar100")):
        names = begun(notebook)
        assert (names["preset"], names["dataset"]) == ("", dataset)
        assert names["run"].folder.name == "interactive"


def test_what_a_reader_types_wins(begun):
    """Over the preset; another preset over `colab`; `own` is the cell as it stands."""
    names = begun("01_pretrain", epochs=3, method="sparsejepa")
    assert (names["epochs"], names["minutes"], names["dataset"]) == (3, 40.0, "cifar100")
    assert names["run"].folder.name == "colab-epochs=3-method=sparsejepa"
    for preset, images in (("demo", 12000), ("own", 0)):
        names = begun("01_pretrain", preset=preset)
        assert (names["dataset"], names["train_images"]) == ("objects", images)
    # The runner has said it all.
    names = begun("01_pretrain", run_folder="book/runs/own/01_pretrain/own")
    assert (names["dataset"], names["preset"]) == ("objects", "")


@pytest.mark.slow
@pytest.mark.skipif(not CIFAR100.is_dir(), reason="needs CIFAR-100")
def test_a_study_on_colab(content: Path):
    """01 trains on CIFAR-100 into the drive; 02 and 04 read what it left, and nothing else."""
    kept = content / DRIVE
    for name, values in SMALL.items():
        notebook = nbformat.read(ROOT / "notebooks" / f"{name}.ipynb", as_version=4)
        first, parameters = [cell for cell in notebook.cells if cell.cell_type == "code"][:2]
        source = with_values(first.source, {"drive": "study"})
        first.source = f"{STUB}\n{source}".replace("/content", str(content))
        parameters.source = with_values(parameters.source, values)
        nbclient.NotebookClient(notebook, resources={"metadata": {"path": content}}).execute()
        (manifest,) = map(read_json, (kept / name).glob("colab-*/manifest.json"))
        assert manifest["parameters"]["preset"] == "colab"
        assert manifest["data"][0]["name"] == "cifar100"
    assert len(list((kept / "trainings").glob("jepa-seed0-*/encoder.safetensors"))) == 1
    (results,) = map(read_json, (kept / "02_probes").glob("*/results.json"))
    (encoder,) = (path.name for path in (kept / "01_pretrain").iterdir())
    assert set(results["families"]) == {encoder, "untrained encoder", "raw pixels"}
    (results,) = map(read_json, (kept / "04_jepa_score").glob("*/results.json"))
    assert set(results["null_directions"]) == {encoder, "untrained encoder"}
