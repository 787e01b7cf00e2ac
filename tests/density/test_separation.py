import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from sparsejepa.density.separation import explained_share, rank_correlation, separation

SCORES = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=30)


@settings(max_examples=30)
@given(SCORES, SCORES)
def test_agrees_with_scikit_learn(data: list[float], outliers: list[float]) -> None:
    """With many ties too; outliers are what AUPR and the rate of false passes speak of."""
    found = separation(data, outliers, seed=0, draws=2)
    scores = np.array(data + outliers)
    is_data = np.arange(len(scores)) < len(data)
    rates, passing, _ = roc_curve(is_data, scores, drop_intermediate=False)
    assert found.auroc.value == pytest.approx(roc_auc_score(is_data, scores))
    assert found.aupr.value == pytest.approx(average_precision_score(~is_data, -scores))
    assert found.fpr95.value == pytest.approx(rates[passing >= 0.95 - 1e-12].min())


def test_an_interval_holds_its_estimate() -> None:
    """Resamples have ties that the sample has not: few outliers, above, amid and below."""
    rng = np.random.default_rng(0)
    data, outliers = rng.normal(size=80), rng.normal(size=12)
    for shift in (-9.0, -1.0, 0.0, 1.0, 9.0):
        found = separation(data, outliers + shift, seed=0)
        for cell in (found.auroc, found.aupr, found.fpr95):
            assert 0 <= cell.low <= cell.value <= cell.high <= 1


def test_only_the_order_counts() -> None:
    """Any increasing map of the scores leaves values and intervals as they are."""
    rng = np.random.default_rng(0)
    data, outliers = rng.normal(1, 1, 80), rng.normal(0, 1, 60)
    assert separation(data, outliers, seed=1) == separation(np.exp(data), np.exp(outliers), seed=1)


def test_interval_is_that_of_a_plain_bootstrap() -> None:
    """Drawing scores with replacement, one resample after the other, gives the same quantiles."""
    rng = np.random.default_rng(0)
    data, outliers = rng.normal(1, 1, 60), rng.normal(0, 1, 40)
    drawn = [(rng.choice(data, (60, 1)) > rng.choice(outliers, 40)).mean() for _ in range(4000)]
    found = separation(data, outliers, seed=0, draws=4000).auroc
    assert [found.low, found.high] == pytest.approx(np.quantile(drawn, [0.025, 0.975]), abs=0.01)


@pytest.mark.slow
def test_interval_covers_the_truth() -> None:
    """Two normal laws one standard deviation apart: AUROC Phi(1/sqrt 2), 95 times of 100."""
    rng = np.random.default_rng(0)
    found = [
        separation(rng.normal(1, 1, 80), rng.normal(0, 1, 80), seed=i, draws=400).auroc
        for i in range(300)
    ]
    covered = np.mean([interval.low <= 0.76025 <= interval.high for interval in found])
    assert 0.91 <= covered <= 0.98


@pytest.mark.parametrize(
    "measure",
    [
        lambda x: separation(x, [1.0, 2.0], seed=0),
        lambda x: separation([1.0, 2.0], x, seed=0),
        lambda x: rank_correlation(x, x, seed=0),
        lambda x: explained_share(x, {"a": np.arange(len(x))}, seed=0),
    ],
)
@pytest.mark.parametrize("scores", [[1.0], [1.0, 2.0, np.nan, 3.0]])
def test_refuses_the_undefined(measure, scores: list[float]) -> None:
    with pytest.raises(ValueError, match=r"images or more with finite scores are needed, not \d"):
        measure(scores)


def test_rank_correlation_is_spearmans() -> None:
    """scipy's number, ties included; inside its interval; monotone is 1, a constant says 0."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=60).round(1)
    y = x + rng.normal(size=60)
    found = rank_correlation(x, y, seed=0)
    assert found.value == pytest.approx(stats.spearmanr(x, y).statistic)
    assert found.low < found.value < found.high
    assert rank_correlation(y, np.exp(y), seed=0).low == pytest.approx(1)
    assert rank_correlation(y, -y, seed=0).high == pytest.approx(-1)
    assert rank_correlation(np.ones(60), y, seed=0).value == 0


def test_explained_share() -> None:
    """An increasing function of one property is explained whole, noise not, their sum by half."""
    rng = np.random.default_rng(0)
    a, b, noise = rng.normal(size=(3, 2000))
    assert explained_share(np.exp(a), {"a": a, "b": b}, 0).value == pytest.approx(1)
    assert explained_share(noise, {"a": a, "b": b}, 0).value == pytest.approx(0, abs=0.01)
    # Ranks of normal variables with correlation 1/sqrt 2: (6/pi asin(1/(2 sqrt 2)))² = 0.476.
    expected = (6 / math.pi * math.asin(0.5**1.5)) ** 2
    found = explained_share(a + noise, {"a": a, "b": b}, 0)
    assert found.value == pytest.approx(expected, abs=0.03)
    assert found.low < found.value < found.high
    # A collapsed encoder gives every image one score.
    found = explained_share(np.ones(20), {"a": np.arange(20.0)}, 0)
    assert (found.value, found.low, found.high) == (0, 0, 0)


def coverage(r: float, repeats: int, draws: int) -> tuple[float, float]:
    """How often the intervals of rho and of the explained share hold the truth, 80 pairs each."""
    rho, rng = 6 / math.pi * math.asin(r / 2), np.random.default_rng(0)
    hits = np.zeros((repeats, 2))
    for i in range(repeats):
        x, noise = rng.normal(size=(2, 80))
        y = r * x + math.sqrt(1 - r * r) * noise
        found = rank_correlation(x, y, i, draws=draws), explained_share(x, {"y": y}, i, draws=draws)
        truth = (rho, rho**2)
        hits[i] = [cell.low <= t <= cell.high for cell, t in zip(found, truth, strict=True)]
    return tuple(hits.mean(0))


def test_intervals_cover_strong_correlations() -> None:
    """Ranks of the whole sample would give 88 of 100 here: the margins vary too."""
    assert min(coverage(0.9, repeats=50, draws=100)) >= 0.9


@pytest.mark.slow
@pytest.mark.parametrize("r", [0.0, 0.6, 0.9])
def test_intervals_cover_as_often_as_they_say(r: float) -> None:
    """0.95, to four standard errors of 400 repeats."""
    of_rho, of_share = coverage(r, repeats=400, draws=500)
    assert abs(of_rho - 0.95) < 0.044
    # At 0 the share lies at the end of its range, where a percentile interval covers more.
    assert 0.95 - 0.044 < of_share <= (1 if r == 0 else 0.994)


@pytest.mark.parametrize("count", [4, 6, 12])
def test_an_explained_share_stays_in_its_range(count: int) -> None:
    """Adjusted R² of one property is -1 / (n - 2) to 1, and so are its ends."""
    x = np.arange(count, dtype=float)
    for y in (np.exp(x), np.cos(9 * x), np.sin(7 * x) + x / 9):
        found = explained_share(y, {"x": x}, 0)
        assert -1 / (count - 2) <= found.low <= found.high <= 1
