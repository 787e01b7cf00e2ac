"""Verdicts follow the numbers: an edited or missing run is found, few seeds decide nothing."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from sparsejepa.companion.claims import Check, Claim, Quoted
from sparsejepa.companion.files import read_json, write_json
from sparsejepa.companion.verdict_rules import Finding
from sparsejepa.companion.verdicts import Judgement, Result, comparisons, judge, reach_verdict
from tests.companion.tiny_ledger import CHECK, EXACT, content, ledger, make_run, make_runs


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    return make_runs(tmp_path)


def judged(runs: Path, changed: Any = None) -> dict[str, Judgement]:
    root = runs.parents[1]
    return {j.claim.id: j for j in judge(ledger(root, changed), runs)}


def edit(runs: Path, run: str, **results: Any) -> None:
    path = runs / run / "results.json"
    write_json(path, read_json(path) | results)


def test_sound_numbers_give_the_expected_verdicts(runs: Path):
    """Three seeds far above the threshold, an exact number within its tolerance, no run at all."""
    found = judged(runs)
    assert [j.faults for j in found.values()] == [(), (), ()]
    assert {name: (j.verdict, j.note) for name, j in found.items()} == {
        "better": ("reproduced", ""),
        "rises": ("reproduced", ""),
        "planned": ("untested", "no run yet"),
    }
    (result,) = found["better"].test
    assert result.finding.estimate == pytest.approx(6.0)
    assert (result.finding.seeds, result.sample) == (3, 10_000)
    assert found["better"].runs[0] == "reference/nb/a-seed0" and len(found["better"].runs) == 6
    assert comparisons(list(found.values())) == 1


def test_an_edited_number_is_found(runs: Path):
    """One seed's accuracy changed by hand takes the verdict with it, and the run is named."""
    make_run(runs, "a", 1, 0.30)
    (fault,) = judged(runs)["better"].faults
    assert fault.startswith("claims.yml, claim 'better': it expects 'reproduced', but its numbers")
    assert "'untested' (undecided)" in fault and "correct the field expected" in fault
    assert "`sparsejepa run notebooks/nb.ipynb --preset reference --run a-seed1`" in fault


def test_an_edited_exact_number_is_found(runs: Path):
    """What a closed form contradicts is false as stated."""
    edit(runs, "reference/theory/all", rise=0.1)
    found = judged(runs)["rises"]
    assert found.verdict == "false as stated" and "but its numbers say" in found.faults[0]


@pytest.mark.parametrize("name", ["results.json", "manifest.json", ""])
def test_a_missing_run_is_found(runs: Path, name: str):
    """With the command that makes it; nothing is concluded from the other seeds."""
    folder = runs / "reference/nb/b-seed2"
    shutil.rmtree(folder) if not name else (folder / name).unlink()
    found = judged(runs)["better"]
    assert (found.verdict, found.note) == ("untested", "no run yet")
    assert found.faults == (
        f"claims.yml, claim 'better': it needs the run reference/nb/b-seed2, which has no "
        f"{name or 'results.json'}: make it by `sparsejepa run notebooks/nb.ipynb --preset "
        "reference --run b-seed2`.",
    )


def broken(**changes: Any) -> dict[str, Any]:
    changed = content()
    changed["claims"][0]["test"][0] |= changes
    return changed


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"than": "reference/nb/b-seed{seed}:accuracy.c, last"}, "no 'c, last' in accuracy (there"),
        ({"than": "reference/nb/b-seed{seed}:accuracy"}, "it finds no number at reference/nb/b-"),
        ({"sample": "images"}, "cannot read 'images' of reference/nb/a-seed0: no 'images'"),
    ],
)
def test_an_unknown_key_is_found(runs: Path, changes: dict, sentence: str):
    """And the keys that exist are named."""
    (fault,) = judged(runs, broken(**changes))["better"].faults
    assert sentence in fault


def test_a_damaged_file_is_found(runs: Path):
    """Half a JSON file is no result."""
    (runs / "reference/nb/a-seed0/results.json").write_text("{")
    assert "results.json is damaged" in judged(runs)["better"].faults[0]


def test_a_seed_that_was_run_cannot_be_left_out(runs: Path):
    """Otherwise the seeds that agree could be chosen."""
    make_run(runs, "a", 7, 0.1)
    assert judged(runs)["better"].faults == ()  # b has no seed 7: there is no pair
    make_run(runs, "b", 7, 0.4)
    (fault,) = judged(runs)["better"].faults
    assert "it leaves out seed 7, which has been run: add it to the list 'main' of seeds" in fault


def test_a_run_of_another_seed_is_refused(runs: Path):
    """A copied run is no further seed."""
    write_json(runs / "reference/nb/a-seed1/manifest.json", {"seed": 0})
    assert "a-seed1 for seed 1, but its manifest says 0" in judged(runs)["better"].faults[0]


@pytest.mark.parametrize("seeds", [[], [0], [0, 1]])
def test_few_seeds_decide_nothing(runs: Path, seeds: list[int]):
    """However large the difference; the number is shown all the same."""
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
    assert judged(runs)["better"].verdict == "reproduced"
    changed = content()
    for i in range(9):
        on_it = CHECK | {"threshold": 6.0}
        changed["claims"].append(
            changed["claims"][0] | {"id": f"on-it-{i}", "test": [on_it], "expected": "untested",
                                    "needs": "more"}
        )  # fmt: skip
    found = judged(runs, changed)
    assert comparisons(list(found.values())) == 10
    assert (found["better"].verdict, found["better"].note) == ("untested", "undecided")
    assert found["better"].test[0].finding.p < 0.05 < found["better"].test[0].adjusted


def test_a_list_and_a_reported_interval_can_be_judged(runs: Path):
    """Exact rules take every number of a list, interval_above a mean with its seeds."""
    edit(runs, "reference/theory/all", gain={"value": 0.5, "interval": [0.4, 0.6]})
    place = "reference/theory/all"
    write_json(runs / place / "manifest.json", {"seed": 0, "seeds": 3})
    increasing = EXACT | {"rule": "at_least", "values": f"{place}:times", "threshold": 1}
    del increasing["tolerance"]
    gain = increasing | {"rule": "interval_above", "values": f"{place}:gain", "threshold": 0.1}
    changed = content()
    changed["claims"][1]["test"] = [increasing, gain | {"seed_count": "manifest.seeds"}]
    found = judged(runs, changed)["rises"]
    assert found.faults == () and [r.finding.seeds for r in found.test] == [0, 3]


HOLDS, FAILS = (Finding(holds, 1.0, None, 0, None) for holds in (True, False))
SEEDED = {holds: Finding(holds, 1.0, (0.5, 1.5), 3, 0.001) for holds in (True, False)}


def result(name: str) -> Result:
    """A result by a short name."""
    check = Check(**EXACT)
    return {
        "holds": Result(check, HOLDS),
        "fails": Result(check, FAILS),
        "surely": Result(check, SEEDED[True], adjusted=0.01),
        "surely not": Result(check, SEEDED[False], adjusted=0.01),
        "unsure": Result(check, SEEDED[True], adjusted=0.06),
        "one seed": Result(check, Finding(True, 1.0, None, 1, None)),
        "no run": Result(check, None),
    }[name]


def claim(condition: str = "") -> Claim:
    quoted = Quoted("x", "derived", "y")
    checks = (Check(**EXACT),)
    return Claim("c", "p", "t", "s", quoted, "n", "reproduced", checks, checks, condition)


@pytest.mark.parametrize(
    ("test", "counterexample", "condition", "expected"),
    [
        (["holds"], [], "", "reproduced"),
        (["surely", "holds"], [], "", "reproduced"),
        (["fails"], [], "", "false as stated"),
        (["surely not"], [], "", "not reproduced"),
        (["surely", "surely not"], [], "", "not reproduced"),
        (["unsure"], [], "", "untested"),
        (["unsure", "surely not"], [], "", "not reproduced"),
        (["one seed", "surely not"], [], "", "untested"),
        (["holds"], ["holds"], "deep", "true only if"),
        (["holds"], ["holds"], "", "false as stated"),
        (["holds"], ["holds", "fails"], "deep", "reproduced"),
        (["holds"], ["unsure"], "deep", "untested"),
        (["surely not"], ["holds"], "deep", "not reproduced"),
        (["holds"], ["no run"], "deep", "untested"),
        ([], [], "", "untested"),
    ],
)
def test_the_table_of_verdicts(test: list, counterexample: list, condition: str, expected: str):
    """Every way in which tests and counterexamples come together."""
    found, note = reach_verdict(
        claim(condition), [result(n) for n in test], [result(n) for n in counterexample]
    )
    assert found == expected
    assert bool(note) == (expected in ("untested", "true only if"))


def test_a_rule_may_come_before_its_run(runs: Path):
    """As long as the claim is untested; when the run comes, the ledger has to say what it says."""
    changed = content()
    changed["claims"][1] |= {"expected": "untested", "needs": "a run"}
    assert "but its numbers say 'reproduced'" in judged(runs, changed)["rises"].faults[0]
    shutil.rmtree(runs / "reference/theory")
    found = judged(runs, changed)["rises"]
    assert (found.faults, found.verdict, found.note) == ((), "untested", "no run yet")
    assert "needs the run reference/theory/all" in judged(runs)["rises"].faults[0]
