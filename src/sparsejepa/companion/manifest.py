"""What a notebook's run was made from, and whether that is still what is here.

A certificate, written by `sparsejepa certify`, says that a run made by one tree is what another
tree computes: a size-reduced copy gave the same numbers to the bit in both. The book reads
manifests with the `[book]` extra alone: no torch, no papermill here.
"""

import contextlib
import functools
import re
import sys
from collections.abc import Mapping, MutableMapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from resource import RUSAGE_SELF, getrusage
from typing import TYPE_CHECKING, Any

from sparsejepa.atomic_files import locked, write_with
from sparsejepa.companion import parameters as values
from sparsejepa.companion import provenance
from sparsejepa.companion.files import label, plain, read_json, write_json
from sparsejepa.companion.parameters import OWN, PRESET, StudyRun, notebook_parameters
from sparsejepa.companion.provenance import notebook_path, repository_root, runs_root, seal
from sparsejepa.training.code import code_sha256

if TYPE_CHECKING:
    from sparsejepa.training.artefacts import Trainings

MANIFEST, RESULTS, TIMING = "manifest.json", "results.json", "timing.json"
CERTIFICATES = "certificates.json"
# Parts of a run that a certificate may cover alone: a training outlives a changed report of it.
TRAINING, REPORT = "training", "report"
TRAINING_SHA256 = "training_sha256"  # in a certificate: of the code that trains
# Measured times: equal runs differ in them, so they are kept apart from results.
TIME = re.compile(r"(\w+_)?(seconds|minutes)(_\w+)?|images_per_second")
Facts = Mapping[str, Any]


class RunFailed(RuntimeError):
    """A notebook raised an error, or its kernel died, while it ran."""


_held: dict[Path, Any] = {}  # locks of this process's interactive runs


def open_run(notebook: str, run_folder: str, parameters: MutableMapping[str, Any]) -> "Run":
    """Starts recording a run; called by a notebook right after its parameters.

    Args:
        notebook: the notebook's name without folder and ending, as "01_pretrain".
        run_folder: set by `sparsejepa run`; "" in plain Jupyter and on Colab, where the run goes
            below `book/runs/own/<notebook>`, over an earlier one with equal parameters.
        parameters: the notebook's `globals()`. Without a `run_folder`, those that have their
            defaults get the values of the preset that `preset` names; on Colab of `colab`.

    KeyError: a declared parameter is not in `parameters`; FileNotFoundError: no checkout, notebook
    or preset; ValueError: another process holds the run's folder; OSError: it can't be written.
    """
    root = repository_root()
    source = notebook_path(root, notebook)
    usual, preset = notebook_parameters(source), parameters.get(PRESET, "")
    if not preset and "google.colab" in sys.modules:
        preset = "colab"
    if not run_folder and preset not in ("", OWN):
        given = values.preset_parameters(root, preset, source.stem)
        kept = {name: parameters[name] for name in given if parameters[name] != usual[name]}
        parameters.update(given | kept)
        usual |= given
        # The cell above shows other values.
        print("In use:", ", ".join(f"{name} = {parameters[name]!r}" for name in given))
    in_use = {name: parameters[name] for name in usual}
    if run_folder:
        # The runner adds the rest; the folder is attempts/<preset>/<notebook>/<run>/run.
        facts = {"preset": Path(run_folder).parts[-4], "parameters": in_use}
        return Run(root, source, root / run_folder, facts)
    changed = {n: v for n, v in in_use.items() if n != PRESET and v != usual[n]}
    folder = runs_root(root) / values.own_folder(source.stem, preset or "interactive", changed)
    if folder not in _held:
        # Until the kernel ends: two kernels would mix their files.
        (lock := locked(folder / ".lock")).__enter__()
        _held[folder] = lock
    command = values.run_command(f"/{source.stem}/", in_use)
    facts = {"preset": OWN, "run": folder.name, "needs": {}, "command": command}
    return Run(root, source, folder, {**facts, "parameters": in_use})


class Run:
    """One run of a notebook: the `folder` where it writes, and what its manifest will say."""

    def __init__(self, root: Path, source: Path, folder: Path, facts: dict[str, Any]):
        self.folder = folder
        self._root, self._runs, self._figures, self._times = root, runs_root(root), {}, {}
        # As it is now, when the kernel has read it: it may be edited during a long run.
        self._code = {"commit": provenance.commit(root), **provenance.code_of(root, source.stem)}
        self._facts = {"notebook": source.stem, **facts, **self._code}
        self._started = datetime.now(UTC)

    @functools.cached_property
    def trainings(self) -> "Trainings":
        """Trainings that are kept, of this preset first; new ones are kept here."""
        # Imports torch, which a report of numbers alone does not need.
        from sparsejepa.training.artefacts import Trainings

        own = self._runs / self._facts["preset"] / "trainings"
        others = sorted(set(self._runs.glob("*/trainings")) - {own})
        valid = functools.cache(lambda: valid_trainings(self._root))
        return Trainings(own, tuple(others), lambda folder: folder in valid(), self._code)

    def save_figure(self, figure: Any, name: str, alt: str) -> None:
        """Writes a figure to `figures/<name>.png` at 150 dpi; ValueError without an alt text."""
        if not alt.strip():
            raise ValueError(f"Figure {name!r} needs an alt text that says what it shows.")
        # White, because the book shows figures on a light card in dark mode too.
        save = functools.partial(figure.savefig, dpi=150, format="png", facecolor="white")
        write_with(self.folder / "figures" / f"{name}.png", save)
        self._figures[name] = " ".join(alt.split())

    def save_results(self, results: Mapping[str, Any]) -> None:
        """Writes `results.json`; arrays and tensors become lists, scalars plain numbers.

        Measured times (keys such as `seconds`) go to `timing.json`, so that equal runs have equal
        results. ValueError: a value is NaN or infinite, or no number, text, list or mapping.
        """
        numbers, self._times = without_times(plain(results, "results"))
        write_json(self.folder / RESULTS, numbers)

    def finish(self, seed: int, precision: str, data: Facts | Sequence[Facts]) -> None:
        """Writes `timing.json` and `manifest.json`, the last act: a manifest means a finished run.

        All randomness came from `seed`; `precision` is as "fp32" or "bf16"; `data` are name, split,
        origin and pixel_sha256 of the image set (or of each in a list).
        """
        read = self.trainings.used if "trainings" in vars(self) else []
        used = {folder.relative_to(self._runs).as_posix(): folder for folder in read}
        trained = sum(read_json(path / TIMING)["training_seconds"] for path in used.values())
        # Linux counts kibibytes, macOS bytes.
        memory = getrusage(RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        times = {
            "started_utc": self._started.strftime("%Y-%m-%dT%H:%M:%SZ"),
            "notebook_seconds": round((datetime.now(UTC) - self._started).total_seconds(), 1),
            "training_seconds": round(trained, 1),
            "peak_memory_gb": round(memory / 1e9, 2),
            "results": self._times,
        }
        write_json(self.folder / TIMING, times)
        manifest = {
            **self._facts,
            "seed": seed,
            "precision": precision,
            "data": [data] if isinstance(data, Mapping) else list(data),
            "versions": provenance.versions(),
            "hardware": provenance.hardware(),
            "figures": [{"file": f"figures/{n}.png", "alt": a} for n, a in self._figures.items()],
            "trainings": {p: provenance.file_hashes(f, ("checkpoints",)) for p, f in used.items()},
        }
        cleaned = provenance.remove_local_paths(plain(manifest, "manifest"), self._root)
        # The runner seals once more, when the executed notebook lies here too.
        seal_run(self.folder, cleaned)


def without_times(results: Any) -> tuple[Any, Any]:
    """A tree of JSON without the keys that name measured times, and these keys alone."""
    if not isinstance(results, Mapping | list):
        return results, {}
    if isinstance(results, list):
        parts = [without_times(value) for value in results]
        return [numbers for numbers, _ in parts], [times for _, times in parts if times]
    times = {key: value for key, value in results.items() if TIME.fullmatch(key)}
    parts = {k: without_times(value) for k, value in results.items() if k not in times}
    times |= {key: inner for key, (_, inner) in parts.items() if inner}
    return {key: numbers for key, (numbers, _) in parts.items()}, times


def seal_run(folder: Path, manifest: Facts) -> None:
    """Writes a run's manifest, with the hashes of the run's files, and with its own."""
    files = provenance.file_hashes(folder, (MANIFEST,))
    write_json(folder / MANIFEST, seal({**manifest, "files": files}))


def read_certificates(root: Path) -> dict[str, Any]:
    """Certificates by the run's id; raises ValueError where the file was edited by hand."""
    path = runs_root(root) / CERTIFICATES
    content = read_json(path) if path.is_file() else seal({"certificates": {}})
    if content != seal(content):
        wrong = f"{label(path)} is not what `sparsejepa certify` wrote"
        raise ValueError(f"{wrong}: put the committed file back, or delete it and certify again.")
    return content["certificates"]


def write_certificates(root: Path, certificates: Facts) -> None:
    """Replaces the file; raises OSError if it cannot be written."""
    content = {"certificates": dict(sorted(certificates.items()))}
    write_json(runs_root(root) / CERTIFICATES, seal(content))


def certificate_of(root: Path, run_id: str, code: Facts | None = None) -> dict[str, Any] | None:
    """The certificate that makes the run on disk valid for `code`, or for that on disk."""
    found = read_certificates(root).get(run_id, {"parts": ()})
    if REPORT not in found["parts"]:
        return None
    # That of an earlier run of this name says nothing of the one that took its place.
    same = found.get("run_sha256") == read_json(runs_root(root) / run_id / MANIFEST)["sha256"]
    code = provenance.code_of(root, run_id.split("/")[1]) if code is None else code
    return found if same and code.items() <= found["valid_for"].items() else None


def valid_trainings(root: Path) -> set[Path]:
    """Folders of kept trainings that the code that trains made, or a certificate covers for it."""
    runs, here, certified = runs_root(root), code_sha256(root / "src" / "sparsejepa"), set()
    for certificate in read_certificates(root).values():
        same = certificate["valid_for"].get(TRAINING_SHA256) == here
        if same and TRAINING in certificate["parts"]:
            certified |= {runs / place for place in certificate.get("trainings", ())}
    made = {path.parent: read_json(path) for path in runs.glob("*/trainings/*/training.json")}
    return {f for f, facts in made.items() if facts["code_sha256"] == here or f in certified}


def input_hashes(root: Path, run_id: str) -> dict[str, str]:
    """SHA-256 of what other notebooks read of a finished run; raises as `read_json` without one."""
    listed = provenance.listed_files(run_id, read_json(runs_root(root) / run_id / MANIFEST))
    named = {place.removeprefix(f"{run_id}/"): digest for place, digest in listed.items()}
    return {n: d for n, d in named.items() if n == RESULTS or n.endswith(".safetensors")}


def changed_parameters(source: Path, manifest: Facts, parameters: Facts) -> list[str]:
    """A sentence for each parameter that a preset now gives another value than a run had."""
    defaults = notebook_parameters(source)
    now = defaults | parameters
    # One that came since had its default.
    then = defaults | {PRESET: manifest["preset"]} | manifest["parameters"]
    changed = [name for name in sorted(now) if then[name] != now[name]]
    return [f"the parameter {n} was {then[n]!r} and is {now[n]!r} now" for n in changed]


def staleness(root: Path, run_id: str, parameters: Facts | None = None) -> list[str]:
    """Why a run is not what notebook and library here would produce, or was edited; empty if it is.

    `parameters` are what the preset gives to the run, over the notebook's defaults, if it names it.
    """
    runs, source = runs_root(root), notebook_path(root, run_id.split("/")[1])
    if not (runs / run_id / MANIFEST).is_file():
        return ["it has not been run yet (there is no manifest.json)"]
    try:
        manifest = read_json(runs / run_id / MANIFEST)
        if reasons := provenance.edits(runs, run_id, manifest):
            return reasons
        if parameters is not None:
            reasons += changed_parameters(source, manifest, parameters)
        for need, recorded in manifest["needs"].items():
            there = (runs / need / MANIFEST).is_file()
            if not there or input_hashes(root, need) != recorded:
                reasons.append(f"its input {need} has changed since")
        code = provenance.code_of(root, source.stem)
        names = {"library_tree": "src/sparsejepa", "notebook_sha256": label(source)}
        changed = " and ".join(name for key, name in names.items() if manifest[key] != code[key])
        if changed and not certificate_of(root, run_id, code):
            reasons.append(f"{changed} changed since it was made, and no certificate covers that")
        return reasons
    except ValueError as error:
        return [str(error)]


def stale_runs(root: Path, preset: str) -> list[tuple[StudyRun, list[str]]]:
    """The runs of a preset that have to be made, needed runs first, each with the reasons."""
    stale: dict[str, tuple[StudyRun, list[str]]] = {}
    for run in values.load_study(root, preset):
        reasons, needs = staleness(root, run.id, run.parameters), {need.id for need in run.needs}
        if not reasons and {*read_json(runs_root(root) / run.id / MANIFEST)["needs"]} != needs:
            reasons.append("its inputs are other runs now")
        reasons += [f"its input {need} has to be run" for need in stale if need in needs]
        if reasons:
            stale[run.id] = (run, reasons)
    return list(stale.values())


def trains(root: Path, run: StudyRun, valid: set[Path]) -> bool:
    """Whether making a stale run trains, or only reports of `valid` trainings of these values."""
    made, runs = {}, runs_root(root)
    # What is damaged is made again, as if it were not there.
    with contextlib.suppress(FileNotFoundError, ValueError):
        made = read_json(runs / run.id / MANIFEST)
    if not made.get("trainings"):
        # What reads other runs reports of them; other notebooks train within.
        return not run.needs
    changed = changed_parameters(notebook_path(root, run.notebook), made, run.parameters)
    return bool(changed) or not {runs / place for place in made["trainings"]} <= valid
