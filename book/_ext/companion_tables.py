"""Tables over runs: their times and files, the reader's own, benchmarks, and all numbers as CSV."""

import csv
from collections.abc import Iterator, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from companion_book import Book
from companion_card import files, hardware, made, wall_time
from companion_markdown import code, list_table, number, text
from sparsejepa.companion.files import read_json

CSV = Path("downloads") / "results.csv"  # in the built book
_NO_RUNS = "There are none yet. `make book` in a clone makes some, and builds this book again."


def runs_table(book: Book, runs: list[str]) -> str:
    """A row a run: its page, when and on what it was made, how long that took, and its files."""
    rows = [("Run", "Made", "Time and memory", "Files")]
    for run in runs:
        facts, page, name = book.facts(run), book.page_of_run.get(run), run.partition("/")[2]
        shown = f"{{doc}}`{name} </{page}>`" if page else code(run)
        on = f"{made(facts['timing'])}, {code(facts['precision'])} on {hardware(facts['hardware'])}"
        rows.append((shown, on, wall_time(facts["timing"]), files(book, run, facts)))
    return list_table(rows, header=True, classes="scorecard")


def committed_runs(book: Book) -> str:
    """The runs that the repository keeps."""
    return runs_table(book, [run for run in book.runs(committed=True) if not book.missing(run)])


def own_runs(book: Book) -> str:
    """The reader's own runs, and whether the encoder of each pretraining learned."""
    sound, sentences = [], []
    for run in book.runs(committed=False):
        try:
            results = book.read(run, "results.json")
            book.facts(run)
        except FileNotFoundError:
            continue  # not finished
        except ValueError as error:  # the reader's own damaged file must not stop the build
            sentences.append(f":::{{warning}}\n{text(error)}\n:::")
            continue
        sound.append(run)
        if "/01_pretrain/" in run:
            sentences.append(f"{code(run)} {learned(results)}")
    table = runs_table(book, sound) if sound else _NO_RUNS
    return "\n\n".join([table, *sentences])


def learned(results: Mapping[str, Any]) -> str:
    """Whether the last block of the run's encoder is above both controls, by the linear probe."""
    accuracy, encoder = results["accuracy"], f"{results['method']}, last block"
    controls = [n for n in ("untrained encoder, last block", "raw pixels") if n in accuracy]
    value, *others = (accuracy[name]["linear probe"] for name in (encoder, *controls))
    above = all(value["interval"][0] > other["value"] for other in others)
    verdict = "learned" if above else "has not clearly learned"
    beside = ", ".join(f"{n} {number(o, '.1%')}" for n, o in zip(controls, others, strict=True))
    return f"**{verdict}**: its last block reaches {number(value, '.1%')}; {text(beside)}."


def benchmarks(book: Book) -> str:
    """A table each: items a second, from a call's best seconds; the first is what others beat."""
    path = book.root / "book" / "benchmarks.json"
    if not path.is_file():
        return "No result of the benchmarks is committed. `make benchmark` measures your machine."
    found = read_json(path)
    parts = [f"Measured {text(found['date'])} on {hardware(found['hardware'])}."]
    for table in found["tables"]:
        rows, first = [("What", "Per second", "Ratio")], next(iter(table["seconds"].values()))
        for name, s in table["seconds"].items():
            rows.append((text(name), text(f"{table['items'] / s:,.0f}"), text(f"{first / s:.1f}")))
        parts += [f"**{text(table['title'])}**", list_table(rows, header=True)]
    return "\n\n".join(parts)


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
        path = Path(app.outdir) / CSV
        path.parent.mkdir(exist_ok=True)
        book, rows = app.companion, [("run", "key", "value", "low", "high")]
        for run in book.runs(committed=True):
            if not book.missing(run):
                rows += [(run, *row) for row in numbers(book.read(run, "results.json"))]
        with path.open("w", encoding="utf-8", newline="") as file:
            csv.writer(file).writerows(rows)
