"""The ledger: what it must say, one sentence for each way to break it, and the committed one."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from sparsejepa.companion.claims import LEDGER, load_ledger
from sparsejepa.companion.verdicts import judge
from tests.companion.tiny_ledger import content, ledger, write_ledger
from tests.repository import ROOT


@pytest.fixture(scope="module")
def committed():
    return load_ledger(ROOT / LEDGER)


def test_a_sound_ledger_is_read_whole(tmp_path: Path):
    """Every field arrives, nested ones as their own classes, numbers as floats."""
    found = ledger(tmp_path)
    better = found.claims[0]
    assert [claim.id for claim in found.claims] == ["better", "rises", "planned"]
    assert found.seeds == {"main": (0, 1, 2)} and found.papers[0].arxiv == "2500.00001"
    assert better.quoted.value == 5 and found.claims[1].quoted.value is None
    assert better.test[0].rule == "difference_above" and better.test[0].threshold == 1.0


# Sentence -> place in the ledger, and what is put there; GONE takes it away.
GONE = object()
BETTER, RISES, PLANNED = (("claims", i) for i in range(3))
CHECK, EXACT = (*BETTER, "test", 0), (*RISES, "test", 0)
BREAKS = {
    "'better': Claim has no field 'verdict'; its fields are id": ((*BETTER, "verdict"), "yes"),
    "'better', test 1: Check has no field 'limit'; its": ((*CHECK, "limit"), 1),
    "'better', quoted: Quoted.mark must be one of verified": ((*BETTER, "quoted", "mark"), "sure"),
    "'better', quoted: the field where is missing; add it": ((*BETTER, "quoted", "where"), GONE),
    "'better', test 1: Check.rule must be one of mean_above": ((*CHECK, "rule"), "bigger"),
    "'better': Claim.expected must be one of reproduced": ((*BETTER, "expected"), "true"),
    "'better': the field statement is missing; add it": ((*BETTER, "statement"), GONE),
    "'better': the field statement is empty; fill it or remove": ((*BETTER, "statement"), " "),
    "'planned': it has neither test nor plan; add one": ((*PLANNED, "plan"), GONE),
    "'planned': it is untested; say in the field needs": ((*PLANNED, "needs"), GONE),
    "'better': it has a plan beside its test; remove the plan": ((*BETTER, "plan"), "more"),
    "'planned': it has a counterexample but no test; add it": (
        (*PLANNED, "counterexample"),
        content()["claims"][1]["test"],
    ),
    "'better': it has a condition but no counterexample that": ((*BETTER, "condition"), "x"),
    "'better', test 1: difference_above needs the field than": ((*CHECK, "than"), GONE),
    "'better', test 1: difference_above needs the field seeds": ((*CHECK, "seeds"), GONE),
    "'rises', test 1: equal_within needs the field tolerance": ((*EXACT, "tolerance"), GONE),
    "'better', test 1: difference_above takes no field tolerance": ((*CHECK, "tolerance"), 1),
    "'better', test 1: difference_above needs {seed} in values": ((*CHECK, "values"), "a/b/c:d"),
    "'rises', test 1: equal_within takes no {seed}": ((*EXACT, "values"), "a/b/c:d.{seed}"),
    "'better', test 1: than must be preset/notebook/run:key": ((*CHECK, "than"), "b"),
    "'better', test 1: form 'much' formats no number": ((*CHECK, "form"), "much"),
    "'better': seeds 'others' is none of the lists main": ((*CHECK, "seeds"), "others"),
    "'better': paper 'B' is none of A paper; choose one": ((*BETTER, "paper"), "B"),
    "'better': the id is taken by an earlier claim; give another": ((*RISES, "id"), "better"),
    "id 'Better!' must be of a-z, 0-9 and -; rename it": ((*BETTER, "id"), "Better!"),
    "'better': title '`a`' must be plain text": ((*BETTER, "title"), "`a`"),
    "claim number 2: the field id is missing; add it": ((*RISES, "id"), GONE),
    "'better': test must be a list with at least one entry": ((*BETTER, "test"), []),
    "'better', test 1: must be a mapping of fields, not 'x'": ((*BETTER, "test"), ["x"]),
    "claim number 1: must be a mapping of fields, not 'x'": (BETTER, "x"),
    "paper 'A paper': the field arxiv is missing; add it": (("papers", 0, "arxiv"), GONE),
    "seeds 'main': must ascend, each number once": (("seeds", "main"), [1, 0]),
    "seeds 'main': must be a list of whole numbers": (("seeds", "main"), ["0"]),
    "claims.yml must be a mapping with exactly papers, seeds, claims": (("seeds",), GONE),
    "claims.yml: claims must be a list with at least one entry": (("claims",), []),
}


@pytest.mark.parametrize("sentence", BREAKS)
def test_a_broken_ledger_is_one_sentence(tmp_path: Path, sentence: str):
    """Which says the entry, the field, and what to do."""
    (*place, last), value = BREAKS[sentence]
    changed = content()
    inner: Any = changed
    for key in place:
        inner = inner[key]
    if value is GONE:
        del inner[last]
    else:
        inner[last] = value
    with pytest.raises(ValueError) as error:
        ledger(tmp_path, changed)
    assert sentence in str(error.value)
    assert str(error.value).startswith("claims.yml") and "\n" not in str(error.value)


def test_half_a_file_is_named(tmp_path: Path):
    """What is no YAML is said to be none."""
    path = write_ledger(tmp_path, content())
    path.write_text("claims: [")
    with pytest.raises(ValueError, match=r"claims\.yml is not YAML: .*line 1"):
        load_ledger(path)


def test_needs_neither_torch_nor_scipy():
    """The book is built with the [book] extra alone."""
    code = (
        "import sys, sparsejepa.companion.verdicts;"
        "assert not {'torch', 'scipy', 'pandas'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_the_committed_ledger_stands(committed):
    """Its verdicts are what the committed runs say; no run, seed or key is missing."""
    judgements = judge(committed, ROOT / "book" / "runs")
    assert [fault for judgement in judgements for fault in judgement.faults] == []


def test_the_committed_ledger_covers_the_papers(committed):
    """All three papers, some thirty claims, and every field of the design."""
    by_paper = [claim.paper for claim in committed.claims]
    assert 20 <= len(by_paper) <= 36
    for name in ("SparseJEPA", "JEPA-SCORE", "Noisy features"):
        assert by_paper.count(name) >= 4
    assert {paper.name for paper in committed.papers} == set(by_paper)


def test_citations_are_in_the_bibliography(committed):
    """A paper's key exists, else the page would not build."""
    keys = re.findall(r"@\w+\{(\w+),", (ROOT / "book" / "references.bib").read_text())
    assert {paper.cite for paper in committed.papers if paper.cite} <= set(keys)


def test_an_unknown_value_is_null(committed):
    """Every entry says so itself: a value that was forgotten is no value that is unknown."""
    for claim in yaml.safe_load((ROOT / LEDGER).read_text())["claims"]:
        assert "value" in claim["quoted"], claim["id"]
    assert all(c.quoted.unit for c in committed.claims if c.quoted.value is not None)
