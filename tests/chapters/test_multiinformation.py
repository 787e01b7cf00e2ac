"""Chapter 03: which latents a predictor reads, and intervals of what is concluded."""

from dataclasses import replace

import pytest
import torch

from sparsejepa.chapters.multiinformation import (
    conclusions,
    equicorrelated,
    equicorrelation,
    per_unit_difference,
    read_groups,
)
from sparsejepa.information.estimate import TotalCorrelation
from sparsejepa.information.multiinformation import total_correlation
from tests.information.known import gaussian_rows


def test_small_columns_do_not_read() -> None:
    """The first latent is read by two groups, the second by one, and the third by leftovers."""
    norms = torch.tensor([[2.0, 0.0, 1e-4, 0.0], [0.5, 0.03, 0.0, 0.0], [0.01, 1e-3, 1e-3, 0.0]])
    groups, readers = read_groups(norms)
    assert groups.tolist() == [0, 1, -1, -1]
    assert readers.tolist() == [2, 1, 0, 0]


@pytest.mark.parametrize("draws", [40, pytest.param(150, marks=pytest.mark.slow)])
@pytest.mark.parametrize("seeds", [1, 2, 3])
def test_intervals_of_a_difference_cover(seeds: int, draws: int) -> None:
    """Total correlation per unit of one law minus that of another, over images and over seeds."""
    truth = (equicorrelated(4, 0.5) - equicorrelated(4, 0.3)) / 3
    misses = 0
    for i in range(draws):
        found = {
            (method, seed): total_correlation(gaussian_rows(200, R, method, seed, i))
            for method, R in (
                ("jepa", equicorrelation(4, 0.3)),
                ("sparsejepa", equicorrelation(4, 0.5)),
            )
            for seed in range(seeds)
        }
        interval = per_unit_difference(found, "sparsejepa")
        assert interval is not None
        misses += not interval.low <= truth <= interval.high
    assert misses <= {40: 6, 150: 15}[draws]


def test_a_control_is_clear_where_all_runs_agree() -> None:
    """All on one side with p of 0.05 or less; and a method without JEPA has no total."""
    low = TotalCorrelation(1.0, 0.01, "copula", 1000, 3)
    below, above = ({"rank": rank, "p_value": 0.01} for rank in (0.001, 0.999))
    cells = [{"method": "sparsejepa", "subset": below, "partition": below} for _ in range(2)]
    totals = {("sparsejepa", seed): low for seed in range(3)}
    answers = {row["question"]: row["clear"] for row in conclusions(cells, totals)}
    assert answers == {"dimension": True, "grouping": True}
    cells.append({"method": "sparsejepa", "subset": above, "partition": above})
    totals |= {("jepa", s): replace(low, value=3.0 + s / 10) for s in range(3)}
    answers = {row["question"]: row["clear"] for row in conclusions(cells, totals)}
    assert answers == {"total": True, "dimension": False, "grouping": False}
