"""The ledger's claims as Markdown: a table, a section each, and the words of both.

The frame is in `companion_claims.md.jinja`, which calls the functions here by name.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any, get_args

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from companion_book import Book
from companion_markdown import code, text
from sparsejepa.companion import ledger
from sparsejepa.companion.ledger import ERROR_RATE, Judgement, Result, Verdict
from sparsejepa.intervals import SEEDS_NEEDED

RULES = {
    "mean_above": "the mean over seeds is above {at}",
    "mean_below": "the mean over seeds is below {at}",
    "difference_above": "the mean over pairs of the same seed is above {at}",
    "interval_above": "the mean over seeds, as the run gives it, is above {at}",
    "interval_below": "the mean over seeds, as the run gives it, is below {at}",
    "equal_within": "no value is further than {tolerance:g} from {at}",
    "at_least": "no value is below {at}",
    "at_most": "no value is above {at}",
}


def chip(name: Verdict) -> str:
    """A verdict as a coloured word."""
    shown = "true only if …" if name == "true only if" else name
    return f"[{shown}]{{.verdict .verdict-{name.replace(' ', '-')}}}"


def verdict(judgement: Judgement) -> str:
    """The chip, and the condition, or why the claim is untested."""
    note = judgement.note if judgement.verdict == "true only if" else f"({judgement.note})"
    return f"{chip(judgement.verdict)} {note}" if judgement.note else chip(judgement.verdict)


def measured_briefly(judgement: Judgement) -> str:
    """The first check's number, and how many more there are; for the table."""
    if not judgement.runs:
        return "nothing yet"
    first, *others = judgement.results
    return measured(first) + (f"; {len(others)} more below" if others else "")


def measured(result: Result) -> str:
    """The estimate with its interval, number of seeds and of images."""
    check, finding = result.check, result.finding
    if finding is None:
        return "nothing yet"
    shown = f"{finding.estimate:{check.form}} {check.unit}".strip()
    if finding.interval:
        low, high = (format(end, check.form) for end in finding.interval)
        shown += f" [{low}, {high}]"
    seeds = f"{finding.seeds} seed{'s' * (finding.seeds > 1)}"
    sample = f", {result.sample:,} {check.sample_of}" if result.sample else ""
    return f"{text(shown)}, {seeds if finding.seeds else 'nothing trained'}{text(sample)}"


def tests(judgement: Judgement) -> str:
    """Every check with what it found, or the plan."""
    shown = [test_in_words(result) for result in judgement.test]
    shown += [f"Counterexample: {test_in_words(result)}" for result in judgement.counterexample]
    return "\n  ".join(f"- {check}" for check in shown) or f"Planned. {judgement.claim.plan}"


def test_in_words(result: Result) -> str:
    """The rule of one check, from the fields that compute it, and what it found."""
    check, adjusted = result.check, ""
    at = f"{check.threshold:g} {check.unit}".strip()
    rule = f"{check.what}: {RULES[check.rule].format(at=at, tolerance=check.tolerance)}."
    if result.finding is None:
        return rule
    if result.adjusted is not None:
        least = "below 0.001" if result.adjusted < 0.001 else f"{result.adjusted:.2g}"
        adjusted = f"; adjusted $p$ {least}"
    return f"{rule} We measured {measured(result)}{adjusted}."


def beside_the_paper(judgement: Judgement) -> str:
    """Whether the interval holds the paper's number, where both are of one kind."""
    quoted = judgement.claim.quoted
    for first in judgement.test[:1]:
        interval = first.finding and first.finding.interval
        if interval and quoted.value is not None and first.check.unit == quoted.unit:
            holds = "holds" if interval[0] <= quoted.value <= interval[1] else "does not hold"
            return f". The interval {holds} the paper's {quoted.value:g} {text(quoted.unit)}."
    return ""


def counted(judgements: Sequence[Judgement]) -> str:
    """Number and chip of each verdict that occurs."""
    counts = Counter(judgement.verdict for judgement in judgements)
    shown = [f"{counts[v]} {chip(v)}" for v in get_args(Verdict) if counts[v]]
    if undecided := sum(judgement.note == "undecided" for judgement in judgements):
        shown[-1] += f" ({undecided} of these undecided: tried, and nothing is clear)"
    return ", ".join(shown)


def where_briefly(judgement: Judgement, pages: Mapping[str, str]) -> str:
    """A link to the first of the runs' pages, and how many runs there are; for the table."""
    notebook, count = judgement.claim.notebook, len(judgement.runs)
    linked = [f"{{doc}}`{notebook} </{pages[run]}>`" for run in judgement.runs if run in pages]
    shown = linked[0] if linked else code(notebook)
    return f"{shown}, {count} run{'s' * (count > 1)}" if count else shown


def where(judgement: Judgement, pages: Mapping[str, str]) -> str:
    """Links to the runs' pages; the notebook's name where there is no run."""
    runs = [
        f"{{doc}}`{run.partition('/')[2]} </{pages[run]}>`" if run in pages else code(run)
        for run in judgement.runs
    ]
    return ", ".join(runs) or code(judgement.claim.notebook)


def part(name: str, book: Book) -> str:
    """Markdown of `at_a_glance`, `in_short` or `one_by_one`."""
    own = [(p, [j for j in book.judgements if j.claim.paper == p.name]) for p in book.ledger.papers]
    papers = [(paper, claims) for paper, claims in own if claims]
    return getattr(_template(), name)(papers, book.judgements, book.page_of_run).strip()


@cache
def _template() -> Any:
    """The template's macros."""
    loader = FileSystemLoader(Path(__file__).parent)
    environment = Environment(
        loader=loader, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.globals |= globals() | {
        "run_command": ledger.run_command,
        "seeds_needed": SEEDS_NEEDED,
        "error_rate": f"{ERROR_RATE:.0%}",
    }
    return environment.get_template("companion_claims.md.jinja").module
