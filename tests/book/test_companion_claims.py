"""The scorecard: a row and a section a claim, and a failed build where one does not stand."""

import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import get_args

import pytest

from companion import PARTS
from companion_claims import RULES, chip, counted
from sparsejepa.companion.files import read_json
from sparsejepa.companion.ledger import Check, Verdict
from sparsejepa.companion.manifest import seal_run
from tests.book.tiny_book import edit_results, make_book, make_run, opened
from tests.companion.tiny_ledger import ACCURACY, content, write_ledger
from tests.repository import ROOT

KEY = "accuracy.jepa, last block.linear probe"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """The tiny ledger, of the tiny book's runs."""
    make_book(tmp_path)
    for method, letter in (("sparsejepa", "a"), ("jepa", "b")):
        for seed in range(3):
            run = f"reference/01_pretrain/{method}-seed{seed}"
            if seed:
                make_run(tmp_path, run)
            edit(tmp_path, run, ACCURACY[letter][seed], seed)
    changed = content()
    (check,) = changed["claims"][0]["test"]
    for name, method in (("values", "sparsejepa"), ("than", "jepa")):
        check[name] = f"reference/01_pretrain/{method}-seed{{seed}}:{KEY}"
    check["sample"] = "steps"
    del changed["claims"][1]
    write_ledger(tmp_path, changed)
    return tmp_path


def edit(root: Path, run: str, accuracy: float, seed: int) -> None:
    """Another number in a run's file, as if the run itself had written it."""
    folder = root / "book" / "runs" / run
    edit_results(root, run, accuracy={"jepa, last block": {"linear probe": accuracy}})
    seal_run(folder, read_json(folder / "manifest.json") | {"seed": seed})


def show(root: Path, *parts: str) -> str:
    """Parts of the book as Markdown; it shows JEPA's run on the notebook's page."""
    run = "reference/01_pretrain/jepa-seed0"
    pages = {"notebooks/01_pretrain", f"book/runs/{run}/executed"}
    book = opened(root, {"notebooks/01_pretrain": run}, pages, {})
    return "\n\n".join(PARTS[part](book) for part in parts or ("scorecard", "claims"))


def test_claims_that_ask_are_answered_on_top(root: Path):
    """In the words of the ledger, with number and verdict; the claim that asks nothing is not."""
    assert show(root, "in-plain-words").replace("\\", "") == (
        "- Is a ahead: +6.0 points [+3.5, +8.5], 3 seeds, 1,200 test images. "
        "[reproduced]{.verdict .verdict-reproduced}"
    )


def test_each_claim_has_a_row_and_a_section(root: Path, warnings: list[str]):
    """With what was said and measured, the verdict as a word, and where it came from."""
    page = show(root)
    assert warnings == []
    assert "**Of 2 claims: 1 [reproduced]{.verdict .verdict-reproduced}, 1 [untested]" in page
    row = page.split("* - {ref}`a is better than b <claim-better>`\n")[1].split("* - ")[0]
    assert row.replace("\\", "").splitlines() == [
        "  - [reproduced]{.verdict .verdict-reproduced}",
        "  - +6.0 points [+3.5, +8.5], 3 seeds, 1,200 test images",
        "  - +5 points [secondary]{.mark .mark-secondary}",
        "  - A paper",
        "  - {doc}`nb </notebooks/01_pretrain>`, 6 runs",
    ]
    section = page.split("(claim-better)=\n### a is better than b\n")[1].split("(claim-")[0]
    for part in (
        "Test\n: - Accuracy of a minus that of b: the mean over pairs of the same seed is above 1 ",
        "points. We measured \\+6\\.0 points",
        "adjusted $p$ 0.013.",
        "The interval holds the paper's 5 points",
        "\n\nBeside it\n: On other blocks it is behind.\n\n",
        "`reference/01_pretrain/sparsejepa-seed2`",
        "--preset reference --run jepa-seed2\n```\n::::",
    ):
        assert part in section
    assert "for which $p$ values are adjusted: 1." in page
    planned = page.split("(claim-planned)=")[1]
    assert "What it takes\n: One GPU." in planned and "What it takes" not in section
    assert "Test\n: Planned. AUROC above 0.9." in planned and "(no run yet)" in planned


def test_an_edited_number_fails_the_build(root: Path, warnings: list[str]):
    """Once, with the claim; all parts of the book share one judgement."""
    edit(root, "reference/01_pretrain/sparsejepa-seed1", 0.1, 1)
    page = show(root, "counts", "scorecard", "claims")
    (message,) = warnings
    wrong = "book/claims.yml, claim 'better': it expects 'reproduced'"
    assert message.startswith(f"claim: book/claims: {wrong}")
    assert "* - A paper\n  - 2 [untested]{.verdict .verdict-untested}" in page


def test_undecided_is_not_untried():
    """Both are called untested; the counts tell them apart."""
    judged = [SimpleNamespace(verdict="untested", note=note) for note in ("undecided", "no run")]
    assert counted(judged).endswith("(1 of these undecided: tried, and nothing is clear)")


def test_what_does_not_stand_fails_the_build(root: Path, warnings: list[str]):
    """A run that is stale, one that is gone, and a ledger that is broken or gone."""
    (root / "src" / "sparsejepa" / "used.py").write_text("answer = 43\n")
    show(root)
    assert len(warnings) == 6 and all(message.startswith("stale: ") for message in warnings)
    shutil.rmtree(root / "book/runs/reference/01_pretrain/jepa-seed2")
    page = show(root)
    assert "needs the run reference/01_pretrain/jepa-seed2" in warnings[-1]
    assert "1 [reproduced]" not in page and "2 [untested]" in page
    (root / "book" / "claims.yml").write_text("claims: 1")
    with pytest.raises(ValueError, match="papers: Field required"):
        show(root)
    assert warnings[-1].startswith("claim: book/claims: book/claims.yml, papers: Field required")
    (root / "book" / "claims.yml").unlink()
    with pytest.raises(FileNotFoundError, match=r"claims\.yml"):
        show(root)


def test_every_word_of_the_ledger_is_explained():
    """Every rule has words with its threshold; the page has all verdicts."""
    assert set(RULES) == set(get_args(Check.model_fields["rule"].annotation))
    assert all("{at}" in words for words in RULES.values())
    page = (ROOT / "book" / "scorecard.md").read_text()
    assert all(f"* - {chip(name)}\n" in page for name in get_args(Verdict))
