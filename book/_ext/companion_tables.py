"""Tables over runs: their times and files, the reader's own, and all numbers as CSV."""

import csv
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from companion_book import Book
from companion_card import files, hardware, made, wall_time
from companion_markdown import code, list_table, number, text

_NO_RUNS = "There are none yet. `make book` in a clone makes some, and builds this book again."


def runs_table(book: Book, runs: list[str]) -> str:
    """A row a run: its page, when and on what it was made, how long that took, and its files."""
    rows = [("Run", "Made", "Time and memory", "Files")]
    for run in runs:
        facts, page, name = book.facts(run), book.page_of_run.get(run), run.partition("/")[2]
        shown = f"{{doc}}`{name} </{page}>`" if page else code(run)
        on = f"{made(facts)}, {code(facts['precision'])} on {hardware(facts['hardware'])}"
        rows.append((shown, on, wall_time(facts["timing"]), files(book, run, facts)))
    return list_table(rows, header=True, classes="scorecard")


def committed_runs(book: Book) -> str:
    """The runs that the repository keeps."""
    return runs_table(book, [run for run in book.runs(committed=True) if not book.missing(run)])


def own_runs(book: Book) -> str:
    """The reader's own runs, and of each pretraining whether it learned."""
    sound, sentences = [], []
    for run in book.runs(committed=False):
        if {"results.json", "manifest.json"}.intersection(book.missing(run)):
            continue  # not finished; a notebook that ran in Jupyter leaves no executed copy
        try:
            runs_table(book, [run])
            results = book.read(run, "results.json")
            if "/01_pretrain/" in run:
                sentences.append(f"{code(run)} {learned(results)}")
            sound.append(run)
        except (KeyError, TypeError, ValueError) as error:  # they must not stop the build
            sentences.append(f":::{{warning}}\n{code(run)} cannot be shown: {text(error)}\n:::")
    return "\n\n".join([*sentences, runs_table(book, sound) if sound else _NO_RUNS])


def learned(results: Mapping[str, Any]) -> str:
    """Whether the last block of the run's encoder is above both controls, by the linear probe."""
    names = [f"{results['method']}, last block", "untrained encoder, last block", "raw pixels"]
    there = [name for name in names if name in results["accuracy"]]
    value, *controls = (results["accuracy"][name]["linear probe"] for name in there)
    above = all(value["interval"][0] > control["value"] for control in controls)
    verdict = "learned" if above else "has not clearly learned"
    beside = [f"{n} {number(c, '.1%')}" for n, c in zip(there[1:], controls, strict=True)]
    return f"**{verdict}**: last block {number(value, '.1%')}; {text(', '.join(beside))}."


def numbers(results: Any, key: str = "") -> Iterator[tuple[str, float, Any, Any]]:
    """Key, value and ends of the interval of every number; words and nulls are left out.

    `{"value": x, "interval": [low, high], ...}` is one number under the key of the whole.
    """
    if isinstance(results, Real):
        yield key, float(results), None, None
    elif isinstance(results, Mapping | list):
        rest = dict(results if isinstance(results, Mapping) else enumerate(results))
        if isinstance(rest.get("value"), Real):
            low, high = rest.pop("interval", None) or (None, None)
            yield key, float(rest.pop("value")), low, high
        for name, value in rest.items():
            yield from numbers(value, f"{key}.{name}" if key else str(name))


def write_csv(app: Sphinx, exception: Exception | None) -> None:
    """All numbers of the committed runs, in the built book (`build-finished`)."""
    if exception is None and app.builder.format == "html":
        path, book = Path(app.outdir) / "downloads" / "results.csv", app.companion
        path.parent.mkdir(exist_ok=True)
        rows = [("run", "key", "value", "low", "high")]
        for run in book.runs(committed=True):
            if not book.missing(run):
                rows += [(run, *row) for row in numbers(book.read(run, "results.json"))]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
