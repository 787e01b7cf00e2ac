"""Verdicts on claims, computed from the numbers of committed runs by the ledger's rules.

A comparison over seeds is decided only with `SEEDS_NEEDED` seeds or more, and only where its p
value, adjusted for all such comparisons of the ledger, is at most `ERROR_RATE`; otherwise the claim
stays untested, however suggestive the number.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import islice
from pathlib import Path
from typing import Literal

from scipy.stats import false_discovery_control

from sparsejepa.companion import rules
from sparsejepa.companion.ledger import (
    LEDGER,
    SEED,
    Check,
    Claim,
    Ledger,
    Verdict,
    making_command,
    numbers_at,
    value_at,
)
from sparsejepa.companion.rules import Finding
from sparsejepa.intervals import SEEDS_NEEDED

State = Literal["holds", "fails", "undecided", "too few seeds", "no run"]

ERROR_RATE = 0.05  # expected share of wrong ones among decided comparisons, at most
# Seeds that a study may have: one that exists but is not listed would be left out by choice.
POSSIBLE_SEEDS = range(20)


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
            commands = ", ".join(f"`{making_command(run)}`" for run in self.runs)
            found.append(
                f"expects {self.claim.expected!r}, but its numbers say {self.verdict!r}"
                f"{f' ({self.note})' if self.note else ''}: if they are right, correct the field "
                f"expected{f', else make them again by {commands}' if commands else ''}."
            )
        return tuple(f"{LEDGER.name}, claim {self.claim.id!r}: it {fault}" for fault in found)


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
    adjusted = iter(false_discovery_control(tried).tolist() if tried else [])
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
        finding = _apply(check, seeds, runs)
        sample = _count(runs, f"{found[0]}:{check.sample}") if check.sample else None
        return Result(check, finding, tuple(dict.fromkeys(found)), sample)
    except ValueError as error:
        return Result(check, None, fault=str(error))


def _apply(check: Check, seeds: Sequence[int], runs: Path) -> Finding:
    rule = getattr(rules, check.rule)
    series = [[check.scale * x for x in numbers_at(runs, a, seeds)] for a in check.addresses]
    if check.seed_count:
        ends = [check.scale * x for x in numbers_at(runs, f"{check.values}.interval")]
        count = _count(runs, f"{check.values.partition(':')[0]}:{check.seed_count}")
        return rule(series[0][0], ends, count, check.threshold)
    return rule(*series, check.threshold, *([check.tolerance] if check.tolerance else []))


def _count(runs: Path, address: str) -> int:
    counts = numbers_at(runs, address)
    if len(counts) > 1:
        raise ValueError(f"finds several numbers at {address}; name one.")
    return int(counts[0])


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
