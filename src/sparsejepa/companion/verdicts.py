"""Verdicts on claims, computed from the numbers of committed runs by the ledger's rules.

A comparison over seeds is decided only with `SEEDS_NEEDED` seeds or more, and only where its p
value, adjusted for all such comparisons of the ledger, is at most `ERROR_RATE`; otherwise the claim
stays untested, however suggestive the number.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, get_args

from sparsejepa.companion import verdict_rules
from sparsejepa.companion.claims import LEDGER, Check, Claim, Ledger, Verdict
from sparsejepa.companion.evidence import (
    making_command,
    number_at,
    of_seed,
    series_at,
    value_at,
)
from sparsejepa.companion.verdict_rules import SEEDS_NEEDED, Finding, IntervalRule

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

    @property
    def state(self) -> State:
        if self.finding is None:
            return "no run"
        if self.finding.p is None:
            exact = self.finding.seeds == 0
            return ("holds" if self.finding.holds else "fails") if exact else "too few seeds"
        if self.adjusted is None or self.adjusted > ERROR_RATE:
            return "undecided"
        return "holds" if self.finding.holds else "fails"


@dataclass(frozen=True)
class Judgement:
    """A claim with its verdict."""

    claim: Claim
    verdict: Verdict
    note: str  # goes on after the verdict: the condition, or why it is untested
    test: tuple[Result, ...]
    counterexample: tuple[Result, ...]
    faults: tuple[str, ...]  # sentences; each fails the build

    @property
    def runs(self) -> tuple[str, ...]:
        """Every run behind the verdict, once, in the order of the checks."""
        return _runs(self.test + self.counterexample)


def judge(ledger: Ledger, runs: Path) -> list[Judgement]:
    """The verdict on every claim, in the ledger's order.

    Args:
        runs: the folder of all runs, `book/runs`.
    """
    faults: dict[str, list[str]] = {claim.id: [] for claim in ledger.claims}
    results = {
        f"{claim.id} {part} {i}": _measure(claim, check, ledger.seeds, runs, faults[claim.id])
        for claim in ledger.claims
        for part in ("test", "counterexample")
        for i, check in enumerate(getattr(claim, part))
    }
    p_values = {
        name: result.finding.p
        for name, result in results.items()
        if result.finding is not None and result.finding.p is not None
    }
    for name, adjusted in verdict_rules.adjusted_p_values(p_values).items():
        results[name] = replace(results[name], adjusted=adjusted)
    judgements = []
    for claim in ledger.claims:
        test, counterexample = (
            tuple(results[f"{claim.id} {part} {i}"] for i in range(len(getattr(claim, part))))
            for part in ("test", "counterexample")
        )
        verdict, note = reach_verdict(claim, test, counterexample)
        found = list(faults[claim.id])
        if verdict != claim.expected and not found:
            commands = ", ".join(f"`{making_command(r)}`" for r in _runs(test + counterexample))
            found.append(
                f"expects {claim.expected!r}, but its numbers say {verdict!r}"
                f"{f' ({note})' if note else ''}: if they are right, correct the field expected"
                f"{f', else make them again by {commands}' if commands else ''}."
            )
        sentences = tuple(f"{LEDGER.name}, claim {claim.id!r}: it {f}" for f in found)
        judgements.append(Judgement(claim, verdict, note, test, counterexample, sentences))
    return judgements


def reach_verdict(
    claim: Claim, test: Sequence[Result], counterexample: Sequence[Result]
) -> tuple[Verdict, str]:
    """The verdict, and what goes on after it.

    What numbers contradict in which nothing was trained is false as stated; what trained networks
    contradict is not reproduced: another budget or data set might.
    """
    results = (*test, *counterexample)
    if not results or any(result.state == "no run" for result in results):
        return "untested", "no run yet"
    few = [result.finding.seeds for result in results if result.state == "too few seeds"]
    if few:
        return "untested", f"{min(few)} of {SEEDS_NEEDED} seeds"
    failing = [result for result in test if result.state == "fails"]
    if failing:
        exact = any(result.finding.p is None for result in failing)
        return ("false as stated" if exact else "not reproduced"), ""
    limits = {result.state for result in counterexample}
    if any(result.state == "undecided" for result in test):
        return "untested", "undecided"
    if not limits or "fails" in limits:
        return "reproduced", ""
    if "undecided" in limits:
        return "untested", "undecided"
    return ("true only if", claim.condition) if claim.condition else ("false as stated", "")


def comparisons(judgements: Sequence[Judgement]) -> int:
    """How many comparisons over seeds the p values are adjusted for."""
    results = [result for j in judgements for result in j.test + j.counterexample]
    return sum(result.adjusted is not None for result in results)


def _measure(
    claim: Claim,
    check: Check,
    seed_lists: Mapping[str, Sequence[int]],
    runs: Path,
    faults: list[str],
) -> Result:
    """Applies the check's rule; what is in the way goes to `faults`.

    A rule may be written before its run: nothing is wrong where the claim is untested and the run
    not there, or the list of seeds empty.
    """
    seeds = seed_lists.get(check.seeds, ())
    addresses = [address for address in (check.values, check.than) if address]
    folders = [runs / address.partition(":")[0] for address in addresses]
    try:
        if check.seeds:
            _refuse_other_seeds(check, seeds, addresses, runs)
            if not seeds:
                return Result(check, None)
        elif claim.expected == "untested" and not all(folder.is_dir() for folder in folders):
            return Result(check, None)
        finding = _apply(check, seeds, addresses, runs)
        used = [of_seed(a.partition(":")[0], seed) for a in addresses for seed in seeds or (0,)]
        sample = int(number_at(runs, f"{used[0]}:{check.sample}")) if check.sample else None
        return Result(check, finding, tuple(dict.fromkeys(used)), sample)
    except ValueError as error:
        faults.append(str(error))
        return Result(check, None)


def _apply(check: Check, seeds: Sequence[int], addresses: Sequence[str], runs: Path) -> Finding:
    rule = getattr(verdict_rules, check.rule)
    if check.rule in get_args(IntervalRule):
        run_id = check.values.partition(":")[0]
        ends = series_at(runs, f"{check.values}.interval", ())
        value, *ends = (check.scale * x for x in (number_at(runs, check.values), *ends))
        count = int(number_at(runs, f"{run_id}:{check.seed_count}"))
        return rule(value, ends, count, check.threshold)
    series = [[check.scale * x for x in series_at(runs, a, seeds)] for a in addresses]
    if check.rule == "equal_within":
        return rule(*series, check.threshold, check.tolerance)
    return rule(*series, check.threshold)


def _refuse_other_seeds(
    check: Check, seeds: Sequence[int], addresses: Sequence[str], runs: Path
) -> None:
    """A seed that has been run takes part, or its leaving out could be a choice."""
    for seed in sorted(set(POSSIBLE_SEEDS) - set(seeds)):
        try:
            for address in addresses:
                value_at(runs, of_seed(address, seed))
        except ValueError:
            continue
        raise ValueError(
            f"leaves out seed {seed}, which has been run: add it to the list {check.seeds!r} of "
            "seeds."
        )


def _runs(results: Sequence[Result]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(run for result in results for run in result.runs))
