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
from companion_files import run_from_id, stale_because
from companion_markdown import code, dropdown, list_table, text
from sparsejepa.companion.claims import LEDGER, Check, Ledger, Paper, Verdict, load_ledger
from sparsejepa.companion.evidence import making_command
from sparsejepa.companion.verdict_rules import SEEDS_NEEDED
from sparsejepa.companion.verdicts import ERROR_RATE, Judgement, Result, comparisons, judge

logger = logging.getLogger(__name__)

# The lines of the page that the table and the sections replace.
TABLE, SECTIONS = "% companion: claims at a glance", "% companion: claims one by one"

_HEADER = ("Claim", "Paper", "The paper says", "We measured", "Verdict", "Where")


def show_claims(app: Sphinx, docname: str, source: list[str]) -> None:
    """Puts the ledger into a page that has its markers, and warns of what does not stand."""
    lines = [line.strip() for line in source[0].splitlines()]
    if TABLE not in lines and SECTIONS not in lines:
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
    """How many claims have which verdict, and the table."""
    counts = Counter(judgement.verdict for judgement in judgements)
    summary = ", ".join(f"{counts[v]} {chip(v)}" for v in get_args(Verdict) if counts[v])
    rows = [
        (
            f"{{ref}}`{j.claim.title} <claim-{j.claim.id}>`",
            text(j.claim.paper),
            says(j),
            measured_briefly(j),
            verdict(j),
            where_briefly(j, pages),
        )
        for j in judgements
    ]
    table = list_table([_HEADER, *rows], header=True, classes="scorecard sortable")
    return f"**Of {len(judgements)} claims: {summary}.**\n\n{table}"


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


def says(judgement: Judgement) -> str:
    """What the paper says, with the mark of how surely we know."""
    quoted = judgement.claim.quoted
    return f"{quoted.says} [{quoted.mark}]{{.mark .mark-{quoted.mark}}}"


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
    results = judgement.test + judgement.counterexample
    if not judgement.runs:
        return "nothing yet"
    more = f"; {len(results) - 1} more below" if len(results) > 1 else ""
    return measured(results[0]) + more


def measured(result: Result) -> str:
    """The estimate with its interval, number of seeds and of images."""
    check, finding = result.check, result.finding
    if finding is None:
        return "nothing yet"
    shown = format(finding.estimate, check.form)
    unit = f" {check.unit}" if check.unit else ""
    if finding.interval:
        low, high = (format(end, check.form) for end in finding.interval)
        unit += f" [{low}, {high}]"
    basis = (
        f"{finding.seeds} seed{'s' * (finding.seeds > 1)}" if finding.seeds else "nothing trained"
    )
    sample = f", {result.sample:,} {check.sample_of}" if result.sample else ""
    return f"{text(f'{shown}{unit}')}, {basis}{text(sample)}"


def test_in_words(result: Result) -> str:
    """The rule of one check, and what it found with the adjusted p value."""
    if result.finding is None:
        return rule_in_words(result.check)
    adjusted = ""
    if result.adjusted is not None:
        least = "below 0.001" if result.adjusted < 0.001 else f"{result.adjusted:.2g}"
        adjusted = f"; adjusted $p$ {least}"
    return f"{rule_in_words(result.check)} We measured {measured(result)}{adjusted}."


def rule_in_words(check: Check) -> str:
    """The rule of one check, from the same fields that compute it."""
    at = f"{check.threshold:g} {check.unit}".strip()
    wanted = {
        "mean_above": f"the mean over seeds is above {at}",
        "mean_below": f"the mean over seeds is below {at}",
        "difference_above": f"the mean over pairs of the same seed is above {at}",
        "difference_within": f"the mean over pairs of the same seed is within ±{at}",
        "interval_above": f"the mean over seeds, as the run gives it, is above {at}",
        "interval_below": f"the mean over seeds, as the run gives it, is below {at}",
        "equal_within": f"no value is further than {check.tolerance:g} from {at}",
        "at_least": f"no value is below {at}",
        "at_most": f"no value is above {at}",
        "order_correlation": f"Kendall's rank correlation is at least {at}",
    }[check.rule]
    return f"{check.what}: {wanted}."


def beside_the_paper(judgement: Judgement) -> str:
    """Whether the interval holds the paper's number, where both are of one kind."""
    quoted, first = judgement.claim.quoted, next(iter(judgement.test), None)
    if quoted.value is None or first is None or first.check.unit != quoted.unit:
        return ""
    if first.finding is None or first.finding.interval is None:
        return ""
    low, high = first.finding.interval
    holds = "holds" if low <= quoted.value <= high else "does not hold"
    return f". The interval {holds} the paper's {quoted.value:g} {text(quoted.unit)}."


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
