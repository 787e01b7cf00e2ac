"""Where runs lie and what is in them: paths, JSON files, and whether a run still stands."""

import importlib.util
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

RUNS = PurePosixPath("book/runs")
# What a finished run always has; figures and weights depend on the notebook.
REQUIRED = ("executed.ipynb", "results.json", "manifest.json")


@dataclass(frozen=True)
class Run:
    """One run of a notebook, `book/runs/<preset>/<notebook>/<name>/`."""

    root: Path  # of the repository
    preset: str  # demo, reference, colab, paper, or own
    notebook: str  # stem of the notebook's file name
    name: str  # of the run within its notebook

    @property
    def id(self) -> str:
        return f"{self.preset}/{self.notebook}/{self.name}"

    @property
    def folder(self) -> Path:
        return self.root / RUNS / self.id

    @property
    def page(self) -> str:
        """Docname of the executed notebook itself."""
        return str(RUNS / self.id / "executed")

    @property
    def source_page(self) -> str:
        """Docname of the clean notebook that ran."""
        return f"notebooks/{self.notebook}"

    @property
    def source(self) -> Path:
        """The clean notebook itself."""
        return self.root / f"{self.source_page}.ipynb"

    @property
    def preset_file(self) -> Path:
        return self.root / "notebooks" / "presets" / f"{self.preset}.yml"

    @property
    def files(self) -> list[Path]:
        return [self.folder / name for name in REQUIRED]

    def missing(self) -> list[str]:
        """Names of required files that are not there."""
        return [path.name for path in self.files if not path.is_file()]

    def document(self, name: str) -> str:
        """Address of one of the run's files as Sphinx wants it: from the source root."""
        return "/" + str(RUNS / self.id / name)

    def read(self, name: str) -> Any:
        """The content of one of the run's JSON files.

        Raises:
            ValueError: the file is no JSON.
        """
        path = self.folder / name
        try:
            return json.loads(path.read_text(encoding="utf-8"))
        except ValueError as error:
            raise ValueError(f"{path.relative_to(self.root)} is damaged: {error}") from error


def run_from_id(root: Path, run_id: str) -> Run:
    """The run that `preset/notebook/name` names, whether it exists or not.

    Raises:
        ValueError: `run_id` has not three parts.
    """
    parts = run_id.strip("/").split("/")
    if len(parts) != 3 or not all(parts):
        raise ValueError(f"A run is named preset/notebook/run, not {run_id!r}.")
    return Run(Path(root), *parts)


def run_of_page(root: Path, docname: str, shown: dict[str, str]) -> Run | None:
    """The run that the page `docname` shows, or None for a page without one.

    `shown` maps the pages of clean notebooks to runs; a run's own `executed` page shows itself.
    """
    if docname in shown:
        return run_from_id(root, shown[docname])
    path = PurePosixPath(docname)
    if path.name == "executed" and path.is_relative_to(RUNS):
        return run_from_id(root, str(path.parent.relative_to(RUNS)))
    return None


def finished_runs(root: Path) -> list[Run]:
    """All runs with results and manifest, in the order of their paths.

    The executed notebook is not asked for: a notebook that ran in Jupyter or on Colab leaves none.
    """
    manifests = sorted((Path(root) / RUNS).glob("*/*/*/manifest.json"))
    runs = [run_from_id(root, "/".join(path.parts[-4:-1])) for path in manifests]
    return [run for run in runs if "results.json" not in run.missing()]


def unfinished_runs(root: Path) -> list[Run]:
    """Run folders that lack a required file: of a finished run somebody removed it."""
    folders = sorted(
        path
        for path in (Path(root) / RUNS).glob("*/*/*")
        if path.is_dir() and path.parent.name != "trainings"
    )
    runs = [run_from_id(root, "/".join(path.parts[-3:])) for path in folders]
    return [run for run in runs if run.missing()]


def stale_because(run: Run) -> list[str]:
    """Why the run no longer stands for its notebook, preset and library; empty when it does.

    An edited or removed file of the run is among the reasons.
    """
    if importlib.util.find_spec("sparsejepa") is None:
        # A book environment without the package installed: the library lies beside the book.
        sys.path.insert(0, str(run.root / "src"))
    from sparsejepa.companion.manifest import staleness
    from sparsejepa.companion.study import load_study

    if not run.source.is_file():
        return [f"{run.source_page}.ipynb, which it ran, is no longer there"]
    try:
        study = load_study(run.root, run.preset) if run.preset_file.is_file() else []
    except (FileNotFoundError, ValueError) as error:
        return [str(error)]
    named = {(one.notebook, one.name): one.parameters for one in study}
    # A run that no preset names has no parameters to be compared with.
    return staleness(run.root, run.id, named.get((run.notebook, run.name)))


def certificate_line(run: Run, manifest: Mapping[str, Any]) -> str:
    """What has changed of the code since the run, and what was compared."""
    from sparsejepa.companion.certificates import certificate_of

    try:
        found = certificate_of(run.root, run.id)
    except ValueError as error:
        return str(error)
    if found is None:
        return "unchanged since" if not stale_because(run) else "changed since"
    compared, versions = found["compared"], found["versions"]
    line = (
        f"{found['changed']} files have changed since; certified on {found['date']}: "
        f"{compared['tensors']} tensors and {compared['numbers']} numbers of a size-reduced copy "
        "are equal to the bit"
    )
    other = [
        f"{name} {manifest['versions'][name]} then, {version} in the check"
        for name, version in versions.items()
        if manifest.get("versions", {}).get(name) not in (None, version)
    ]
    return f"{line} ({'; '.join(other)})" if other else line


def depends_on(run: Run) -> list[Path]:
    """Every file whose change may change what the run's page shows."""
    library = sorted((run.root / "src" / "sparsejepa").rglob("*.py"))
    beside = sorted(path for path in run.folder.rglob("*") if path.is_file())
    beside.append(run.root / RUNS / "certificates.json")
    # Required files are named even when they are missing: they may come back.
    return [*run.files, run.source, run.preset_file, *library, *beside]
