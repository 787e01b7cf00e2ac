"""`sparsejepa verify`: are the numbers that the book prints those of its weights and data?

What is checked of each notebook is one function, listed in `CHECKS`. Each calls what the notebook
calls: agreement says that a run is what it claims to be, not that the library is right, which is
for the tests.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from sparsejepa.companion import recomputed
from sparsejepa.companion.manifest import runs_root
from sparsejepa.companion.run_files import edits
from sparsejepa.companion.stored_runs import Comparison, NotChecked, StoredRun, Workbench
from sparsejepa.companion.study import load_study


@dataclass(frozen=True)
class Check:
    """What can be computed again of each run of a notebook."""

    notebook: str  # name, as "01_pretrain"
    what: str  # the numbers, for a reader
    compare: Callable[[StoredRun, Workbench], Iterator[Comparison]]


# Cheap ones first: what the time does not suffice for is said and left out.
CHECKS = (
    Check("01_pretrain", "accuracies from recorded answers", recomputed.recorded_answers),
    Check("07_scorecard", "paired differences", recomputed.paired_differences),
    Check("05_linear_dynamics", "critical times", recomputed.critical_times),
    Check("02_probes", "rank, spectrum and spread of features", recomputed.structure_of_features),
    Check("03_multiinformation", "total correlation of features", recomputed.total_correlations),
    Check("04_jepa_score", "detectors of outliers by features", recomputed.outlier_detectors),
    Check("01_pretrain", "probes of the trained encoder", recomputed.trained_probes),
    Check("04_jepa_score", "JEPA-SCORE and properties of images", recomputed.scores),
    Check("01_pretrain", "probes of the untrained encoder", recomputed.untrained_probes),
)

# What no check covers: nothing but running the notebook again makes these numbers anew.
NOT_COVERED = {
    "01_pretrain": "training curves, raw pixels",
    "02_probes": "accuracies, LiDAR, encoders without weights here",
    "03_multiinformation": "calibration, random partitions, other sets, encoders without weights",
    "04_jepa_score": "toy encoders, outliers by JEPA-SCORE, curation, encoders without weights",
    "05_linear_dynamics": "gradient descent, transformers",
    "06_sparsity": "everything: its short trainings keep no weights",
    "appendix_tuning": "everything: its short trainings keep no weights",
}


@dataclass(frozen=True)
class Edited:
    """A run whose files are not what it wrote."""

    run: str  # preset/notebook/run
    why: str
    agrees = False

    def line(self) -> str:
        """For a reader."""
        return f"{'EDITED':9}{self.run}: {self.why}"


@dataclass(frozen=True)
class Left:
    """Numbers that were not checked."""

    run: str  # preset/notebook/run, or a notebook
    what: str
    why: str
    agrees = True

    def line(self) -> str:
        """For a reader."""
        return f"{'not done':9}{self.run}: {self.what}: {self.why}"


def verify(root: Path, preset: str, minutes: float) -> Iterator[Comparison | Edited | Left]:
    """Everything that was compared, and everything that was not.

    Args:
        minutes: checks that would take longer in all are left out.

    Raises:
        ValueError: no finished run, or other images than those of a run.
        FileNotFoundError, ConnectionError: no such preset, or a data set is not here.
    """
    bench = Workbench(runs_root(root) / preset, minutes)
    runs = bench.runs()
    if not runs:
        load_study(root, preset)
        raise ValueError(
            f"There is no finished run of preset {preset!r} to verify: "
            f"run `sparsejepa reproduce --preset {preset}` first."
        )
    for run in runs:
        for sentence in edits(run.folder, run.manifest):
            yield Edited(run.id, sentence)
    for check in CHECKS:
        for run in bench.runs(check.notebook):
            try:
                yield from check.compare(run, bench)
            except NotChecked as reason:
                yield Left(run.id, check.what, str(reason))
            except KeyError as key:
                yield Edited(run.id, f"results.json lacks {key}, which its notebook writes")
    for notebook in dict.fromkeys(run.folder.parent.name for run in runs):
        if notebook in NOT_COVERED:
            yield Left(f"{preset}/{notebook}", NOT_COVERED[notebook], "run the notebook again")
