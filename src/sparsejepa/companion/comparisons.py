"""Is one variant better than another? Differences of measurements, and sentences about them."""

from collections.abc import Sequence
from dataclasses import dataclass

from sparsejepa.companion.measurements import Measurement
from sparsejepa.intervals import Interval, paired_difference, seed_interval

# Fewer runs give a Student interval that is too wide to say anything.
ENOUGH_SEEDS = 3


@dataclass(frozen=True)
class Comparison:
    """The difference of two variants by one probe, as a share of the test images."""

    difference: Interval  # first minus second
    seeds: int  # whose spread the interval knows; 1: only that of the test images of one seed

    @property
    def clear(self) -> bool:
        """Zero is outside the interval."""
        return self.difference.low > 0 or self.difference.high < 0

    def __str__(self) -> str:
        """As "+1.20 points [-0.30, +2.70], over 3 seeds"."""
        d = self.difference
        basis = f"over {self.seeds} seeds" if self.seeds > 1 else "over test images, for one seed"
        return f"{100 * d.value:+.2f} points [{100 * d.low:+.2f}, {100 * d.high:+.2f}], {basis}"


def compare(
    first: Sequence[Measurement],
    second: Sequence[Measurement],
    probe: str,
    seed: int,
    level: float = 0.95,
) -> Comparison:
    """Accuracy of `first` minus that of `second`, run by run; the i-th runs of both share a seed.

    With three seeds or more the interval is Student's over the seeds; with fewer it is the paired
    bootstrap over the test images of the first seed alone.

    Raises:
        ValueError: different numbers of runs, or none.
    """
    if len(first) != len(second) or not first:
        raise ValueError(f"Runs are compared in pairs, but there are {len(first)}, {len(second)}.")
    if len(first) >= ENOUGH_SEEDS:
        pairs = zip(first, second, strict=True)
        values = [a.accuracy(probe) - b.accuracy(probe) for a, b in pairs]
        return Comparison(seed_interval(values, level), len(values))
    a, b = first[0].correct[probe].numpy(), second[0].correct[probe].numpy()
    return Comparison(paired_difference(a, b, seed, level), 1)


def verdict(comparison: Comparison, probe: str, first: str, second: str) -> str:
    """A sentence such as "By the linear probe, neither R1 nor JEPA is clearly ahead: …"."""
    winner = first if comparison.difference.value > 0 else second
    who = f"{winner} is ahead" if comparison.clear else f"neither {first} nor {second} is ahead"
    return f"By {probe_name(probe)}, {who}: {comparison}."


def probe_name(probe: str) -> str:
    """A probe as it stands in a sentence."""
    return {"linear probe": "the linear probe", "kNN": "kNN"}.get(probe, f"the {probe} task")


def parse_strengths(text: str) -> tuple[float, ...]:
    """Numbers separated by commas, in order, each once, with 0, the control, always among them.

    Raises:
        ValueError: one is no number, or is negative, or none is above 0.
    """
    try:
        found = {0.0} | {float(part) for part in text.split(",") if part.strip()}
    except ValueError as error:
        raise ValueError(
            f"Strengths are numbers separated by commas, as '0.001, 0.01', not {text!r}."
        ) from error
    if not all(0 <= strength < float("inf") for strength in found):
        raise ValueError(f"Strengths must be finite and at least 0, unlike some of {text!r}.")
    if found == {0.0}:
        raise ValueError(f"A path needs a strength above 0 beside its control, not {text!r}.")
    return tuple(sorted(found))
