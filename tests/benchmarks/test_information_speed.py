"""How many times faster the nearest-neighbour estimate is than infomeasure's, to equal numbers.

infomeasure (AGPL-3) is no dependency: `pip install infomeasure` before `make benchmark`.
"""

import pytest

from sparsejepa.chapters.multiinformation import equicorrelation
from sparsejepa.information.multiinformation import total_correlation
from sparsejepa.information.nearest_neighbour import ksg_value
from tests.benchmarks.interleaved import race
from tests.information.known import gaussian_rows

ROWS, ROUNDS = 10_000, 5


@pytest.mark.slow
@pytest.mark.parametrize("d", [2, 5])
def test_nearest_neighbour_ratio(d: int, capsys):
    """Both find the same nats; the last row also takes the exact jackknife and suspected bias."""
    infomeasure = pytest.importorskip("infomeasure")
    x = gaussian_rows(ROWS, equicorrelation(d, 0.5), "speed").numpy()
    columns = [x[:, [j]] for j in range(d)]

    def other() -> float:
        return infomeasure.mutual_information(*x.T, approach="ksg", k=4, noise_level=0)

    assert ksg_value(columns) == pytest.approx(float(other()), abs=1e-10)
    ways = {
        "infomeasure, the value": other,
        "ksg_value, the value": lambda: ksg_value(columns),
        "total_correlation, with its standard error": lambda: total_correlation(x, "ksg"),
    }
    race(capsys, f"KSG of {ROWS:,} rows and {d} columns, rows", ways, ROUNDS, ROWS)
