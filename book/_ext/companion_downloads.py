"""Downloads: all numbers of the committed runs as CSV and Parquet, made while the book builds.

The page with the markers lists the data dictionary and the files of each run. The tables lie in
the built book under `downloads/`, beside nothing that a run did not write.
"""

import csv
from collections.abc import Sequence
from dataclasses import astuple, fields
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import yaml
from sphinx.application import Sphinx

from companion_claims import run_pages
from companion_files import Run, finished_runs
from companion_markdown import code, list_table, text
from companion_numbers import DICTIONARY, Entry, Number, numbers

# The lines of a page that the runs' files and the dictionary replace.
RUNS, MEANINGS = "% companion: files of the runs", "% companion: data dictionary"
# Where the built book has the tables.
FOLDER, STEM = "downloads", "results"


def show_downloads(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts files and dictionary into a page that has the markers (`source-read`)."""
    lines = source[0].splitlines()
    if RUNS not in lines and MEANINGS not in lines:
        return
    # A run that has come since changes the list: no file that exists now could tell.
    app.env.note_reread()
    shown = committed_runs(app.srcdir)
    source[0] = source[0].replace(RUNS, files_table(shown, run_pages(app)))
    source[0] = source[0].replace(MEANINGS, meanings_table(load_dictionary(app.srcdir)))


def committed_runs(root: Path) -> list[Run]:
    """The finished runs that the repository keeps."""
    return [run for run in finished_runs(root) if run.preset == "reference"]


def load_dictionary(root: Path) -> list[Entry]:
    """The data dictionary, empty where a book has none."""
    path = Path(root) / DICTIONARY
    return [Entry(**entry) for entry in yaml.safe_load(path.read_text())] if path.is_file() else []


def files_table(runs: Sequence[Run], pages: dict[str, str]) -> str:
    """A row a run: its page, its JSON files, its figures and arrays."""
    rows = [("Run", "Numbers", "Figures and arrays")]
    for run in runs:
        name = f"{run.notebook}/{run.name}"
        shown = f"{{doc}}`{name} </{pages[run.id]}>`" if run.id in pages else code(name)
        figures = sorted(run.folder.glob("figures/*.png")) + sorted(
            run.folder.glob("*.safetensors")
        )
        rows.append(
            (
                shown,
                ", ".join(download(run, name) for name in ("results.json", "manifest.json")),
                ", ".join(download(run, str(path.relative_to(run.folder))) for path in figures),
            )
        )
    return list_table(rows, header=True, classes="scorecard")


def download(run: Run, name: str) -> str:
    """A link to one of the run's files, which Sphinx copies into the book."""
    return f"{{download}}`{Path(name).name} <{run.document(name)}>`"


def meanings_table(entries: Sequence[Entry]) -> str:
    """A row a line of the dictionary."""
    rows = [("Keys", "Unit", "Meaning")]
    rows += [(code(entry.keys), text(entry.unit), text(entry.meaning)) for entry in entries]
    return list_table(rows, header=True, classes="scorecard")


def write_tables(app: Sphinx, exception: Exception | None) -> None:
    """Writes both tables into the built book (`build-finished`)."""
    if exception is None and app.builder.format == "html":
        found = list(numbers(committed_runs(app.srcdir), load_dictionary(app.srcdir)))
        folder = Path(app.outdir) / FOLDER
        folder.mkdir(exist_ok=True)
        write_csv(found, folder / f"{STEM}.csv")
        write_parquet(found, folder / f"{STEM}.parquet")


def write_csv(found: Sequence[Number], path: Path) -> None:
    """UTF-8, a header, an empty cell where there is no interval."""
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([field.name for field in fields(Number)])
        writer.writerows(astuple(number) for number in found)


def write_parquet(found: Sequence[Number], path: Path) -> None:
    """The same columns; null where there is no interval."""
    kinds = {str: pyarrow.string()}
    schema = pyarrow.schema(
        [(field.name, kinds.get(field.type, pyarrow.float64())) for field in fields(Number)]
    )
    columns = [[getattr(number, name) for number in found] for name in schema.names]
    pyarrow.parquet.write_table(pyarrow.table(columns, schema=schema), path)


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", show_downloads)
    app.connect("build-finished", write_tables)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
