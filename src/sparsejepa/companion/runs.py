"""Runs a notebook with checked parameters and keeps what it made."""

import itertools
import os
import re
import shlex
import shutil
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager

from sparsejepa.atomic_files import locked
from sparsejepa.companion import parameters, provenance
from sparsejepa.companion.files import label, read_json, write_json
from sparsejepa.companion.manifest import MANIFEST, START, RunFailed, seal_run
from sparsejepa.companion.parameters import RUN_FOLDER, Value, check_parameters
from sparsejepa.companion.provenance import notebook_path, repository_root, runs_root
from sparsejepa.companion.study import finished_needs, load_study


def run_notebook(
    notebook: Path,
    preset: str,
    run: str | None = None,
    overrides: Mapping[str, Any] | None = None,
    root: Path | None = None,
) -> Path:
    """Runs a notebook and puts the finished run in its folder; an earlier run stays till then.

    The parameters are the notebook's defaults, under the preset's, under the named run's, under
    `overrides`. A named run without overrides goes to `<preset>/<notebook>/<run>`, any other to
    `own/<notebook>/...`, both below `book/runs`.

    Returns: the run's folder.

    Raises:
        FileNotFoundError: no such notebook or preset.
        ValueError: an unknown run or parameter, an ill-typed value, a needed run that is missing
            or stale, a committed preset with uncommitted code.
        RunFailed: the notebook raised an error; `failed.ipynb` shows it.
        OSError: something cannot be written.
    """
    root = root or repository_root()
    source = find_notebook(root, notebook)
    overrides = check_parameters(source, overrides or {})
    options, needs = [f"--preset {preset}"], {}
    if run is None:
        given = parameters.preset_parameters(root, preset, source.stem)
        folder = parameters.own_folder(source.stem, preset, overrides)
    else:
        study = load_study(root, preset)
        runs = {one.name: one for one in study if one.notebook == source.stem}
        if run not in runs:
            raise ValueError(
                f"presets/{preset}.yml has no run {run!r} of {source.stem}; its runs are "
                f"{', '.join(runs) or 'none'}."
            )
        given, needs = runs[run].parameters, finished_needs(root, study, runs[run])
        own = parameters.own_folder(source.stem, f"{preset}-{run}", overrides)
        folder = own if overrides else Path(runs[run].id)
        options.append(f"--run {shlex.quote(run)}")
    committed = provenance.git(root, "ls-files", "--", f"book/runs/{preset}")
    if committed and folder.parts[0] == preset and (changed := provenance.uncommitted_code(root)):
        raise ValueError(
            f"Runs of preset {preset!r} are committed and name their commit, but {changed[0]} is "
            "not committed: commit src/ and notebooks/ first, or give a parameter to make a run "
            "of your own."
        )
    command = parameters.run_command(source, options, overrides)
    start = {"preset": folder.parts[0], "run": folder.name, "needs": needs, "command": command}
    attempt, run_folder = runs_root(root) / "attempts" / folder, runs_root(root) / folder
    with locked(attempt / ".lock"):
        print(f"{label(source)} as {folder.as_posix()}", flush=True)
        # What an earlier attempt left; trainings lie elsewhere and stay.
        working, earlier = attempt / "run", attempt / "earlier"
        if earlier.is_dir() and not run_folder.exists():
            # A crash between the two renames below left the only copy here.
            earlier.rename(run_folder)
        for left in (working, earlier):
            shutil.rmtree(left, ignore_errors=True)
        (attempt / "failed.ipynb").unlink(missing_ok=True)
        write_json(working / START, start)
        begun = time.monotonic()
        _execute(source, working, run_folder, root, given | overrides)
        if not (working / MANIFEST).is_file():
            said = "ended without run.finish(...): it must be its last act."
            raise RunFailed(f"{label(source)} {said}")
        seal_run(working, read_json(working / MANIFEST))
        (working / START).unlink()
        # The run's folder holds a whole run or none.
        run_folder.parent.mkdir(parents=True, exist_ok=True)
        if run_folder.exists():
            run_folder.rename(earlier)
        working.rename(run_folder)
        shutil.rmtree(earlier, ignore_errors=True)
    minutes = (time.monotonic() - begun) / 60
    print(f"Done in {minutes:.1f} min: results are in {run_folder.relative_to(root)}", flush=True)
    return run_folder


def find_notebook(root: Path, notebook: Path) -> Path:
    """The notebook by its path from here or from the checkout, else by its bare name."""
    named = notebook_path(root, notebook.name.removesuffix(".ipynb"))
    return next((n.resolve() for n in (notebook, root / notebook) if n.is_file()), named)


class _ThisPython(AsyncKernelManager):
    """A kernel of this interpreter, with the library of the checkout that it starts in.

    Whatever kernels are installed on this machine, the run and its manifest speak of one Python.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        start = "import os, sys; sys.path.insert(0, os.path.abspath('src')); "
        start += "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
        # Else it warns at every start that it talks to this machine without encryption.
        quiet = "--IPKernelApp.log_level=ERROR"
        return KernelSpec(
            argv=[sys.executable, "-c", start, "-f", "{connection_file}", quiet],
            # Progress bars are drawn seldom: every frame travels through the notebook.
            env={"TQDM_MININTERVAL": "2"},
        )


def _execute(
    source: Path, working: Path, run_folder: Path, root: Path, given: Mapping[str, Value]
) -> None:
    """Executes the notebook into `executed.ipynb`, relaying what it prints."""
    # papermill is slow to import, and reading presets does not need it.
    import papermill
    from nbclient.exceptions import DeadKernelError

    output, failed = working / "executed.ipynb", working.with_name("failed.ipynb")
    place, final = (folder.relative_to(root).as_posix() for folder in (working, run_folder))
    # Two runs may share a terminal.
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
            kernel_manager_class=_ThisPython,
            # One stream a cell, and of a progress bar its last frame.
            coalesce_streams=True,
            on_cell_execute=lambda **_: print(
                f"{name}: cell {next(counted)}", file=sys.stderr, flush=True
            ),
        )
    except papermill.PapermillExecutionError as failure:
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", failure.evalue).split())
        error = f"in cell {failure.exec_count}: {failure.ename}: {text}".rstrip(": ")
    except DeadKernelError:
        error = f"in cell {next(counted) - 1}: the kernel died, perhaps for want of memory"
    finally:
        if output.is_file():
            # After a failure too, and when the reader presses Ctrl-C.
            _clean(output, source, root, {place: final})
    if error:
        os.replace(output, failed)
        raise RunFailed(
            f"{label(source)} failed {error} (see {failed.relative_to(root)}; an earlier "
            "run is as it was, and the same command goes on from the last checkpoint)."
        )


def _clean(path: Path, source: Path, root: Path, also: Mapping[str, str]) -> None:
    """Takes paths of this machine and times of cells out of an executed notebook."""
    notebook = provenance.remove_local_paths(read_json(path), root, also)
    said = notebook["metadata"]["papermill"]
    notebook["metadata"]["papermill"] = {
        "parameters": said.get("parameters"),
        "version": said.get("version"),
        "input_path": label(source),
        "output_path": path.name,
    }
    for cell in notebook["cells"]:
        for key in ("papermill", "execution"):
            cell["metadata"].pop(key, None)
    write_json(path, notebook)
