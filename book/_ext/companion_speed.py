"""How long things took: of every committed run from its manifest, of benchmarks from their file."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from companion_card import hardware, timing_of, wall_time
from companion_claims import run_pages
from companion_downloads import committed_runs
from companion_files import Run
from companion_markdown import code, list_table, text

# The lines of a page that the two tables replace.
RUN_TIMES, BENCHMARKS = "% companion: time of the runs", "% companion: benchmarks"
# Written by `make benchmark`; committed when its numbers are to be shown.
FILE = "book/benchmarks.json"


def show_speed(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts the tables into a page that has the markers (`source-read`)."""
    lines = source[0].splitlines()
    if RUN_TIMES not in lines and BENCHMARKS not in lines:
        return
    # A run or a file that has come since changes the page.
    app.env.note_reread()
    source[0] = source[0].replace(RUN_TIMES, run_times(committed_runs(app.srcdir), run_pages(app)))
    source[0] = source[0].replace(BENCHMARKS, benchmarks(Path(app.srcdir) / FILE))


def run_times(runs: Sequence[Run], pages: Mapping[str, str]) -> str:
    """A row a run: time and memory of the whole notebook, training speed, hardware."""
    rows = [("Run", "Time and memory", "Training images a second", "Number format", "Hardware")]
    for run in runs:
        manifest, timing = run.read("manifest.json"), timing_of(run)
        name = f"{run.notebook}/{run.name}"
        speed = timing.get("results", {}).get("images_per_second")
        rows.append(
            (
                f"{{doc}}`{name} </{pages[run.id]}>`" if run.id in pages else code(name),
                wall_time(timing),
                text(f"{speed:,.0f}") if speed else "",
                code(manifest.get("precision", "unknown")),
                hardware(manifest.get("hardware", {})),
            )
        )
    return list_table(rows, header=True, classes="scorecard")


def benchmarks(path: Path) -> str:
    """A table each: items a second, and how many times the first one's speed."""
    if not path.is_file():
        return "No result of the benchmarks is committed. `make benchmark` measures your machine."
    found = json.loads(path.read_text(encoding="utf-8"))
    parts = [f"Measured {text(found['date'])} on {hardware(found['hardware'])}."]
    for table in found["tables"]:
        rows = [("What", "Per second", "Ratio"), *benchmark_rows(table)]
        parts += [f"**{text(table['title'])}**", list_table(rows, header=True)]
    return "\n\n".join(parts)


def benchmark_rows(table: Mapping[str, Any]) -> list[tuple[str, str, str]]:
    """From the best seconds of a call that treats `items` items; the first is what others beat."""
    first = next(iter(table["seconds"].values()))
    return [
        (text(name), text(f"{table['items'] / s:,.0f}"), text(f"{first / s:.1f}"))
        for name, s in table["seconds"].items()
    ]


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", show_speed)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
