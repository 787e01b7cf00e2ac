"""The folder in which a run is made, and how it takes the place of an earlier run.

A notebook writes into `book/runs/attempts/...`, checkpoints included. Only a finished attempt is
put in place of the run folder, by renaming: a crash or a failure at any moment leaves the earlier
run complete, and the attempt's checkpoints for the next one to go on from.
"""

import contextlib
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.hashes import file_hash
from sparsejepa.companion.parameters import parameter_changes

# What the attempt keeps for itself; all else belongs to the finished run.
KEPT = ("run.json", "checkpoints", "failed.ipynb", "finished", "previous", ".lock")

# What a checkpoint depends on: the rooms that train, what measures the encoder after each epoch,
# and what `experiments.py` keeps beside its checkpoints without knowing of a change.
CHECKPOINT_ROOMS = (
    *("config.py", "randomness.py", "data", "model", "training"),
    *(f"probing/{name}.py" for name in ("online", "collapse", "features", "neighbours")),
    *("companion/experiments.py", "information/estimate.py"),
)


def checkpoint_inputs(parameters: Mapping[str, Any], source_root: Path) -> dict[str, Any]:
    """All that decides the content of a run's checkpoints.

    The notebook's own code is left out, so that mending a figure does not cost a long training:
    `pretrain` itself refuses checkpoints of another configuration.
    """
    package = source_root / "sparsejepa"
    files = [
        file
        for path in (package / room for room in CHECKPOINT_ROOMS)
        for file in ([path] if path.is_file() else sorted(path.rglob("*.py")))
    ]
    return {
        "parameters": dict(parameters),
        "library": {str(file.relative_to(source_root)): file_hash(file) for file in files},
    }


def prepare_attempt(folder: Path, start: Mapping[str, Any], fresh: bool = False) -> str:
    """Makes `folder` ready for a run described by `start`, which is kept in its `run.json`.

    Leftovers of an earlier attempt go; its checkpoints stay if `start["inputs"]` are the same.

    Returns: a sentence about the checkpoints, "" when there were none.

    Raises:
        OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    checkpoints, message = folder / "checkpoints", ""
    if checkpoints.is_dir() and any(checkpoints.iterdir()):
        reason = "--fresh was given" if fresh else _what_changed(folder, start["inputs"])
        if reason:
            message = f"Starting anew, without the earlier attempt's checkpoints: {reason}."
            # In one step: half of a checkpoint folder must not be found by the next attempt.
            checkpoints.rename(folder / "discarded")
        else:
            message = "Going on from the earlier attempt's checkpoints."
    # A manifest means a finished run: it goes before anything else.
    (folder / "manifest.json").unlink(missing_ok=True)
    for leftover in folder.iterdir():
        if leftover.name not in ("checkpoints", "run.json", ".lock"):
            _remove(leftover)
    write_json(folder / "run.json", dict(start))
    return message


def publish(attempt: Path, run_folder: Path) -> None:
    """Puts a finished attempt in place of the run folder, whole or not at all."""
    finished, previous = attempt / "finished", attempt / "previous"
    finished.mkdir()
    for item in attempt.iterdir():
        if item.name not in KEPT:
            item.rename(finished / item.name)
    run_folder.parent.mkdir(parents=True, exist_ok=True)
    if run_folder.exists():
        run_folder.rename(previous)
    finished.rename(run_folder)
    shutil.rmtree(previous, ignore_errors=True)


def recover(attempt: Path, run_folder: Path) -> None:
    """Finishes a `publish` that was cut off between its two renames."""
    for whole in (attempt / "finished", attempt / "previous"):
        # Before the first rename the run folder is there; after it, both of these are complete.
        if not run_folder.exists() and (attempt / "previous").is_dir() and whole.is_dir():
            whole.rename(run_folder)
    if run_folder.exists():
        shutil.rmtree(attempt / "previous", ignore_errors=True)


@contextlib.contextmanager
def only_one(attempt: Path) -> Iterator[None]:
    """Holds a lock on the attempt, which the system lifts when its holder dies.

    Where the system has no such locks (Windows), nothing is held.

    Raises:
        ValueError: another process holds it.
    """
    try:
        import fcntl
    except ImportError:
        yield
        return
    attempt.mkdir(parents=True, exist_ok=True)
    with (attempt / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise ValueError(
                f"Another process is making this run (in {attempt}): wait for it or stop it."
            ) from error
        yield


def _what_changed(folder: Path, inputs: Mapping[str, Any]) -> str:
    """Why checkpoints made from other inputs cannot be used, "" if they can."""
    try:
        before = read_json(folder / "run.json")["inputs"]
    except (FileNotFoundError, ValueError, KeyError):
        return "what they were made from is not known"
    changes = parameter_changes(before["parameters"], inputs["parameters"])
    if changes:
        return changes[0]
    for file in sorted(set(before["library"]) | set(inputs["library"])):
        if before["library"].get(file) != inputs["library"].get(file):
            return f"src/{file} has changed since"
    return ""


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink()
