import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score, roc_curve

from sparsejepa.density.separation import separation

SCORES = st.lists(st.integers(-4, 4).map(float), min_size=2, max_size=30)


def values(found) -> list[float]:
    return [found.auroc.value, found.aupr.value, found.fpr95.value]


@settings(max_examples=30)
@given(SCORES, SCORES)
def test_agrees_with_scikit_learn(data: list[float], outliers: list[float]) -> None:
    """With many ties too; outliers are what AUPR and the rate of false passes speak of."""
    found = separation(data, outliers, seed=0, draws=2)
    scores = np.array(data + outliers)
    is_data = np.arange(len(scores)) < len(data)
    rates, passing, _ = roc_curve(is_data, scores, drop_intermediate=False)
    expected = [
        roc_auc_score(is_data, scores),
        average_precision_score(~is_data, -scores),
        rates[passing >= 0.95 - 1e-12].min(),
    ]
    assert values(found) == pytest.approx(expected)


def test_perfect_useless_and_inverted() -> None:
    """All below: 1, 1, 0. The same scores: one half. All above: 0 and everything passes."""
    low, high = np.arange(50.0), np.arange(50.0) + 100
    perfect = separation(high, low, seed=0, draws=50)
    assert values(perfect) == pytest.approx([1, 1, 0])
    assert (perfect.auroc.low, perfect.auroc.high) == pytest.approx((1, 1))
    assert separation(low, low, seed=0, draws=2).auroc.value == pytest.approx(0.5)
    inverted = separation(low, high, seed=0, draws=2)
    assert (inverted.auroc.value, inverted.fpr95.value) == pytest.approx((0, 1))


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


def test_refuses_the_undefined() -> None:
    """One score of a kind, and NaN."""
    with pytest.raises(ValueError, match="2 outlier scores or more"):
        separation([1.0, 2.0], [1.0], seed=0)
    with pytest.raises(ValueError, match="data scores contain NaN"):
        separation([1.0, np.nan], [1.0, 2.0], seed=0)
