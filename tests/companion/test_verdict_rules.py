"""The rules that decide claims: closed forms, agreement with scipy, calibration."""

import inspect
from typing import Literal, get_args

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from sparsejepa.companion import verdict_rules
from sparsejepa.companion.verdict_rules import (
    ExactRule,
    IntervalRule,
    SeedRule,
    adjusted_p_values,
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
    student_quantile,
    student_tail,
)
from sparsejepa.intervals import seed_interval

NUMBER = st.floats(-100, 100).map(lambda x: round(x, 3))
NUMBERS = st.lists(NUMBER, min_size=3, max_size=8)
P_VALUES = st.lists(st.floats(0, 1), min_size=1, max_size=12)


def test_every_rule_is_a_function():
    """The names that the ledger may use are the module's functions."""
    for name in get_args(Literal[SeedRule, IntervalRule, ExactRule]):
        assert inspect.isfunction(getattr(verdict_rules, name))


@given(st.floats(0, 50))
def test_student_tail_of_one_and_two_degrees(t: float):
    """One degree is Cauchy's law, two have an algebraic tail."""
    assert student_tail(t, 1) == pytest.approx(1 - 2 / np.pi * np.arctan(t), abs=1e-14)
    assert student_tail(-t, 2) == pytest.approx(1 - t / np.sqrt(2 + t * t), abs=1e-14)


@given(st.floats(-50, 50), st.integers(2, 40))
def test_student_tail_agrees_with_scipy(t: float, degrees: int):
    """For more degrees than one, where scipy is off by 3e-9 near t = 1e-8."""
    assert student_tail(t, degrees) == pytest.approx(2 * stats.t.sf(abs(t), degrees), abs=1e-12)


@given(st.floats(0.01, 0.999), st.integers(1, 40))
def test_student_quantile_agrees_with_scipy(level: float, degrees: int):
    """It inverts the tail."""
    expected = stats.t.ppf((1 + level) / 2, degrees)
    assert student_quantile(level, degrees) == pytest.approx(expected, rel=1e-9)


@given(NUMBERS, NUMBER)
def test_interval_and_p_agree_with_scipy(values: list[float], threshold: float):
    """The interval is that of the notebooks, p that of the one-sample t test."""
    found = mean_above(values, threshold)
    if np.ptp(values) < 0.01:
        return
    over = seed_interval(values)
    assert found.interval == pytest.approx((over.low, over.high), abs=1e-6)
    assert found.p == pytest.approx(stats.ttest_1samp(values, threshold).pvalue, abs=1e-9)
    assert found.holds == (found.estimate > threshold) and found.seeds == len(values)


@given(NUMBERS, NUMBER)
def test_above_and_below_are_two_sides_of_one_question(values: list[float], threshold: float):
    """They agree on everything but the side."""
    above, below = mean_above(values, threshold), mean_below(values, threshold)
    assert (above.p, above.interval, above.estimate) == (below.p, below.interval, below.estimate)
    assert not (above.holds and below.holds)
    assert above.holds or below.holds or above.estimate == threshold


@given(st.lists(st.tuples(NUMBER, NUMBER, NUMBER), min_size=3, max_size=6), NUMBER)
def test_a_difference_is_paired(rows: list[tuple[float, float, float]], threshold: float):
    """What a seed adds to both methods cancels; exchanging the methods changes the sign."""
    a, b, shift = (list(column) for column in zip(*rows, strict=True))
    plain = difference_above(a, b, threshold)
    shifted = difference_above(
        [x + s for x, s in zip(a, shift, strict=True)],
        [x + s for x, s in zip(b, shift, strict=True)],
        threshold,
    )
    swapped = difference_above(b, a, -threshold)
    assert shifted.interval == pytest.approx(plain.interval, abs=1e-6)
    assert swapped.estimate == pytest.approx(-plain.estimate, abs=1e-9)
    assert swapped.p == pytest.approx(plain.p, abs=1e-9)


@pytest.mark.parametrize(
    ("differences", "holds"), [([0.1, -0.2, 0.2], True), ([0.9, 1.1, 1.4], False)]
)
@pytest.mark.parametrize("sign", [1, -1])
def test_as_good_as_equal(differences: list[float], holds: bool, sign: int):
    """Inside plus and minus the threshold, judged at the nearer end, whichever the sign is."""
    values = [sign * d for d in differences]
    found = difference_within(values, [0.0] * 3, 1.0)
    assert found.holds is holds
    nearer = np.copysign(1.0, sum(values))
    assert found.p == pytest.approx(stats.ttest_1samp(values, nearer).pvalue)


def test_an_interval_says_as_much_as_its_seeds():
    """p from a reported interval is p from the seeds that it was made of."""
    values = [0.9, 1.4, 1.9, 1.1]
    own, over = mean_above(values, 0.5), seed_interval(values)
    reported = interval_above(over.value, (over.low, over.high), 4, 0.5)
    assert reported.p == pytest.approx(own.p) and reported.holds
    below = interval_below(over.value, (over.low, over.high), 4, 0.5)
    assert below.p == reported.p and not below.holds
    assert interval_above(1.0, (0.9, 1.1), 2, 0.5).p is None


@given(st.lists(NUMBER, min_size=1, max_size=2), NUMBER)
def test_fewer_than_three_seeds_decide_nothing(values: list[float], threshold: float):
    """There is a mean, but neither an interval nor a p value."""
    found = mean_above(values, threshold)
    assert found.interval is None and found.p is None and found.seeds == len(values)


def test_seeds_that_agree_to_the_last_digit():
    """No spread leaves nothing to chance, unless they lie on the threshold itself."""
    assert mean_above([0.25] * 3, 0.0).p == 0.0
    assert mean_above([0.25] * 3, 0.25).p == 1.0


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
    """Agrees with scipy, and sees order alone."""
    values, other = list(map(float, first[:size])), list(map(float, second[:size]))
    found = order_correlation(values, other, 0.0).estimate
    assert found == pytest.approx(stats.kendalltau(values, other).statistic)
    assert found == order_correlation([x**3 for x in values], other, 0.0).estimate


def test_orders_and_ties():
    """The same order is 1, the reverse -1, a constant 0."""
    assert order_correlation([1.0, 2.0, 5.0], [0.1, 0.2, 0.3], 1.0).holds
    assert order_correlation([1.0, 2.0, 5.0], [3.0, 2.0, 1.0], -1.0).estimate == -1
    assert order_correlation([1.0, 2.0, 5.0], [7.0] * 3, 0.5).estimate == 0


@given(P_VALUES)
def test_adjusted_p_values_agree_with_scipy(values: list[float]):
    """Benjamini and Hochberg's, and never below the unadjusted ones."""
    named = {str(i): p for i, p in enumerate(values)}
    adjusted = adjusted_p_values(named)
    expected = stats.false_discovery_control(values)
    assert [adjusted[name] for name in named] == pytest.approx(list(expected))
    assert all(adjusted[name] >= p for name, p in named.items())


def test_adjusted_p_values_by_hand():
    """0.01 times 5, 0.02 times 5/2, ...: all 0.05; alone, a p value stays."""
    equal = adjusted_p_values({str(i): 0.01 * i for i in range(1, 6)})
    assert list(equal.values()) == pytest.approx([0.05] * 5)
    assert adjusted_p_values({"a": 0.04}) == {"a": 0.04} and adjusted_p_values({}) == {}


@pytest.mark.parametrize(
    "call",
    [
        lambda: at_least([], 1.0),
        lambda: mean_above([], 1.0),
        lambda: order_correlation([1.0], [1.0], 1.0),
        lambda: order_correlation([1.0, 2.0], [1.0], 1.0),
        lambda: difference_above([1.0], [1.0, 2.0], 1.0),
        lambda: difference_within([1.0] * 3, [1.0] * 3, 0.0),
    ],
)
def test_undefined_questions_are_refused(call):
    """No values, pairs that do not match, a margin of nothing."""
    with pytest.raises(ValueError):
        call()
