"""Runs notebooks with checked parameters, one or a whole study, and keeps what they made."""

import itertools
import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait
from pathlib import Path

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from sparsejepa.atomic_files import locked
from sparsejepa.companion import manifest, parameters, provenance
from sparsejepa.companion.files import label, read_json, write_json
from sparsejepa.companion.manifest import MANIFEST, Facts, RunFailed, seal_run
from sparsejepa.companion.parameters import RUN_FOLDER, StudyRun
from sparsejepa.companion.provenance import notebook_path, runs_root


def run_notebook(
    root: Path, notebook: str | Path, preset: str, run: str = "", overrides: Facts | None = None
) -> Path:
    """Runs a notebook and puts the finished run in its folder, which it returns.

    `overrides` lie over the named run's parameters, the preset's, the notebook's defaults. A named
    run without overrides goes to `<preset>/<notebook>/<run>`, any other to `own/<notebook>/...`,
    both below `book/runs`. An earlier run stays till the new one is whole.

    ValueError: an unknown run or parameter, an ill-typed value, a needed run that is missing or
    stale, a committed preset with uncommitted code; RunFailed: the notebook raised an error, which
    `failed.ipynb` shows; OSError: no such notebook or preset, or something cannot be written.
    """
    source, needs, base = notebook_path(root, notebook), {}, preset
    overrides = parameters.check_parameters(source, overrides or {})
    if run:
        study = parameters.load_study(root, preset)
        runs = {one.name: one for one in study if one.notebook == source.stem}
        if run not in runs:
            known = f"its runs are {', '.join(runs) or 'none'}"
            raise ValueError(f"presets/{preset}.yml has no run {run!r} of {source.stem}; {known}.")
        given, base = runs[run].parameters, f"{preset}-{run}"
        for need in runs[run].needs:
            if reasons := manifest.staleness(root, need.id, need.parameters):
                how = f"`sparsejepa reproduce --preset {preset}`, or certify if only code changed"
                raise ValueError(f"{source.stem} needs {need.id}, but {reasons[0]}: {how}.")
            needs[need.id] = manifest.input_hashes(root, need.id)
    else:
        given = parameters.preset_parameters(root, preset, source.stem)
    folder = parameters.own_folder(source.stem, base, overrides)
    if run and not overrides:
        folder = Path(preset, source.stem, run)
        committed = provenance.git(root, "ls-files", "--", f"book/runs/{preset}")
        if committed and (changed := provenance.uncommitted_code(root)):
            wrong = f"Runs of {preset!r} name their commit, but {changed[0]} is not committed"
            raise ValueError(f"{wrong}: commit it, or give a parameter to make a run of your own.")
    command = parameters.run_command(f"{preset}/{source.stem}/{run}", overrides)
    start = {"preset": folder.parts[0], "run": folder.name, "needs": needs, "command": command}
    attempt, run_folder = runs_root(root) / "attempts" / folder, runs_root(root) / folder
    with locked(attempt / ".lock"):
        print(f"{label(source)} as {folder.as_posix()}", flush=True)
        working, earlier, begun = attempt / "run", attempt / "earlier", time.monotonic()
        if earlier.is_dir() and not run_folder.exists():
            # A crash between the two renames below left the only copy here.
            earlier.rename(run_folder)
        for left in (working, earlier):
            shutil.rmtree(left, ignore_errors=True)
        (attempt / "failed.ipynb").unlink(missing_ok=True)
        working.mkdir(parents=True)
        _execute(root, source, working, run_folder, given | overrides)
        if not (working / MANIFEST).is_file():
            raise RunFailed(f"{label(source)} must call run.finish(...) as its last act.")
        seal_run(working, read_json(working / MANIFEST) | start)
        # The run's folder holds a whole run or none.
        run_folder.parent.mkdir(parents=True, exist_ok=True)
        if run_folder.exists():
            run_folder.rename(earlier)
        working.rename(run_folder)
        shutil.rmtree(earlier, ignore_errors=True)
    minutes = (time.monotonic() - begun) / 60
    print(f"Done in {minutes:.1f} min: results are in {run_folder.relative_to(root)}", flush=True)
    return run_folder


class _ThisPython(AsyncKernelManager):
    """A kernel of this interpreter, whatever kernels are installed, with the checkout's library."""

    start = "import os, sys; sys.path.insert(0, os.path.abspath('src')); "
    start += "from ipykernel.kernelapp import launch_new_instance as launch; launch()"
    # Else it warns at every start that it talks to this machine without encryption.
    quiet = "--IPKernelApp.log_level=ERROR"
    kernel_spec = KernelSpec(
        argv=[sys.executable, "-c", start, "-f", "{connection_file}", quiet],
        # Progress bars are drawn seldom: every frame travels through the notebook.
        env={"TQDM_MININTERVAL": "2"},
    )


def _execute(root: Path, source: Path, working: Path, run_folder: Path, given: Facts) -> None:
    """Executes the notebook into `executed.ipynb`, relaying what it prints."""
    # Slow to import, and reading presets does not need it.
    import papermill
    from nbclient.exceptions import DeadKernelError

    output, failed = working / "executed.ipynb", working.with_name("failed.ipynb")
    place, final = (folder.relative_to(root).as_posix() for folder in (working, run_folder))
    name, counted, error = "/".join(run_folder.parts[-2:]), itertools.count(1), ""
    try:
        papermill.execute_notebook(
            # papermill fills parameters into braces of paths.
            *(str(path).replace("{", "{{").replace("}", "}}") for path in (source, output)),
            {**given, RUN_FOLDER: place},
            kernel_name="python3",
            language="python",
            cwd=root,
            progress_bar=False,
            stdout_file=sys.stdout,
            stderr_file=sys.stderr,
            # One stream a cell, and of a progress bar its last frame.
            coalesce_streams=True,
            kernel_manager_class=_ThisPython,
            on_cell_execute=lambda **_: print(f"{name}: cell {next(counted)}", file=sys.stderr),
        )
    except papermill.PapermillExecutionError as failure:
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", failure.evalue).split())
        error = f"in cell {failure.exec_count}: {failure.ename}: {text}".rstrip(": ")
    except DeadKernelError:
        error = f"in cell {next(counted) - 1}: the kernel died, perhaps for want of memory"
    finally:
        if output.is_file():
            # After a failure too, and when the reader presses Ctrl-C.
            content = provenance.remove_local_paths(read_json(output), root, {place: final})
            for part in (content, *content["cells"]):
                for key in ("papermill", "execution"):  # paths and times of cells
                    part["metadata"].pop(key, None)
            write_json(output, content)
    if error:
        os.replace(output, failed)
        kept = f"see {failed.relative_to(root)}; the same command goes on from the last checkpoint"
        raise RunFailed(f"{label(source)} failed {error} ({kept}).")


def reproduce(root: Path, runs: list[StudyRun], jobs: int, threads: int) -> None:
    """Makes what is given, needed runs first, each in a process of `threads`, `jobs` at a time.

    What needs a failed run is left out, all else is made.
    """
    environment = os.environ | {f"{name}_NUM_THREADS": str(threads) for name in ("OMP", "MKL")}
    made: dict[str, Future] = {}

    def make(run: StudyRun) -> bool:
        # Needed runs were begun before: none of them waits for this one.
        needed = [made[need.id].result() for need in run.needs if need.id in made]
        return all(needed) and not subprocess.call(run.command, cwd=root, env=environment)

    pool = ThreadPoolExecutor(jobs)
    try:
        # What needs nothing comes first: there is always something to do.
        for run in sorted(runs, key=lambda run: len(run.needs) > 0):
            made[run.id] = pool.submit(make, run)
        wait(made.values())
    finally:
        # Ctrl-C reaches the processes that run too.
        pool.shutdown(cancel_futures=True)
