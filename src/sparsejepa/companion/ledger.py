"""The ledger of claims, `book/claims.yml`: its schema, and the numbers that its addresses name."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar, get_args

import yaml
from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, model_validator

from sparsejepa.companion.files import read_json, read_yaml

# On which side of one threshold, written down before, a quantity lies: a mean over seeds, such a
# mean that a run reports itself, or numbers in which nothing was trained.
SeedRule = Literal["mean_above", "mean_below", "difference_above"]
IntervalRule = Literal["interval_above", "interval_below"]
ExactRule = Literal["equal_within", "at_least", "at_most"]
Mark = Literal["verified", "secondary", "inferred", "derived", "memory"]
Verdict = Literal["reproduced", "true only if", "not reproduced", "false as stated", "untested"]

LEDGER = Path("book") / "claims.yml"
# Where in an address the number of a seed goes.
SEED = "{seed}"

Text = Annotated[str, Field(pattern=r"\S")]
T = TypeVar("T")
# YAML has lists only.
Some = Annotated[tuple[T, ...], Field(strict=False, min_length=1)]
Address = Annotated[str, Field(pattern=r"^[^/:\s]+/[^/:\s]+/[^/:\s]+:.+$")]


class Entry(BaseModel):
    """Every part of the ledger: no other fields, no other types, no empty texts."""

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

    An address is `preset/notebook/run:dotted.key` (see `look_up`), with {seed} in the place
    of the seed. Thresholds are in units of the numbers after `scale`.
    """

    what: Text  # the quantity in words
    rule: Literal[SeedRule, IntervalRule, ExactRule]  # see `verdicts`
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
    """One claim of a paper, its test, and the verdict that the ledger states.

    The claim stands as stated if every check of `test` holds and those of `counterexample` do not
    all hold. If these do, it is true only under `condition`, or false.
    """

    id: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]  # of its place on the page
    paper: Text  # a paper's name
    title: Annotated[str, Field(pattern=r"^[^`<>$]+$")]  # a short sentence: plain text, for links
    statement: Text  # the claim in our words
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
        for wrong, sentence in (
            (not self.test and not self.plan, "it has neither test nor plan"),
            (self.test and self.plan, "it has a plan beside its test"),
            (self.counterexample and not self.test, "it has a counterexample but no test"),
            (self.condition and not self.counterexample, "it has a condition, no counterexample"),
            (self.expected == "untested" and not self.needs, "it is untested; say what it needs"),
        ):
            if wrong:
                raise ValueError(sentence)
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


def making_command(run_id: str) -> str:
    """The command that makes a named run of a preset."""
    preset, notebook, run = run_id.split("/")
    return f"sparsejepa run notebooks/{notebook}.ipynb --preset {preset} --run {run}"


def look_up(place: Any, key: str, where: str = "") -> Any:
    """The value at the dotted `key`; of names that hold dots themselves, the longest is taken.

    Of a list, a part is a position (-1 is the last), or `[L=2; method=jepa]`: the one entry with
    these values. ValueError: there is none; names the keys that exist at that place.
    """
    parts = key.split(".")
    for end in range(len(parts), 0, -1):
        part, rest = ".".join(parts[:end]), ".".join(parts[end:])
        for found in _step(place, part):
            return look_up(found, rest, f"{where}.{part}".strip(".")) if rest else found
    there = ", ".join(map(str, place)) if isinstance(place, Mapping) else str(place)[:80]
    raise ValueError(f"no {parts[0]!r} in {where or 'the results'} (there: {there})")


def _step(place: Any, part: str) -> list[Any]:
    """What `part` names in `place`, in a list of its own; empty if nothing, or several entries."""
    if isinstance(place, Mapping):
        return [place[part]] if part in place else []
    if not isinstance(place, list):
        return []
    if re.fullmatch(r"-?[0-9]+", part):
        return [place[int(part)]] if -len(place) <= int(part) < len(place) else []
    wanted = [pair.partition("=")[::2] for pair in part[1:-1].split("; ")]
    entries = (e for e in place if isinstance(e, Mapping) and re.fullmatch(r"\[.*\]", part))
    found = [e for e in entries if all(str(e.get(name)) == value for name, value in wanted)]
    return found if len(found) == 1 else []


def value_at(runs: Path, address: str) -> Any:
    """What stands at an address without {seed}; keys of the manifest come after "manifest.".

    ValueError: no finished run in the folder `runs`, a damaged file, or no such key.
    """
    run_id, _, key = address.partition(":")
    try:
        results, manifest = (
            read_json(runs / run_id / f"{n}.json") for n in ("results", "manifest")
        )
        return look_up(results | {"manifest": manifest}, key)
    except FileNotFoundError as error:
        raise ValueError(
            f"needs the run {run_id}, which has no {Path(error.filename).name}: make it by "
            f"`{making_command(run_id)}`."
        ) from error
    except ValueError as error:
        raise ValueError(f"cannot read {key!r} of {run_id}: {error}") from error


def numbers_at(runs: Path, address: str, seeds: Sequence[int] = ()) -> list[float]:
    """A number for each seed; without {seed}, the list (or the one number) at the address.

    Where there is `{"value": number, ...}`, the number is its value. ValueError as `value_at`, or
    for what is no number, or a run of another seed than its place says.
    """
    places = [address.replace(SEED, str(seed)) for seed in seeds] if SEED in address else [address]
    values = [value_at(runs, place) for place in places]
    for seed in seeds if SEED in address.partition(":")[0] else ():
        made = address.partition(":")[0].replace(SEED, str(seed))
        if (found := value_at(runs, f"{made}:manifest.seed")) != seed:
            raise ValueError(
                f"takes {made} for seed {seed}, but its manifest says {found}: make it again by "
                f"`{making_command(made)}`."
            )
    if SEED not in address and isinstance(values[0], list):
        (values,) = values
    numbers = [value.get("value") if isinstance(value, dict) else value for value in values]
    # Of these types exactly: JSON's true would count as 1.
    if not numbers or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"finds no number at {address}, but {str(values)[:80]}; name another key.")
    return [float(number) for number in numbers]
