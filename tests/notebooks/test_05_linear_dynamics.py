"""The chapter on linear dynamics runs in full; only its nonlinear part is tiny here."""

import json
import shutil
from pathlib import Path

import pytest

from sparsejepa.companion.runs import run_notebook
from tests.repository import ROOT

TINY = {
    "train_images": 64,
    "probe_images": 32,
    "steps": 8,
    "batch_size": 16,
    "width": 16,
    "depth": 1,
    "seeds": 2,
}
FIGURES = {
    "curves",
    "depths",
    "critical_times",
    "times_over_depth",
    "inversion",
    "step_size",
    "starts",
    "coupled",
    "planted",
    "nonlinear",
}

# Parts 1 to 4 have no smaller size.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run, made in a copy of what it needs."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "src" / "sparsejepa", root / "src" / "sparsejepa")
    return run_notebook(
        Path("notebooks/05_linear_dynamics.ipynb"), "demo", overrides=TINY, root=root
    )


def test_every_figure_is_kept_with_its_words(folder: Path):
    """Parameters, figures, and an alternative text for each."""
    manifest = json.loads((folder / "manifest.json").read_text())
    assert TINY.items() <= manifest["parameters"].items()
    assert {Path(figure["file"]).stem for figure in manifest["figures"]} == FIGURES
    assert all((folder / figure["file"]).is_file() for figure in manifest["figures"])
    assert str(folder.parents[4]) not in (folder / "executed.ipynb").read_text()


def test_the_theory_holds_in_the_matrices(folder: Path):
    """Times within 2 %, ends within 0.1 %, first order in the step size, order as in the table."""
    results = json.loads((folder / "results.json").read_text())
    assert results["largest_error_of_a_time"] < 0.02
    assert results["largest_error_of_a_fixed_point"] < 1e-3
    for slopes in results["first_order"].values():
        assert slopes == pytest.approx({"jepa": 1, "mae": 1}, abs=0.05)
    found = [(round(row["JEPA"], 2), round(row["MAE"], 2)) for row in results["order"]]
    expected = [(0.64, 0.63), (1.06, 0.78), (1.35, 0.81), (1.77, 0.83)]
    assert found == [*expected, (1.03, 0.83), (0.84, 0.83), (2.94, 0.83)]
    assert 1 < results["largest_lead"]["jepa"]["1"] < results["one_layer_bound"]


def test_the_nonlinear_part_has_all_its_measures(folder: Path):
    """Three measures of two features for two objectives, a row a seed, step 0 the same for both."""
    nonlinear = json.loads((folder / "results.json").read_text())["nonlinear"]
    assert nonlinear["checkpoints"][0] == 0
    assert nonlinear["checkpoints"][-1] == TINY["steps"]
    for measure in ("decoded", "leading", "share"):
        for feature in ("signal", "nuisance"):
            jepa, mae = (nonlinear["measures"][measure][feature][o] for o in ("jepa", "mae"))
            assert len(jepa) == TINY["seeds"]
            assert [row[0] for row in jepa] == [row[0] for row in mae]
    low, high = nonlinear["factor"]["difference"]["interval"]
    assert low <= nonlinear["factor"]["difference"]["value"] <= high
