"""The sparsity study runs with every method, at its smallest."""

import json
import shutil
from pathlib import Path

import pytest

from sparsejepa.companion.runs import run_notebook
from tests.repository import ROOT

TINY = {
    "train_images": 256,
    "test_images": 100,
    "scenes_train": 400,
    "scenes_test": 100,
    "width": 16,
    "strengths": "0, 0.003",
    "strengths_r2": "0, 0.003",
    "raw_epochs": 1,
    "bars_steps": 100,
    "probe_steps": 20,
}

# Two dozen short trainings.
pytestmark = pytest.mark.slow


def test_the_study_keeps_its_figures_and_parameters(tmp_path: Path):
    """Run in a copy of what it needs, it leaves a manifest, results and every figure it names."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    shutil.copytree(ROOT / "src" / "sparsejepa", tmp_path / "src" / "sparsejepa")
    folder = run_notebook(
        Path("notebooks/06_sparsity.ipynb"), "demo", overrides=TINY, root=tmp_path
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    assert TINY.items() <= manifest["parameters"].items()
    assert manifest["figures"]
    assert all((folder / figure["file"]).is_file() for figure in manifest["figures"])
    assert json.loads((folder / "results.json").read_text())
