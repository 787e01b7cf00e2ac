"""Every notebook runs from first to last cell, with tiny parameters."""

import json
from pathlib import Path

import pytest

from sparsejepa.companion.study import load_study, stale_runs
from tests.notebooks.conftest import STUDY
from tests.repository import ROOT

RUNS = [("01_pretrain", "jepa-seed0"), ("01_pretrain", "sparsejepa-seed0")] + [
    (name, "all") for name in STUDY if name != "01_pretrain"
]


def test_every_notebook_is_run_here():
    """A new notebook comes with tiny parameters; every reference run with a golden copy."""
    notebooks = {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")}
    assert notebooks == set(STUDY)
    golden = {(run.notebook, run.name.partition("-seed")[0]) for run in load_study(ROOT, "golden")}
    reference = load_study(ROOT, "reference")
    assert {(run.notebook, run.name.partition("-seed")[0]) for run in reference} <= golden


@pytest.mark.parametrize(("notebook", "name"), RUNS)
def test_a_run_can_be_published(finished, study: Path, notebook: str, name: str):
    """Figures with one short alternative text, no path of this machine, parameters as asked."""
    run = finished(notebook, name)
    for figure in run.manifest["figures"]:
        assert (run.folder / figure["file"]).is_file()
        assert 10 < len(figure["alt"]) < 400, figure["alt"]
    executed = (run.folder / "executed.ipynb").read_text()
    assert str(study) not in executed and str(Path.home()) + "/" not in executed
    asked = STUDY[notebook].get("parameters", STUDY[notebook])
    changed = {"pixel_control", "method", "strength"}
    assert {k: v for k, v in asked.items() if k not in changed}.items() <= (
        run.manifest["parameters"].items()
    )


def test_nothing_is_stale_after_a_study(study: Path):
    """What was made is what would be made again."""
    assert stale_runs(study, "tiny") == []


@pytest.mark.parametrize("name", ["jepa-seed0", "sparsejepa-seed0"])
def test_pretraining_leaves_what_the_book_reads(finished, study: Path, name: str):
    """Accuracies with intervals and controls, every figure, a training; zeros for SparseJEPA."""
    run = finished("01_pretrain", name)
    method = name.removesuffix("-seed0")
    controls = ["untrained encoder, last block"] + ["raw pixels"] * (method == "jepa")
    for part in (f"{method}, last block", *controls):
        for probe in ("linear probe", "kNN"):
            cell = run.results["accuracy"][part][probe]
            low, high = cell["interval"]
            assert 0 <= low <= cell["value"] <= high <= 1
    assert len(run.results["history"]) == 2
    assert (run.results["zero_columns"] > 0) == (method == "sparsejepa")
    names = {"images", "masks", "coverage", "curves", "norms", "accuracies"}
    assert {Path(figure["file"]).stem for figure in run.manifest["figures"]} == names
    ((place, files),) = run.manifest["trainings"].items()
    assert {"encoder.safetensors", "groups.safetensors", "training.json"} <= files.keys()
    assert (study / "book" / "runs" / place / "encoder.safetensors").is_file()


def test_the_scorecard_pairs_the_runs(finished):
    """Of equal seeds, each difference with its interval, and a sentence a probe and part."""
    results = finished("07_scorecard").results
    for key in ("differences", "differences_last_blocks"):
        (pair,) = results[key]
        assert pair == "sparsejepa-seed0 - jepa-seed0"
        for cell in results[key][pair].values():
            assert cell["interval"][0] <= cell["value"] <= cell["interval"][1]
    assert results["conclusion"].count("for a single seed") == 4


def test_the_screening_changes_one_setting_at_a_time(finished):
    """Two variants, each with its accuracies."""
    variants = finished("appendix_tuning").results["variants"]
    assert list(variants) == ["base", "AdamW instead of Muon"]
    assert all(0 <= row["linear"] <= 1 for row in variants.values())
    assert json.dumps(variants).count("seconds") == 0
