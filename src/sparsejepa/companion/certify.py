"""`sparsejepa certify` and `verify`: are the numbers of a run those that the code here computes?

`certify`: the old and the new tree run the preset `golden`, size-reduced copies of the reference
runs, each with its own notebooks and library, on one thread; what they leave is compared to the
bit. `verify` runs reports again from committed trainings and compares numbers within tolerances.
"""

import os
import re
import shutil
import signal
import subprocess
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
from sparsejepa.companion.parameters import StudyRun, load_study, notebook_parameters
from sparsejepa.companion.provenance import code_of, file_sha256, git, notebook_path, runs_root
from sparsejepa.companion.runs import run_notebook
from sparsejepa.training.code import code_sha256

GOLDEN = "golden"
LIBRARIES = ("python", "torch", "timm", "numpy")  # whose versions a certificate names
# What a training leaves; all else is a report of it.
OF_TRAINING = ("encoder.safetensors", "groups.safetensors", "steps", "history")


class Outcome(NamedTuple):
    """What `certify` or `verify` found of one run."""

    run: str  # preset/notebook/run
    state: str  # "unchanged", "certified", "stale", "missing"; "agrees", "differs", "edited", ...
    details: str  # what was compared, what differs, or why nothing was compared


def certify(root: Path, preset: str, base: str = "", only: str = "") -> Iterator[Outcome]:
    """Checks every run of a preset whose code differs from what is on disk, and keeps the result.

    `base` is the revision to compare with, else each run's own or the one it is certified for;
    `only` the one notebook to check. ValueError: no such revision; the certificates were edited.
    """
    certificates, asked = manifest.read_certificates(root), {}
    for run in load_study(root, preset):
        if only not in ("", run.notebook):
            continue
        path, code = runs_root(root) / run.id / MANIFEST, code_of(root, run.notebook)
        if not path.is_file():
            yield Outcome(run.id, "missing", "it has not been run")
        elif code.items() <= (made := read_json(path)).items():
            yield Outcome(run.id, "unchanged", "made by this code")
        elif manifest.certificate_of(root, run.id, code):
            yield Outcome(run.id, "unchanged", "certified for this code before")
        else:
            commit = made["commit"].removesuffix("-dirty")
            old = manifest.certificate_of(root, run.id, {})
            # What is certified for code that was never committed can't be had again.
            if old and not old["valid_for"]["commit"].endswith("-dirty"):
                commit = old["valid_for"]["commit"]
            asked.setdefault(base or commit, []).append(run)
    for revision, runs in asked.items():
        yield from _compare(root, revision, runs, certificates)
        manifest.write_certificates(root, certificates)


def _compare(root: Path, revision: str, runs: list[StudyRun], kept: dict) -> Iterator[Outcome]:
    """What comes out for each run; a certificate of the parts that are equal is added to `kept`."""
    golden = load_study(root, GOLDEN)
    # By notebook and name, whatever the seed: the first one.
    named = {(copy.notebook, copy.name.partition("-seed")[0]): copy for copy in reversed(golden)}
    copies = [named.get((run.notebook, run.name.partition("-seed")[0])) for run in runs]
    # With all that they read, needed runs first.
    wanted = [run for run in golden if any(c and run in (c, *c.needs) for c in copies)]
    print(f"Comparing {revision[:12]} with the code here: {len(wanted)} golden runs in each.")
    with tempfile.TemporaryDirectory() as folder:
        trees = old, new = Path(folder, "old"), Path(folder, "new")
        if not git(root, "rev-parse", "--verify", f"{revision}^{{commit}}"):
            lacks = f"Revision {revision[:12]}, whose code made the runs, is not in this clone"
            raise ValueError(f"{lacks}: fetch it (all of a shallow clone: git fetch --unshallow).")
        git(root, "archive", "--output", f"{old}.tar", revision, "src", "notebooks")
        shutil.unpack_archive(f"{old}.tar", old, filter="data")
        # The code may be edited while its copy runs.
        _copy(root, new, "src", "notebooks")
        trains = code_sha256(new / "src" / "sparsejepa")
        code = {"commit": provenance.commit(root), manifest.TRAINING_SHA256: trains}
        changed = git(root, "diff", "--name-only", revision, "--", "src/sparsejepa", "notebooks")
        facts = {
            "made_at": revision,
            "golden_sha256": file_sha256(new / "notebooks" / "presets" / f"{GOLDEN}.yml"),
            "versions": {n: v for n, v in provenance.versions().items() if n in LIBRARIES},
            "cpu": provenance.hardware()["cpu"],
            "date": datetime.now(UTC).date().isoformat(),
            "changed": sum(name.endswith((".py", ".ipynb")) for name in changed.splitlines()),
        }
        with ThreadPoolExecutor(2) as pool:
            failed = list(pool.map(_run_all, trees, (wanted, wanted)))
        for run, copy in zip(runs, copies, strict=True):
            state, parts, compared, first = "stale", [], {}, {}
            if copy is None:
                first["unknown"] = f"presets/{GOLDEN}.yml has no size-reduced copy of it"
            elif wrong := [tree[copy.id] for tree in failed if copy.id in tree]:
                first["unknown"] = f"its copy fails with the {wrong[0]}"
            else:
                compared, first = compare_runs(*(runs_root(tree) / copy.id for tree in trees))
            details = "; ".join(f"{part}: {what}" for part, what in first.items())
            if not first:
                state, parts = "certified", [REPORT, TRAINING]
                details = "{tensors} tensors and {numbers} numbers are equal".format(**compared)
            elif run.notebook == "01_pretrain" and first.keys() == {REPORT}:
                # A training outlives a changed report of it.
                parts, details = [TRAINING], f"{details}; its training is certified"
            if parts:
                made = read_json(runs_root(root) / run.id / MANIFEST)
                of = {"run_sha256": made["sha256"], "trainings": sorted(made["trainings"])}
                valid_for = {**code, **code_of(new, run.notebook)}
                found = {"parts": parts, "compared": compared, "valid_for": valid_for}
                kept[run.id] = {**of, **found, **facts}
            yield Outcome(run.id, state, details)


def _copy(root: Path, folder: Path, *parts: str) -> None:
    """Parts of a checkout as they are on disk."""
    left = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints", "checkpoints")
    for part in parts:
        shutil.copytree(root / part, folder / part, ignore=left)


def _run_all(tree: Path, wanted: list[StudyRun]) -> dict[str, str]:
    """Makes the golden runs in a tree, one after another; the last words of those that fail."""
    environment = os.environ | {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    environment["PYTHONPATH"] = str(tree / "src")
    if data := os.environ.get("SPARSEJEPA_DATA"):
        environment["SPARSEJEPA_DATA"] = str(Path(data).expanduser().resolve())
    options = {"cwd": tree, "env": environment, "start_new_session": True}
    log, runs, failed = tree / "log.txt", runs_root(tree), {}
    for run in wanted:
        # A training is killed at its first checkpoint, and goes on from there.
        for kill in (True, False) if run.notebook == "01_pretrain" else (False,):
            print(f"  {tree.name} {run.notebook}/{run.name}{' to be killed' * kill}", flush=True)
            with log.open("w") as output:
                process = subprocess.Popen(run.command, stdout=output, stderr=output, **options)
            try:
                while process.poll() is None and not (kill and any(runs.rglob("checkpoint.*"))):
                    time.sleep(0.2)
            finally:
                # With its kernel; also when the reader presses Ctrl-C.
                if process.poll() is None:
                    os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        if process.returncode:
            words = log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
            failed[run.id] = f"{tree.name} code: {words[-1]}"
    return failed


def compare_runs(old: Path, new: Path) -> tuple[dict[str, int], dict[str, str]]:
    """How many tensors and numbers two folders hold of one run; the first difference of each part.

    They are compared to the bit, times left out.
    """
    compared, first = {"tensors": 0, "numbers": 0}, {}
    for place, before, after in leaves(_content(old), _content(new)):
        file = place.split(" > ")[0]
        if isinstance(before, np.ndarray):
            compared["tensors"] += 1
            if after is not None and np.array_equal(before, after, equal_nan=True):
                continue
            pairs = leaves(before.tolist(), None if after is None else after.tolist(), place)
            # As text, because NaN is not equal to itself.
            place, before, after = next(p for p in pairs if repr(p[1]) != repr(p[2]))
        elif file != "parameters" and isinstance(before, int | float):
            compared["numbers"] += 1
        elif file != "parameters" or None in (before, after):
            # A parameter that came since has its default. Words are no numbers; what the run lacks
            # the book cannot show.
            continue
        if before != after or type(before) is not type(after):
            part = TRAINING if file in OF_TRAINING else REPORT
            first.setdefault(part, f"{place}: {before} -> {after}")
    return compared, first


def _content(folder: Path) -> dict[str, Any]:
    """What is compared of a run: parameters, tensors of it and of its training, results."""
    made = read_json(folder / MANIFEST)
    # The many short trainings of a study are compared by what was measured of them.
    read = [folder.parents[2] / place for place in made.get("trainings", {})]
    places = (folder, *read) if len(read) == 1 else (folder,)
    files = [path for place in places for path in sorted(place.glob("*.safetensors"))]
    results, _ = manifest.without_times(read_json(folder / RESULTS))
    return {"parameters": made["parameters"], **{f.name: load_file(f) for f in files}, **results}


def leaves(one: Any, two: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Place, and both values, of everything that is no mapping or list; None where one lacks it."""
    kinds = {type(value) for value in (one, two) if value is not None}
    if kinds not in ({dict}, {list}):
        yield place, one, two
        return
    one, two = (dict(enumerate(x)) if isinstance(x, list) else x or {} for x in (one, two))
    for key in dict.fromkeys([*one, *two]):
        yield from leaves(one.get(key), two.get(key), f"{place} > {key}" if place else str(key))


# Pattern of a number's place in results.json (the first that fits); how far it may be from the
# printed one, in its own unit and as a share of it; and why honest computations differ so much.
# On the machine of a run all numbers are the same to the bit; another processor adds float32
# numbers in another order, which moves features by some 1e-6 of themselves.
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
    runs, left = runs_root(root), 60 * minutes
    there = [run for run in load_study(root, preset) if (runs / run.id / MANIFEST).is_file()]
    if not there:
        how = f"run `sparsejepa reproduce --preset {preset}` first"
        raise ValueError(f"There is no finished run of preset {preset!r} to verify: {how}.")
    took = {run.id: read_json(runs / run.id / TIMING)["notebook_seconds"] for run in there}
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        _copy(root, copy, "src", "notebooks", f"book/runs/{preset}")
        manifest.write_certificates(copy, manifest.read_certificates(root))
        for run in sorted(there, key=lambda run: took[run.id]):
            if changed := provenance.edits(runs, run.id, read_json(runs / run.id / MANIFEST)):
                yield Outcome(run.id, "edited", "; ".join(changed[:5]))
            elif took[run.id] > left:
                why = f"it took {took[run.id] / 60:.0f} minutes: give --minutes"
                yield Outcome(run.id, "not done", why)
            else:
                left -= took[run.id]
                # The committed run stays in the copy for those that read it: this one goes beside.
                source = notebook_path(copy, run.notebook)
                name, value = next(iter((notebook_parameters(source) | run.parameters).items()))
                again = run_notebook(copy, source, run.preset, run.name, {name: value})
                printed, _ = manifest.without_times(read_json(runs / run.id / RESULTS))
                pairs = list(leaves(printed, read_json(again / RESULTS)))
                wrong = [pair for pair in pairs if not agree(*pair)]
                said = [f"{place}: printed {x}, computed {y}" for place, x, y in wrong[:4]]
                details = "; ".join([f"{len(pairs)} numbers compared", *said])
                yield Outcome(run.id, "differs" if wrong else "agrees", details)


def agree(place: str, printed: Any, computed: Any) -> bool:
    """Whether two values of results.json are the same, by the first tolerance that fits."""
    numbers = all(isinstance(value, int | float) for value in (printed, computed))
    if not numbers or (isinstance(printed, int) and isinstance(computed, int)):
        return printed == computed
    absolute, relative = next(t[1:3] for t in TOLERANCES if re.fullmatch(t[0], place))
    return abs(printed - computed) <= absolute + relative * abs(printed)
