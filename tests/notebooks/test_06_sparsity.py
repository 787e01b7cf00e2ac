"""The sparsity study runs with every method, at its smallest."""

import json
import shutil
from pathlib import Path

import pytest
from sparsejepa.model.methods import METHODS

from sparsejepa.chapters.sparsity import PROBES
from sparsejepa.companion.runs import run_notebook
from tests.repository import ROOT

TINY = {
    "seed": 5,
    "seeds": 2,
    "train_images": 256,
    "test_images": 100,
    "scenes_train": 400,
    "scenes_test": 100,
    "width": 16,
    "strengths": "0.003, 0",
    "strengths_r2": "0.01",
    "raw_epochs": 1,
    "bars_steps": 100,
    "probe_steps": 20,
}
SEEDS = ["5", "6"]
# Which groupings each difference is of.
DIFFERENCES = {
    "penalty": ("contiguous", "no penalty"),
    "sparsejepa": ("contiguous", "JEPA"),
    "contiguous groups": ("contiguous", "random"),
    "head groups": ("heads", "random"),
}

# Some thirty short trainings.
pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The run's folder, in a copy of what it needs."""
    root = tmp_path_factory.mktemp("checkout")
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "src" / "sparsejepa", root / "src" / "sparsejepa")
    return run_notebook(Path("notebooks/06_sparsity.ipynb"), "demo", overrides=TINY, root=root)


@pytest.fixture(scope="module")
def results(run: Path) -> dict:
    return json.loads((run / "results.json").read_text())


def accuracy(cell: dict, probe: str) -> float:
    return cell["accuracy"][probe]["value"]


def test_the_study_keeps_its_figures_and_parameters(run: Path):
    """It leaves a manifest and every figure that it names."""
    manifest = json.loads((run / "manifest.json").read_text())
    assert TINY.items() <= manifest["parameters"].items()
    names = {Path(figure["file"]).stem for figure in manifest["figures"]}
    assert names == {"methods", "path-r1", "path-r2", "groupings", "loophole", "bars"}
    assert all((run / figure["file"]).is_file() for figure in manifest["figures"])


def test_every_method_and_control_is_measured(results: dict):
    """Those of the library's table, no more and no fewer, each by all probes."""
    assert list(results["methods"]) == list(METHODS)
    assert set(results["controls"]) == {"untrained encoder", "raw pixels", "majority class"}
    for cell in (results["methods"] | results["controls"]).values():
        assert set(cell["accuracy"]) == set(PROBES)
        for found in cell["accuracy"].values():
            low, high = found["interval"]
            assert 0 <= low <= found["value"] <= high <= 1
    assert all(cell["steps"] > 0 for cell in results["methods"].values())
    assert not any(cell["steps"] for cell in results["controls"].values())


def test_the_paths_have_the_strengths_asked_for(results: dict):
    """In order, each path its own, from its control λ = 0 on."""
    strengths = {
        name: [cell["strength"] for cell in path] for name, path in results["paths"].items()
    }
    assert strengths == {"R1": [0.0, 0.003], "R2": [0.0, 0.01]}


def test_every_grouping_has_every_seed(results: dict):
    """Since they are compared seed by seed."""
    seeds = {name: list(cells) for name, cells in results["groupings"].items()}
    assert seeds == dict.fromkeys(("JEPA", "no penalty", "contiguous", "heads", "random"), SEEDS)


def test_differences_are_those_of_the_accuracies(results: dict):
    """Of the first seed, as long as there are fewer than three."""
    assert set(results["differences"]) == set(DIFFERENCES)
    for name, (first, second) in DIFFERENCES.items():
        ours, base = (results["groupings"][grouping][SEEDS[0]] for grouping in (first, second))
        assert set(results["differences"][name]) == set(PROBES)
        for probe, found in results["differences"][name].items():
            expected = accuracy(ours, probe) - accuracy(base, probe)
            assert found["value"] == pytest.approx(expected, abs=1e-9)
            assert found["seeds"] == 1


def test_every_question_has_an_answer(results: dict):
    """One sentence or more, none of them empty."""
    assert len(results["conclusion"]) >= len(DIFFERENCES)
    for question, answers in results["conclusion"].items():
        assert question.strip() and answers
        assert all(answer.strip() for answer in answers)
