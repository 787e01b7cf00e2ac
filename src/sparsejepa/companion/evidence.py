"""Numbers of runs by their address, `preset/notebook/run:dotted.key` of a results.json.

An address with {seed} stands for one number of each seed. Plain Python, as `claims`.
"""

from collections.abc import Mapping, Sequence
from numbers import Real
from pathlib import Path
from typing import Any

from sparsejepa.companion.claims import SEED
from sparsejepa.companion.files import read_json


def look_up(results: Any, key: str) -> Any:
    """The value at the dotted `key`; of names that hold dots themselves, the longest is taken.

    Of a list, a part is a position (-1 is the last), or `[L=2; method=jepa]`: the one entry with
    these values.

    Raises:
        ValueError: there is no such value; names the keys that exist at that place.
    """
    place, walked, parts = results, [], key.split(".")
    while parts:
        step = _entry if isinstance(place, list) else _named
        for length in range(len(parts), 0, -1):
            found = step(place, ".".join(parts[:length]))
            if found:
                break
        else:
            there = ", ".join(map(str, place)) if isinstance(place, Mapping) else str(place)[:80]
            raise ValueError(
                f"no {parts[0]!r} in {'.'.join(walked) or 'the results'} (there: {there})"
            )
        (place,) = found
        walked += parts[:length]
        parts = parts[length:]
    return place


def value_at(runs: Path, address: str) -> Any:
    """What stands at an address without {seed}; keys of the manifest come after "manifest.".

    Args:
        runs: the folder of all runs, `book/runs`.

    Raises:
        ValueError: no finished run, a damaged file, or no such key, each with what to do.
    """
    run_id, _, key = address.partition(":")
    missing_file = next(
        (n for n in ("results.json", "manifest.json") if not (runs / run_id / n).is_file()), None
    )
    if missing_file:
        raise ValueError(
            f"needs the run {run_id}, which has no {missing_file}: make it by "
            f"`{making_command(run_id)}`."
        )
    try:
        files = {
            name: read_json(runs / run_id / f"{name}.json") for name in ("results", "manifest")
        }
        return look_up(files["results"] | {"manifest": files["manifest"]}, key)
    except ValueError as error:
        raise ValueError(f"cannot read {key!r} of {run_id}: {error}; mend the key.") from error


def number_at(runs: Path, address: str) -> float:
    """The number at an address, which may be `{"value": number, ...}`.

    Raises:
        ValueError: as `value_at`, or it is no number.
    """
    return _number(value_at(runs, address), address)


def series_at(runs: Path, address: str, seeds: Sequence[int]) -> list[float]:
    """A number for each seed; without {seed}, the list (or the one number) at the address.

    Raises:
        ValueError: as `number_at`, or a run of another seed than its place says.
    """
    if SEED not in address:
        found = value_at(runs, address)
        return [_number(x, address) for x in (found if isinstance(found, list) else [found])]
    numbers = []
    for seed in seeds:
        numbers.append(number_at(runs, of_seed(address, seed)))
        run = address.partition(":")[0]
        if SEED in run:
            made_with = read_json(runs / of_seed(run, seed) / "manifest.json").get("seed")
            if made_with != seed:
                raise ValueError(
                    f"takes {of_seed(run, seed)} for seed {seed}, but its manifest says "
                    f"{made_with}: make it again by `{making_command(of_seed(run, seed))}`."
                )
    return numbers


def of_seed(address: str, seed: int) -> str:
    """The address, or its run, of one seed."""
    return address.replace(SEED, str(seed))


def making_command(run_id: str) -> str:
    """The command that makes a named run of a preset."""
    preset, notebook, run = run_id.split("/")
    return f"sparsejepa run notebooks/{notebook}.ipynb --preset {preset} --run {run}"


def _named(place: Any, name: str) -> list[Any]:
    """The value of that name in a list of its own; empty if there is none."""
    return [place[name]] if isinstance(place, Mapping) and name in place else []


def _entry(entries: list[Any], part: str) -> list[Any]:
    """The entry that `part` names in a list of its own; empty if there is none, or several."""
    if part.removeprefix("-").isdigit():
        return [entries[int(part)]] if -len(entries) <= int(part) < len(entries) else []
    if not (part.startswith("[") and part.endswith("]")):
        return []
    wanted = [pair.partition("=")[::2] for pair in part[1:-1].split("; ")]
    found = [
        entry
        for entry in entries
        if isinstance(entry, Mapping) and all(str(entry.get(k)) == v for k, v in wanted)
    ]
    return found if len(found) == 1 else []


def _number(value: Any, address: str) -> float:
    number = value.get("value") if isinstance(value, Mapping) else value
    if not isinstance(number, Real) or isinstance(number, bool):
        raise ValueError(f"finds no number at {address}, but {str(value)[:80]}; name another key.")
    return float(number)
