"""Verdicts follow the numbers: an edited or missing run is found, few seeds decide nothing."""

import shutil
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from sparsejepa.companion import ledger as rules
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.ledger import Finding, Judgement, Result
from tests.companion.tiny_ledger import content, ledger, make_run, make_runs

NB = "reference/nb"


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return make_runs(tmp_path)


def judged(runs: Path, changed: Any = None) -> dict[str, Judgement]:
    return {j.claim.id: j for j in rules.judge(ledger(runs.parents[1], changed), runs)}


def test_sound_numbers_give_the_expected_verdicts(runs: Path):
    """Three seeds far above the threshold, an exact number within its tolerance, no run at all."""
    found = judged(runs)
    assert {name: (j.verdict, j.note, j.faults) for name, j in found.items()} == {
        "better": ("reproduced", "", ()),
        "rises": ("reproduced", "", ()),
        "planned": ("untested", "no run yet", ()),
    }
    (result,) = found["better"].test
    assert result.finding.estimate == pytest.approx(6.0)
    # The differences of the pairs, in points.
    assert result.p == pytest.approx(stats.ttest_1samp([6.0, 5.0, 7.0], 1.0).pvalue)
    assert (result.finding.seeds, result.sample) == (3, 10_000)
    assert found["better"].runs[0] == "reference/nb/a-seed0" and len(found["better"].runs) == 6
    assert sum(r.adjusted is not None for j in found.values() for r in j.results) == 1


def edit(runs: Path, run: str, **results: Any) -> None:
    path = runs / run / "results.json"
    write_json(path, read_json(path) | results)


@pytest.mark.parametrize(
    ("claim", "change", "words"),
    [
        ("better", lambda r: make_run(r, "a", 1, 0.3), "'reproduced', but its numbers say 'untest"),
        ("rises", lambda r: edit(r, "reference/theory/all", rise=0.1), "say 'false as stated'"),
        ("better", lambda r: edit(r, f"{NB}/b-seed2", accuracy={}), "no 'b, last' in accur"),
        ("better", lambda r: shutil.rmtree(r / f"{NB}/b-seed2"), "which has no results.js"),
        ("better", lambda r: (r / f"{NB}/b-seed2/results.json").write_text("{"), "damaged"),
        (
            "better",
            # A copied run is no further seed.
            lambda r: write_json(r / f"{NB}/a-seed1/manifest.json", {"seed": 0}),
            "a-seed1 for seed 1, but its manifest says 0",
        ),
    ],
)
def test_what_does_not_stand_is_a_fault(runs: Path, claim: str, change, words: str):
    """One sentence that names the claim and what is wrong, and no verdict from the rest."""
    change(runs)
    found = judged(runs)[claim]
    (fault,) = found.faults
    assert fault.startswith(f"book/claims.yml, claim {claim!r}: it ") and words in fault
    assert found.verdict != "reproduced"


def test_a_pair_that_was_run_is_not_left_out(runs: Path):
    """Or the seeds that agree could be chosen; a seed without its pair is none."""
    make_run(runs, "a", 7, 0.1)
    assert judged(runs)["better"].faults == ()
    make_run(runs, "b", 7, 0.4)
    assert "leaves out seed 7, which has been run" in judged(runs)["better"].faults[0]


@pytest.mark.parametrize("seeds", [[], [0], [0, 1]])
def test_few_seeds_decide_nothing(runs: Path, seeds: list[int]):
    """However large the difference."""
    for method in "ab":
        for seed in {0, 1, 2} - set(seeds):
            shutil.rmtree(runs / f"reference/nb/{method}-seed{seed}")
    changed = content()
    changed["seeds"]["main"] = seeds
    changed["claims"][0] |= {"expected": "untested", "needs": "more seeds"}
    found = judged(runs, changed)["better"]
    assert found.faults == () and found.verdict == "untested"
    assert found.note == (f"{len(seeds)} of 3 seeds" if seeds else "no run yet")


def test_many_comparisons_ask_for_more(runs: Path):
    """What would be decided alone is not among nine that lie on their thresholds."""
    changed = content()
    (check,) = changed["claims"][0]["test"]
    on_it = changed["claims"][0] | {"expected": "untested", "needs": "more"}
    for i in range(9):
        changed["claims"].append(on_it | {"id": f"on-it-{i}", "test": [check | {"threshold": 6}]})
    found = judged(runs, changed)
    assert sum(r.adjusted is not None for j in found.values() for r in j.results) == 10
    assert (found["better"].verdict, found["better"].note) == ("untested", "undecided")
    assert found["better"].test[0].finding.p < 0.05 < found["better"].test[0].adjusted


def test_a_list_and_a_reported_interval_can_be_judged(runs: Path):
    """Exact rules take every number of a list, interval rules a mean with its seeds."""
    changed = content()
    (check,) = changed["claims"][1]["test"]
    del check["tolerance"]
    times = check | {"rule": "at_least", "values": "reference/theory/all:times", "threshold": 1}
    gain = {"values": "reference/theory/all:gain", "threshold": 0.1, "seed_count": "manifest.seeds"}
    above, below = (check | gain | {"rule": f"interval_{side}"} for side in ("above", "below"))
    changed["claims"][1]["test"] = [times, above, below]
    found = [result.finding for result in judged(runs, changed)["rises"].test]
    assert [one[:3] for one in found] == [(True, 1, 0), (True, 0.5, 3), (False, 0.5, 3)]
    assert found[1].p == found[2].p


def test_a_share_lies_between_its_bounds(runs: Path):
    """Its interval is clipped; p is that of the whole interval."""
    changed = content()
    (check,) = changed["claims"][0]["test"]
    del check["than"]
    check |= {"rule": "mean_above", "limits": [0, 100], "scale": 206}
    (found,) = judged(runs, changed)["better"].test
    whole = stats.ttest_1samp([94.76, 96.82, 98.88], 1.0)
    low, high = whole.confidence_interval(0.95)
    assert high > 100
    assert found.finding.interval == (pytest.approx(low), 100)
    assert found.p == pytest.approx(whole.pvalue)


def test_a_rule_may_come_before_its_run(runs: Path):
    """As long as the claim is untested; when the run comes, the ledger has to say what it says."""
    changed = content()
    changed["claims"][1] |= {"expected": "untested", "needs": "a run"}
    assert "but its numbers say 'reproduced'" in judged(runs, changed)["rises"].faults[0]
    shutil.rmtree(runs / "reference/theory")
    found = judged(runs, changed)["rises"]
    assert (found.faults, found.verdict, found.note) == ((), "untested", "no run yet")
    assert "needs the run reference/theory/all" in judged(runs)["rises"].faults[0]


FINDINGS = {
    "holds": (Finding(True, 1.0), None),
    "fails": (Finding(False, 1.0), None),
    "surely": (Finding(True, 1.0, 3, (0.5, 1.5), 0.001), 0.01),
    "surely not": (Finding(False, 1.0, 3, (0.5, 1.5), 0.001), 0.01),
    "unsure": (Finding(True, 1.0, 3, (0.5, 1.5), 0.001), 0.06),
    "one seed": (Finding(True, 1.0, 1), None),
    "no run": (None, None),
}


@pytest.mark.parametrize(
    ("test", "counterexample", "condition", "expected"),
    [
        (["surely", "holds"], [], "", "reproduced"),
        (["fails"], [], "", "false as stated"),
        (["surely not"], [], "", "not reproduced"),
        (["unsure"], [], "", "untested"),
        (["unsure", "surely not"], [], "", "not reproduced"),
        (["one seed", "surely not"], [], "", "untested"),
        (["holds"], ["holds"], "deep", "true only if"),
        (["holds"], ["holds"], "", "false as stated"),
        (["holds"], ["holds", "fails"], "deep", "reproduced"),
        (["holds"], ["unsure", "fails"], "deep", "reproduced"),
        (["holds"], ["unsure"], "deep", "untested"),
        (["surely not"], ["holds"], "deep", "not reproduced"),
        (["holds"], ["no run"], "deep", "untested"),
        ([], [], "", "untested"),
    ],
)
def test_the_table_of_verdicts(test: list, counterexample: list, condition: str, expected: str):
    """Every way in which tests and counterexamples come together."""
    parts = content()["claims"][1]
    limit = {"condition": condition, "counterexample": parts["test"]} if condition else {}
    claim = rules.Claim(**parts | limit)
    results = {
        name: Result(claim.test[0], finding, adjusted=adjusted)
        for name, (finding, adjusted) in FINDINGS.items()
    }
    of_test, limits = ([results[name] for name in names] for names in (test, counterexample))
    found, note = rules.reach_verdict(claim, of_test, limits)
    assert found == expected
    assert bool(note) == (expected in ("untested", "true only if"))
