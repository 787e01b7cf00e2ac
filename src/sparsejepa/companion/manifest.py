"""Provenance: what a notebook's run was made from, and whether that is still what is here.

Imports neither torch nor papermill: the book reads manifests with the `[book]` extra alone.
"""

import re
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sparsejepa.atomic_files import write_with
from sparsejepa.companion import environment
from sparsejepa.companion.attempts import checkpoint_inputs, prepare_attempt
from sparsejepa.companion.environment import repository_root
from sparsejepa.companion.files import plain, read_json, write_json
from sparsejepa.companion.hashes import file_hash, library_hashes, module_path, source_hash
from sparsejepa.companion.local_paths import clean_strings, remove_local_paths
from sparsejepa.companion.parameters import (
    effective_parameters,
    notebook_label,
    notebook_parameters,
    parameter_changes,
    run_command,
)
from sparsejepa.companion.run_files import edits, sealed

__all__ = [
    "Run",
    "library_hashes",
    "open_run",
    "repository_root",
    "runs_root",
    "source_hash",
    "staleness",
]


def runs_root(root: Path) -> Path:
    """The folder of all runs in a checkout."""
    return root / "book" / "runs"


def open_run(notebook: str, run_folder: str, parameters: Mapping[str, Any]) -> "Run":
    """Starts recording a run; called by a notebook right after its parameters.

    Args:
        notebook: the notebook's name without folder and ending, as "01_pretrain".
        run_folder: the parameter of that name: set by `sparsejepa run`; "" in plain Jupyter and on
            Colab, where the run goes to `book/runs/own/<notebook>/interactive`.
        parameters: a mapping that holds all other parameters by name, with the values in use;
            a notebook passes its `globals()`.

    Raises:
        KeyError: a parameter that the notebook declares is not in `parameters`.
        FileNotFoundError: there is no checkout (see `repository_root`) or no such notebook in it.
        OSError: the folder cannot be written.
    """
    root = repository_root()
    source = root / "notebooks" / f"{notebook}.ipynb"
    folder = root / run_folder if run_folder else interactive_folder(root, notebook)
    parameters = {name: parameters[name] for name in notebook_parameters(source)}
    if not run_folder:
        start = {
            "preset": "own",
            "run": "interactive",
            "needs": {},
            "command": run_command(source, [], parameters),
            "inputs": checkpoint_inputs(parameters, root / "src"),
        }
        message = prepare_attempt(folder, start)
        if message:
            print(message)
    return Run(root, source, folder, parameters)


def interactive_folder(root: Path, notebook: str) -> Path:
    """Where a notebook writes that was not started by `sparsejepa run`."""
    return runs_root(root) / "own" / notebook / "interactive"


class Run:
    """One run of a notebook: where it writes, and what it remembers for the manifest.

    `folder` is where the notebook may write files of its own; checkpoints go to
    `folder / "checkpoints"`, which an interrupted run finds again.
    """

    def __init__(self, root: Path, source: Path, folder: Path, parameters: dict[str, Any]):
        self.folder = folder
        self._root = root
        self._source = source
        self._parameters = parameters
        self._figures: dict[str, str] = {}
        # As they are now, when the kernel has read them: they may be edited during a long run.
        self._source_sha256 = source_hash(source)
        self._library_sha256 = library_hashes(sys.modules)
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()
        checkpoints = folder / "checkpoints"
        self._resumed = checkpoints.is_dir() and any(checkpoints.iterdir())

    def save_figure(self, figure: Any, name: str, alt: str) -> None:
        """Writes a matplotlib figure to `figures/<name>.png` at 150 dpi.

        Args:
            alt: what the figure shows, for readers who cannot see it.

        Raises:
            ValueError: `name` is not of lower-case letters, digits, `-` and `_`, or `alt` is empty.
            OSError: the file cannot be written.
        """
        if not re.fullmatch(r"[a-z0-9_-]+", name):
            raise ValueError(f"A figure's name has only a-z, 0-9, - and _, unlike {name!r}.")
        if not alt.strip():
            raise ValueError(f"Figure {name!r} needs an alt text that says what it shows.")
        path = self.folder / "figures" / f"{name}.png"
        # White, because the book shows figures on a light card in dark mode too.
        write_with(
            path,
            lambda file: figure.savefig(file, dpi=150, format="png", facecolor="white"),
        )
        self._figures[name] = " ".join(alt.split())

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Writes `results.json`; arrays and tensors become lists, scalars plain numbers.

        Raises:
            ValueError: a value is NaN or infinite, or no number, text, list or mapping.
            OSError: the file cannot be written.
        """
        write_json(self.folder / "results.json", plain(results, "results"))

    def finish(
        self,
        seed: int,
        precision: str,
        data: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    ) -> None:
        """Writes `manifest.json`, the notebook's last act: a manifest means a finished run.

        Args:
            seed: the seed from which all randomness of the run came.
            precision: the arithmetic of the training, as "fp32" or "bf16".
            data: name, split, origin and pixel_sha256 of the image set (or of each in a list).

        Raises:
            ValueError: a value that JSON does not know, as in `save_results`.
            OSError: the file cannot be written.
        """
        start = read_json(self.folder / "run.json")
        manifest = {
            "notebook": self._source.stem,
            "preset": start["preset"],
            "run": start["run"],
            "command": start["command"],
            "parameters": self._parameters,
            "seed": seed,
            "precision": precision,
            "data": data,
            "commit": environment.commit(self._root),
            "versions": environment.versions(),
            "hardware": environment.hardware(),
            "started_utc": self._started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            # Of this session alone: a resumed run took longer in all.
            "wall_seconds": round(time.monotonic() - self._clock, 1),
            "resumed": self._resumed,
            "peak_memory_gb": environment.peak_memory_gb(),
            "figures": [
                {"file": f"figures/{name}.png", "alt": alt} for name, alt in self._figures.items()
            ],
            "source_sha256": self._source_sha256,
            "library_sha256": library_hashes(sys.modules) | self._library_sha256,
            "needs": start["needs"],
        }
        cleaned = clean_strings(
            plain(manifest, "manifest"), lambda text: remove_local_paths(text, self._root)
        )
        # The runner seals once more, when the executed notebook lies here too.
        write_json(self.folder / "manifest.json", sealed(self.folder, cleaned))


def staleness(
    run_folder: Path,
    notebook_path: Path,
    source_root: Path,
    parameters: Mapping[str, Any] | None = None,
) -> list[str]:
    """Why a run is not what the notebook and the library here would produce; empty when it is.

    Among the reasons is that a file of the run was edited or removed.

    Args:
        source_root: the folder that holds the package `sparsejepa`.
        parameters: what the preset gives to this run, if it is a named run of a preset; the
            notebook's own defaults stand for the rest.
    """
    try:
        manifest = read_json(run_folder / "manifest.json")
    except FileNotFoundError:
        return ["it has not been run yet (there is no manifest.json)"]
    except ValueError as error:
        return [str(error)]
    reasons = edits(run_folder, manifest)
    if reasons:
        # What an edited manifest says of all the rest is worth nothing.
        return reasons
    if manifest["source_sha256"] != source_hash(notebook_path):
        reasons.append(f"{notebook_label(notebook_path)} has changed since the run")
    for name, recorded in manifest["library_sha256"].items():
        path = module_path(name, source_root)
        shown = f"{source_root.name}/{path.relative_to(source_root).as_posix()}"
        if not path.is_file():
            reasons.append(f"{shown}, which the run used, is no longer there")
        elif file_hash(path) != recorded:
            reasons.append(f"{shown} has changed since the run")
    if parameters is not None:
        now = effective_parameters(notebook_path, parameters)
        reasons += parameter_changes(manifest["parameters"], now)
    for need, recorded in manifest["needs"].items():
        # A run folder is <all runs>/<preset>/<notebook>/<run>.
        if run_fingerprint(run_folder.parents[2] / need) != recorded:
            reasons.append(f"its input {need} was run again since")
    return reasons


def run_fingerprint(run_folder: Path) -> str | None:
    """Tells one execution of a run from another, None where there is no finished run.

    Start and duration identify it; both are kept by git, unlike times and line ends of files.
    """
    try:
        manifest = read_json(run_folder / "manifest.json")
    except (FileNotFoundError, ValueError):
        return None
    return f"{manifest['started_utc']} {manifest['wall_seconds']}"
