"""The scorecard: the ledger's claims as one table and a section each.

The Markdown is in `companion_claims.md.jinja`.
"""

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

import companion_claim_words
from sparsejepa.companion.ledger import Ledger, Paper, making_command
from sparsejepa.companion.verdicts import ERROR_RATE, Judgement, comparisons
from sparsejepa.intervals import SEEDS_NEEDED


def at_a_glance(judgements: Sequence[Judgement], pages: Mapping[str, str]) -> str:
    """How many claims have which verdict, and a row a claim; `pages`: run -> the page with it."""
    return _template().at_a_glance(judgements, pages).strip()


def in_short(ledger: Ledger, judgements: Sequence[Judgement]) -> str:
    """How many claims have which verdict, in all and for each paper."""
    return _template().in_short(by_paper(ledger, judgements), judgements).strip()


def one_by_one(ledger: Ledger, judgements: Sequence[Judgement], pages: Mapping[str, str]) -> str:
    """A section a claim, under its paper, with how many comparisons were taken into account."""
    return _template().one_by_one(by_paper(ledger, judgements), judgements, pages).strip()


def by_paper(
    ledger: Ledger, judgements: Sequence[Judgement]
) -> list[tuple[Paper, list[Judgement]]]:
    """Each paper that has claims, with these."""
    own = [(p, [j for j in judgements if j.claim.paper == p.name]) for p in ledger.papers]
    return [(paper, claims) for paper, claims in own if claims]


@cache
def _template() -> Any:
    """The template's macros."""
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= vars(companion_claim_words) | {
        "comparisons": comparisons,
        "making_command": making_command,
        "seeds_needed": SEEDS_NEEDED,
        "error_rate": f"{ERROR_RATE:.0%}",
    }
    return environment.get_template("companion_claims.md.jinja").module
