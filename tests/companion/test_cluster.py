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

from sparsejepa.companion.certify import verify
from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import stale_runs
from sparsejepa.companion.parameters import load_study
from sparsejepa.companion.provenance import runs_root
from tests.notebooks.conftest import checkout
from tests.repository import ROOT

READ = ("01_pretrain", "02_probes", "03_multiinformation", "07_scorecard")
SUBMIT = """#!/bin/sh
# What sbatch or qsub would do: the job goes on after this has returned its number.
echo "$1" >> "$CLUSTER_LOG"
nohup sh "$1" > "$1.out" 2>&1 &
echo $!
"""


@pytest.mark.slow
@pytest.mark.skipif(
    not importlib.util.find_spec("snakemake_executor_plugin_cluster_generic"),
    reason="needs snakemake-executor-plugin-cluster-generic",
)
def test_a_study_on_a_cluster_is_made_and_verified(tmp_path: Path):
    """Every run is a job of its own, in the order of needs; its numbers can be computed again."""
    root, submit, log = tmp_path / "checkout", tmp_path / "submit", tmp_path / "submitted"
    checkout(root, READ)
    shutil.copy(ROOT / "Snakefile", root)
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
    assert len(log.read_text().splitlines()) == len(study) == 5
    times = {run.notebook: read_json(runs_root(root) / run.id / "timing.json") for run in study}
    begun = {notebook: time["started_utc"] for notebook, time in times.items()}
    assert min(begun, key=begun.get) == "01_pretrain"
    found = list(verify(root, "tiny", 30.0))
    assert [one for one in found if one.state != "agrees"] == []
    assert {one.run.split("/")[1] for one in found} == set(READ)
