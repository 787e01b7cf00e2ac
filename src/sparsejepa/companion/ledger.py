"""The ledger of claims, `book/claims.yml`: its schema, numbers of committed runs, and verdicts.

A comparison over seeds is decided only with `SEEDS_NEEDED` seeds or more, and where its adjusted
p value is at most `ERROR_RATE`; else the claim stays untested, however suggestive the number.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Annotated, Any, Literal, NamedTuple, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator
from scipy import stats

from sparsejepa.companion.files import label, read_json, read_yaml
from sparsejepa.companion.parameters import run_command
from sparsejepa.intervals import SEEDS_NEEDED, seed_interval

# Of a mean over seeds, of such a mean that a run reports itself, of numbers without any training.
SeedRule = Literal["mean_above", "mean_below", "difference_above"]
IntervalRule = Literal["interval_above", "interval_below"]
ExactRule = Literal["equal_within", "at_least", "at_most"]
Mark = Literal["verified", "secondary", "inferred", "derived", "memory"]
State = Literal["holds", "fails", "undecided", "too few seeds", "no run"]
Verdict = Literal["reproduced", "true only if", "not reproduced", "false as stated", "untested"]

LEDGER = Path("book") / "claims.yml"
SEED = "{seed}"  # where in an address the number of a seed goes
LEVEL = 0.95  # nominal coverage of every interval
ERROR_RATE = 0.05  # expected share of wrong ones among decided comparisons, at most
# Seeds that a study may have: one that exists but is not listed would be left out by choice.
POSSIBLE_SEEDS = range(20)

Text = Annotated[str, Field(pattern=r"\S")]
T = TypeVar("T")
# YAML has lists only.
Some = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]
Limits = Annotated[tuple[float, float], Field(strict=False)]
Address = Annotated[str, Field(pattern=r"^[^/:\s]+/[^/:\s]+/[^/:\s]+:.+$")]


class Entry(BaseModel):
    """Every part of the ledger: no other fields, no other types."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)


class Paper(Entry):
    """A paper whose claims are judged."""

    name: Text  # as in tables
    title: Text  # in full
    arxiv: Text  # number, as "2504.16140"
    cite: Text = ""  # key in references.bib, if it is there


class Quoted(Entry):
    """What a paper says, and how surely we know that it does."""

    says: Text  # in our words, short enough for a table
    mark: Mark
    where: Text  # in the paper, or the text about it that we know it from
    value: float | None = None  # its number; null if we know of none
    unit: Text = ""  # of `value`


class Check(Entry):
    """One rule on numbers of runs: written down before the numbers are looked at.

    An address is `preset/notebook/run:dotted.key` (see `look_up`), with {seed} for the seed.
    """

    what: Text  # the quantity in words
    rule: Literal[SeedRule, IntervalRule, ExactRule]  # see `decide`
    values: Address
    threshold: float  # in `unit`; the value itself for equal_within
    than: Address = ""  # of what is subtracted or compared with
    tolerance: float = 0.0  # of equal_within, in `unit`
    seeds: Text = ""  # which of the ledger's lists of seeds
    seed_count: Text = ""  # of interval rules: key of the number of seeds behind the interval
    sample: Text = ""  # key of how many images (or such) each number is a mean of
    sample_of: Text = "test images"  # what these are
    scale: float = 1.0  # factor from results.json to `unit`
    unit: Text = ""
    limits: Limits | None = None  # of the quantity, in `unit`: the shown interval ends there
    form: Text = ".3g"  # Python format of the shown number

    @model_validator(mode="after")
    def _suits_its_rule(self) -> "Check":
        seeded = self.rule in get_args(SeedRule)
        for name, there, wanted in (
            ("than", self.than, self.rule == "difference_above"),
            ("seeds", self.seeds, seeded),
            ("tolerance", self.tolerance, self.rule == "equal_within"),
            ("seed_count", self.seed_count, self.rule in get_args(IntervalRule)),
            *((f"{SEED} in {address!r}", SEED in address, seeded) for address in self.addresses),
        ):
            if bool(there) != wanted:
                raise ValueError(f"{self.rule} {'needs' if wanted else 'takes no'} {name}")
        format(0.5, self.form)
        return self

    @property
    def addresses(self) -> list[str]:
        return [address for address in (self.values, self.than) if address]


class Claim(Entry):
    """One claim of a paper: it stands if every check of `test` holds, but not all counterexamples.

    If these do hold, it is true only under `condition`, or false.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]  # of its place on the page
    paper: Text  # a paper's name
    title: Annotated[str, Field(pattern=r"^[^`<>$]+$")]  # a short sentence: plain text, for links
    statement: Text  # the claim in our words
    asks: Text = ""  # on top of the scorecard, before the first number: "At counting objects"
    quoted: Quoted
    notebook: Text  # where it is tested or will be, as "01_pretrain"
    expected: Verdict  # what the numbers are known to say; the build fails where they do not
    test: Some[Check] = ()
    counterexample: Some[Check] = ()
    condition: Text = ""  # goes on after "true only if"
    plan: Text = ""  # the rule in words, where `test` cannot be written yet
    needs: Text = ""  # what a test would take, where the claim is untested
    remark: Text = ""  # what to read beside the verdict: what the test leaves out, in Markdown

    @model_validator(mode="after")
    def _is_complete(self) -> "Claim":
        for wrong, what in (
            (bool(self.test) == bool(self.plan), "needs either a test or a plan"),
            (self.counterexample and not self.test, "has a counterexample but no test"),
            (self.condition and not self.counterexample, "has a condition, no counterexample"),
            (self.expected == "untested" and not self.needs, "is untested; say what it needs"),
        ):
            if wrong:
                raise ValueError(f"it {what}")
        return self

    @property
    def checks(self) -> tuple[Check, ...]:
        return self.test + self.counterexample


class Ledger(Entry):
    """The whole file."""

    papers: Some[Paper]
    seeds: dict[str, Annotated[tuple[int, ...], Field(strict=False)]]  # name -> all of a study
    claims: Some[Claim]  # in the order of the page

    @model_validator(mode="after")
    def _fits_together(self) -> "Ledger":
        wrong = [f"seeds {n!r} must ascend" for n, s in self.seeds.items() if [*s] != sorted({*s})]
        ids, papers = [claim.id for claim in self.claims], [paper.name for paper in self.papers]
        for claim in self.claims:
            lists = {check.seeds for check in claim.checks} - {"", *self.seeds}
            wrong += [f"the id {claim.id!r} is given twice"] * (ids.count(claim.id) > 1)
            wrong += [f"{claim.id!r} is of no known paper"] * (claim.paper not in papers)
            wrong += [f"{claim.id!r} has the unknown list of seeds {name!r}" for name in lists]
        if wrong:
            raise ValueError(wrong[0])
        return self


def load_ledger(path: Path) -> Ledger:
    """Reads and checks the ledger; ValueError: one sentence with entry, field and what is wrong."""
    return read_yaml(path, TypeAdapter(Ledger), yaml.SafeLoader)


def look_up(place: Any, key: str, where: str = "") -> Any:
    """The value at the dotted `key`; of names that hold dots, the longest is taken.

    Of a list, a part is a position (-1: the last) or `[L=2; method=jepa]`: the one entry with these
    values. ValueError: there is none; names the keys at that place.
    """
    parts, named = key.split("."), place if isinstance(place, Mapping) else {}
    if isinstance(place, list):
        named = {str(i): place[i] for i in range(-len(place), len(place))}
    for end in range(len(parts), 0, -1):
        part, rest = ".".join(parts[:end]), ".".join(parts[end:])
        found = [named[part]] if part in named else []
        if isinstance(place, list) and re.fullmatch(r"\[.*\]", part):
            wanted = {tuple(pair.split("=", 1)) for pair in part[1:-1].split("; ")}
            rows = [row for row in place if isinstance(row, Mapping)]
            found = [row for row in rows if wanted <= {(k, str(v)) for k, v in row.items()}]
        if len(found) == 1:
            return look_up(found[0], rest, f"{where}.{part}".strip(".")) if rest else found[0]
    there = ", ".join(map(str, place)) if isinstance(place, Mapping) else str(place)[:80]
    raise ValueError(f"no {parts[0]!r} in {where or 'the results'} (there: {there})")


def value_at(runs: Path, address: str, seed: int | None = None) -> Any:
    """What stands at an address, with `seed` for {seed}; the manifest's keys follow "manifest.".

    ValueError: no finished run, a damaged file, no such key, or a run of another seed.
    """
    run_id, _, key = address.replace(SEED, str(seed)).partition(":")
    try:
        made = read_json(runs / run_id / "results.json")
        manifest = read_json(runs / run_id / "manifest.json")
        found = look_up(made | {"manifest": manifest}, key)
    except FileNotFoundError as error:
        lacks = f"needs the run {run_id}, which has no {Path(error.filename).name}"
        raise ValueError(f"{lacks}: make it by `{run_command(run_id)}`.") from error
    except ValueError as error:
        raise ValueError(f"cannot read {key!r} of {run_id}: {error}") from error
    if SEED in address.partition(":")[0] and manifest["seed"] != seed:
        wrong = f"takes {run_id} for seed {seed}, but its manifest says {manifest['seed']}"
        raise ValueError(f"{wrong}: make it again by `{run_command(run_id)}`.")
    return found


def numbers_at(runs: Path, address: str, seeds: Sequence[int] = ()) -> list[float]:
    """A number for each seed; without {seed}, the list (or the one number) at the address.

    Of `{"value": number, ...}` it is the value. ValueError as `value_at`, or for what is no number.
    """
    if SEED in address:
        values = [value_at(runs, address, seed) for seed in seeds]
    elif not isinstance(values := value_at(runs, address), list):
        values = [values]
    numbers = [value.get("value") if isinstance(value, dict) else value for value in values]
    # Of these types exactly: JSON's true would count as 1.
    if not numbers or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"finds no number at {address}, but {str(values)[:80]}; name another key.")
    return [float(number) for number in numbers]


class Finding(NamedTuple):
    """What one rule finds, before it is known how many comparisons are made."""

    holds: bool  # whether the estimate is on the claim's side of the threshold
    estimate: float
    seeds: int = 0  # 0 for numbers in which nothing was trained
    interval: tuple[float, float] | None = None  # Student's, from `SEEDS_NEEDED` seeds on
    p: float | None = None  # two-sided, of the threshold being the truth; None as `interval`


def decide(rule: str, values: Sequence[float], threshold: float, tolerance: float = 0.0) -> Finding:
    """What a rule of `Check` finds in its numbers; ValueError if there are none.

    By an exact rule, for numbers in which nothing was trained and chance hardly matters, every
    value is where it belongs; the estimate is the worst. By the others a mean over seeds is. For an
    interval rule the values are that mean, the ends of its 95 % Student interval, and its seeds. p
    is what the interval implies: its half width is the standard error times Student's quantile.
    """
    side = -1 if rule in ("at_most", "mean_below", "interval_below") else 1
    if rule in get_args(ExactRule):
        room = [side * (value - threshold) for value in values]
        if rule == "equal_within":
            room = [tolerance - abs(distance) for distance in room]
        return Finding(min(room) >= 0, values[room.index(min(room))])
    if rule in get_args(IntervalRule):
        value, low, high, seeds = values
    elif min(values) == max(values):
        # Exactly, where the mean may be off by a rounding.
        value, low, high, seeds = *values[:1] * 3, len(values)
    else:
        over = seed_interval(values, LEVEL)
        value, low, high, seeds = fmean(values), over.low, over.high, len(values)
    holds = bool(side * (value - threshold) > 0)
    if seeds < SEEDS_NEEDED:
        return Finding(holds, value, int(seeds))
    error = (high - low) / 2 / stats.t.ppf((1 + LEVEL) / 2, seeds - 1)
    # Seeds that agree to the last digit leave nothing to chance.
    p = 2 * stats.t.sf(abs((value - threshold) / error), seeds - 1) if error else value == threshold
    return Finding(holds, value, int(seeds), (low, high), float(p))


class Result(NamedTuple):
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


class Judgement(NamedTuple):
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
            said = f"{self.verdict!r} ({self.note})" if self.note else repr(self.verdict)
            wrong = f"expects {self.claim.expected!r}, but its numbers say {said}"
            again = f"else make again {', '.join(self.runs) or 'its runs'}"
            found = [f"{wrong}: if they are right, correct the field expected, {again}."]
        return tuple(f"{label(LEDGER)}, claim {self.claim.id!r}: it {fault}" for fault in found)


def judge(ledger: Ledger, runs: Path) -> list[Judgement]:
    """The verdict on every claim, in the ledger's order; `runs` is the folder of all runs.

    The p values of all comparisons over seeds are adjusted together (Benjamini & Hochberg 1995): of
    what is called at adjusted p <= q, a share q at most is wrong in expectation, for comparisons
    that are independent or depend positively.
    """
    found = [[_measure(c, check, ledger, runs) for check in c.checks] for c in ledger.claims]
    tried = [result.p for results in found for result in results if result.p is not None]
    adjusted = iter(stats.false_discovery_control(tried).tolist() if tried else [])
    judgements = []
    for claim, results in zip(ledger.claims, found, strict=True):
        results = [r if r.p is None else r._replace(adjusted=next(adjusted)) for r in results]
        parts = tuple(results[: len(claim.test)]), tuple(results[len(claim.test) :])
        judgements.append(Judgement(claim, *parts, *reach_verdict(claim, *parts)))
    return judgements


def reach_verdict(
    claim: Claim, test: Sequence[Result], counterexample: Sequence[Result]
) -> tuple[Verdict, str]:
    """The verdict, and what goes on after it.

    What trained networks contradict is not reproduced: another budget or data set might.
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


def _measure(claim: Claim, check: Check, ledger: Ledger, runs: Path) -> Result:
    """Applies the check's rule, which may be there before its run if the claim is untested."""
    seeds = ledger.seeds.get(check.seeds, ())
    read = [address.partition(":")[0] for address in check.addresses]
    try:
        if check.seeds:
            _refuse_other_seeds(check, seeds, runs)
            read = [run.replace(SEED, str(seed)) for run in read for seed in seeds]
        untried = claim.expected == "untested" and not check.seeds
        if not read or (untried and not all((runs / run).is_dir() for run in read)):
            return Result(check, None)
        sample = numbers_at(runs, f"{read[0]}:{check.sample}")[0] if check.sample else None
        found = _find(check, seeds, runs)
        return Result(check, found, tuple(dict.fromkeys(read)), sample and int(sample))
    except ValueError as error:
        return Result(check, None, fault=str(error))


def _find(check: Check, seeds: Sequence[int], runs: Path) -> Finding:
    """What the check's rule finds; raises as `numbers_at`."""
    values, *than = [[check.scale * x for x in numbers_at(runs, a, seeds)] for a in check.addresses]
    if than:
        # Pair by pair of the same seed.
        values = [a - b for a, b in zip(values, *than, strict=True)]
    if check.seed_count:
        values += [check.scale * x for x in numbers_at(runs, f"{check.values}.interval")]
        values += numbers_at(runs, f"{check.values.partition(':')[0]}:{check.seed_count}")
    found = decide(check.rule, values, check.threshold, check.tolerance)
    if check.limits and found.interval:
        # Student knows of no limits; p has used the whole interval.
        (least, most), (low, high) = check.limits, found.interval
        found = found._replace(interval=(max(low, least), min(high, most)))
    return found


def _refuse_other_seeds(check: Check, seeds: Sequence[int], runs: Path) -> None:
    """A seed that has been run takes part, or its leaving out could be a choice."""
    for seed in sorted(set(POSSIBLE_SEEDS) - set(seeds)):
        try:
            for address in check.addresses:
                value_at(runs, address.replace(SEED, str(seed)))
        except ValueError:
            continue
        raise ValueError(f"leaves out seed {seed}, which has been run: add it to {check.seeds!r}.")
