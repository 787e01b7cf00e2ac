"""Verdicts on claims, computed from the numbers of committed runs by the ledger's rules.

A comparison over seeds is decided only with `SEEDS_NEEDED` seeds or more, and only where its p
value, adjusted for all such comparisons of the ledger, is at most `ERROR_RATE`; otherwise the claim
stays untested, however suggestive the number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from statistics import fmean
from typing import Literal

from scipy import stats

from sparsejepa.companion.files import label
from sparsejepa.companion.ledger import (
    LEDGER,
    SEED,
    Check,
    Claim,
    Ledger,
    Verdict,
    numbers_at,
    value_at,
)
from sparsejepa.intervals import SEEDS_NEEDED, seed_interval

State = Literal["holds", "fails", "undecided", "too few seeds", "no run"]

LEVEL = 0.95  # nominal coverage of every interval
ERROR_RATE = 0.05  # expected share of wrong ones among decided comparisons, at most
# Seeds that a study may have: one that exists but is not listed would be left out by choice.
POSSIBLE_SEEDS = range(20)


@dataclass(frozen=True)
class Finding:
    """What one rule finds, before it is known how many comparisons are made."""

    holds: bool  # whether the estimate is on the claim's side of the threshold
    estimate: float
    seeds: int = 0  # 0 for numbers in which nothing was trained
    interval: tuple[float, float] | None = None  # Student's, from `SEEDS_NEEDED` seeds on
    p: float | None = None  # two-sided, of the threshold being the truth; None as `interval`


def mean_above(values: Sequence[float], threshold: float) -> Finding:
    """The mean over seeds is above the threshold."""
    if min(values) == max(values):
        # Exactly, where the mean may be off by a rounding.
        return interval_above(values[0], values[:1] * 2, len(values), threshold)
    over = seed_interval(values, LEVEL)
    return interval_above(fmean(values), (over.low, over.high), len(values), threshold)


def interval_above(
    value: float, interval: Sequence[float], seeds: int, threshold: float
) -> Finding:
    """A mean with its 95 % Student interval over `seeds` is above the threshold.

    p is what the interval implies: its half width is the standard error times Student's quantile.
    """
    low, high = interval
    holds = bool(value > threshold)
    if seeds < SEEDS_NEEDED:
        return Finding(holds, value, seeds)
    error = (high - low) / 2 / stats.t.ppf((1 + LEVEL) / 2, seeds - 1)
    # Seeds that agree to the last digit leave nothing to chance.
    p = 2 * stats.t.sf(abs((value - threshold) / error), seeds - 1) if error else value == threshold
    return Finding(holds, value, seeds, (low, high), float(p))


def exactly(rule: str, values: Sequence[float], threshold: float, tolerance: float = 0) -> Finding:
    """By "at_least", "at_most" or "equal_within", every value is where it belongs.

    For numbers in which nothing was trained and chance plays no part that matters: closed forms,
    quadrature, estimates from many draws of a known law. The estimate is the worst value.
    """
    if rule == "equal_within":
        worst = max(values, key=lambda value: abs(value - threshold))
        return Finding(abs(worst - threshold) <= tolerance, worst)
    worst = min(values) if rule == "at_least" else max(values)
    return Finding(worst >= threshold if rule == "at_least" else worst <= threshold, worst)


@dataclass(frozen=True)
class Result:
    """What one check found."""

    check: Check
    finding: Finding | None  # None where there is no run
    runs: tuple[str, ...] = ()  # whose numbers these are, preset/notebook/run
    sample: int | None = None  # images (or such) behind each number
    adjusted: float | None = None  # p value, adjusted for all comparisons of the ledger
    fault: str = ""  # what was in the way, a sentence without its subject

    @property
    def p(self) -> float | None:
        return self.finding and self.finding.p

    @property
    def state(self) -> State:
        if self.finding is None:
            return "no run"
        if self.finding.seeds and self.finding.p is None:
            return "too few seeds"
        if self.finding.seeds and (self.adjusted is None or self.adjusted > ERROR_RATE):
            return "undecided"
        return "holds" if self.finding.holds else "fails"


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict."""

    claim: Claim
    test: tuple[Result, ...]
    counterexample: tuple[Result, ...]
    verdict: Verdict
    note: str  # goes on after the verdict: the condition, or why it is untested

    @property
    def results(self) -> tuple[Result, ...]:
        return self.test + self.counterexample

    @property
    def runs(self) -> tuple[str, ...]:
        """Every run behind the verdict, once, in the order of the checks."""
        return tuple(dict.fromkeys(run for result in self.results for run in result.runs))

    @property
    def faults(self) -> tuple[str, ...]:
        """Sentences; each fails the build."""
        found = [result.fault for result in self.results if result.fault]
        if self.verdict != self.claim.expected and not found:
            found.append(
                f"expects {self.claim.expected!r}, but its numbers say {self.verdict!r}"
                f"{f' ({self.note})' if self.note else ''}: if they are right, correct the field "
                f"expected, else make again {', '.join(self.runs) or 'its runs'}."
            )
        return tuple(f"{label(LEDGER)}, claim {self.claim.id!r}: it {fault}" for fault in found)


def judge(ledger: Ledger, runs: Path) -> list[Judgement]:
    """The verdict on every claim, in the ledger's order; `runs` is the folder of all runs.

    The p values of all comparisons over seeds are adjusted together (Benjamini & Hochberg 1995):
    of what is called at adjusted p <= q, a share q is wrong, in expectation and at most; for
    comparisons that are independent or depend positively.
    """
    results = [
        _measure(claim, check, ledger.seeds.get(check.seeds, ()), runs)
        for claim in ledger.claims
        for check in claim.checks
    ]
    tried = [result.p for result in results if result.p is not None]
    adjusted = iter(stats.false_discovery_control(tried).tolist() if tried else [])
    judged = iter([r if r.p is None else replace(r, adjusted=next(adjusted)) for r in results])
    judgements = []
    for claim in ledger.claims:
        parts = (claim.test, claim.counterexample)
        test, counterexample = (tuple(islice(judged, len(part))) for part in parts)
        verdict = reach_verdict(claim, test, counterexample)
        judgements.append(Judgement(claim, test, counterexample, *verdict))
    return judgements


def reach_verdict(
    claim: Claim, test: Sequence[Result], counterexample: Sequence[Result]
) -> tuple[Verdict, str]:
    """The verdict, and what goes on after it.

    What numbers contradict in which nothing was trained is false as stated; what trained networks
    contradict is not reproduced: another budget or data set might.
    """
    states, limits = ({r.state for r in results} for results in (test, counterexample))
    few = [r.finding.seeds for r in (*test, *counterexample) if r.state == "too few seeds"]
    if not states or "no run" in states | limits:
        return "untested", "no run yet"
    if few:
        return "untested", f"{min(few)} of {SEEDS_NEEDED} seeds"
    if "fails" in states:
        exact = any(result.p is None for result in test if result.state == "fails")
        return ("false as stated" if exact else "not reproduced"), ""
    # A counterexample that fails in one part is none, whatever its other parts say.
    stands = not limits or "fails" in limits
    if "undecided" in states or (not stands and "undecided" in limits):
        return "untested", "undecided"
    if stands:
        return "reproduced", ""
    return ("true only if", claim.condition) if claim.condition else ("false as stated", "")


def comparisons(judgements: Iterable[Judgement]) -> int:
    """How many comparisons over seeds the p values are adjusted for."""
    return sum(result.adjusted is not None for j in judgements for result in j.results)


def _measure(claim: Claim, check: Check, seeds: Sequence[int], runs: Path) -> Result:
    """Applies the check's rule.

    A rule may be written before its run: nothing is wrong where the claim is untested and the run
    not there, or the list of seeds empty.
    """
    found = [address.partition(":")[0] for address in check.addresses]
    try:
        if check.seeds:
            _refuse_other_seeds(check, seeds, runs)
            found = [run.replace(SEED, str(seed)) for run in found for seed in seeds]
        elif claim.expected == "untested" and not all((runs / run).is_dir() for run in found):
            found = []
        if not found:
            return Result(check, None)
        count = f"{found[0]}:{check.sample}"
        sample = int(numbers_at(runs, count)[0]) if check.sample else None
        return Result(check, find(check, seeds, runs), tuple(dict.fromkeys(found)), sample)
    except ValueError as error:
        return Result(check, None, fault=str(error))


def find(check: Check, seeds: Sequence[int], runs: Path) -> Finding:
    """What the check's rule finds; raises as `numbers_at`."""
    series = [[check.scale * x for x in numbers_at(runs, a, seeds)] for a in check.addresses]
    if check.seed_count:
        ends = [check.scale * x for x in numbers_at(runs, f"{check.values}.interval")]
        (count,) = numbers_at(runs, f"{check.values.partition(':')[0]}:{check.seed_count}")
        found = interval_above(series[0][0], ends, int(count), check.threshold)
    elif check.seeds:
        # Of a difference, pair by pair of the same seed.
        paired = [a - b for a, b in zip(*series, strict=True)] if check.than else series[0]
        found = mean_above(paired, check.threshold)
    else:
        return exactly(check.rule, series[0], check.threshold, check.tolerance)
    below = check.rule.endswith("_below")
    return replace(found, holds=found.estimate < check.threshold) if below else found


def _refuse_other_seeds(check: Check, seeds: Sequence[int], runs: Path) -> None:
    """A seed that has been run takes part, or its leaving out could be a choice."""
    for seed in sorted(set(POSSIBLE_SEEDS) - set(seeds)):
        try:
            for address in check.addresses:
                value_at(runs, address.replace(SEED, str(seed)))
        except ValueError:
            continue
        raise ValueError(
            f"leaves out seed {seed}, which has been run: add it to the list {check.seeds!r}."
        )
