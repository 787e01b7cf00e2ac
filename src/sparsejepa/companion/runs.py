"""Runs a notebook with checked parameters and keeps what it made."""

import contextlib
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from sparsejepa.atomic_files import locked, write_with
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.local_paths import clean_notebook
from sparsejepa.companion.manifest import KEPT, MANIFEST, RunFailed, sealed
from sparsejepa.companion.parameters import (
    RUN_FOLDER,
    Value,
    check_parameters,
    effective_parameters,
    notebook_label,
    notebook_parameters,
    run_command,
)
from sparsejepa.companion.presets import own_folder, preset_parameters
from sparsejepa.companion.provenance import git, repository_root, runs_root, uncommitted_code
from sparsejepa.companion.study import (
    StudyRun,
    find_run,
    finished_needs,
    load_study,
)


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

    Args:
        root: the checkout; found by `repository_root` if not given.

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
    given, named = preset_parameters(root, preset, source.stem), None
    if run is not None:
        study = load_study(root, preset)
        named = find_run(study, preset, source.stem, run)
        given = named.parameters
    needs = finished_needs(root, study, named) if named else {}
    folder = _folder(preset, source.stem, named, overrides)
    if folder.parts[0] == preset:
        _refuse_uncommitted(root, preset)
    given = given | overrides
    parameters = effective_parameters(source, given)
    options = [f"--preset {preset}", *([f"--run {shlex.quote(run)}"] if run else [])]
    start = {
        "preset": folder.parts[0],
        "run": folder.name,
        "needs": needs,
        "command": run_command(source, options, overrides),
    }
    attempt, run_folder = runs_root(root) / "attempts" / folder, runs_root(root) / folder
    with locked(attempt / ".lock"):
        print(f"{notebook_label(source)} as {folder.as_posix()}", flush=True)
        _recover(attempt, run_folder)
        _empty(attempt)
        write_json(attempt / "run.json", start)
        begun = time.monotonic()
        _execute(source, attempt, run_folder, root, given)
        _check_finished(attempt, parameters, source)
        write_json(attempt / MANIFEST, sealed(attempt, read_json(attempt / MANIFEST)))
        _publish(attempt, run_folder)
    minutes = (time.monotonic() - begun) / 60
    print(f"Done in {minutes:.1f} min: results are in {run_folder.relative_to(root)}", flush=True)
    return run_folder


def find_notebook(root: Path, notebook: Path) -> Path:
    """The notebook by its path from here or from the checkout, or by its bare name.

    Raises:
        FileNotFoundError: there is none; says which there are.
    """
    named = root / "notebooks" / f"{notebook.name.removesuffix('.ipynb')}.ipynb"
    for candidate in (notebook, root / notebook, named):
        if candidate.is_file():
            return candidate.resolve()
    notebook_parameters(named)
    return named


def _refuse_uncommitted(root: Path, preset: str) -> None:
    """Runs that are committed name the commit that made them, so that has to exist."""
    if not git(root, "ls-files", "--", f"book/runs/{preset}"):
        return
    if changed := uncommitted_code(root):
        raise ValueError(
            f"Runs of preset {preset!r} are committed and name their commit, but {changed[0]} is "
            "not committed: commit src/ and notebooks/ first, or give a parameter to make a run "
            "of your own."
        )


def _empty(attempt: Path) -> None:
    """Leftovers of an earlier attempt go; trainings lie elsewhere and stay."""
    for leftover in attempt.iterdir():
        if leftover.is_dir():
            shutil.rmtree(leftover)
        elif leftover.name != ".lock":
            leftover.unlink()


def _folder(
    preset: str, notebook: str, named: StudyRun | None, overrides: Mapping[str, Value]
) -> Path:
    if named is not None and not overrides:
        return named.folder
    return own_folder(notebook, f"{preset}-{named.name}" if named else preset, overrides)


def _beside(attempt: Path) -> tuple[Path, Path]:
    """Where the finished attempt, and the earlier run, lie while they change places."""
    return tuple(attempt.with_name(f".{attempt.name}.{name}") for name in ("finished", "earlier"))


def _publish(attempt: Path, run_folder: Path) -> None:
    """Puts a finished attempt in place of the run folder, whole or not at all."""
    finished, earlier = _beside(attempt)
    shutil.rmtree(finished, ignore_errors=True)
    finished.mkdir()
    for item in attempt.iterdir():
        if item.name not in KEPT:
            item.rename(finished / item.name)
    run_folder.parent.mkdir(parents=True, exist_ok=True)
    if run_folder.exists():
        run_folder.rename(earlier)
    finished.rename(run_folder)
    shutil.rmtree(earlier, ignore_errors=True)


def _recover(attempt: Path, run_folder: Path) -> None:
    """Puts an earlier run back where `_publish` was cut off between its two renames."""
    _, earlier = _beside(attempt)
    if earlier.is_dir() and not run_folder.exists():
        earlier.rename(run_folder)
    shutil.rmtree(earlier, ignore_errors=True)


def _execute(
    source: Path, attempt: Path, run_folder: Path, root: Path, given: Mapping[str, Value]
) -> None:
    """Executes the notebook into the attempt's `executed.ipynb`, relaying what it prints."""
    # papermill is slow to import, and reading presets does not need it.
    import papermill
    from nbclient.exceptions import DeadKernelError

    working, final = (folder.relative_to(root).as_posix() for folder in (attempt, run_folder))
    output, failed = attempt / "executed.ipynb", attempt / "failed.ipynb"
    cells = nbformat.read(source, as_version=4).cells
    # papermill adds one with the given parameters.
    total = 1 + sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in cells)
    count, error = 0, ""
    # Two runs may share a terminal.
    label = "/".join(run_folder.parts[-2:])

    def announce(cell: Any, cell_index: int) -> None:
        nonlocal count
        count += 1
        print(f"{label}: cell {count} of {total}", file=sys.stderr, flush=True)

    try:
        with _kernel_of_this_python(root):
            papermill.execute_notebook(
                # papermill fills parameters into braces of paths.
                *(str(path).replace("{", "{{").replace("}", "}}") for path in (source, output)),
                {**given, RUN_FOLDER: working},
                kernel_name="python3",
                language="python",
                cwd=root,
                progress_bar=False,
                stdout_file=sys.stdout,
                stderr_file=sys.stderr,
                on_cell_execute=announce,
            )
    except papermill.PapermillExecutionError as failure:
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", failure.evalue).split())
        error = f"in cell {failure.exec_count}: {failure.ename}: {text}".rstrip(": ")
    except DeadKernelError:
        error = f"in cell {count}: the kernel died, perhaps for want of memory"
    finally:
        if output.is_file():
            # After a failure too, and when the reader presses Ctrl-C.
            _clean(output, source, root, {working: final})
    if error:
        os.replace(output, failed)
        raise RunFailed(
            f"{notebook_label(source)} failed {error} (see {failed.relative_to(root)}; an earlier "
            "run is as it was, and the same command goes on from the last checkpoint)."
        )


def _clean(output: Path, source: Path, root: Path, replacements: Mapping[str, str]) -> None:
    notebook = nbformat.read(output, as_version=4)
    clean_notebook(notebook, root, replacements)
    notebook.metadata["papermill"]["input_path"] = notebook_label(source)
    notebook.metadata["papermill"]["output_path"] = "executed.ipynb"
    write_with(output, lambda temporary: nbformat.write(notebook, temporary))


def _check_finished(attempt: Path, parameters: Mapping[str, Value], source: Path) -> None:
    label = notebook_label(source)
    if not (attempt / MANIFEST).is_file():
        raise RunFailed(f"{label} ended without run.finish(...): it must be its last act.")
    recorded = read_json(attempt / MANIFEST)["parameters"]
    for name in sorted(set(parameters) | set(recorded)):
        if name not in recorded or recorded[name] != parameters.get(name):
            raise RunFailed(
                f"{label} must give all of its parameters to open_run unchanged, but {name} was "
                f"{parameters.get(name)!r} and it gave {recorded.get(name)!r}."
            )


@contextlib.contextmanager
def _kernel_of_this_python(root: Path) -> Iterator[None]:
    """Makes "python3" the kernel of this interpreter, with this checkout's library, for a while.

    Whatever kernels are installed on this machine, the run and its manifest speak of one Python.
    """
    with tempfile.TemporaryDirectory() as folder:
        # Not by PYTHONPATH, in which a colon in the checkout's path would part two folders.
        start = (
            f"import sys; sys.path.insert(0, {str(root / 'src')!r}); "
            "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
        )
        kernel = Path(folder) / "kernels" / "python3" / "kernel.json"
        kernel.parent.mkdir(parents=True)
        specification = {
            "argv": [
                *(sys.executable, "-c", start, "-f", "{connection_file}"),
                # Else it warns at every start that it talks to this machine without encryption.
                "--IPKernelApp.log_level=ERROR",
            ],
            "display_name": "Python 3",
            "language": "python",
            # Progress bars are drawn seldom: every frame travels through the notebook.
            "env": {"TQDM_MININTERVAL": "2"},
        }
        kernel.write_text(json.dumps(specification), encoding="utf-8")
        before = os.environ.get("JUPYTER_PATH")
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            if before is None:
                del os.environ["JUPYTER_PATH"]
            else:
                os.environ["JUPYTER_PATH"] = before
