"""What the book shows: runs by their id `preset/notebook/run`, the ledger's verdicts, pages."""

import functools
from collections.abc import Collection, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import yaml

from sparsejepa.companion.files import read_json
from sparsejepa.companion.ledger import LEDGER, Judgement, Ledger, judge, load_ledger
from sparsejepa.companion.manifest import staleness
from sparsejepa.companion.parameters import load_study

RUNS = PurePosixPath("book/runs")
# What a finished run always has; figures and weights depend on the notebook.
REQUIRED = ("executed.ipynb", "results.json", "manifest.json")
COMMITTED = ("reference",)  # presets whose runs the repository keeps


class Book:
    """One build's view of the repository; each run and each claim is judged once."""

    def __init__(self, root: Path, shown: Mapping[str, str], pages: Collection[str]) -> None:
        """`shown` maps pages of clean notebooks to runs; `pages` are all of the book."""
        self.root, self.runs_root, self.shown = Path(root), Path(root) / RUNS, dict(shown)
        # Of two pages that show a run, the notebook's is linked: it comes last.
        found = [(self.run_of_page(page), page) for page in sorted(pages)]
        self.page_of_run = {run: page for run, page in found if run}
        self.stale = functools.cache(self._stale)
        self.linked: set[tuple[str, str]] = set()  # page and relative address, as they are written

    def run_of_page(self, page: str) -> str | None:
        """The run that a page shows; a run's own `executed` page shows itself."""
        path = PurePosixPath(page)
        if path.name == "executed" and path.is_relative_to(RUNS):
            return str(path.parent.relative_to(RUNS))
        return self.shown.get(page)

    def runs(self, committed: bool) -> list[str]:
        """Every run folder, finished or not: of the repository, or the reader's own."""
        folders = sorted(p for p in self.runs_root.glob("*/*/*") if p.is_dir())
        runs = ["/".join(p.parts[-3:]) for p in folders if p.parent.name != "trainings"]
        return [run for run in runs if (run.split("/")[0] in COMMITTED) == committed]

    def missing(self, run: str) -> list[str]:
        """Names of required files that are not there."""
        return [name for name in REQUIRED if not (self.runs_root / run / name).is_file()]

    def read(self, run: str, name: str) -> Any:
        """One of the run's JSON files; raises as `read_json`."""
        return read_json(self.runs_root / run / name)

    def facts(self, run: str) -> dict[str, Any]:
        """The run's manifest, with its timing.json under `timing`; raises as `read`."""
        there = (self.runs_root / run / "timing.json").is_file()
        timing = self.read(run, "timing.json") if there else {}
        return {**self.read(run, "manifest.json"), "timing": timing}

    def _stale(self, run: str) -> list[str]:
        """Why the run does not stand for its notebook, preset and library; empty when it does."""
        preset, notebook, name = run.split("/")
        if not (self.root / f"{source_page(run)}.ipynb").is_file():
            return [f"{source_page(run)}.ipynb, which it ran, is no longer there"]
        try:
            study = load_study(self.root, preset) if preset in COMMITTED else []
        except (FileNotFoundError, ValueError) as error:
            return [str(error)]
        named = {(one.notebook, one.name): one.parameters for one in study}
        # A run that no preset names has no parameters to be compared with.
        return staleness(self.root, run, named.get((notebook, name)))

    @functools.cached_property
    def ledger(self) -> Ledger:
        """The claims; raises as `load_ledger`."""
        return load_ledger(self.root / LEDGER)

    @functools.cached_property
    def judgements(self) -> list[Judgement]:
        """The verdict on each claim; raises as `ledger`."""
        return judge(self.ledger, self.runs_root)

    @functools.cached_property
    def chapters(self) -> dict[str, dict[str, str]]:
        """Notebook -> its question, and its distance from the paper's setting."""
        path = self.root / "book" / "chapters.yml"
        return yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}


def source_page(run: str) -> str:
    """Page of the clean notebook that ran."""
    return f"notebooks/{run.split('/')[1]}"
