"""Estimators of multiinformation on laws whose multiinformation is known."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparsejepa.information.known_laws import LAWS, stated_range
from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.randomness import generator

# Beyond these widths KSG takes long and is long wrong, and parity has too many values.
WIDEST = {"ksg": 20, "discrete": 10}


@dataclass(frozen=True)
class CalibrationPoint:
    """One estimate beside the truth; entropies in nats."""

    method: str
    law: str
    n: int  # rows
    d: int  # columns
    truth: float
    value: float
    low: float  # of the 95 % interval
    high: float
    stated: bool  # whether the estimator claims to hold there

    @property
    def covered(self) -> bool:
        """Whether the interval holds the truth."""
        return self.low <= self.truth <= self.high


def calibrate(
    widths: Sequence[int],
    rows_per_column: Sequence[int],
    draws: int,
    most_rows: int,
    seed: int,
) -> list[CalibrationPoint]:
    """Every estimator on every law that it can be asked about, several times.

    Args:
        widths: numbers of columns.
        rows_per_column: n / d; combinations with more than `most_rows` rows are left out.
    """
    points = []
    for law in LAWS:
        methods = ("discrete",) if law.kind == "discrete" else ("gaussian", "copula", "ksg")
        sizes = [(max(20, share * d), d) for d in widths for share in rows_per_column]
        for n, d in sizes:
            for draw in range(draws if n <= most_rows else 0):
                x = law.draw(n, d, generator(seed, law.name, n, d, draw))
                for method in methods:
                    stated = stated_range(method, law, n, d)
                    # Counts refuse what they cannot estimate, so only their range is asked.
                    if d > WIDEST.get(method, d) or (method == "discrete" and not stated):
                        continue
                    found = total_correlation(x, method, seed=draw)
                    low, high = found.interval()
                    point = (n, d, law.truth(d), found.value, low, high, stated)
                    points.append(CalibrationPoint(method, law.name, *point))
    return points


def coverage(points: Sequence[CalibrationPoint]) -> dict[str, dict[str, float]]:
    """Method -> share of 95 % intervals that hold the truth, and their number, by range.

    Keys: "stated" and "stated_points" inside the stated range; "outside" and "outside_points".
    """
    table = {}
    for method in dict.fromkeys(point.method for point in points):
        cells: dict[str, float] = {}
        for name, inside in (("stated", True), ("outside", False)):
            hits = [p.covered for p in points if p.method == method and p.stated == inside]
            cells[f"{name}_points"] = len(hits)
            if hits:
                cells[name] = sum(hits) / len(hits)
        table[method] = cells
    return table


def outside(points: Sequence[CalibrationPoint]) -> list[dict[str, object]]:
    """Where estimators are asked beyond their stated ranges: a line a method, law and width.

    Of the most rows that were drawn there; "estimate" is the mean over draws, in nats, and "holds"
    counts the 95 % intervals that hold the truth.
    """
    lines = []
    beyond = [p for p in points if not p.stated]
    for method, law, d in dict.fromkeys((p.method, p.law, p.d) for p in beyond):
        own = [p for p in beyond if (p.method, p.law, p.d) == (method, law, d)]
        own = [p for p in own if p.n == max(q.n for q in own)]
        lines.append(
            {
                "method": method,
                "law": law,
                "n": own[0].n,
                "d": d,
                "truth": own[0].truth,
                "estimate": sum(p.value for p in own) / len(own),
                "holds": f"{sum(p.covered for p in own)} of {len(own)}",
            }
        )
    return lines
