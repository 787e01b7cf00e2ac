"""A claim in words: what its paper says, what was measured, by which rule, and the verdict."""

from companion_markdown import text
from sparsejepa.companion.claims import Check, Verdict
from sparsejepa.companion.verdicts import Judgement, Result


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
