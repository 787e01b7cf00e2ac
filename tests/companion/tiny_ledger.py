"""A ledger of a few claims and runs of a few numbers, to be broken."""

from pathlib import Path
from typing import Any

import yaml

from sparsejepa.companion.files import write_json
from sparsejepa.companion.ledger import Ledger, load_ledger

# Differences of 6, 5 and 7 points, far from chance.
ACCURACY = {"a": (0.46, 0.47, 0.48), "b": (0.40, 0.42, 0.41)}

LEDGER_TEXT = """\
papers:
  - {name: A paper, title: On a, arxiv: "2500.00001"}
seeds: {main: [0, 1, 2]}
claims:
  - id: better
    paper: A paper
    title: a is better than b
    asks: Is a ahead
    statement: With the penalty, a reads off classes better than b.
    quoted: {says: +5 points, value: 5, unit: points, mark: secondary, where: "?"}
    notebook: nb
    expected: reproduced
    test:
      - what: Accuracy of a minus that of b
        rule: difference_above
        values: "reference/nb/a-seed{seed}:accuracy.a, last.value"
        than: "reference/nb/b-seed{seed}:accuracy.b, last"
        seeds: main
        threshold: 1
        scale: 100
        unit: points
        form: +.1f
        sample: test_images
    remark: On other blocks it is behind.
  - id: rises
    paper: A paper
    title: Mixing raises it
    statement: A joint map raises multiinformation.
    quoted: {says: no number, mark: derived, where: nowhere}
    notebook: theory
    expected: reproduced
    test:
      - what: Rise of multiinformation
        rule: equal_within
        values: reference/theory/all:rise
        threshold: 0.3466
        tolerance: 0.001
        unit: nats
  - id: planned
    paper: A paper
    title: Large models do it too
    statement: It holds at scale.
    quoted: {says: any model, mark: verified, where: abstract}
    notebook: large
    expected: untested
    plan: AUROC above 0.9.
    needs: One GPU.
"""


def content() -> dict[str, Any]:
    """The ledger, to be changed before it is written."""
    return yaml.safe_load(LEDGER_TEXT)


def write_ledger(root: Path, changed: Any) -> Path:
    path = root / "book" / "claims.yml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(changed, sort_keys=False))
    return path


def ledger(root: Path, changed: Any = None) -> Ledger:
    return load_ledger(write_ledger(root, changed or content()))


def make_runs(root: Path) -> Path:
    """Writes all runs of the ledger's claims and returns the folder of all runs."""
    runs = root / "book" / "runs"
    for method, values in ACCURACY.items():
        for seed, value in enumerate(values):
            make_run(runs, method, seed, value)
    write_json(runs / "reference/theory/all/manifest.json", {"seed": 0, "seeds": 3})
    gain = {"value": 0.5, "interval": [0.4, 0.6]}
    results = {"rise": 0.3466, "times": [1, 2, 3], "gain": gain}
    write_json(runs / "reference/theory/all/results.json", results)
    return runs


def make_run(runs: Path, method: str, seed: int, value: float) -> None:
    """One run; the accuracy of `a` has an interval, that of `b` none."""
    folder = runs / f"reference/nb/{method}-seed{seed}"
    cell = {"value": value, "interval": [value - 0.01, value + 0.01]} if method == "a" else value
    results = {"test_images": 10_000, "accuracy": {f"{method}, last": cell}}
    write_json(folder / "results.json", results)
    write_json(folder / "manifest.json", {"seed": seed})
