"""Every number of a run's results.json as one row: for tables that are downloaded."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from numbers import Real
from typing import Any

from companion_files import Run

DICTIONARY = "book/data_dictionary.yml"


@dataclass(frozen=True)
class Number:
    """One number of one run; its fields are the columns of the table."""

    run: str  # preset/notebook/run
    key: (
        str  # place in results.json, parts joined by dots; a part that is a number counts in a list
    )
    value: float  # as the run wrote it; true and false are 1 and 0
    low: float | None  # lower end of its 95 % interval, where it has one
    high: float | None  # upper end
    unit: str  # from the data dictionary


@dataclass(frozen=True)
class Entry:
    """One line of the data dictionary."""

    keys: str  # pattern of notebook:key, `*` stands for anything
    unit: str
    meaning: str


def numbers(runs: Iterable[Run], dictionary: Iterable[Entry]) -> Iterator[Number]:
    """All numbers of all runs, in the order of the files."""
    entries = list(dictionary)
    for run in runs:
        for key, value, interval in found_in(run.read("results.json")):
            entry = describing(run.notebook, key, entries)
            unit = entry.unit if entry else ""
            yield Number(run.id, key, value, *(interval or (None, None)), unit)


def found_in(
    results: Any, key: str = ""
) -> Iterator[tuple[str, float, tuple[float, float] | None]]:
    """Key, value and interval of every number; words and nulls are left out.

    `{"value": x, "interval": [low, high], ...}` is one number under the key of the whole.
    """
    if isinstance(results, Real):
        yield key, float(results), None
    elif isinstance(results, Mapping):
        rest = dict(results)
        if isinstance(rest.get("value"), Real):
            interval = rest.pop("interval", None)
            ends = (float(interval[0]), float(interval[1])) if interval else None
            yield key, float(rest.pop("value")), ends
        for name, value in rest.items():
            yield from found_in(value, f"{key}.{name}" if key else str(name))
    elif isinstance(results, list):
        for place, value in enumerate(results):
            yield from found_in(value, f"{key}.{place}" if key else str(place))


def describing(notebook: str, key: str, entries: Iterable[Entry]) -> Entry | None:
    """The first entry whose pattern fits, or None."""
    address = f"{notebook}:{key}"
    return next((entry for entry in entries if fnmatchcase(address, entry.keys)), None)
