# A study on a cluster: the runs of a preset that are missing or stale, in the order in which they
# need each other. From the root of the checkout:
#
#     snakemake --config preset=paper --executor slurm --jobs 4
#
# On one machine `sparsejepa reproduce --preset P` does the same. What is stale is decided by content
# (sparsejepa.companion.manifest), not by the times of files, which mean nothing after a git clone. The
# files that Snakemake watches are marks of the runs made in this call; the runs themselves are put
# in place by `sparsejepa run`, whole or not at all.

import shutil
import sys
from pathlib import Path

from sparsejepa.companion.manifest import stale_runs

PRESET = config.get("preset", "demo")
# Relative: braces in the path of the checkout would be wildcards.
MARKS = Path("book", "runs", "attempts", "marks")
STALE = [run for run, _ in stale_runs(Path.cwd(), PRESET)]

if workflow.is_main_process:
    shutil.rmtree(MARKS / PRESET, ignore_errors=True)


def mark(run):
    return str(MARKS / run.id)


def marks_of_needs(wildcards):
    run = next(r for r in STALE if r.id == f"{PRESET}/{wildcards.notebook}/{wildcards.run}")
    return [mark(need) for need in run.needs if need in STALE]


rule all:
    input:
        [mark(run) for run in STALE],


rule run_notebook:
    input:
        marks_of_needs,
    output:
        touch(str(MARKS / PRESET / "{notebook}" / "{run}")),
    threads: int(config.get("threads") or workflow.resource_settings.cores or 1)
    params:
        python=sys.executable,
        preset=PRESET,
    shell:
        "OMP_NUM_THREADS={threads} MKL_NUM_THREADS={threads}"
        " {params.python:q} -m sparsejepa.cli run"
        " notebooks/{wildcards.notebook}.ipynb --preset {params.preset:q} --run {wildcards.run:q}"
