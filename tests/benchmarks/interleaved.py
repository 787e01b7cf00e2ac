"""Timing of alternatives against each other on a machine that others use too."""

import csv
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from jaxtyping import config

from sparsejepa.companion.provenance import hardware


def best_seconds(alternatives: dict[str, Callable[[], object]], rounds: int) -> dict[str, float]:
    """Best time of a call of each alternative; they take turns, so that a busy spell slows all.

    A turn lasts 0.2 s or one call: short calls would otherwise always start at the end of the
    process's time slice. The checks of shapes and types that tests switch on are off meanwhile.
    """
    best: dict[str, float] = {}
    config.update("jaxtyping_disable", True)
    for run in alternatives.values():
        run()
    for _ in range(rounds):
        for name, run in alternatives.items():
            turn_ends = time.perf_counter() + 0.2
            while (start := time.perf_counter()) < turn_ends:
                run()
                took = time.perf_counter() - start
                best[name] = min(best.get(name, took), took)
    config.update("jaxtyping_disable", False)
    return best


def race(
    capsys, title: str, alternatives: dict[str, Callable[[], object]], rounds: int, items: int
) -> None:
    """Prints items a second of each alternative, and how many times the first one's speed that is.

    With date and hardware these are rows of the book's table of benchmarks.
    """
    seconds = best_seconds(alternatives, rounds)
    first = next(iter(seconds.values()))
    rows = [(name, f"{items / s:,.0f}", f"{first / s:.1f}") for name, s in seconds.items()]
    with capsys.disabled():
        print(f"\n{title}", *(f"  {n:<48} {each:>12}/s {x:>8}x" for n, each, x in rows), sep="\n")
    if file := os.environ.get("SPARSEJEPA_BENCHMARKS"):
        machine, new = hardware(), not Path(file).exists()
        measured = f"{date.today().isoformat()}, {machine['cpu']}, {machine['cores']} cores"
        with Path(file).open("a", encoding="utf-8", newline="") as table:
            writer = csv.writer(table, lineterminator="\n")
            if new:
                writer.writerow(("Benchmark", "Way", "Per second", "Ratio", "Measured"))
            writer.writerows((title, *row, measured) for row in rows)


def show(capsys, header: list[str], rows: list[list[str]], name: str) -> None:
    """Prints a table, and keeps it as file `name` beside the book's table of benchmarks."""
    with capsys.disabled():
        for row in (header, *rows):
            print("  ".join(f"{cell:>16}" for cell in row))
    if file := os.environ.get("SPARSEJEPA_BENCHMARKS"):
        with Path(file).with_name(name).open("w", encoding="utf-8", newline="") as table:
            csv.writer(table, lineterminator="\n").writerows([header, *rows])
