"""Schedules against values computed by hand, and their shape for any length of a run."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.training.pretrain import cosine, learning_rate, linear

lengths = st.integers(min_value=2, max_value=400)
shares = st.floats(min_value=0.0, max_value=0.9)


def test_schedules_by_hand():
    """Warm-up is a straight line that reaches the peak at step `warmup`; then half a cosine.

    At thirds of the way, half a cosine has gone 1/4 and 3/4. The shortest runs have schedules too.
    """
    rates = [learning_rate(step, 9, 4, peak=1.6, final=0.0) for step in range(9)]
    # Four steps of 1.6 / 4, then 0.8 (1 + cos) of 0, 45, 90, 135 and 180 degrees.
    root = 0.8 * math.sqrt(0.5)
    assert rates == pytest.approx([0.0, 0.4, 0.8, 1.2, 1.6, 0.8 + root, 0.8, 0.8 - root, 0.0])
    assert [cosine(step, 4, 0.04, 0.4) for step in range(4)] == pytest.approx(
        [0.04, 0.13, 0.31, 0.4]
    )
    assert [linear(step, 3, 0.996, 1.0) for step in range(3)] == pytest.approx([0.996, 0.998, 1.0])
    assert learning_rate(0, 1, 0, peak=2.0, final=0.0) == 2.0
    assert learning_rate(0, 1, 1, peak=2.0, final=0.0) == 0.0
    assert [learning_rate(step, 3, 3, peak=3.0, final=0.0) for step in range(3)] == [0.0, 1.0, 2.0]
    assert cosine(0, 1, 1.0, 0.5) == linear(0, 1, 1.0, 0.5) == 1.0


@given(lengths, shares)
def test_shapes_are_monotone(steps: int, share: float):
    """The learning rate rises to the peak and falls after it; the other two never turn back."""
    warmup = round(share * steps)
    rates = [learning_rate(step, steps, warmup, 1.0, final=0.0) for step in range(steps)]
    assert all(a < b for a, b in zip(rates[:warmup], rates[1 : warmup + 1], strict=False))
    assert all(a > b for a, b in zip(rates[warmup:], rates[warmup + 1 :], strict=False))
    # A run that is all warm-up would reach the peak one step after its end.
    assert (max(rates) == 1.0) == (warmup < steps)
    for schedule in (cosine, linear):
        values = [schedule(step, steps, 0.04, 0.4) for step in range(steps)]
        assert values == sorted(values) and len(set(values)) == steps
