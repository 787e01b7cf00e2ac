"""A whole book in a few small files: one notebook, runs of it, and the real configuration."""

import base64
import copy
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import yaml

import companion
from companion_book import Book
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.manifest import seal_run
from sparsejepa.companion.provenance import code_of
from tests.repository import ROOT

NOTEBOOK = "01_pretrain"
TOC = f"""format: jb-book
root: book/index
chapters:
  - file: notebooks/{NOTEBOOK}
    sections:
      - file: book/runs/reference/{NOTEBOOK}/sparsejepa-seed0/executed
  - file: book/your_runs
"""
PARAMETERS = """run_folder: str = ''
method: str = "jepa"
seed: int = 0
note: str = "a `b` | *c*"
rate: float = 0.001"""
RESULTS = {
    "method": "jepa",
    "steps": 1200,
    "accuracy": {
        "jepa, last block": {"linear probe": {"value": 0.27, "interval": [0.261, 0.279]}},
        "raw pixels": {"linear probe": {"value": 0.177, "interval": [0.17, 0.184]}},
    },
    "majority_accuracy": 0.1,
    "untrained": {"knn": 0.115},
    "history": [{"loss": 0.4}],
}
# One grey pixel.
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAAAAAA6fptVAAAACklEQVR4nGNoAAAAggCBd81ytgAAAABJRU5ErkJggg=="


def cell(kind: str, source: str, tags: tuple[str, ...] = (), **metadata: Any) -> dict[str, Any]:
    made = {"cell_type": kind, "metadata": {"tags": list(tags), **metadata}, "source": source}
    return made | ({"outputs": [], "execution_count": None} if kind == "code" else {})


def notebook() -> dict[str, Any]:
    """A clean notebook, as in notebooks/."""
    cells = [
        cell("markdown", "# Pretraining\n\nWith $x^2$ and\n\n$$\\lambda \\sum_g \\|W^{(g)}\\|$$"),
        cell("code", "import os  # Colab", ("remove-cell",)),
        cell("code", PARAMETERS, ("parameters",)),
        cell("markdown", "## Curves"),
        cell("code", "plot()", mystnb={"image": {"alt": "Loss over epochs."}}),
    ]
    for index, one in enumerate(cells):
        one["id"] = f"cell-{index}"
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def executed() -> dict[str, Any]:
    """The notebook as papermill leaves it."""
    ran = copy.deepcopy(notebook())
    injected = cell("code", "seed = 0", ("injected-parameters",)) | {"id": "injected"}
    ran["cells"].insert(3, injected)
    shown = {"output_type": "display_data", "data": {"image/png": PNG}, "metadata": {}}
    ran["cells"][-1]["outputs"] = [shown]
    return ran


def make_book(root: Path) -> None:
    """Writes the book with two reference runs."""
    (root / "notebooks" / "presets").mkdir(parents=True)
    write_json(root / "notebooks" / f"{NOTEBOOK}.ipynb", notebook())
    runs = {f"{name}-seed0": {"method": name, "seed": 0} for name in ("jepa", "sparsejepa")}
    preset = {NOTEBOOK: {"parameters": {}, "needs": [], "runs": runs}}
    (root / "notebooks" / "presets" / "reference.yml").write_text(yaml.safe_dump(preset))
    library = root / "src" / "sparsejepa"
    library.mkdir(parents=True)
    (library / "__init__.py").write_text("")
    (library / "used.py").write_text("answer = 42\n")
    (root / "book").mkdir()
    for name in ("_static", "_ext"):
        shutil.copytree(ROOT / "book" / name, root / "book" / name)
    for name in ("references.bib", "your_runs.md"):
        shutil.copy(ROOT / "book" / name, root / "book")
    shutil.copy(ROOT / "_config.yml", root)
    (root / "_toc.yml").write_text(TOC)
    (root / "book" / "index.md").write_text(
        "# A book\n\nTop 1 is {result}"
        f"`reference/{NOTEBOOK}/jepa-seed0:accuracy.jepa, last block.linear probe|.1%`, "
        "see {cite}`assran2023ijepa`.\n\n```{bibliography}\n```\n"
    )
    for name in runs:
        make_run(root, f"reference/{NOTEBOOK}/{name}")


def make_run(root: Path, run_id: str) -> Path:
    """Writes a finished run that stands for the notebook and library in `root`."""
    preset, stem, name = run_id.split("/")
    folder = root / "book" / "runs" / run_id
    write_json(folder / "executed.ipynb", executed())
    write_json(folder / "results.json", RESULTS)
    (folder / "figures").mkdir()
    (folder / "figures" / "curves.png").write_bytes(base64.b64decode(PNG))
    method, data = name.split("-")[0], {"name": "scenes", "split": "train", "origin": "drawn"}
    manifest = {
        **{"notebook": stem, "preset": preset, "run": name, "seed": 0, "precision": "bf16"},
        "command": f"sparsejepa run notebooks/{stem}.ipynb --preset {preset} -p note='a `b`'",
        "parameters": {"method": method, "seed": 0, "note": "a `b` | *c*", "rate": 0.001},
        "data": [data | {"pixel_sha256": "0123456789abcdef" * 4}],
        "commit": "fedcba9876543210" * 2 + "fedcba98-dirty",
        "versions": {"python": "3.11.7", "torch": "2.14.1"},
        "hardware": {"system": "Linux", "cpu": "A_CPU*", "cores": 2, "gpus": [], "threads": 2},
        "figures": [{"file": "figures/curves.png", "alt": 'Loss: it "falls", see # 1.'}],
        **{**code_of(root, stem), "trainings": {}, "needs": {}},
    }
    times = {"started_utc": "2026-01-02T03:04:05Z", "notebook_seconds": 61.3}
    times |= {"training_seconds": 125.0, "peak_memory_gb": 1.25, "results": {}}
    write_json(folder / "timing.json", times)
    seal_run(folder, manifest)
    return folder


def edit_results(root: Path, run_id: str, **changed: Any) -> None:
    """Other numbers in a run's file."""
    path = root / "book" / "runs" / run_id / "results.json"
    write_json(path, read_json(path) | changed)


def opened(
    root: Path, runs: Mapping[str, str], pages: Collection[str], stale: Mapping[str, str]
) -> Book:
    """The book, after the checks before a build."""
    config = SimpleNamespace(companion_runs=runs, companion_stale=stale)
    app = SimpleNamespace(srcdir=root, config=config)
    companion.open_book(app, SimpleNamespace(found_docs=pages), [])
    return app.companion
