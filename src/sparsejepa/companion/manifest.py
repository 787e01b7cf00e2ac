"""Provenance: what a notebook's run was made from, and whether that is still what is here.

Imports neither torch nor papermill: the book reads manifests with the `[book]` extra alone.
"""

import contextlib
import re
import sys
import time
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparsejepa.atomic_files import locked, write_with
from sparsejepa.companion import provenance
from sparsejepa.companion.certificates import REPORT, TRAINING, certificate_of
from sparsejepa.companion.files import plain, read_json, write_json
from sparsejepa.companion.local_paths import clean_strings, remove_local_paths
from sparsejepa.companion.parameters import (
    effective_parameters,
    notebook_label,
    notebook_parameters,
    parameter_changes,
    run_command,
)
from sparsejepa.companion.presets import OWN, PRESET, notebook_path, own_folder, preset_parameters
from sparsejepa.companion.provenance import TIME, repository_root, runs_root

if TYPE_CHECKING:
    from sparsejepa.training.artefacts import Trainings

MANIFEST, RESULTS, TIMING = "manifest.json", "results.json", "timing.json"
# What an attempt keeps for itself; all else belongs to the finished run.
KEPT = ("run.json", "failed.ipynb", ".lock")


class RunFailed(RuntimeError):
    """A notebook raised an error, or its kernel died, while it ran."""


_held: dict[Path, contextlib.ExitStack] = {}  # locks of this process's interactive runs


def open_run(notebook: str, run_folder: str, parameters: MutableMapping[str, Any]) -> "Run":
    """Starts recording a run; called by a notebook right after its parameters.

    Args:
        notebook: the notebook's name without folder and ending, as "01_pretrain".
        run_folder: the parameter of that name: set by `sparsejepa run`; "" in plain Jupyter and on
            Colab, where the run goes below `book/runs/own/<notebook>`, over the files of an
            earlier one with equal parameters.
        parameters: a mapping that holds all other parameters by name, with the values in use;
            a notebook passes its `globals()`. Without a `run_folder`, those that have their
            defaults get the values of the preset that `preset` names, on Colab by itself `colab`.

    Raises:
        KeyError: a parameter that the notebook declares is not in `parameters`.
        FileNotFoundError: there is no checkout (see `repository_root`), or no such notebook or
            preset in it.
        ValueError: another process holds the run's folder.
        OSError: the folder cannot be written.
    """
    root = repository_root()
    source = notebook_path(root, notebook)
    folder = root / run_folder if run_folder else _begin_by_hand(root, source, parameters)
    return Run(root, source, folder, {n: parameters[n] for n in notebook_parameters(source)})


def _begin_by_hand(root: Path, source: Path, parameters: MutableMapping[str, Any]) -> Path:
    """Gives a preset's values to parameters that have their defaults; the folder, locked."""
    usual = effective_parameters(source, {})
    preset = parameters.get(PRESET, "")
    if not preset and "google.colab" in sys.modules:
        preset = "colab"
    if preset not in ("", OWN):
        given = preset_parameters(root, preset, source.stem)
        kept = {name: parameters[name] for name in given if parameters[name] != usual[name]}
        parameters.update(given | kept)
        usual |= given
        # The cell above shows other values.
        print("In use:", ", ".join(f"{name} = {parameters[name]!r}" for name in given))
    in_use = {name: parameters[name] for name in usual}
    changed = {n: v for n, v in in_use.items() if n != PRESET and v != usual[n]}
    folder = runs_root(root) / own_folder(source.stem, preset or "interactive", changed)
    if folder not in _held:
        _held[folder] = contextlib.ExitStack()
        # Until the kernel ends: two kernels would mix their files.
        _held[folder].enter_context(locked(folder / ".lock"))
    command = run_command(source, [], in_use)
    start = {"preset": OWN, "run": folder.name, "needs": {}, "command": command}
    write_json(folder / "run.json", start)
    return folder


class Run:
    """One run of a notebook: where it writes, and what it remembers for the manifest.

    `folder` is where the notebook may write files of its own.
    """

    def __init__(self, root: Path, source: Path, folder: Path, parameters: dict[str, Any]):
        self.folder = folder
        self._root, self._source, self._parameters = root, source, parameters
        self._start = read_json(folder / "run.json")
        self._figures: dict[str, str] = {}
        self._times: dict[str, Any] = {}
        self._trainings: Trainings | None = None
        # As they are now, when the kernel has read them: they may be edited during a long run.
        self._code = provenance.code_of(root, source.stem)
        self._commit = provenance.commit(root)
        self._started = datetime.now(UTC)
        self._clock = time.monotonic()

    @property
    def trainings(self) -> "Trainings":
        """Trainings that are kept, of this preset first; new ones are kept here."""
        if self._trainings is None:
            # Imports torch, which a report of numbers alone does not need.
            from sparsejepa.training.artefacts import Trainings

            all_runs = runs_root(self._root)
            own = all_runs / self._start["preset"] / "trainings"
            self._trainings = Trainings(
                own,
                tuple(sorted(set(all_runs.glob("*/trainings")) - {own})),
                lambda folder: training_is_certified(self._root, folder),
                {"commit": self._commit, **self._code},
            )
        return self._trainings

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

        Measured times (keys such as `seconds`) go to `timing.json`, so that equal runs have equal
        results.

        Raises:
            ValueError: a value is NaN or infinite, or no number, text, list or mapping.
            OSError: the file cannot be written.
        """
        numbers, self._times = without_times(plain(results, "results"))
        write_json(self.folder / RESULTS, numbers)

    def finish(
        self,
        seed: int,
        precision: str,
        data: Mapping[str, Any] | Sequence[Mapping[str, Any]],
    ) -> None:
        """Writes `timing.json` and `manifest.json`, the last act: a manifest means a finished run.

        Args:
            seed: the seed from which all randomness of the run came.
            precision: the arithmetic of the training, as "fp32" or "bf16".
            data: name, split, origin and pixel_sha256 of the image set (or of each in a list).

        Raises:
            ValueError: a value that JSON does not know, as in `save_results`.
            OSError: the file cannot be written.
        """
        used = list(dict.fromkeys(self._trainings.used)) if self._trainings else []
        trained = [read_json(folder / TIMING)["training_seconds"] for folder in used]
        times = {
            "started_utc": self._started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "notebook_seconds": round(time.monotonic() - self._clock, 1),
            "training_seconds": round(sum(trained), 1),
            "peak_memory_gb": provenance.peak_memory_gb(),
            "results": self._times,
        }
        write_json(self.folder / TIMING, times)
        start = self._start
        manifest = {
            "notebook": self._source.stem,
            "preset": start["preset"],
            "run": start["run"],
            "command": start["command"],
            "parameters": self._parameters,
            "seed": seed,
            "precision": precision,
            "data": [data] if isinstance(data, Mapping) else list(data),
            "commit": self._commit,
            **self._code,
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "figures": [
                {"file": f"figures/{name}.png", "alt": alt} for name, alt in self._figures.items()
            ],
            "needs": start["needs"],
            "trainings": {
                folder.relative_to(runs_root(self._root)).as_posix(): provenance.file_hashes(
                    folder, ("checkpoints",)
                )
                for folder in used
            },
        }
        cleaned = clean_strings(
            plain(manifest, "manifest"), lambda text: remove_local_paths(text, self._root)
        )
        # The runner seals once more, when the executed notebook lies here too.
        write_json(self.folder / MANIFEST, sealed(self.folder, cleaned))


def without_times(results: Any) -> tuple[Any, Any]:
    """A tree of JSON without the keys that name measured times, and these keys alone."""
    if isinstance(results, Mapping):
        numbers, times = {}, {}
        for key, value in results.items():
            if TIME.fullmatch(key):
                times[key] = value
                continue
            numbers[key], inner = without_times(value)
            if inner:
                times[key] = inner
        return numbers, times
    if isinstance(results, list):
        parts = [without_times(value) for value in results]
        return [numbers for numbers, _ in parts], [t for _, t in parts if t]
    return results, {}


def sealed(run_folder: Path, manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The manifest with the hashes of the run's files, and with its own."""
    files = provenance.file_hashes(run_folder, (MANIFEST, *KEPT))
    return provenance.seal({**manifest, "files": files})


def input_hashes(root: Path, run_id: str) -> dict[str, str]:
    """SHA-256 of what other notebooks read of a finished run: results, answers, its training.

    Raises:
        FileNotFoundError: there is no finished run.
        ValueError: its manifest is damaged.
    """
    manifest = read_json(runs_root(root) / run_id / MANIFEST)
    read = {
        name: digest
        for name, digest in manifest["files"].items()
        if name == RESULTS or name.endswith(".safetensors")
    }
    for folder, files in manifest["trainings"].items():
        read |= {f"{folder}/{n}": d for n, d in files.items() if n.endswith(".safetensors")}
    return read


def staleness(root: Path, run_id: str, parameters: Mapping[str, Any] | None = None) -> list[str]:
    """Why a run is not what the notebook and the library here would produce; empty when it is.

    Among the reasons is that a file of the run was edited or removed.

    Args:
        run_id: `preset/notebook/run`.
        parameters: what the preset gives to this run, if it is a named run of a preset; the
            notebook's own defaults stand for the rest.
    """
    folder, notebook = runs_root(root) / run_id, run_id.split("/")[1]
    source = root / "notebooks" / f"{notebook}.ipynb"
    try:
        manifest = read_json(folder / MANIFEST)
    except FileNotFoundError:
        return ["it has not been run yet (there is no manifest.json)"]
    except ValueError as error:
        return [str(error)]
    reasons = provenance.edits(folder, manifest)
    for place, files in manifest.get("trainings", {}).items():
        reasons += [
            f"{place}/{name} is not the training that it read"
            for name, digest in files.items()
            if not _is(runs_root(root) / place / name, digest)
        ]
    if reasons:
        # What an edited manifest says of all the rest is worth nothing.
        return reasons
    if parameters is not None:
        now = effective_parameters(source, parameters)
        # A parameter that came since had its default; a certificate says that this changes nothing.
        then = effective_parameters(source, {}) | {PRESET: manifest["preset"]}
        then |= manifest["parameters"]
        reasons += parameter_changes({name: then[name] for name in now}, now)
    for need, recorded in manifest["needs"].items():
        try:
            same = input_hashes(root, need) == recorded
        except (FileNotFoundError, ValueError):
            same = False
        if not same:
            reasons.append(f"its input {need} has changed since")
    return reasons + code_changes(root, run_id, manifest)


def code_changes(root: Path, run_id: str, manifest: Mapping[str, Any]) -> list[str]:
    """What of the code differs from the run's, unless a certificate says that it does the same."""
    notebook = run_id.split("/")[1]
    now = provenance.code_of(root, notebook)
    names = {
        "library_tree": "src/sparsejepa",
        "notebook_sha256": notebook_label(root / "notebooks" / f"{notebook}.ipynb"),
    }
    changed = [name for key, name in names.items() if manifest[key] != now[key]]
    if not changed:
        return []
    try:
        if certificate_of(root, run_id, REPORT):
            return []
    except ValueError as error:
        return [str(error)]
    return [f"{' and '.join(changed)} changed since it was made, and no certificate covers that"]


def training_is_certified(root: Path, folder: Path) -> bool:
    """Whether a certificate says that the code here trains what lies in an artefact's folder."""
    preset = folder.parts[-3]
    for path in sorted((runs_root(root) / preset).glob(f"*/*/{MANIFEST}")):
        run_id = "/".join(path.parts[-4:-1])
        trainings = read_json(path).get("trainings", {})
        if folder.relative_to(runs_root(root)).as_posix() in trainings:
            if certificate_of(root, run_id, TRAINING):
                return True
    return False


def _is(path: Path, digest: str) -> bool:
    return path.is_file() and provenance.file_sha256(path) == digest


__all__ = ["Run", "open_run", "repository_root", "runs_root", "staleness"]
