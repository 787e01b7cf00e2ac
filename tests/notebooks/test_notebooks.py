"""Every notebook runs from first to last cell, with tiny parameters."""

import json
import re
from pathlib import Path

import pandas as pd
import pytest

from sparsejepa.companion.manifest import stale_runs
from sparsejepa.companion.parameters import load_study
from sparsejepa.intervals import Interval
from tests.notebooks.conftest import STUDY
from tests.repository import ROOT, notebook_sources

TRAINED = [*STUDY["01_pretrain"]["runs"]]
RUNS = [("01_pretrain", name) for name in TRAINED]
RUNS += [(name, "all") for name in STUDY if name != "01_pretrain"]


def test_every_notebook_is_run_here():
    """A new notebook comes with tiny parameters; every reference run with a golden copy."""
    assert {path.stem for path in (ROOT / "notebooks").glob("*.ipynb")} == set(STUDY)
    reference, golden = (
        {(run.notebook, run.name.partition("-seed")[0]) for run in load_study(ROOT, preset)}
        for preset in ("reference", "golden")
    )
    assert reference <= golden


@pytest.mark.parametrize(("notebook", "name"), RUNS)
def test_a_run_can_be_published(finished, study: Path, notebook: str, name: str):
    """Every figure with one short alternative text, no machine's path, parameters as asked."""
    run = finished(notebook, name)
    source = "\n".join(notebook_sources()[f"{notebook}.ipynb"])
    saved = set(re.findall(r'(?:save_figure|show)\([^)"]*"([\w-]+)", "', source))
    assert {Path(figure["file"]).stem for figure in run.manifest["figures"]} == saved
    for figure in run.manifest["figures"]:
        assert (run.folder / figure["file"]).is_file()
        assert 10 < len(figure["alt"]) < 400, figure["alt"]
    executed = (run.folder / "executed.ipynb").read_text()
    assert str(study) not in executed and str(Path.home()) + "/" not in executed
    asked = STUDY[notebook].get("parameters", STUDY[notebook])
    own = STUDY["01_pretrain"]["runs"].get(name, {})
    assert (asked | own).items() <= run.manifest["parameters"].items()


def test_nothing_is_stale_after_a_study(study: Path):
    """What was made is what would be made again."""
    assert stale_runs(study, "tiny") == []


@pytest.mark.parametrize("name", TRAINED)
def test_pretraining_leaves_what_the_book_reads(finished, study: Path, name: str):
    """Accuracies with intervals and controls, a training; zeros where there is a penalty."""
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
    ((place, files),) = run.manifest["trainings"].items()
    assert {"encoder.safetensors", "groups.safetensors", "training.json"} <= files.keys()
    assert (study / "book" / "runs" / place / "encoder.safetensors").is_file()


def test_the_scorecard_pairs_the_runs(finished):
    """Of equal seeds, each difference with its interval, and a sentence a probe and part."""
    results, off = finished("07_scorecard").results, "sparsejepa-off"
    for key in ("differences", "differences_last_blocks"):
        found = [pair.replace("-seed0", "").split(" - ") for pair in results[key]]
        assert found == [["sparsejepa", "jepa"], ["sparsejepa", off], [off, "jepa"]]
        for cell in (cell for pair in results[key].values() for cell in pair.values()):
            assert cell["interval"][0] <= cell["value"] <= cell["interval"][1]
    said = [results["conclusion"].count(t) for t in ("over test images, 1 seed.", "So few")]
    assert said == [12, 1]


def test_the_screening_changes_one_setting_at_a_time(finished):
    """Two variants and another length, each with its accuracies; one probe that learns along."""
    variants, online = map(finished("appendix_tuning").results.get, ("variants", "online"))
    assert [*variants] == ["base", "AdamW instead of Muon", "2 epochs, EMA 0.99, seed 1"]
    assert all(0 <= row["linear"] <= 1 for row in variants.values()) and len(online) == 3
    assert json.dumps(variants).count("seconds") == 0


def test_the_scorecard_reads_encoders_of_one_block():
    """They have a last block, and no last blocks taken together."""
    row, found = {"value": 0.5, "interval": [0.4, 0.6]}, {"method": "jepa", "steps": 1}
    probes = {"linear probe": row, "kNN": row}
    accuracy = {"jepa, last block": probes, "untrained encoder, last block": probes}
    names = {"results": {"a": found | {"accuracy": accuracy, "zero_columns": 0.0}}}
    names |= {"manifests": {"a": {"seed": 0}}, "times": {"a": {"training_seconds": 60}}}
    names |= {"Interval": Interval, "pd": pd, "re": re}
    (table,) = (c for c in notebook_sources()["07_scorecard.ipynb"] if "together = " in c)
    exec(table, names)
    assert names["together"] == "last block" and list(names["table"])[0] == "a"
