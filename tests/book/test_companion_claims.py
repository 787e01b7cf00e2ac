"""The scorecard: a row and a section a claim, and a failed build where one does not stand."""

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Literal, get_args

import pytest

import companion
import companion_claims
from companion import PARTS, open_book
from companion_claim_words import chip, rule_in_words
from sparsejepa.companion.claims import PAIRED, Check, Verdict
from sparsejepa.companion.files import read_json
from sparsejepa.companion.manifest import sealed
from sparsejepa.companion.verdict_rules import ExactRule, IntervalRule, SeedRule
from tests.book.tiny_book import make_book, make_run, write_json
from tests.companion.tiny_ledger import ACCURACY, CHECK, content, write_ledger
from tests.repository import ROOT

KEY = "accuracy.jepa, last block.linear probe"


def ledger_content() -> dict:
    """The tiny ledger, of the tiny book's runs."""
    changed = content()
    addresses = {
        name: f"reference/01_pretrain/{method}-seed{{seed}}:{KEY}"
        for name, method in (("values", "sparsejepa"), ("than", "jepa"))
    }
    changed["claims"][0] |= {"test": [CHECK | addresses | {"sample": "steps"}]}
    del changed["claims"][1]
    return changed


@pytest.fixture
def root(tmp_path: Path) -> Path:
    make_book(tmp_path)
    for method, letter in (("sparsejepa", "a"), ("jepa", "b")):
        for seed in range(3):
            run = f"reference/01_pretrain/{method}-seed{seed}"
            folder = tmp_path / "book" / "runs" / run
            if seed:
                make_run(tmp_path, run)
            edit(folder / "manifest.json", "seed", value=seed)
            edit(folder / "results.json", *KEY.split("."), value=ACCURACY[letter][seed])
    write_ledger(tmp_path, ledger_content())
    return tmp_path


def edit(path: Path, *keys: str, value: float) -> None:
    """Another number in a run's file, as if the run itself had written it."""
    found = json.loads(path.read_text())
    place = found
    for key in keys[:-1]:
        place = place[key]
    place[keys[-1]] = value
    write_json(path, found)
    folder = path.parent
    write_json(folder / "manifest.json", sealed(folder, read_json(folder / "manifest.json")))


@pytest.fixture
def warnings(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every warning that the extension gives."""
    given: list[str] = []

    def warn(message: str, *values: str, location: str, type: str, subtype: str) -> None:
        assert (location, type) == (values[0], "companion")
        given.append(f"{subtype}: {values[1]}")

    monkeypatch.setattr(companion, "logger", SimpleNamespace(warning=warn))
    return given


def show(root: Path, *parts: str) -> str:
    """Parts of the book as Markdown; it shows JEPA's run on the notebook's page."""
    run = "reference/01_pretrain/jepa-seed0"
    pages = {"notebooks/01_pretrain", f"book/runs/{run}/executed"}
    app = SimpleNamespace(
        srcdir=root, config=SimpleNamespace(companion_runs={"notebooks/01_pretrain": run})
    )
    open_book(app, SimpleNamespace(found_docs=pages), [])
    return "\n\n".join(PARTS[part](app.companion) for part in parts or ("scorecard", "claims"))


def test_each_claim_has_a_row_and_a_section(root: Path, warnings: list[str]):
    """With what was said and measured, the verdict as a word, and where it came from."""
    page = show(root)
    assert warnings == []
    assert "**Of 2 claims: 1 [reproduced]{.verdict .verdict-reproduced}, 1 [untested]" in page
    first = "* - {ref}`a is better than b <claim-better>`\n  - [reproduced]"
    assert page.count(first) == 1
    row = page.split("<claim-better>`")[1].split("* - ")[0].replace("\\", "")
    assert "- +5 points [secondary]{.mark .mark-secondary}\n" in row
    assert "- +6.0 points [+3.5, +8.5], 3 seeds, 1,200 test images\n" in row
    assert "- A paper\n" in row
    assert "- {doc}`nb </notebooks/01_pretrain>`, 6 runs\n" in row
    section = page.split("(claim-better)=\n### a is better than b\n")[1].split("(claim-")[0]
    assert (
        "Test\n: - Accuracy of a minus that of b: the mean over pairs of the same seed" in section
    )
    assert "is above 1 points. We measured \\+6\\.0 points" in section
    assert "adjusted $p$ 0.013." in section
    assert "The interval holds the paper's 5 points" in section
    assert "Beside it\n: On other blocks it is behind.\n" in section
    assert "`reference/01_pretrain/sparsejepa-seed2`" in section
    assert "--preset reference --run sparsejepa-seed2" in section
    assert "for which $p$ values are adjusted: 1." in page


def test_short_counts_are_those_of_the_table(root: Path, warnings: list[str]):
    """In all and for each paper, as words."""
    page = show(root, "counts")
    counted = (
        "1 [reproduced]{.verdict .verdict-reproduced}, 1 [untested]{.verdict .verdict-untested}"
    )
    assert f"**Of 2 claims: {counted}.**" in page
    assert f"* - A paper\n  - {counted}\n" in page


def test_undecided_is_not_untried():
    """Both are called untested; the counts tell them apart."""
    judged = [SimpleNamespace(verdict="untested", note=note) for note in ("undecided", "no run")]
    chip = "2 [untested]{.verdict .verdict-untested}"
    shown = companion_claims.counted(judged)
    assert shown == f"{chip} (1 of these undecided: tried, and nothing is clear)"


def test_an_untested_claim_says_what_it_takes(root: Path, warnings: list[str]):
    """And its planned rule, so that nobody can choose it afterwards."""
    section = show(root).split("(claim-planned)=")[1]
    assert "What it takes\n: One GPU." in section
    assert "Test\n: Planned. AUROC above 0.9." in section
    assert "[untested]{.verdict .verdict-untested} (no run yet)" in section
    assert "What it takes" not in show(root).split("(claim-planned)=")[0]


def test_an_edited_number_fails_the_build(root: Path, warnings: list[str]):
    """The warning names the page, the claim, and the commands that mend it."""
    run = root / "book/runs/reference/01_pretrain/sparsejepa-seed1/results.json"
    edit(run, *KEY.split("."), value=0.1)
    show(root)
    (message,) = warnings
    assert message.startswith("claim: claims.yml, claim 'better': it expects 'reproduced'")
    assert "--preset reference --run sparsejepa-seed1`" in message


def test_a_removed_run_fails_the_build(root: Path, warnings: list[str]):
    """The page is still made, without a verdict on that claim."""
    shutil.rmtree(root / "book/runs/reference/01_pretrain/jepa-seed2")
    page = show(root)
    (message,) = warnings
    assert "needs the run reference/01_pretrain/jepa-seed2" in message
    assert "1 [reproduced]" not in page and "2 [untested]" in page


def test_a_stale_run_fails_the_build(root: Path, warnings: list[str]):
    """Also where no page shows that run; each run is named once."""
    (root / "src" / "sparsejepa" / "used.py").write_text("answer = 43\n")
    show(root)
    assert len(warnings) == 6 and all(one.startswith("stale: ") for one in warnings)


def test_a_broken_ledger_fails_the_build(root: Path, warnings: list[str]):
    """One sentence; a page that wants a ledger that is gone says so itself."""
    changed = ledger_content()
    del changed["claims"][0]["statement"]
    path = write_ledger(root, changed)
    with pytest.raises(ValueError, match="the field statement is missing"):
        show(root)
    assert len(warnings) == 1 and "the field statement is missing; add it" in warnings[0]
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"claims\.yml"):
        show(root)


def test_every_verdict_is_explained():
    """On the scorecard."""
    page = (ROOT / "book" / "scorecard.md").read_text()
    for name in get_args(Verdict):
        assert f"* - {chip(name)}\n" in page


@pytest.mark.parametrize("rule", get_args(Literal[SeedRule, IntervalRule, ExactRule]))
def test_every_rule_has_words(rule: str):
    """Which name its threshold and unit."""
    seeded = rule in get_args(SeedRule)
    address = "a/b/c:d.{seed}" if seeded else "a/b/c:d"
    options = {"seeds": "main"} if seeded else {}
    if rule in PAIRED:
        options["than"] = address
    if rule in get_args(IntervalRule):
        options["seed_count"] = "n"
    if rule == "equal_within":
        options["tolerance"] = 0.25
    check = Check("A quantity", rule, address, 0.75, unit="nats", **options)
    words = rule_in_words(check)
    assert words.startswith("A quantity: ") and "0.75 nats" in words and words.endswith(".")
    assert ("0.25" in words) == (rule == "equal_within")
