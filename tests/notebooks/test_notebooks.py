"""Every notebook runs from first to last cell, with tiny parameters."""

import json
import shutil
from pathlib import Path

import pytest

from sparsejepa.companion.runs import run_notebook
from tests.repository import ROOT

TINY = {"dataset": "scenes", "train_images": 600, "width": 32, "depth": 2}
TINY_PRETRAIN = TINY | {
    "test_images": 200,
    "epochs": 2,
    "batch_size": 64,
    "heads": 2,
    "predictor_width": 16,
    "groups": 4,
}
TINY_RUNS = {
    "01_pretrain": [
        TINY_PRETRAIN | {"method": "jepa"},
        TINY_PRETRAIN | {"method": "sparsejepa", "strength": 0.001},
    ],
    "appendix_tuning": [TINY | {"epochs": 1, "variants": 2}],
}
CASES = [(name, parameters) for name, runs in TINY_RUNS.items() for parameters in runs]


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a run needs, so that no test writes into this checkout's runs."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "src" / "sparsejepa", root / "src" / "sparsejepa")
    return root


def test_every_notebook_is_run_here():
    """A new notebook comes with tiny parameters."""
    assert set(TINY_RUNS) == {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}


@pytest.mark.parametrize(("name", "parameters"), CASES)
def test_a_tiny_run_finishes(name: str, parameters: dict, checkout: Path):
    """It ends with results, manifest and an executed copy that has every output and no error."""
    folder = run_notebook(
        Path("notebooks") / f"{name}.ipynb", "demo", overrides=parameters, root=checkout
    )
    manifest = json.loads((folder / "manifest.json").read_text())
    assert parameters.items() <= manifest["parameters"].items()
    executed = (folder / "executed.ipynb").read_text()
    assert str(checkout) not in executed
    results = json.loads((folder / "results.json").read_text())
    if name == "01_pretrain":
        check_pretraining(folder, results, manifest, parameters)


def check_pretraining(folder: Path, results: dict, manifest: dict, parameters: dict) -> None:
    """What the book's page and the later chapters read."""
    assert len(results["history"]) == parameters["epochs"]
    method = parameters["method"]
    for name in (f"{method}, last block", "untrained encoder, last block", "raw pixels"):
        for probe in ("linear probe", "kNN"):
            cell = results["accuracy"][name][probe]
            low, high = cell["interval"]
            assert 0 <= low <= cell["value"] <= high <= 1
    assert (results["zero_columns"] > 0) == (method == "sparsejepa")
    names = {"images", "masks", "coverage", "curves", "norms", "accuracies"}
    assert {Path(figure["file"]).stem for figure in manifest["figures"]} == names
    assert all((folder / figure["file"]).is_file() for figure in manifest["figures"])
    for file in ("encoder.safetensors", "correct.safetensors"):
        assert (folder / file).is_file()
