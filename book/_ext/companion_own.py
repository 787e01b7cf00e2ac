"""The page of the reader's own runs: every finished run that is not a committed one."""

import json
from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from pathlib import Path
from typing import Any

from companion_card import provenance_card
from companion_files import Run, finished_runs, stale_because
from companion_markdown import dropdown, list_table, number, text

# The line of a page that the runs replace.
MARKER = "% companion: runs of this machine"

_NONE = """
There are none yet. From the root of a clone,

```bash
make book
```

pretrains a JEPA and a SparseJEPA on images that are drawn on the spot, and builds this book
again. Without `make`:

```bash
sparsejepa reproduce --preset demo
jupyter-book build .
```
"""


_HOW_TO_READ = (
    "Each column is one run. Accuracy is top 1, in per cent; the interval in brackets is for other "
    "test images of the same kind, not for other seeds. A trained encoder is worth something where "
    "it is above the untrained encoder and raw pixels."
)


def own_runs_page(root: Path, source: str) -> str:
    """The page's source with the runs in place of its marker."""
    found = [run for run in finished_runs(root) if run.preset != "reference"]
    faults = {run: fault for run in found if (fault := _fault(run))}
    runs = [run for run in found if run not in faults]
    parts = [f":::{{warning}}\n{text(fault)}\n:::" for fault in faults.values()]
    parts += _studies(runs) if runs else [_NONE]
    return source.replace(MARKER, "\n\n".join(parts))


def _fault(run: Run) -> str | None:
    """Why the run can't be shown. The reader's own damaged file must not stop the build."""
    try:
        for name in ("results.json", "manifest.json"):
            run.read(name)
    except ValueError as error:
        return str(error)
    return None


def _studies(runs: list[Run]) -> Iterator[str]:
    for (preset, notebook), group in groupby(runs, key=lambda run: (run.preset, run.notebook)):
        together = list(group)
        yield f"## {text(notebook)}, preset {text(preset)}"
        if accuracies := accuracy_table(together):
            yield _HOW_TO_READ
            yield accuracies
        yield other_numbers_table(together)
        for run in together:
            yield from _one_run(run)


def accuracy_table(runs: list[Run]) -> str:
    """Top-1 accuracy in per cent: a row for each representation and probe, a column a run."""
    rows = _table_rows(runs, _accuracies, ".1%")
    return list_table(rows, header=True, classes="results-table") if len(rows) > 1 else ""


def other_numbers_table(runs: list[Run]) -> str:
    """Every other single number or word in results.json."""
    rows = _table_rows(runs, lambda results: dict(single_values(_without_accuracy(results))), "")
    return dropdown("Other results", list_table(rows, header=True, classes="results-table"))


def _table_rows(
    runs: list[Run], select: Callable[[Mapping[str, Any]], Mapping[str, Any]], form: str
) -> list[list[str]]:
    columns = [select(run.read("results.json")) for run in runs]
    names = list(dict.fromkeys(name for column in columns for name in column))
    rows = [["Result", *(text(run.name) for run in runs)]]
    for name in names:
        shown = [number(column[name], form) if name in column else "" for column in columns]
        rows.append([text(name), *map(text, shown)])
    return rows


def _accuracies(results: Mapping[str, Any]) -> dict[str, Any]:
    """Accuracies by "representation: probe"; the trained encoder has one name in all methods."""
    method, found = results.get("method"), {}
    for name, probes in results.get("accuracy", {}).items():
        if method and name.startswith(f"{method},"):
            name = "trained encoder" + name.removeprefix(method)
        found |= {f"{name}: {probe}": value for probe, value in probes.items()}
    majority = results.get("majority_accuracy") if found else None
    if isinstance(majority, Mapping):
        found |= {f"{label}: always the most frequent class": v for label, v in majority.items()}
    elif majority is not None:
        found["always the most frequent class"] = majority
    return found


def _without_accuracy(results: Mapping[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in results.items() if k not in ("accuracy", "majority_accuracy")}


def single_values(results: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted key and value of every number or word; lists, such as curves, are left out."""
    if isinstance(results, Mapping) and "value" not in results:
        for name, value in results.items():
            yield from single_values(value, f"{key}.{name}" if key else str(name))
    elif isinstance(results, Mapping | int | float | str) and not isinstance(results, bool):
        yield key, results


def _one_run(run: Run) -> Iterator[str]:
    manifest = run.read("manifest.json")
    yield f"### {text(run.preset)}: {text(run.name)}"
    reasons = stale_because(run)
    if reasons:
        why = text("; ".join(reasons))
        yield f":::{{note}}\nMade by an earlier state of this checkout: {why}.\n:::"
    for figure in manifest.get("figures", []):
        if (run.folder / figure["file"]).is_file():
            yield figure_block(run, figure)
    yield provenance_card(run, manifest)


def figure_block(run: Run, figure: Mapping[str, str]) -> str:
    """A figure of the run with its alternative text."""
    # A JSON string is a valid quoted option value, whatever the text holds.
    alt = json.dumps(" ".join(figure["alt"].split()), ensure_ascii=False)
    return f":::{{image}} {run.document(figure['file'])}\n:alt: {alt}\n:::"
