"""`sparsejepa certify`: does the code here compute what the code of a run computed?

Both trees run the preset `golden`, size-reduced copies of the reference runs, on one machine and
one thread, each with its own notebooks and library. What they leave is compared to the bit.
"""

import contextlib
import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sparsejepa.companion import provenance
from sparsejepa.companion.certificates import (
    REPORT,
    TRAINING,
    certificate_of,
    read_certificates,
    write_certificates,
)
from sparsejepa.companion.differences import Comparison, compare_runs
from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import MANIFEST
from sparsejepa.companion.provenance import code_of, git, runs_root
from sparsejepa.companion.study import StudyRun, load_study, needed_runs

GOLDEN = "golden"
# Their versions are the certificate's: the same code with others is another computation.
LIBRARIES = ("python", "torch", "timm", "numpy")


class NoRun(RuntimeError):
    """A golden run failed in one of the trees."""


@dataclass(frozen=True)
class Outcome:
    """What `certify` found of one run."""

    run: str  # preset/notebook/run
    state: str  # "unchanged", "certified", "stale" or "missing"
    why: str  # what was compared, or the first difference

    def line(self) -> str:
        """For a reader."""
        return f"{self.state:10}{self.run}: {self.why}"


def certify(
    root: Path,
    preset: str = "reference",
    base: str | None = None,
    say: Callable[[str], None] = print,
    only: str | None = None,
) -> list[Outcome]:
    """Checks every run of a preset whose code differs from what is on disk, and keeps the result.

    Args:
        base: the revision to compare with; each run's own, or the one it is certified for.
        only: a notebook, to check its runs alone.

    Raises:
        ValueError: git or a revision is missing; the certificates were edited; a golden run failed.
    """
    golden = load_study(root, GOLDEN)
    study = [run for run in load_study(root, preset) if only in (None, run.notebook)]
    certificates, outcomes, asked = dict(read_certificates(root)), {}, {}
    for run in study:
        path = runs_root(root) / run.folder / MANIFEST
        if not path.is_file():
            outcomes[run.id] = Outcome(run.id, "missing", "it has not been run")
            continue
        manifest, now = read_json(path), code_of(root, run.notebook)
        if now.items() <= manifest.items():
            outcomes[run.id] = Outcome(run.id, "unchanged", "made by this code")
        elif certificate_of(root, run.id):
            outcomes[run.id] = Outcome(run.id, "unchanged", "certified for this code before")
        else:
            asked.setdefault(base or _base(certificates.get(run.id), manifest), []).append(run)
    for revision, runs in asked.items():
        for outcome, certificate in _compared(root, revision, runs, golden, say):
            outcomes[outcome.run] = outcome
            if certificate:
                certificates[outcome.run] = certificate
    if asked:
        write_certificates(root, certificates)
    return [outcomes[run.id] for run in study]


def _base(certificate: dict[str, Any] | None, manifest: dict[str, Any]) -> str:
    """The commit that the run is certified for, if its code was committed then; else its own."""
    if certificate and REPORT in certificate["parts"]:
        commit = certificate["valid_for"]["commit"]
        if not commit.endswith("-dirty"):
            return commit
    return manifest["commit"].removesuffix("-dirty")


def _compared(
    root: Path, revision: str, runs: list[StudyRun], golden: list[StudyRun], say: Callable
) -> Iterator[tuple[Outcome, dict[str, Any] | None]]:
    copies = {run.id: _golden_copy(run, golden) for run in runs}
    wanted = _with_needs([c for c in copies.values() if c], golden)
    say(
        f"Comparing {revision[:12]} with the code here: {len(wanted)} golden runs in each, "
        f"for {len(runs)} runs."
    )
    begun = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        old, new = Path(folder, "old"), Path(folder, "new")
        _unpack(root, revision, old)
        # The code may be edited while its copy runs.
        _copy(root, new)
        commit = provenance.commit(root)
        with ThreadPoolExecutor(2) as pool:
            jobs = [pool.submit(_run_all, tree, wanted, say) for tree in (old, new)]
            failed = [job.result() for job in jobs]
        for run in runs:
            copy = copies[run.id]
            if copy is None:
                why = f"presets/{GOLDEN}.yml has no size-reduced copy of it"
                yield Outcome(run.id, "stale", why), None
                continue
            errors = [
                f"{tree.name} code: {words[copy.id]}"
                for tree, words in zip((old, new), failed, strict=True)
                if copy.id in words
            ]
            if errors:
                yield Outcome(run.id, "stale", f"its copy fails with the {errors[0]}"), None
                continue
            found = compare_runs(runs_root(old), runs_root(new), copy.id)
            valid_for = {"commit": commit, **code_of(new, run.notebook)}
            yield _judged(root, revision, run, found, valid_for)
    say(f"Compared in {(time.monotonic() - begun) / 60:.1f} minutes.")


def _judged(
    root: Path, revision: str, run: StudyRun, found: Comparison, valid_for: dict[str, str]
) -> tuple[Outcome, dict[str, Any] | None]:
    parts = [p for p, d in ((REPORT, found.report), (TRAINING, found.training)) if d is None]
    equal = f"{found.tensors} tensors and {found.numbers} numbers are equal"
    equal += f"; {found.added} numbers are new" if found.added else ""
    certificate = {
        "parts": parts,
        "made_at": revision,
        "valid_for": valid_for,
        "compared": {"tensors": found.tensors, "numbers": found.numbers},
        "golden_sha256": provenance.file_sha256(root / "notebooks" / "presets" / f"{GOLDEN}.yml"),
        "versions": {k: v for k, v in provenance.versions().items() if k in LIBRARIES},
        "cpu": provenance.cpu_model(),
        "date": datetime.now(UTC).date().isoformat(),
        "changed": _changed(root, revision),
    }
    if found.training and found.report:
        return Outcome(run.id, "stale", f"training and report: {found.training}"), None
    if found.training:
        return Outcome(run.id, "stale", f"training: {found.training}"), None
    if found.report:
        why = f"report: {found.report}"
        if run.notebook != "01_pretrain":
            return Outcome(run.id, "stale", why), None
        return Outcome(run.id, "stale", f"{why}; its training is certified"), certificate
    return Outcome(run.id, "certified", equal), certificate


def _golden_copy(run: StudyRun, golden: list[StudyRun]) -> StudyRun | None:
    """The golden run of the same notebook and name, whatever the seed."""
    for copy in golden:
        if copy.notebook == run.notebook and _unseeded(copy.name) == _unseeded(run.name):
            return copy
    return None


def _unseeded(name: str) -> str:
    return name.rpartition("-seed")[0] or name


def _with_needs(copies: list[StudyRun], golden: list[StudyRun]) -> list[StudyRun]:
    """The copies and all that they read, needed runs first, each once."""
    wanted = {run.id for run in copies}
    wanted |= {need.id for run in copies for need in needed_runs(golden, run)}
    return [run for run in golden if run.id in wanted]


def _unpack(root: Path, revision: str, folder: Path) -> None:
    """Sources and notebooks of a revision."""
    packed = subprocess.run(
        ["git", "-C", str(root), "archive", revision, "src", "notebooks"], capture_output=True
    )
    if packed.returncode:
        shallow = git(root, "rev-parse", "--is-shallow-repository") == "true"
        cure = "fetch the history with `git fetch --unshallow`" if shallow else "fetch it"
        raise ValueError(
            f"Revision {revision[:12]}, whose code made the runs, is not in this clone: {cure}, "
            "then give the same command again."
        )
    with tarfile.open(fileobj=io.BytesIO(packed.stdout)) as archive:
        archive.extractall(folder, filter="data")


def _copy(root: Path, folder: Path) -> None:
    """Sources and notebooks as they are on disk."""
    leave_out = shutil.ignore_patterns("__pycache__", "*.egg-info", ".ipynb_checkpoints")
    for part in ("src", "notebooks"):
        shutil.copytree(root / part, folder / part, ignore=leave_out)


def _run_all(tree: Path, wanted: list[StudyRun], say: Callable) -> dict[str, str]:
    """Makes the golden runs in a tree, one after another; the last words of those that fail."""
    failed = {}
    for run in wanted:
        begun = time.monotonic()
        try:
            _run(tree, run)
        except NoRun as error:
            failed[run.id] = str(error)
        seconds = time.monotonic() - begun
        say(f"  {tree.name} {run.notebook}/{run.name}: {seconds:.0f} s")
    return failed


def _run(tree: Path, run: StudyRun) -> None:
    """One golden run; a training is killed at its first checkpoint, and goes on from there."""
    command = [sys.executable, "-m", "sparsejepa.cli", "run", f"notebooks/{run.notebook}.ipynb"]
    command += ["--preset", GOLDEN, "--run", run.name]
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    environment = os.environ | threads
    environment |= {"PYTHONPATH": str(tree / "src"), "SPARSEJEPA_CACHE": str(tree / "cache")}
    if data := os.environ.get("SPARSEJEPA_DATA"):
        environment["SPARSEJEPA_DATA"] = str(Path(data).expanduser().resolve())
    log = tree / f"{run.notebook}-{run.name}.log"
    kill_at_checkpoint = run.notebook == "01_pretrain"
    for attempt in range(2):
        with log.open("w") as output:
            process = subprocess.Popen(
                command,
                cwd=tree,
                env=environment,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
            try:
                killed = kill_at_checkpoint and attempt == 0 and _killed(process, tree)
                code = process.wait()
            except BaseException:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(process.pid, signal.SIGKILL)
                raise
        if not killed:
            break
    if code:
        words = log.read_text(errors="replace").strip().splitlines() or ["it printed nothing"]
        raise NoRun(words[-1])


def _killed(process: subprocess.Popen, tree: Path) -> bool:
    """Kills the run as soon as a checkpoint of it lies on disk; False if none ever does."""
    while process.poll() is None:
        if any(runs_root(tree).rglob("checkpoint.*")):
            os.killpg(process.pid, signal.SIGKILL)
            return True
        time.sleep(0.2)
    return False


def _changed(root: Path, revision: str) -> int:
    """How many files of library and notebooks differ from the revision."""
    names = git(root, "diff", "--name-only", revision, "--", "src/sparsejepa", "notebooks")
    return len([n for n in (names or "").splitlines() if n.endswith((".py", ".ipynb"))])
