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
# In this order: the scorecard reads the pretraining runs.
TINY_RUNS = [
    ("01_pretrain", TINY_PRETRAIN | {"method": "jepa"}),
    (
        "01_pretrain",
        TINY_PRETRAIN | {"method": "sparsejepa", "strength": 0.005, "sparse_average": 2},
    ),
    ("07_scorecard", {"preset": "own"}),
    ("appendix_tuning", TINY | {"epochs": 1, "variants": 2}),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Run folders, made in a copy of what a run needs: none is written into this checkout."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "src" / "sparsejepa", root / "src" / "sparsejepa")
    return [
        run_notebook(Path(f"notebooks/{name}.ipynb"), "demo", overrides=parameters, root=root)
        for name, parameters in TINY_RUNS
    ]


def test_every_notebook_is_run_here():
    """A new notebook comes with tiny parameters, here or in a file of its own."""
    own = {path.stem.removeprefix("test_") for path in Path(__file__).parent.glob("test_*.py")}
    run = {name for name, _ in TINY_RUNS} | own
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} <= run


def test_every_run_keeps_its_parameters_and_no_local_path(runs: list[Path]):
    """The manifest has what was asked for; the executed copy says nothing of this machine."""
    for folder, (_, parameters) in zip(runs, TINY_RUNS, strict=True):
        manifest = json.loads((folder / "manifest.json").read_text())
        assert parameters.items() <= manifest["parameters"].items()
        assert str(folder.parents[4]) not in (folder / "executed.ipynb").read_text()


@pytest.mark.parametrize("index", [0, 1])
def test_pretraining_leaves_what_the_book_reads(runs: list[Path], index: int):
    """Accuracies with intervals and controls, every figure, weights; zeros for SparseJEPA only."""
    folder, (_, parameters) = runs[index], TINY_RUNS[index]
    manifest = json.loads((folder / "manifest.json").read_text())
    results = json.loads((folder / "results.json").read_text())
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
    for file in ("encoder.safetensors", "correct.safetensors", "groups.safetensors"):
        assert (folder / file).is_file()


def test_the_scorecard_pairs_runs_of_one_seed(runs: list[Path]):
    """Both runs are in the table, and their difference is that of their accuracies."""
    results = json.loads((runs[2] / "results.json").read_text())
    (difference,) = results["differences"].values()
    accuracy = [
        json.loads((folder / "results.json").read_text())["accuracy"][f"{method}, last block"]
        for folder, method in ((runs[0], "jepa"), (runs[1], "sparsejepa"))
    ]
    for probe, cell in difference.items():
        expected = accuracy[1][probe]["value"] - accuracy[0][probe]["value"]
        assert cell["value"] == pytest.approx(expected)
        assert cell["interval"][0] <= cell["value"] <= cell["interval"][1]
