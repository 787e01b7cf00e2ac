"""`sparsejepa verify`: does a report, run again from the committed trainings, print its numbers?

`certify` asks whether changed code does the same on one machine; this asks whether the numbers that
the book prints come out here, on another processor and with other versions.
"""

import re
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparsejepa.companion.differences import leaves
from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import MANIFEST, RESULTS, TIMING, without_times
from sparsejepa.companion.parameters import effective_parameters
from sparsejepa.companion.provenance import edits, runs_root
from sparsejepa.companion.runs import run_notebook
from sparsejepa.companion.study import StudyRun, load_study


@dataclass(frozen=True)
class Tolerance:
    """How far a number may be from the printed one and still be the same."""

    places: str  # pattern of its place in results.json
    absolute: float  # in the number's own unit
    relative: float  # as a share of the printed number
    why: str  # what makes honest computations differ by that much


# The first that fits. On the machine of a run all numbers come out the same to the bit; another
# processor adds float32 numbers in another order, which moves features by some 1e-6 of themselves.
TOLERANCES = (
    Tolerance(
        r".*(accuracy|linear|kNN|count|distance|majority|differences|chosen|efficiency).*",
        *(0.005, 0.0, "images between two classes change sides: at most 5 of 1,000"),
    ),
    Tolerance(
        r".*(auroc|aupr|fpr|rank|properties|agreement|explained|outliers|curation).*",
        *(0.01, 0.0, "ranks of scores: near-ties change places"),
    ),
    Tolerance(
        r".*(total|between|within|gaussian|copula|nats|information|partitions|calibration).*",
        *(0.05, 0.005, "log-determinants of correlations, in which small eigenvalues weigh most"),
    ),
    Tolerance(r".*", 1e-6, 2e-3, "sums in another order, and what descends on them"),
)


@dataclass(frozen=True)
class Checked:
    """What `verify` found of one run."""

    run: str  # preset/notebook/run
    state: str  # "agrees", "differs", "edited" or "not done"
    numbers: int  # of results.json that were compared
    details: tuple[str, ...]  # what differs, or why nothing was compared

    def line(self) -> str:
        """For a reader."""
        count = f"{self.numbers} numbers compared" if self.numbers else ""
        return f"{self.state:9}{self.run}: {'; '.join(filter(None, (count, *self.details[:5])))}"


def verify(root: Path, preset: str, minutes: float) -> Iterator[Checked]:
    """Runs the reports of a preset again, in a copy of the checkout; cheap ones first.

    Args:
        minutes: reports that took longer than what is left of these are left out.

    Raises:
        ValueError: no finished run.
    """
    study, runs = load_study(root, preset), runs_root(root)
    there = [run for run in study if (runs / run.folder / MANIFEST).is_file()]
    if not there:
        raise ValueError(
            f"There is no finished run of preset {preset!r} to verify: "
            f"run `sparsejepa reproduce --preset {preset}` first."
        )
    left = 60 * minutes
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        leave_out = shutil.ignore_patterns("__pycache__", "checkpoints", "attempts")
        for part in ("src", "notebooks", f"book/runs/{preset}"):
            shutil.copytree(root / part, copy / part, ignore=leave_out)
        if (runs / "certificates.json").is_file():
            shutil.copy(runs / "certificates.json", runs_root(copy))
        for run in sorted(there, key=lambda run: _seconds(root, run)):
            found = _not_to_be_run(root, run, left)
            if found is None:
                left -= _seconds(root, run)
                found = _checked(root, copy, run)
            yield found


def _checked(root: Path, copy: Path, run: StudyRun) -> Checked:
    printed = read_json(runs_root(root) / run.folder / RESULTS)
    # The committed run stays in the copy for those that read it: this one goes beside it.
    source = copy / "notebooks" / f"{run.notebook}.ipynb"
    name, value = next(iter(effective_parameters(source, run.parameters).items()))
    again = run_notebook(source, run.preset, run.name, {name: value}, copy)
    numbers, wrong = 0, []
    for place, before, after in leaves(without_times(printed)[0], read_json(again / RESULTS)):
        numbers += 1
        if not agree(place, before, after):
            wrong.append(f"{place}: printed {before}, computed {after}")
    return Checked(run.id, "differs" if wrong else "agrees", numbers, tuple(wrong))


def agree(place: str, printed: Any, computed: Any) -> bool:
    """Whether two values of results.json are the same, by the first tolerance that fits."""
    plain = (int, float)
    if not isinstance(printed, plain) or not isinstance(computed, plain):
        return printed == computed
    if isinstance(printed, int) and isinstance(computed, int):
        return printed == computed
    fits = next(t for t in TOLERANCES if re.fullmatch(t.places, place))
    return abs(printed - computed) <= fits.absolute + fits.relative * abs(printed)


def _not_to_be_run(root: Path, run: StudyRun, left: float) -> Checked | None:
    manifest = read_json(runs_root(root) / run.folder / MANIFEST)
    if changed := edits(runs_root(root) / run.folder, manifest):
        return Checked(run.id, "edited", 0, tuple(changed))
    times = read_json(runs_root(root) / run.folder / TIMING)
    if times["training_seconds"] and not manifest["trainings"]:
        return Checked(run.id, "not done", 0, ("its short trainings are not kept: run it again",))
    if _seconds(root, run) > left:
        minutes = _seconds(root, run) / 60
        return Checked(run.id, "not done", 0, (f"it took {minutes:.0f} minutes: give --minutes",))
    return None


def _seconds(root: Path, run: StudyRun) -> float:
    times = read_json(runs_root(root) / run.folder / TIMING)
    return times["notebook_seconds"]
