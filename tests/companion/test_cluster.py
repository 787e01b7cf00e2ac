"""The same Snakefile on a cluster: a study submitted job by job, then verified.

The cluster is this machine: its submit command starts each job in the background and returns.
"""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.manifest import sealed
from sparsejepa.companion.provenance import runs_root
from sparsejepa.companion.study import load_study, stale_runs
from sparsejepa.companion.verify import verify
from tests.repository import ROOT

# The demo study and the chapters that read its encoders, as small as they go.
PRESET = {
    "01_pretrain": {
        "parameters": {
            "dataset": "scenes",
            "train_images": 300,
            "test_images": 150,
            "epochs": 1,
            "batch_size": 50,
            "width": 16,
            "depth": 2,
            "heads": 2,
            "predictor_width": 16,
            "predictor_depth": 1,
            "groups": 4,
            "pixel_control": False,
        },
        "runs": {"jepa-seed0": {}, "sparsejepa-seed0": {"method": "sparsejepa"}},
    },
    "02_probes": {
        "parameters": {
            "dataset": "scenes",
            "train_images": 300,
            "test_images": 150,
            "probe_steps": 15,
            "pixel_size": 8,
            "structure_images": 60,
            "view_images": 12,
            "views": 3,
            "clevr": "",
        },
    },
    "03_multiinformation": {
        "parameters": {
            "images": 300,
            "partitions": 5,
            "null_draws": 2,
            "subsets": 2,
            "calibration_draws": 1,
            "calibration_width": 5,
            "calibration_rows": 300,
        },
    },
    "04_jepa_score": {
        "parameters": {
            "dataset": "scenes",
            "data_images": 14,
            "images_per_set": 4,
            "fit_images": 300,
            "per_class": 4,
            "curation_images": 0,
            "probe_label": "distance",
            "toy_seeds": 2,
            "toy_steps": 10,
            "toy_embeddings": "2,3",
            "toy_points": 30,
        },
    },
    "07_scorecard": {"parameters": {}},
}
SUBMIT = """#!/bin/sh
# What sbatch or qsub would do: the job goes on after this has returned its number.
echo "$1" >> "$CLUSTER_LOG"
nohup sh "$1" > "$1.out" 2>&1 &
echo $!
"""


def small_study(root: Path) -> None:
    """A checkout with the preset `tiny`, whose other notebooks need the pretraining runs."""
    shutil.copytree(ROOT / "notebooks", root / "notebooks")
    shutil.copytree(ROOT / "src" / "sparsejepa", root / "src" / "sparsejepa")
    shutil.copy(ROOT / "Snakefile", root)
    for notebook, section in PRESET.items():
        if notebook != "01_pretrain":
            section = {"needs": ["01_pretrain"], "runs": {"all": {"preset": "tiny"}}, **section}
        PRESET[notebook] = section
    (root / "notebooks" / "presets" / "tiny.yml").write_text(yaml.safe_dump(PRESET))


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("snakemake_executor_plugin_cluster_generic"),
    reason="needs snakemake-executor-plugin-cluster-generic",
)
def test_a_study_on_a_cluster_is_made_and_verified(tmp_path: Path):
    """Every run is a job of its own, in the order of needs; its numbers can be computed again."""
    root, submit, log = tmp_path / "checkout", tmp_path / "submit", tmp_path / "submitted"
    small_study(root)
    submit.write_text(SUBMIT)
    submit.chmod(0o755)
    environment = {"PYTHONPATH": str(root / "src"), "CLUSTER_LOG": str(log)}
    command = [sys.executable, "-m", "snakemake", "--config", "preset=tiny", "threads=1"]
    command += ["--executor", "cluster-generic", "--cluster-generic-submit-cmd", str(submit)]
    command += ["--jobs", "2", "--latency-wait", "30", "--seconds-between-status-checks", "1"]
    done = subprocess.run(
        command, cwd=root, env=os.environ | environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-3000:]
    study = load_study(root, "tiny")
    assert stale_runs(root, "tiny") == []
    assert len(log.read_text().splitlines()) == len(study) == 6
    begun = {
        run.notebook: read_json(runs_root(root) / run.folder / "timing.json")["started_utc"]
        for run in study
    }
    first = begun.pop("01_pretrain")
    assert all(other > first for other in begun.values())
    found = list(verify(root, "tiny", 30.0))
    assert [one.line() for one in found if one.state != "agrees"] == []
    assert {one.run.split("/")[1] for one in found} == set(PRESET)
    # Edited and sealed anew, so that computing alone can tell.
    folder = runs_root(root) / "tiny" / "02_probes" / "all"
    results = read_json(folder / "results.json")
    results["structure"]["jepa-seed0"]["rankme"] += 0.1
    write_json(folder / "results.json", results)
    write_json(folder / "manifest.json", sealed(folder, read_json(folder / "manifest.json")))
    (wrong,) = [one for one in verify(root, "tiny", 30.0) if one.state == "differs"]
    assert wrong.run == "tiny/02_probes/all"
    assert "structure > jepa-seed0 > rankme" in wrong.details[0]
