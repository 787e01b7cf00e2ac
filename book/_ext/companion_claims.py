"""The scorecard: the ledger's claims as one table and a section each, judged while the book builds.

A claim that its runs do not bear out, a run or key that is missing, a run that is stale, and a
ledger that breaks its own schema are warnings (`companion.claim`), hence fail `-W`.
"""

from collections import Counter
from collections.abc import Sequence
from typing import get_args

from sphinx.application import Sphinx
from sphinx.util import logging

from companion_card import command_block
from companion_claim_words import (
    beside_the_paper,
    chip,
    measured_briefly,
    says,
    test_in_words,
    verdict,
)
from companion_files import run_from_id, stale_because
from companion_markdown import code, dropdown, list_table, text
from sparsejepa.companion.claims import LEDGER, Ledger, Paper, Verdict, load_ledger
from sparsejepa.companion.evidence import making_command
from sparsejepa.companion.verdict_rules import SEEDS_NEEDED
from sparsejepa.companion.verdicts import ERROR_RATE, Judgement, comparisons, judge

logger = logging.getLogger(__name__)

# The lines of a page that the table, the sections, and the counts by paper replace.
TABLE, SECTIONS = "% companion: claims at a glance", "% companion: claims one by one"
SHORT = "% companion: claims in short"

# The verdict beside the claim: on a narrow screen the rest is out of sight at first.
_HEADER = ("Claim", "Verdict", "We measured", "The paper says", "Paper", "Where")


def show_claims(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts the ledger into a page that has its markers, and warns of what does not stand."""
    lines = [line.strip() for line in source[0].splitlines()]
    if not {TABLE, SECTIONS, SHORT}.intersection(lines):
        return
    # A run that has come since may be one of a claim: no file that exists now could tell.
    app.env.note_reread()
    root = app.srcdir
    try:
        ledger = load_ledger(root / LEDGER)
    except (FileNotFoundError, ValueError) as error:
        _warn(docname, str(error))
        return
    judgements = judge(ledger, root / "book" / "runs")
    for sentence in faults(root, judgements):
        _warn(docname, sentence)
    pages = run_pages(app)
    source[0] = source[0].replace(TABLE, at_a_glance(judgements, pages))
    source[0] = source[0].replace(SECTIONS, one_by_one(ledger, judgements, pages))
    source[0] = source[0].replace(SHORT, in_short(ledger, judgements))


def _warn(docname: str, sentence: str) -> None:
    message = "%s: %s"
    logger.warning(message, docname, sentence, location=docname, type="companion", subtype="claim")


def faults(root: str, judgements: Sequence[Judgement]) -> list[str]:
    """Every sentence that fails the build: the ledger's own, and one for each stale run."""
    found = [sentence for judgement in judgements for sentence in judgement.faults]
    for run_id in dict.fromkeys(run for judgement in judgements for run in judgement.runs):
        reasons = stale_because(run_from_id(root, run_id))
        if reasons:
            more = f", and {len(reasons) - 1} more" if len(reasons) > 1 else ""
            found.append(
                f"claims rest on the run {run_id}, which is stale ({reasons[0]}{more}): make it "
                f"again by `{making_command(run_id)}`."
            )
    return found


def run_pages(app: Sphinx) -> dict[str, str]:
    """Run -> the page of this book that shows it, for those that have one."""
    shown = {run_id: page for page, run_id in app.config.companion_runs.items()}
    own = {
        page.removeprefix("book/runs/").removesuffix("/executed"): page
        for page in app.env.found_docs
        if page.startswith("book/runs/") and page.endswith("/executed")
    }
    return {run: page for run, page in (own | shown).items() if page in app.env.found_docs}


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
