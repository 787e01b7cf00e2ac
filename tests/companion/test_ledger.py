"""The ledger: what it refuses, what its addresses name, and the committed one."""

import re
from pathlib import Path
from typing import Any

import pytest

from sparsejepa.companion.files import write_json
from sparsejepa.companion.ledger import LEDGER, judge, load_ledger, look_up, numbers_at
from tests.companion.tiny_ledger import content, ledger, make_runs
from tests.repository import ROOT

# What is put at a place of the ledger, and the words that say so; GONE takes it away.
GONE = object()
BETTER, RISES, PLANNED = (("claims", i) for i in range(3))
CHECK, EXACT = (*BETTER, "test", 0), (*RISES, "test", 0)


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ((*BETTER, "verdict"), "yes", "claims.better.verdict: Extra inputs"),
        ((*CHECK, "threshold"), float("nan"), "test.0.threshold: Input should be a finite"),
        ((*CHECK, "form"), "much", "claims.better.test.0: Invalid format"),
        (BETTER, "x", "claims.0: Input should be a valid dictionary"),
        (("seeds", "main"), [0, True], "seeds.main.1: Input should be a valid integer"),
        # A check and its rule.
        ((*CHECK, "than"), GONE, "difference_above needs than"),
        ((*CHECK, "seeds"), GONE, "difference_above needs seeds"),
        ((*CHECK, "tolerance"), 1, "difference_above takes no tolerance"),
        ((*CHECK, "seed_count"), "n", "difference_above takes no seed_count"),
        ((*EXACT, "values"), "a/b/c:d.{seed}", "equal_within takes no {seed}"),
        # The parts of a claim.
        ((*PLANNED, "plan"), GONE, "claims.planned: it needs either a test or a plan"),
        ((*BETTER, "plan"), "more", "claims.better: it needs either a test or a plan"),
        ((*PLANNED, "counterexample"), content()["claims"][1]["test"], "but no test"),
        ((*BETTER, "condition"), "x", "it has a condition, no counterexample"),
        ((*PLANNED, "needs"), GONE, "it is untested; say what it needs"),
        # The whole.
        ((*RISES, "id"), "better", "the id 'better' is given twice"),
        ((*BETTER, "paper"), "B", "'better' is of no known paper"),
        ((*CHECK, "seeds"), "others", "'better' has the unknown list of seeds 'others'"),
        (("seeds", "main"), [1, 0], "seeds 'main' must ascend"),
    ],
)
def test_a_broken_ledger_is_one_sentence(tmp_path: Path, place: tuple, value: Any, words: str):
    """Which says the entry, the field, and what is wrong."""
    inner: Any = (changed := content())
    for key in place[:-1]:
        inner = inner[key]
    inner[place[-1]] = value
    if value is GONE:
        del inner[place[-1]]
    with pytest.raises(ValueError, match=re.escape(words)) as error:
        ledger(tmp_path, changed)
    assert str(error.value).startswith("book/claims.yml, ") and "\n" not in str(error.value)


ROWS = [{"L": 1, "ε": 0.1, "t": 5}, {"L": 2, "ε": 0.1, "t": 6}, {"L": 2, "ε": 5.1e-13, "t": 7}]
RESULTS = {"dropped": {"0.2": {"value": 1}, "0": {"2": 3}}, "list": [4, [5]], "order": ROWS}


def test_look_up_finds_names_positions_and_entries():
    """All that an address, or a number in prose, can say; of names with dots the longest."""
    found = {"dropped.0.2.value": 1, "list.0": 4, "list.-1.-1": 5}
    found |= {"order.[L=2; ε=0.1].t": 6, "order.[ε=5.1e-13].t": 7}
    assert {key: look_up(RESULTS, key) for key in found} == found


def test_look_up_guesses_nothing():
    """Beyond the ends of a list, several entries, no such name: the keys there are named."""
    nowhere = "x list.2 list.-3 list.² list.0.0 order.[L=2].t order.[L=3] order.[L] dropped.0.3"
    for key in ("", *nowhere.split()):
        with pytest.raises(ValueError, match=r"no '.*there: "):
            look_up(RESULTS, key)


def test_what_is_no_number_is_refused(tmp_path: Path):
    """JSON's true would count as 1; an empty list decides nothing."""
    runs = make_runs(tmp_path)
    for value in (True, None, "1", {"mean": 1}, [], [1, True]):
        write_json(runs / "reference/theory/all/results.json", {"rise": value})
        with pytest.raises(ValueError, match="finds no number at reference/theory/all:rise"):
            numbers_at(runs, "reference/theory/all:rise")


def test_numbers_of_seeds_lists_and_manifests(tmp_path: Path):
    """One a seed, every one of a list, and what the manifest counts."""
    runs = make_runs(tmp_path)
    assert numbers_at(runs, "reference/nb/b-seed{seed}:accuracy.b, last", (0, 2)) == [0.4, 0.41]
    assert numbers_at(runs, "reference/theory/all:times") == [1, 2, 3]
    assert numbers_at(runs, "reference/theory/all:gain") == [0.5]
    assert numbers_at(runs, "reference/theory/all:manifest.seeds") == [3]


def test_the_committed_ledger_stands():
    """No run, seed or key is missing; all papers are covered, cited and marked."""
    committed = load_ledger(ROOT / LEDGER)
    judgements = judge(committed, ROOT / "book" / "runs")
    assert [fault for judgement in judgements for fault in judgement.faults] == []
    assert {paper.name for paper in committed.papers} == {c.paper for c in committed.claims}
    keys = re.findall(r"@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text())
    assert {paper.cite for paper in committed.papers if paper.cite} <= set(keys)
    # A value that was forgotten is no value that is unknown.
    assert all("value" in claim.quoted.model_fields_set for claim in committed.claims)
