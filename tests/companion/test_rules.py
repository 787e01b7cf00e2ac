"""The rules that decide claims: agreement with scipy, calibration, exact numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparsejepa.companion.ledger import decide
from sparsejepa.intervals import seed_interval

NUMBER = st.floats(-100, 100).map(lambda x: round(x, 3))


@given(st.lists(NUMBER, min_size=3, max_size=8), NUMBER)
def test_a_mean_is_judged_by_the_t_test(values: list[float], threshold: float):
    """p and interval are those of the one-sample test."""
    found = decide("mean_above", values, threshold)
    assert found.seeds == len(values) and found.holds == (found.estimate > threshold)
    if np.ptp(values) > 0.01:
        expected = stats.ttest_1samp(values, threshold)
        assert found.p == pytest.approx(expected.pvalue, abs=1e-9)
        assert found.interval == pytest.approx(tuple(expected.confidence_interval()), abs=1e-6)


def test_an_interval_says_as_much_as_its_seeds():
    """p from a reported interval is p from its seeds; below three seeds there is none."""
    values = [0.9, 1.4, 1.9, 1.1]
    own, over = decide("mean_above", values, 0.5), seed_interval(values)
    reported = decide("interval_above", [over.value, over.low, over.high, 4.0], 0.5)
    assert reported.p == pytest.approx(own.p) and reported.holds
    for rule, read in {"interval_above": [1.0, 0.9, 1.1, 2.0], "mean_above": [0.9, 1.1]}.items():
        few = decide(rule, read, 0.5)
        assert few.p is None and few.interval is None and few.seeds == 2


def test_seeds_that_agree_to_the_last_digit():
    """No spread leaves nothing to chance, unless they lie on the threshold itself."""
    for value in (0.25, 0.1):
        assert decide("mean_above", [value] * 3, 0.0).p == 0.0
        assert decide("mean_above", [value] * 3, value).p == 1.0


def test_at_the_threshold_one_in_twenty_is_called():
    """Of 1,000 studies of three seeds whose truth lies on the threshold, 5 % have p <= 0.05."""
    drawn = np.random.default_rng(0).normal(1.0, 0.2, size=(1000, 3))
    called = np.mean([decide("mean_above", row.tolist(), 1.0).p <= 0.05 for row in drawn])
    assert called == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 1000))


def test_exact_rules_report_the_worst_value():
    """One value on the wrong side is enough; of none nothing is said."""
    found = decide("equal_within", [0.9, 1.05], 1.0, 0.11)
    assert (found.holds, found.estimate, found.p, found.seeds) == (True, 0.9, None, 0)
    assert not decide("equal_within", [1.0, 1.2], 1.0, 0.1).holds
    assert decide("at_least", [3.0, 1.0], 1.0).holds and decide("at_most", [-1.0, 1.0], 1.0).holds
    assert not decide("at_least", [3.0, 0.9], 1.0).holds
    assert not decide("at_most", [-1.0, 1.1], 1.0).holds
    for rule in ("at_least", "mean_above"):
        with pytest.raises(ValueError):
            decide(rule, [], 0.0)
