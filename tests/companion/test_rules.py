"""The rules that decide claims: closed forms, agreement with scipy, calibration."""

import inspect
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparsejepa.companion import rules
from sparsejepa.companion.rules import (
    at_least,
    at_most,
    difference_above,
    difference_within,
    equal_within,
    interval_above,
    interval_below,
    mean_above,
    mean_below,
    order_correlation,
)
from sparsejepa.intervals import seed_interval

NUMBER = st.floats(-100, 100).map(lambda x: round(x, 3))
NUMBERS = st.lists(NUMBER, min_size=3, max_size=8)


def test_every_rule_is_a_function():
    """The names that the ledger may use are the module's functions."""
    for name in get_args(Literal[rules.SeedRule, rules.IntervalRule, rules.ExactRule]):
        assert inspect.isfunction(getattr(rules, name))


@given(NUMBERS, NUMBER)
def test_a_mean_is_judged_by_the_t_test(values: list[float], threshold: float):
    """p and interval are those of the one-sample test; below is the other side of above."""
    above, below = mean_above(values, threshold), mean_below(values, threshold)
    assert (above.p, above.interval, above.seeds) == (below.p, below.interval, len(values))
    assert above.holds + below.holds == (above.estimate != threshold)
    if np.ptp(values) > 0.01:
        expected = stats.ttest_1samp(values, threshold)
        assert above.p == pytest.approx(expected.pvalue, abs=1e-9)
        assert above.interval == pytest.approx(tuple(expected.confidence_interval()), abs=1e-6)


@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=3, max_size=6), NUMBER)
def test_a_difference_is_paired(rows: list[tuple[float, float, float]], threshold: float):
    """What a seed adds to both methods cancels; exchanging the methods changes the sign."""
    a, b, shift = (np.array(column) for column in zip(*rows, strict=True))
    plain, shifted, swapped = (
        difference_above(x.tolist(), y.tolist(), t)
        for x, y, t in ((a, b, threshold), (a + shift, b + shift, threshold), (b, a, -threshold))
    )
    assert shifted.interval == pytest.approx(plain.interval, abs=1e-6)
    assert swapped.estimate == pytest.approx(-plain.estimate, abs=1e-9)
    assert swapped.p == pytest.approx(plain.p, abs=1e-9)


@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize(
    ("differences", "holds"), [([0.1, -0.2, 0.2], True), ([0.9, 1.1, 1.4], False)]
)
def test_as_good_as_equal(differences: list[float], holds: bool, sign: int):
    """Inside plus and minus the threshold, judged at the nearer end, whichever the sign is."""
    values = [sign * d for d in differences]
    found = difference_within(values, [0.0] * 3, 1.0)
    nearer = np.copysign(1.0, sum(values))
    assert found.holds is holds
    assert found.p == pytest.approx(stats.ttest_1samp(values, nearer).pvalue)


def test_an_interval_says_as_much_as_its_seeds():
    """p from a reported interval is p from the seeds that it was made of."""
    values = [0.9, 1.4, 1.9, 1.1]
    own, over = mean_above(values, 0.5), seed_interval(values)
    reported = interval_above(over.value, (over.low, over.high), 4, 0.5)
    below = interval_below(over.value, (over.low, over.high), 4, 0.5)
    assert reported.p == below.p == pytest.approx(own.p) and reported.holds and not below.holds
    for few in (interval_above(1.0, (0.9, 1.1), 2, 0.5), mean_above([0.9, 1.1], 0.5)):
        assert few.p is None and few.interval is None and few.seeds == 2


@pytest.mark.parametrize("value", [0.25, 0.1])
def test_seeds_that_agree_to_the_last_digit(value: float):
    """No spread leaves nothing to chance, unless they lie on the threshold itself."""
    assert mean_above([value] * 3, 0.0).p == 0.0
    assert mean_above([value] * 3, value).p == 1.0


def test_at_the_threshold_one_in_twenty_is_called():
    """Of 1,000 studies of three seeds whose truth lies on the threshold, 5 % have p <= 0.05."""
    drawn = np.random.default_rng(0).normal(1.0, 0.2, size=(1000, 3))
    called = np.mean([mean_above(row.tolist(), 1.0).p <= 0.05 for row in drawn])
    assert called == pytest.approx(0.05, abs=4 * np.sqrt(0.05 * 0.95 / 1000))


def test_exact_rules_report_the_worst_value():
    """One value on the wrong side is enough."""
    assert equal_within([0.9, 1.05], 1.0, 0.1) == equal_within([0.9], 1.0, 0.1)
    assert not equal_within([1.0, 1.2], 1.0, 0.1).holds
    assert at_least([3.0, 1.0, 2.0], 1.0).holds and at_least([3.0, 1.0], 1.0).estimate == 1.0
    assert not at_least([3.0, 0.9], 1.0).holds
    assert at_most([-1.0, 0.0], 0.0).holds and not at_most([-1.0, 0.1], 0.0).holds
    assert at_most([0.0], 0.0).p is None and at_most([0.0], 0.0).seeds == 0


@given(st.permutations(range(-3, 4)), st.permutations(range(7)), st.integers(2, 7))
def test_order_correlation_is_kendalls(first: list[int], second: list[int], size: int):
    """Agrees with scipy where there are no ties, and sees order alone."""
    values, other = list(map(float, first[:size])), list(map(float, second[:size]))
    found = order_correlation(values, other, 0.0).estimate
    assert found == pytest.approx(stats.kendalltau(values, other).statistic)
    assert found == order_correlation([x**3 for x in values], other, 0.0).estimate


@pytest.mark.parametrize("size", range(2, 30))
def test_the_same_order_is_one_to_the_last_digit(size: int):
    """The reverse is -1, a constant 0."""
    rising = [float(i) for i in range(size)]
    assert order_correlation(rising, rising, 1.0).holds
    assert order_correlation(rising, rising[::-1], -1.0).estimate == -1
    assert order_correlation(rising, [7.0] * size, 0.5).estimate == 0


@pytest.mark.parametrize(
    ("rule", "values"),
    [
        *((at_least, [[]]), (mean_above, [[]])),
        *((order_correlation, [[1.0], [1.0]]), (order_correlation, [[1.0, 2.0], [1.0]])),
        *((difference_above, [[1.0], [1.0, 2.0]]), (difference_within, [[1.0] * 3] * 2)),
    ],
)
def test_undefined_questions_are_refused(rule, values: list):
    """No values, pairs that do not match, a margin of nothing."""
    with pytest.raises(ValueError):
        rule(*values, 0.0)
