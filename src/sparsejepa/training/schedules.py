"""Schedules as pure functions of the step: what a step uses depends on nothing that ran before."""

import math


def learning_rate(step: int, steps: int, warmup: int, peak: float, final: float) -> float:
    """Linear from 0 to `peak` over `warmup` steps, then cosine to `final` at `steps - 1`."""
    if step < warmup:
        return peak * step / warmup
    return cosine(step - warmup, steps - warmup, peak, final)


def cosine(step: int, steps: int, first: float, last: float) -> float:
    """Half a cosine from `first` at step 0 to `last` at `steps - 1`."""
    progress = min(1.0, step / max(1, steps - 1))
    return last + (first - last) * 0.5 * (1 + math.cos(math.pi * progress))


def linear(step: int, steps: int, first: float, last: float) -> float:
    """Straight line from `first` at step 0 to `last` at `steps - 1` (I-JEPA's EMA momentum)."""
    return first + (last - first) * min(1.0, step / max(1, steps - 1))
