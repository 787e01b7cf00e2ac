"""The multiinformation notebook runs on tiny encoders, and its numbers are what they claim."""

import json
import math
import shutil
from pathlib import Path

import pytest

from sparsejepa.companion.runs import run_notebook
from sparsejepa.information.gaussian import excess
from tests.repository import ROOT

PRETRAIN = {
    "dataset": "scenes",
    "train_images": 400,
    "test_images": 200,
    "epochs": 1,
    "batch_size": 50,
    "width": 24,
    "depth": 1,
    "heads": 2,
    "predictor_width": 16,
    "predictor_depth": 1,
    "groups": 4,
}
TINY = {
    "preset": "own",
    "images": 400,
    "partitions": 20,
    "null_draws": 2,
    "subsets": 2,
    "calibration_draws": 1,
    "calibration_width": 5,
    "calibration_rows": 300,
}


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder, in a copy of what it needs."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "src" / "sparsejepa", root / "src" / "sparsejepa")
    for parameters in ({"method": "jepa"}, {"method": "sparsejepa", "strength": 0.005}):
        pretrain = PRETRAIN | parameters
        run_notebook(Path("notebooks/01_pretrain.ipynb"), "demo", overrides=pretrain, root=root)
    notebook = Path("notebooks/03_multiinformation.ipynb")
    return run_notebook(notebook, "demo", overrides=TINY, root=root)


@pytest.fixture(scope="module")
def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


@pytest.mark.slow
def test_every_figure_is_kept(run: Path):
    """With its alternative text in the manifest."""
    figures = json.loads((run / "manifest.json").read_text())["figures"]
    names = {"calibration", "totals", "beside", "partitions"}
    assert {Path(figure["file"]).stem for figure in figures} == names
    assert all((run / figure["file"]).is_file() and figure["alt"] for figure in figures)


@pytest.mark.slow
def test_the_statements_hold(results: dict):
    """Every check that its estimator can pass holds; those of S8 that it cannot do not."""
    checks = results["statements"]
    assert {line["statement"] for line in checks} == {"S1", "S2", "S4", "S8"}
    blind = [line for line in checks if line["statement"] == "S8" and "ksg" not in line["what"]]
    assert len(blind) == 4 and not any(line["holds"] for line in blind)
    held = [line["holds"] for line in checks if line not in blind]
    # 95 % intervals: of these, one may miss.
    assert sum(held) >= len(held) - 1
    assert results["identity"]["largest_remainder"] < 1e-10
    assert results["shrinkage_changes"] == 0
    assert results["after_zeros"] < results["before_zeros"]


@pytest.mark.slow
def test_whitening_and_noise_have_none(results: dict):
    """The probe reads whitened features as it reads features; of noise it reads nothing.

    The sample itself is whitened, so what is left of the estimate is its correction for bias.
    """
    features, whitened, noise = (results["quality"][k] for k in ("features", "whitened", "noise"))
    key = "total correlation, gaussian"
    bias = 23 * excess(400, 1) - excess(400, 23)
    assert whitened[key] == pytest.approx(-bias, abs=1e-3)
    assert features[key] > 10 * bias and abs(noise[key]) < 1.0
    assert whitened["linear probe, %"] == pytest.approx(features["linear probe, %"], abs=5)


@pytest.mark.slow
def test_jitter_is_what_a_jittered_estimate_reports(results: dict):
    """Of exactly dependent latents, half the logarithm of the jitter is most of the answer."""
    jitter = results["jitter"]
    for small, large in (("1e-10", "1e-6"), ("1e-6", "1e-3")):
        apart = 0.5 * math.log(float(large) / float(small))
        assert jitter[small] - jitter[large] > 0.9 * apart
    assert jitter["left out"] == results["quality"]["features"]["total correlation, gaussian"]
    assert results["held"]["S8"] == "2 of 6"


@pytest.mark.slow
def test_encoders_stand_beside_their_controls(results: dict):
    """Two methods, each before and after training, on the same images and latents."""
    encoders = results["encoders"]["scenes"]
    assert len(encoders) == 4
    for cell in encoders.values():
        assert (cell["n"], cell["d"], len(cell["dropped"])) == (400, 23, 1)
        assert cell["total"]["interval"][0] < cell["total"]["value"] < cell["total"]["interval"][1]
        assert abs(cell["null"]["mean"]) < 0.05 * cell["total"]["value"]
        assert 0 <= cell["accuracy"] <= 1 and 0 <= cell["partition"]["rank"] <= 1
    assert sum(cell["method"] == "untrained encoder" for cell in encoders.values()) == 2
    questions = {line["question"]: line for line in results["conclusion"]}
    assert questions.keys() >= {"total", "grouping"}
    low, high = questions["total"]["interval"]
    assert questions["total"]["clear"] == (low > 0 or high < 0)
