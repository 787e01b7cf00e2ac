"""Makes the stale runs of a study, several at a time, each in a process of its own."""

import os
import subprocess
import sys
import time
from pathlib import Path

from sparsejepa.companion.study import StudyRun


def reproduce(root: Path, runs: list[StudyRun], jobs: int, threads: int) -> None:
    """Runs what is given, needed runs first; what needs a failed run is left out, all else made.

    Args:
        jobs: runs at a time.
        threads: of each run.
    """
    waiting, running = list(runs), {}
    unfinished = {run.id: run.notebook for run in runs}
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL")}
    try:
        while running or any(_ready(run, unfinished) for run in waiting):
            for run in [run for run in waiting if _ready(run, unfinished)][: jobs - len(running)]:
                waiting.remove(run)
                running[run.id] = subprocess.Popen(_command(run), cwd=root, env=environment)
            for name, process in list(running.items()):
                if process.poll() is not None:
                    del running[name]
                    # A failed run stays unfinished, so that what needs it does not start.
                    if process.returncode == 0:
                        del unfinished[name]
            time.sleep(0.2)
    finally:
        for process in running.values():
            process.terminate()


def _ready(run: StudyRun, unfinished: dict[str, str]) -> bool:
    return not set(run.needs) & set(unfinished.values())


def _command(run: StudyRun) -> list[str]:
    notebook = f"notebooks/{run.notebook}.ipynb"
    command = [sys.executable, "-m", "sparsejepa.cli", "run", notebook]
    return [*command, "--preset", run.preset, "--run", run.name]
