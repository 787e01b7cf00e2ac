"""Runs a notebook with checked parameters and keeps what it made."""

import contextlib
import itertools
import json
import os
import re
import shlex
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import nbformat

from sparsejepa.atomic_files import locked, write_with
from sparsejepa.companion import provenance
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.manifest import MANIFEST, START, RunFailed, seal_run
from sparsejepa.companion.parameters import (
    RUN_FOLDER,
    Value,
    check_parameters,
    effective_parameters,
    notebook_label,
    run_command,
)
from sparsejepa.companion.presets import own_folder, preset_parameters
from sparsejepa.companion.provenance import (
    notebook_path,
    remove_local_paths,
    repository_root,
    runs_root,
)
from sparsejepa.companion.study import finished_needs, load_study

# In an output these are text; anything else (a picture in base64) is left alone.
TEXT_TYPES = ("text/", "application/json", "image/svg+xml")


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
        given = preset_parameters(root, preset, source.stem)
        folder = own_folder(source.stem, preset, overrides)
    else:
        study = load_study(root, preset)
        runs = {one.name: one for one in study if one.notebook == source.stem}
        if run not in runs:
            raise ValueError(
                f"presets/{preset}.yml has no run {run!r} of {source.stem}; its runs are "
                f"{', '.join(runs) or 'none'}."
            )
        given, needs = runs[run].parameters, finished_needs(root, study, runs[run])
        own = own_folder(source.stem, f"{preset}-{run}", overrides)
        folder = own if overrides else Path(runs[run].id)
        options.append(f"--run {shlex.quote(run)}")
    committed = provenance.git(root, "ls-files", "--", f"book/runs/{preset}")
    if committed and folder.parts[0] == preset and (changed := provenance.uncommitted_code(root)):
        raise ValueError(
            f"Runs of preset {preset!r} are committed and name their commit, but {changed[0]} is "
            "not committed: commit src/ and notebooks/ first, or give a parameter to make a run "
            "of your own."
        )
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
        # What an earlier attempt left; trainings lie elsewhere and stay.
        working = attempt / "run"
        shutil.rmtree(working, ignore_errors=True)
        (attempt / "failed.ipynb").unlink(missing_ok=True)
        write_json(working / START, start)
        begun = time.monotonic()
        _execute(source, working, run_folder, root, given | overrides)
        made = working / MANIFEST
        if not made.is_file():
            said = "ended without run.finish(...): it must be its last act."
            raise RunFailed(f"{notebook_label(source)} {said}")
        recorded = read_json(made)["parameters"]
        for name, value in effective_parameters(source, given | overrides).items():
            if recorded[name] != value:
                raise RunFailed(
                    f"{notebook_label(source)} must give all of its parameters to open_run "
                    f"unchanged, but {name} was {value!r} and it gave {recorded[name]!r}."
                )
        seal_run(working, read_json(made))
        (working / START).unlink()
        _publish(attempt, run_folder)
    minutes = (time.monotonic() - begun) / 60
    print(f"Done in {minutes:.1f} min: results are in {run_folder.relative_to(root)}", flush=True)
    return run_folder


def find_notebook(root: Path, notebook: Path) -> Path:
    """The notebook by its path from here or from the checkout, else by its bare name."""
    named = notebook_path(root, notebook.name.removesuffix(".ipynb"))
    return next((n.resolve() for n in (notebook, root / notebook) if n.is_file()), named)


def _publish(attempt: Path, run_folder: Path) -> None:
    """Puts a finished attempt in place of an earlier run, whole or not at all."""
    run_folder.parent.mkdir(parents=True, exist_ok=True)
    if run_folder.exists():
        run_folder.rename(attempt / "earlier")
    (attempt / "run").rename(run_folder)
    shutil.rmtree(attempt / "earlier", ignore_errors=True)


def _recover(attempt: Path, run_folder: Path) -> None:
    """Puts an earlier run back where `_publish` was cut off between its two renames."""
    if (attempt / "earlier").is_dir() and not run_folder.exists():
        (attempt / "earlier").rename(run_folder)
    shutil.rmtree(attempt / "earlier", ignore_errors=True)


def _execute(
    source: Path, working: Path, run_folder: Path, root: Path, given: Mapping[str, Value]
) -> None:
    """Executes the notebook into `executed.ipynb`, relaying what it prints."""
    # papermill is slow to import, and reading presets does not need it.
    import papermill
    from nbclient.exceptions import DeadKernelError

    place, final = (folder.relative_to(root).as_posix() for folder in (working, run_folder))
    output, failed = working / "executed.ipynb", working.with_name("failed.ipynb")
    cells = nbformat.read(source, as_version=4).cells
    # papermill adds one with the given parameters.
    total = 1 + sum(cell.cell_type == "code" and bool(cell.source.strip()) for cell in cells)
    # Two runs may share a terminal.
    label, counted, error = "/".join(run_folder.parts[-2:]), itertools.count(1), ""

    def announce(cell: Any, cell_index: int) -> None:
        print(f"{label}: cell {next(counted)} of {total}", file=sys.stderr, flush=True)

    try:
        with _kernel_of_this_python(root):
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
                on_cell_execute=announce,
            )
    except papermill.PapermillExecutionError as failure:
        text = " ".join(re.sub(r"\x1b\[[0-9;]*m", "", failure.evalue).split())
        error = f"in cell {failure.exec_count}: {failure.ename}: {text}".rstrip(": ")
    except DeadKernelError:
        error = f"in cell {next(counted) - 1}: the kernel died, perhaps for want of memory"
    finally:
        if output.is_file():
            # After a failure too, and when the reader presses Ctrl-C.
            clean_notebook(output, source, lambda v: remove_local_paths(v, root, {place: final}))
    if error:
        os.replace(output, failed)
        raise RunFailed(
            f"{notebook_label(source)} failed {error} (see {failed.relative_to(root)}; an earlier "
            "run is as it was, and the same command goes on from the last checkpoint)."
        )


def clean_notebook(path: Path, source: Path, clean: Callable[[Any], Any]) -> None:
    """Cleans textual outputs and given parameters; frames of progress bars and cells' times go."""
    notebook = nbformat.read(path, as_version=4)
    said = notebook.metadata["papermill"]
    notebook.metadata["papermill"] = {
        "parameters": clean(said.get("parameters")),
        "version": said.get("version"),
        "input_path": notebook_label(source),
        "output_path": path.name,
    }
    for cell in notebook.cells:
        cell.metadata.pop("papermill", None)
        cell.metadata.pop("execution", None)
        if "injected-parameters" in cell.metadata.get("tags", []):
            cell.source = clean(cell.source)
        if cell.cell_type == "code":
            # Frames of one progress bar arrive as pieces of a stream.
            streams = itertools.groupby(cell.outputs, lambda o: o.get("name", id(o)))
            cell.outputs = [_clean_output(list(pieces), clean) for _, pieces in streams]
    write_with(path, lambda temporary: nbformat.write(notebook, temporary))


def _clean_output(pieces: list[Any], clean: Callable[[Any], Any]) -> Any:
    output = pieces[0]
    if output.output_type == "stream":
        # A carriage return starts a progress bar's next frame over the last one.
        text = clean("".join(piece.text for piece in pieces)).replace("\r\n", "\n")
        lines = (line.rstrip("\r").rpartition("\r")[2] for line in text.split("\n"))
        output.text = "\n".join(lines)
    elif output.output_type == "error":
        output.evalue, output.traceback = clean(output.evalue), clean(output.traceback)
    else:
        output.metadata = clean(output.get("metadata", {}))
        for kind in output.data:
            if kind.startswith(TEXT_TYPES):
                output.data[kind] = clean(output.data[kind])
    return output


@contextlib.contextmanager
def _kernel_of_this_python(root: Path) -> Iterator[None]:
    """Makes "python3" the kernel of this interpreter, with this checkout's library, for a while.

    Whatever kernels are installed on this machine, the run and its manifest speak of one Python.
    """
    # Not by PYTHONPATH, in which a colon in the checkout's path would part two folders.
    start = (
        f"import sys; sys.path.insert(0, {str(root / 'src')!r}); "
        "from ipykernel.kernelapp import launch_new_instance; launch_new_instance()"
    )
    # Else it warns at every start that it talks to this machine without encryption.
    quiet = "--IPKernelApp.log_level=ERROR"
    specification = {
        "argv": [sys.executable, "-c", start, "-f", "{connection_file}", quiet],
        "display_name": "Python 3",
        "language": "python",
        # Progress bars are drawn seldom: every frame travels through the notebook.
        "env": {"TQDM_MININTERVAL": "2"},
    }
    before = os.environ.get("JUPYTER_PATH", "")
    with tempfile.TemporaryDirectory() as folder:
        kernel = Path(folder, "kernels", "python3", "kernel.json")
        kernel.parent.mkdir(parents=True)
        kernel.write_text(json.dumps(specification), encoding="utf-8")
        os.environ["JUPYTER_PATH"] = os.pathsep.join(filter(None, [folder, before]))
        try:
            yield
        finally:
            os.environ["JUPYTER_PATH"] = before
