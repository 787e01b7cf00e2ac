"""What two executions of one run left, compared: to the bit, or within tolerances."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file

from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import MANIFEST, RESULTS, without_times

# Tensors and results that a training leaves; all else is a report of it.
TRAINING_TENSORS = ("encoder.safetensors", "groups.safetensors")
TRAINING_RESULTS = ("steps", "history")

Same = Callable[[str, Any, Any], bool]


@dataclass(frozen=True)
class Comparison:
    """Two executions of one run."""

    tensors: int  # how many were compared
    numbers: int  # how many of results.json were compared
    added: int  # numbers that only the new code writes: none of them can be shown
    training: str | None  # the first difference of the training, None if there is none
    report: str | None  # the first difference of the rest


def compare_runs(old: Path, new: Path, run_id: str) -> Comparison:
    """Compares to the bit what two trees of runs hold of one run, times left out."""
    tensors, numbers, training, report = 0, 0, [], []
    if difference := _parameters_differ(old / run_id, new / run_id):
        report.append(difference)
    one, two = (_tensor_files(runs, run_id) for runs in (old, new))
    for name in one:
        found = report if name not in TRAINING_TENSORS else training
        if name not in two:
            found.append(f"{name} is no longer written")
            continue
        before, after = load_file(one[name]), load_file(two[name])
        for key, values in before.items():
            tensors += 1
            if key not in after or not np.array_equal(values, after[key], equal_nan=True):
                found.append(f"{name}: {key}{_first_entry(values, after.get(key))}")
    results = [without_times(read_json(runs / run_id / RESULTS))[0] for runs in (old, new)]
    added = 0
    for place, before, after in leaves(*results):
        if not isinstance(before, int | float):
            # Words are no numbers; what the run lacks the book cannot show.
            added += isinstance(after, int | float)
            continue
        numbers += 1
        if before != after or type(before) is not type(after):
            found = training if place.split(" > ")[0] in TRAINING_RESULTS else report
            found.append(f"{place}: {before} -> {after}")
    first = [next(iter(found), None) for found in (training, report)]
    return Comparison(tensors, numbers, added, *first)


def leaves(one: Any, two: Any, place: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Place, and both values, of everything that is no mapping or list; None where one lacks it."""
    if isinstance(one, dict) and isinstance(two, dict):
        for key in dict.fromkeys([*one, *two]):
            inner = f"{place} > {key}" if place else key
            yield from leaves(one.get(key), two.get(key), inner)
    elif (
        two is None and isinstance(one, dict | list) or one is None and isinstance(two, dict | list)
    ):
        yield from leaves(
            *((x if x is not None else type(one or two)()) for x in (one, two)), place
        )
    elif isinstance(one, list) and isinstance(two, list):
        for i in range(max(len(one), len(two))):
            first, second = (x[i] if i < len(x) else None for x in (one, two))
            yield from leaves(first, second, f"{place} > {i}")
    else:
        yield place, one, two


def _tensor_files(runs: Path, run_id: str) -> dict[str, Path]:
    """Tensor files of a run and of the training that it read, by name."""
    folder = runs / run_id
    places = [folder]
    trainings = read_json(folder / MANIFEST).get("trainings", {})
    # The short trainings of a study are compared by what was measured of them.
    places += [runs / place for place in trainings] if len(trainings) == 1 else []
    return {path.name: path for place in places for path in sorted(place.glob("*.safetensors"))}


def _parameters_differ(old: Path, new: Path) -> str | None:
    before, after = (read_json(folder / MANIFEST)["parameters"] for folder in (old, new))
    for name in before.keys() & after.keys():
        if before[name] != after[name]:
            return f"parameter {name}: {before[name]!r} -> {after[name]!r}"
    return None


def _first_entry(before: np.ndarray, after: np.ndarray | None) -> str:
    if after is None or before.shape != after.shape:
        return " has another shape" if after is not None else " is no longer written"
    index = np.argwhere(before != after)
    if not len(index):
        return ""
    first = tuple(index[0])
    return f"[{', '.join(map(str, first))}]: {before[first]} -> {after[first]}"
