"""The ledger of claims, `book/claims.yml`: what papers say, and the test that decides each claim.

This module reads and checks the file; `verdicts` looks the numbers up and judges. Both are plain
Python: the book is built without torch or scipy.
"""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

from sparsejepa.companion.verdict_rules import ExactRule, IntervalRule, SeedRule
from sparsejepa.config import from_mapping

Mark = Literal["verified", "secondary", "inferred", "derived", "memory"]
Verdict = Literal["reproduced", "true only if", "not reproduced", "false as stated", "untested"]

LEDGER = Path("book") / "claims.yml"
# These compare two series of numbers.
PAIRED = ("difference_above", "difference_within", "order_correlation")
# Where in an address the number of a seed goes.
SEED = "{seed}"


@dataclass(frozen=True)
class Paper:
    """A paper whose claims are judged."""

    name: str  # as in tables
    title: str  # in full
    arxiv: str  # number, as "2504.16140"
    cite: str = ""  # key in references.bib, if it is there


@dataclass(frozen=True)
class Quoted:
    """What a paper says, and how surely we know that it does."""

    says: str  # in our words, short enough for a table
    mark: Mark
    where: str  # in the paper, or the text about it that we know it from
    value: int | float | None = None  # its number; null if we know of none
    unit: str = ""  # of `value`


@dataclass(frozen=True)
class Check:
    """One rule on numbers of runs: written down before the numbers are looked at.

    An address is `preset/notebook/run:dotted.key` (see `evidence`), with {seed} in the place of the
    seed. Thresholds are in units of the numbers after `scale`.
    """

    what: str  # the quantity in words
    rule: Literal[SeedRule, IntervalRule, ExactRule]  # a function of `verdict_rules`
    values: str  # address
    threshold: float  # in `unit`; the value itself for equal_within
    than: str = ""  # address of what is subtracted or compared with
    tolerance: float = 0.0  # of equal_within, in `unit`
    seeds: str = ""  # which of the ledger's lists of seeds
    seed_count: str = ""  # of interval rules: key of the number of seeds behind the interval
    sample: str = ""  # key of how many images (or such) each number is a mean of
    sample_of: str = "test images"  # what these are
    scale: float = 1.0  # factor from results.json to `unit`
    unit: str = ""
    form: str = ".3g"  # Python format of the shown number

    def __post_init__(self) -> None:
        seeded = self.rule in get_args(SeedRule)
        for name, address in (("values", self.values), ("than", self.than)):
            if address and not re.fullmatch(r"[^/:\s]+/[^/:\s]+/[^/:\s]+:.+", address):
                raise ValueError(
                    f"{name} must be preset/notebook/run:key, not {address!r}; write it so."
                )
            if address and (SEED in address) != seeded:
                verb = "needs" if seeded else "takes no"
                raise ValueError(f"{self.rule} {verb} {SEED} in {name}; mend {address!r}.")
        for name, wanted in (
            ("than", self.rule in PAIRED),
            ("seeds", seeded),
            ("tolerance", self.rule == "equal_within"),
            ("seed_count", self.rule in get_args(IntervalRule)),
        ):
            if bool(getattr(self, name)) != wanted:
                verb = "needs the field" if wanted else "takes no field"
                raise ValueError(f"{self.rule} {verb} {name}; {'add' if wanted else 'remove'} it.")
        try:
            format(0.5, self.form)
        except ValueError as error:
            raise ValueError(f"form {self.form!r} formats no number; use one as .1f.") from error


@dataclass(frozen=True)
class Claim:
    """One claim of a paper, its test, and the verdict that the ledger states.

    The claim stands as stated if every check of `test` holds and those of `counterexample` do not
    all hold. If these do, it is true only under `condition`, or false.
    """

    id: str  # of its place on the page
    paper: str  # a paper's name
    title: str  # the claim as a short sentence, plain text
    statement: str  # the claim in our words
    quoted: Quoted
    notebook: str  # where it is tested or will be, as "01_pretrain"
    expected: Verdict  # what the numbers are known to say; the build fails where they do not
    test: tuple[Check, ...] = ()
    counterexample: tuple[Check, ...] = ()
    condition: str = ""  # goes on after "true only if"
    plan: str = ""  # the rule in words, where `test` cannot be written yet
    needs: str = ""  # what a test would take, where the claim is untested
    remark: str = ""  # what to read beside the verdict: what the test leaves out, in Markdown

    def __post_init__(self) -> None:
        for missing, sentence in (
            (not self.test and not self.plan, "has neither test nor plan; add one of them"),
            (self.test and self.plan, "has a plan beside its test; remove the plan"),
            (self.counterexample and not self.test, "has a counterexample but no test; add it"),
            (
                self.condition and not self.counterexample,
                "has a condition but no counterexample that asks for it; add it",
            ),
            (
                self.expected == "untested" and not self.needs,
                "is untested; say in the field needs what a test takes",
            ),
        ):
            if missing:
                raise ValueError(f"it {sentence}.")
        if not re.fullmatch(r"[a-z0-9-]+", self.id):
            raise ValueError(f"id {self.id!r} must be of a-z, 0-9 and -; rename it.")
        if re.search(r"[`<>$]", self.title):
            raise ValueError(f"title {self.title!r} must be plain text, it is a link; rewrite it.")


@dataclass(frozen=True)
class Ledger:
    """The whole file."""

    papers: tuple[Paper, ...]
    seeds: dict[str, tuple[int, ...]]  # name -> the seeds of a study, all that there are
    claims: tuple[Claim, ...]  # in the order of the page


def load_ledger(path: Path) -> Ledger:
    """Reads and checks the ledger.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one sentence with the entry, the field, and what to do.
    """
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path.name} is not YAML: {' '.join(str(error).split())}.") from error
    names = [field.name for field in dataclasses.fields(Ledger)]
    if not isinstance(content, dict) or set(content) != set(names):
        raise ValueError(f"{path.name} must be a mapping with exactly {', '.join(names)}.")
    papers = tuple(
        _build(Paper, paper, f"{path.name}, {_name(paper, 'name', i, 'paper')}")
        for i, paper in enumerate(_list(content, "papers", path.name))
    )
    seeds = _seed_lists(content["seeds"], path.name)
    claims = tuple(
        _claim(entry, f"{path.name}, {_name(entry, 'id', i, 'claim')}")
        for i, entry in enumerate(_list(content, "claims", path.name))
    )
    known = {paper.name for paper in papers}
    for i, claim in enumerate(claims):
        place = f"{path.name}, claim {claim.id!r}"
        if claim.id in {other.id for other in claims[:i]}:
            raise ValueError(f"{place}: the id is taken by an earlier claim; give another one.")
        if claim.paper not in known:
            options = ", ".join(sorted(known))
            raise ValueError(f"{place}: paper {claim.paper!r} is none of {options}; choose one.")
        for check in (*claim.test, *claim.counterexample):
            if check.seeds and check.seeds not in seeds:
                raise ValueError(
                    f"{place}: seeds {check.seeds!r} is none of the lists {', '.join(seeds)}; "
                    "choose one or add a list."
                )
    return Ledger(papers, seeds, claims)


def _claim(entry: Any, where: str) -> Claim:
    """A claim with its nested parts built first, so that an error names the part."""
    if not isinstance(entry, Mapping):
        raise ValueError(f"{where}: must be a mapping of fields, not {entry!r}.")
    parts = dict(entry)
    if "quoted" in parts:
        parts["quoted"] = _build(Quoted, parts["quoted"], f"{where}, quoted")
    for name in ("test", "counterexample"):
        if name in parts:
            checks = _list(parts, name, where)
            parts[name] = [
                _build(Check, check, f"{where}, {name} {i + 1}") for i, check in enumerate(checks)
            ]
    return _build(Claim, parts, where)


def _build(cls: type, mapping: Any, where: str) -> Any:
    """`from_mapping` with the place in its errors, and with missing fields as such."""
    if not isinstance(mapping, Mapping):
        raise ValueError(f"{where}: must be a mapping of fields, not {mapping!r}.")
    for field in dataclasses.fields(cls):
        value = mapping.get(field.name)
        optional = field.default is not dataclasses.MISSING
        if field.name not in mapping and not optional:
            raise ValueError(f"{where}: the field {field.name} is missing; add it.")
        if isinstance(value, str) and not value.strip():
            raise ValueError(f"{where}: the field {field.name} is empty; fill it or remove it.")
    try:
        return from_mapping(cls, mapping)
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _list(content: Mapping[str, Any], key: str, where: str) -> list[Any]:
    if not isinstance(content[key], list) or not content[key]:
        raise ValueError(f"{where}: {key} must be a list with at least one entry.")
    return content[key]


def _name(entry: Any, key: str, index: int, kind: str) -> str:
    """How an error calls an entry: by its name, or by its place if it has none."""
    named = isinstance(entry, Mapping) and isinstance(entry.get(key), str)
    return f"{kind} {entry[key]!r}" if named else f"{kind} number {index + 1}"


def _seed_lists(content: Any, where: str) -> dict[str, tuple[int, ...]]:
    lists = content if isinstance(content, dict) else {"": None}
    for name, seeds in lists.items():
        if not isinstance(seeds, list) or not all(type(seed) is int for seed in seeds):
            raise ValueError(f"{where}, seeds {name!r}: must be a list of whole numbers.")
        if sorted(set(seeds)) != seeds:
            raise ValueError(f"{where}, seeds {name!r}: must ascend, each number once.")
    return {str(name): tuple(seeds) for name, seeds in lists.items()}
