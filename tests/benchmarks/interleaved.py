"""Timing of alternatives against each other on a machine that others use too."""

import json
import os
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

from jaxtyping import config

from sparsejepa.atomic_files import write_atomically
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


def ratio_table(title: str, seconds: dict[str, float], items: int) -> str:
    """One line an alternative: items a second, and how many times the first one's speed."""
    keep(title, seconds, items)
    first = next(iter(seconds.values()))
    rows = [f"  {name:<48} {items / s:>12,.0f}/s {first / s:>8.1f}x" for name, s in seconds.items()]
    return "\n".join(["", title, *rows])


def keep(title: str, seconds: dict[str, float], items: int) -> None:
    """Adds the table, under date and hardware, to the file that SPARSEJEPA_BENCHMARKS names."""
    if name := os.environ.get("SPARSEJEPA_BENCHMARKS"):
        path = Path(name)
        new = {"date": date.today().isoformat(), "hardware": hardware(), "tables": []}
        found = json.loads(path.read_text()) if path.exists() else new
        found["tables"].append({"title": title, "items": items, "seconds": seconds})
        write_atomically(path, (json.dumps(found, indent=1) + "\n").encode())
