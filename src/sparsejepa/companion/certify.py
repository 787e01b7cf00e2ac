"""`sparsejepa certify` and `verify`: are the numbers of a run those that the code here computes?

`certify` asks whether changed code does the same, on one machine and one thread: the old and the
new tree run the preset `golden`, size-reduced copies of the reference runs, each with its own
notebooks and library, and what they leave is compared to the bit. `verify` asks whether the numbers
that the book prints come out here, on another processor and with other versions: it runs reports
again from the committed trainings and compares within tolerances.
"""

import io
import os
import re
import shutil
import signal
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from safetensors.numpy import load_file

from sparsejepa.companion import manifest, provenance
from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import MANIFEST, REPORT, RESULTS, TIMING, TRAINING
from sparsejepa.companion.parameters import effective_parameters
from sparsejepa.companion.provenance import code_of, git, notebook_path, runs_root
from sparsejepa.companion.runs import run_notebook
from sparsejepa.companion.study import StudyRun, load_study, needed_runs
from sparsejepa.training.code import code_sha256

GOLDEN = "golden"
# Their versions are the certificate's: the same code with others is another computation.
LIBRARIES = ("python", "torch", "timm", "numpy")
# Tensors and results that a training leaves; all else is a report of it.
OF_TRAINING = ("encoder.safetensors", "groups.safetensors", "steps", "history")


class Outcome(NamedTuple):
    """What `certify` or `verify` found of one run."""

    run: str  # preset/notebook/run
    # "unchanged", "certified", "stale" or "missing"; "agrees", "differs", "edited" or "not done".
    state: str
    details: tuple[str, ...]  # what was compared, what differs, or why nothing was compared
    numbers: int = 0  # of results.json, that `verify` compared

    def line(self) -> str:
        """For a reader."""
        return f"{self.state:10}{self.run}: {'; '.join(self.details[:5])}"


def certify(
    root: Path, preset: str = "reference", base: str | None = None, only: str | None = None
) -> list[Outcome]:
    """Checks every run of a preset whose code differs from what is on disk, and keeps the result.

    `base` is the revision to compare with, else each run's own or the one it is certified for;
    `only` a notebook, to check its runs alone.

    Raises:
        ValueError: git or a revision is missing; the certificates were edited.
    """
    study = [run for run in load_study(root, preset) if only in (None, run.notebook)]
    certificates, outcomes, asked = manifest.read_certificates(root), {}, {}
    for run in study:
        path = runs_root(root) / run.id / MANIFEST
        if not path.is_file():
            outcomes[run.id] = Outcome(run.id, "missing", ("it has not been run",))
        elif code_of(root, run.notebook).items() <= (made := read_json(path)).items():
            outcomes[run.id] = Outcome(run.id, "unchanged", ("made by this code",))
        elif manifest.certificate_of(root, run.id):
            outcomes[run.id] = Outcome(run.id, "unchanged", ("certified for this code before",))
        else:
            old = certificates.get(run.id, {"parts": []})
            commit = old["valid_for"]["commit"] if REPORT in old["parts"] else "-dirty"
            # What is certified for code that was never committed can't be had again.
            commit = made["commit"].removesuffix("-dirty") if commit.endswith("-dirty") else commit
            asked.setdefault(base or commit, []).append(run)
    for revision, runs in asked.items():
        for outcome, certificate in _compared(root, revision, runs):
            outcomes[outcome.run] = outcome
            if certificate:
                certificates[outcome.run] = certificate
    if asked:
        manifest.write_certificates(root, certificates)
    return [outcomes[run.id] for run in study]


def _compared(
    root: Path, revision: str, runs: list[StudyRun]
) -> Iterator[tuple[Outcome, dict[str, Any] | None]]:
    """Each run's outcome, with its certificate if it gets one."""
    golden = load_study(root, GOLDEN)
    # By notebook and name, whatever the seed: the first one.
    named = {(copy.notebook, copy.name.partition("-seed")[0]): copy for copy in reversed(golden)}
    copies = {run.id: named.get((run.notebook, run.name.partition("-seed")[0])) for run in runs}
    # With all that they read, needed runs first.
    ids = {need.id for c in copies.values() if c for need in (c, *needed_runs(golden, c))}
    wanted = [run for run in golden if run.id in ids]
    print(
        f"Comparing {revision[:12]} with the code here: {len(wanted)} golden runs in each, "
        f"for {len(runs)} runs.",
        flush=True,
    )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        _unpack(root, revision, old)
        # The code may be edited while its copy runs.
        _copy(root, new, "src", "notebooks")
        commit = provenance.commit(root)
        with ThreadPoolExecutor(2) as pool:
            failed = list(pool.map(lambda tree: _run_all(tree, wanted), (old, new)))
        for run in runs:
            copy = copies[run.id]
            if copy is None:
                wrong = f"presets/{GOLDEN}.yml has no size-reduced copy of it"
            elif copy.id in failed[0] | failed[1]:
                name, words = ("old", failed[0]) if copy.id in failed[0] else ("new", failed[1])
                wrong = f"its copy fails with the {name} code: {words[copy.id]}"
            else:
                found = compare_runs(runs_root(old) / copy.id, runs_root(new) / copy.id)
                trains = code_sha256(new / "src" / "sparsejepa")
                valid_for = {"commit": commit, **code_of(new, run.notebook)}
                valid_for |= {manifest.TRAINING_SHA256: trains}
                yield _judged(root, revision, run, valid_for, *found)
                continue
            yield Outcome(run.id, "stale", (wrong,)), None
    print(f"Compared in {(time.monotonic() - begun) / 60:.1f} minutes.", flush=True)


def _judged(
    root: Path,
    revision: str,
    run: StudyRun,
    valid_for: dict[str, str],
    compared: dict[str, int],
    first: dict[str, str],
) -> tuple[Outcome, dict[str, Any] | None]:
    if TRAINING in first or (first and run.notebook != "01_pretrain"):
        why = f"{' and '.join(first)}: {first.get(TRAINING) or first[REPORT]}"
        return Outcome(run.id, "stale", (why,)), None
    changed = git(root, "diff", "--name-only", revision, "--", "src/sparsejepa", "notebooks")
    versions = provenance.versions()
    certificate = {
        "parts": [TRAINING] if first else [REPORT, TRAINING],
        "made_at": revision,
        "valid_for": valid_for,
        "compared": compared,
        "golden_sha256": provenance.file_sha256(root / "notebooks" / "presets" / f"{GOLDEN}.yml"),
        "versions": {name: versions[name] for name in LIBRARIES if name in versions},
        "cpu": provenance.cpu_model(),
        "date": datetime.now(UTC).date().isoformat(),
        "changed": sum(name.endswith((".py", ".ipynb")) for name in changed.splitlines()),
    }
    if first:
        why = f"report: {first[REPORT]}; its training is certified"
        return Outcome(run.id, "stale", (why,)), certificate
    equal = "{tensors} tensors and {numbers} numbers are equal".format(**compared)
    return Outcome(run.id, "certified", (equal,)), certificate


def _unpack(root: Path, revision: str, folder: Path) -> None:
    """Sources and notebooks of a revision."""
    command = ["git", "-C", str(root), "archive", revision, "src", "notebooks"]
    packed = subprocess.run(command, capture_output=True)
    if packed.returncode:
        raise ValueError(
            f"Revision {revision[:12]}, whose code made the runs, is not in this clone: fetch it "
            "(`git fetch --unshallow` in a shallow clone), then give the same command again."
        )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _copy(root: Path, folder: Path, *parts: str) -> None:
    """Parts of a checkout as they are on disk."""
    names = ("__pycache__", "*.egg-info", ".ipynb_checkpoints", "checkpoints")
    for part in parts:
        shutil.copytree(root / part, folder / part, ignore=shutil.ignore_patterns(*names))


def _run_all(tree: Path, wanted: list[StudyRun]) -> dict[str, str]:
    """Makes the golden runs in a tree, one after another; the last words of those that fail."""
    failed = {}
    for run in wanted:
        begun = time.monotonic()
        if words := _run(tree, run):
            failed[run.id] = words
        took = f"{time.monotonic() - begun:.0f} s"
        print(f"  {tree.name} {run.notebook}/{run.name}: {took}", flush=True)
    return failed


def _run(tree: Path, run: StudyRun) -> str:
    """Makes one golden run; its last words if it fails."""
    environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    environment["PYTHONPATH"] = str(tree / "src")
    if data := os.environ.get("SPARSEJEPA_DATA"):
        environment["SPARSEJEPA_DATA"] = str(Path(data).expanduser().resolve())
    log = tree / f"{run.notebook}-{run.name}.log"
    # A training is killed at its first checkpoint, and goes on from there.
    for kill in (True, False) if run.notebook == "01_pretrain" else (False,):
        with (
            log.open("w") as output,
            subprocess.Popen(
                run.command,
                cwd=tree,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            ) as process,
        ):
            try:
                while process.poll() is None:
                    if kill and any(runs_root(tree).rglob("checkpoint.*")):
                        break
                    time.sleep(0.2)
            finally:
                # With its kernel; also when the reader presses Ctrl-C.
                if killed := process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
        if not killed:
            break
    words = log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
    return words[-1] if process.returncode else ""


def compare_runs(old: Path, new: Path) -> tuple[dict[str, int], dict[str, str]]:
    """Compares to the bit what two folders hold of one run, times left out.

    Returns: how many tensors and numbers; the first difference of the training, of the report.
    """
    compared, first = {"tensors": 0, "numbers": 0}, {}

    def differ(of: str, pairs: Iterator[tuple[str, Any, Any]]) -> None:
        for place, before, after in pairs:
            if before != after or type(before) is not type(after):
                part = TRAINING if of in OF_TRAINING else REPORT
                first.setdefault(part, f"{place}: {before} -> {after}")

    made = [read_json(folder / MANIFEST)["parameters"] for folder in (old, new)]
    differ("", (pair for pair in leaves(*made, "parameters") if None not in pair))
    one, two = _tensor_files(old), _tensor_files(new)
    for name, path in one.items():
        after = load_file(two[name]) if name in two else {}
        for key, values in load_file(path).items():
            compared["tensors"] += 1
            if key not in after or not np.array_equal(values, after[key], equal_nan=True):
                there = after[key].tolist() if key in after else None
                differ(name, leaves(values.tolist(), there, f"{name} > {key}"))
    results = [manifest.without_times(read_json(folder / RESULTS))[0] for folder in (old, new)]
    for place, before, after in leaves(*results):
        # Words are no numbers; what the run lacks the book cannot show.
        if isinstance(before, int | float):
            compared["numbers"] += 1
            differ(place.split(" > ")[0], iter([(place, before, after)]))
    return compared, first


def leaves(one: Any, two: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Place, and both values, of everything that is no mapping or list; None where one lacks it."""
    kinds = {type(value) for value in (one, two) if value is not None}
    if kinds not in ({dict}, {list}):
        yield place, one, two
        return
    one, two = (dict(enumerate(x)) if isinstance(x, list) else x or {} for x in (one, two))
    for key in dict.fromkeys([*one, *two]):
        yield from leaves(one.get(key), two.get(key), f"{place} > {key}" if place else str(key))


def _tensor_files(folder: Path) -> dict[str, Path]:
    """Tensor files of a run and of the training that it read, by name."""
    trainings = list(read_json(folder / MANIFEST).get("trainings", {}))
    # The short trainings of a study are compared by what was measured of them.
    read = [folder.parents[2] / place for place in trainings] if len(trainings) == 1 else []
    return {p.name: p for place in (folder, *read) for p in sorted(place.glob("*.safetensors"))}


# Pattern of a number's place in results.json; how far it may be from the printed one, in its own
# unit and as a share of it; and what makes honest computations differ by that much. The first that
# fits. On the machine of a run all numbers come out the same to the bit; another processor adds
# float32 numbers in another order, which moves features by some 1e-6 of themselves.
TOLERANCES = (
    (
        r".*(accuracy|linear|kNN|count|distance|majority|differences|chosen|efficiency).*",
        *(0.005, 0.0, "images between two classes change sides: at most 5 of 1,000"),
    ),
    (
        r".*(auroc|aupr|fpr|rank|properties|agreement|explained|outliers|curation).*",
        *(0.01, 0.0, "ranks of scores: near-ties change places"),
    ),
    (
        r".*(total|between|within|gaussian|copula|nats|information|partitions|calibration).*",
        *(0.05, 0.005, "log-determinants of correlations, in which small eigenvalues weigh most"),
    ),
    (r".*", 1e-6, 2e-3, "sums in another order, and what descends on them"),
)


def verify(root: Path, preset: str, minutes: float) -> Iterator[Outcome]:
    """Runs the reports of a preset again, in a copy of the checkout; cheap ones first.

    What took longer than what is left of the minutes is left out; ValueError: no finished run.
    """
    runs = runs_root(root)
    there = [run for run in load_study(root, preset) if (runs / run.id / MANIFEST).is_file()]
    if not there:
        raise ValueError(
            f"There is no finished run of preset {preset!r} to verify: "
            f"run `sparsejepa reproduce --preset {preset}` first."
        )
    times, left = {run.id: read_json(runs / run.id / TIMING) for run in there}, 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy(root, copy, "src", "notebooks", f"book/runs/{preset}")
        if (runs / "certificates.json").is_file():
            shutil.copy(runs / "certificates.json", runs_root(copy))
        for run in sorted(there, key=lambda run: times[run.id]["notebook_seconds"]):
            made, seconds = read_json(runs / run.id / MANIFEST), times[run.id]["notebook_seconds"]
            if changed := provenance.edits(runs, run.id, made):
                yield Outcome(run.id, "edited", tuple(changed))
            elif times[run.id]["training_seconds"] and not made["trainings"]:
                why = "its short trainings are not kept: run it again"
                yield Outcome(run.id, "not done", (why,))
            elif seconds > left:
                why = f"it took {seconds / 60:.0f} minutes: give --minutes"
                yield Outcome(run.id, "not done", (why,))
            else:
                left -= seconds
                yield _verified(root, copy, run)


def _verified(root: Path, copy: Path, run: StudyRun) -> Outcome:
    printed = read_json(runs_root(root) / run.id / RESULTS)
    # The committed run stays in the copy for those that read it: this one goes beside it.
    source = notebook_path(copy, run.notebook)
    name, value = next(iter(effective_parameters(source, run.parameters).items()))
    again = run_notebook(source, run.preset, run.name, {name: value}, copy)
    pairs = list(leaves(manifest.without_times(printed)[0], read_json(again / RESULTS)))
    wrong = [f"{p}: printed {x}, computed {y}" for p, x, y in pairs if not agree(p, x, y)]
    details = (f"{len(pairs)} numbers compared", *wrong)
    return Outcome(run.id, "differs" if wrong else "agrees", details, len(pairs))


def agree(place: str, printed: Any, computed: Any) -> bool:
    """Whether two values of results.json are the same, by the first tolerance that fits."""
    numbers = all(isinstance(value, int | float) for value in (printed, computed))
    if not numbers or (isinstance(printed, int) and isinstance(computed, int)):
        return printed == computed
    absolute, relative = next(t[1:3] for t in TOLERANCES if re.fullmatch(t[0], place))
    return abs(printed - computed) <= absolute + relative * abs(printed)
