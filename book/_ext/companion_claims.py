"""The scorecard: the ledger's claims as one table and a section each, judged while the book builds.

A claim that its runs do not bear out, a run or key that is missing, a run that is stale, and a
ledger that breaks its own schema are warnings (`companion.claim`), hence fail `-W`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from companion_claim_words import (
    beside_the_paper,
    chip,
    measured_briefly,
    says,
    test_in_words,
    verdict,
)
from companion_markdown import code, command_block, dropdown, list_table, text
from sparsejepa.companion.claims import Ledger, Paper, Verdict
from sparsejepa.companion.evidence import making_command
from sparsejepa.companion.verdict_rules import SEEDS_NEEDED
from sparsejepa.companion.verdicts import ERROR_RATE, Judgement, comparisons

# The verdict beside the claim: on a narrow screen the rest is out of sight at first.
_HEADER = ("Claim", "Verdict", "We measured", "The paper says", "Paper", "Where")


def at_a_glance(judgements: Sequence[Judgement], pages: dict[str, str]) -> str:
    """How many claims have which verdict, and a row a claim."""
    rows = [
        (
            f"{{ref}}`{j.claim.title} <claim-{j.claim.id}>`",
            verdict(j),
            measured_briefly(j),
            says(j),
            text(j.claim.paper),
            where_briefly(j, pages),
        )
        for j in judgements
    ]
    table = list_table([_HEADER, *rows], header=True, classes="scorecard sortable")
    return f"{total(judgements)}\n\n{table}"


def in_short(ledger: Ledger, judgements: Sequence[Judgement]) -> str:
    """How many claims have which verdict, in all and for each paper."""
    rows = [("Paper", "How its claims came out")]
    for paper in ledger.papers:
        if claims := [j for j in judgements if j.claim.paper == paper.name]:
            rows.append((text(paper.name), counted(claims)))
    return f"{total(judgements)}\n\n{list_table(rows, header=True, classes='scorecard')}"


def total(judgements: Sequence[Judgement]) -> str:
    """The one sentence of all."""
    return f"**Of {len(judgements)} claims: {counted(judgements)}.**"


def counted(judgements: Sequence[Judgement]) -> str:
    """Number and chip of each verdict that occurs."""
    counts = Counter(judgement.verdict for judgement in judgements)
    shown = [f"{counts[v]} {chip(v)}" for v in get_args(Verdict) if counts[v]]
    if undecided := sum(judgement.note == "undecided" for judgement in judgements):
        shown[-1] += f" ({undecided} of these undecided: tried, and nothing is clear)"
    return ", ".join(shown)


def one_by_one(ledger: Ledger, judgements: Sequence[Judgement], pages: dict[str, str]) -> str:
    """A section a claim, under its paper, with how many comparisons were taken into account."""
    made = comparisons(judgements)
    parts = [
        f"Comparisons over at least {SEEDS_NEEDED} seeds on this page, for which $p$ values are "
        f"adjusted: {made}. Of those that are called decided, a share of at most "
        f"{ERROR_RATE:.0%} is expected to be wrong by the luck of the seeds."
    ]
    for paper in ledger.papers:
        claims = [judgement for judgement in judgements if judgement.claim.paper == paper.name]
        if claims:
            parts.append(f"## {text(paper.name)}\n\n{reference(paper)}")
        parts += [section(judgement, pages) for judgement in claims]
    return "\n\n".join(parts)


def section(judgement: Judgement, pages: dict[str, str]) -> str:
    """All of one claim."""
    claim = judgement.claim
    checks = [test_in_words(result) for result in judgement.test]
    checks += [f"Counterexample: {test_in_words(result)}" for result in judgement.counterexample]
    facts = [
        ("Claim", claim.statement),
        ("The paper says", f"{says(judgement)} Known from: {claim.quoted.where}."),
        ("Test", "\n  ".join(f"- {check}" for check in checks) or f"Planned. {claim.plan}"),
        ("Verdict", verdict(judgement) + beside_the_paper(judgement)),
        *([("Beside it", claim.remark)] if claim.remark else []),
        ("Where", where(judgement, pages)),
    ]
    if judgement.verdict == "untested":
        facts.append(("What it takes", claim.needs))
    listed = "\n\n".join(f"{name}\n: {fact}" for name, fact in facts)
    parts = [f"(claim-{claim.id})=\n### {claim.title}", listed]
    if judgement.runs:
        commands = "\n".join(making_command(run) for run in judgement.runs)
        parts.append(dropdown("Make its runs again", command_block(commands)))
    return "\n\n".join(parts)


def reference(paper: Paper) -> str:
    """The paper's title and address, with its entry in the bibliography if it has one."""
    cited = f" {{cite}}`{paper.cite}`" if paper.cite else ""
    address = f"https://arxiv.org/abs/{paper.arxiv}"
    return f"{text(paper.title)}, [arXiv {paper.arxiv}]({address}){cited}"


def where_briefly(judgement: Judgement, pages: dict[str, str]) -> str:
    """A link to the first of the runs' pages, and how many runs there are; for the table."""
    runs = judgement.runs
    page = next((pages[run] for run in runs if run in pages), None)
    notebook = judgement.claim.notebook
    shown = f"{{doc}}`{notebook} </{page}>`" if page else code(notebook)
    return f"{shown}, {len(runs)} run{'s' * (len(runs) > 1)}" if runs else shown


def where(judgement: Judgement, pages: dict[str, str]) -> str:
    """Links to the runs' pages; the notebook's name where there is no run."""
    runs = [
        f"{{doc}}`{run.partition('/')[2]} </{pages[run]}>`" if run in pages else code(run)
        for run in judgement.runs
    ]
    return ", ".join(runs) or code(judgement.claim.notebook)
