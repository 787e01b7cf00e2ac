"""What each chapter's notebook leaves holds together: controls, intervals, pairs, closed forms."""

import math

import pytest

from sparsejepa.chapters.sparsity import PROBES
from sparsejepa.information.gaussian import excess
from sparsejepa.model.jepa import METHODS
from tests.notebooks.conftest import STUDY

METHOD_RUNS = {*STUDY["01_pretrain"]["runs"]}
# Which groupings each difference is of.
DIFFERENCES = {
    "budget": ("JEPA", "untrained encoder"),
    "sigreg=0.1": ("sigreg=0.1", "JEPA"),
    "penalty": ("contiguous", "no penalty"),
    "sparsejepa": ("contiguous", "JEPA"),
    "contiguous groups": ("contiguous", "random"),
    "head groups": ("heads", "random"),
}


def cells(tree: dict) -> list[dict]:
    """Every number with an interval."""
    if "interval" in tree:
        return [tree]
    return [cell for value in tree.values() if isinstance(value, dict) for cell in cells(value)]


def test_every_interval_is_one(finished):
    """Its ends are in order, and there are many."""
    for notebook in ("02_probes", "04_jepa_score", "06_sparsity"):
        found = [cell["interval"] for cell in cells(finished(notebook).results)]
        assert len(found) > 20 and all(low <= high for low, high in found), notebook


def test_probes_stand_beside_their_controls(finished):
    """Classes, count and distance of methods, of the untrained encoder and of raw pixels."""
    results = finished("02_probes").results
    controls = {"untrained encoder", "raw pixels"}
    assert results["accuracy"].keys() == {"jepa", "sparsejepa", "sparsejepa-off"} | controls
    assert results["majority_accuracy"].keys() == {"label", "count", "distance"}
    for found in results["accuracy"].values():
        read = {key.split(", ")[0] for key in found} - {"other sets"}
        assert read == {"label", "count", "distance"}
    assert results["structure"].keys() == METHOD_RUNS | controls
    assert results["labelled_images"][-1] == STUDY["02_probes"]["train_images"]
    jepa = results["accuracy"]["jepa"]
    assert jepa["label, last block, 100 % of the labels"] == jepa["label, last block, linear probe"]
    for column, cell in results["differences"]["sparsejepa"].items():
        read = [results["accuracy"][f][f"{column}, linear probe"] for f in ("sparsejepa", "jepa")]
        assert cell["value"] == pytest.approx(read[0]["value"] - read[1]["value"])
        assert cell["seeds"] == 1


def test_the_statements_on_multiinformation_hold(finished):
    """Every check that its estimator can pass holds; those of S8 that it cannot do not."""
    results = finished("03_multiinformation").results
    checks = results["statements"]
    assert {line["statement"] for line in checks} == {"S1", "S2", "S4", "S8"}
    blind = [line for line in checks if line["statement"] == "S8" and "ksg" not in line["what"]]
    assert len(blind) == 4 and not any(line["holds"] for line in blind)
    held = [line["holds"] for line in checks if line not in blind]
    # 95 % intervals: of these, one may miss.
    assert sum(held) >= len(held) - 1
    assert results["identity"]["largest_remainder"] < 1e-10
    assert results["shrinkage_changes"] == 0
    assert results["after_zeros"] < results["before_zeros"]


def test_whitening_and_noise_share_nothing(finished):
    """The sample itself is whitened, so what is left of its estimate is the correction of bias."""
    results = finished("03_multiinformation").results
    features, whitened, noise = (results["quality"][k] for k in ("features", "whitened", "noise"))
    key = "total correlation, gaussian"
    # Columns that the chapter's own example of features keeps.
    rows, columns = 400, next(iter(results["encoders"]["scenes"].values()))["d"]
    bias = columns * excess(rows, 1) - excess(rows, columns)
    assert whitened[key] == pytest.approx(-bias, abs=1e-3)
    assert features[key] > 10 * bias and abs(noise[key]) < 1.0
    jitter = results["jitter"]
    for small, large in (("1e-10", "1e-6"), ("1e-6", "1e-3")):
        apart = 0.5 * math.log(float(large) / float(small))
        assert jitter[small] - jitter[large] > 0.9 * apart
    assert jitter["left out"] == features[key]


def test_information_of_encoders_stands_beside_controls(finished):
    """Every run, before and after training, on the same images and latents."""
    encoders = finished("03_multiinformation").results["encoders"]["scenes"]
    assert len(encoders) == 2 * len(METHOD_RUNS)
    for cell in encoders.values():
        low, high = cell["total"]["interval"]
        assert low < cell["total"]["value"] < high
        assert 0 <= cell["accuracy"] <= 1 and 0 <= cell["partition"]["rank"] <= 1
    untrained = [cell for cell in encoders.values() if cell["method"] == "untrained encoder"]
    assert len(untrained) == len(METHOD_RUNS)


def test_scores_of_encoders_and_of_the_untrained_one(finished):
    """In every part that measures encoders; exact maps are exact; each toy in each width."""
    results = finished("04_jepa_score").results
    for part in ("outliers", "properties", "explained_by_properties", "null_directions"):
        assert set(results[part]) == METHOD_RUNS | {"untrained encoder"}
    assert set(results["null_directions"].values()) == {1}
    assert results["exact_error"] < 1e-9
    for panels in results["toys"].values():
        assert set(panels) == {"VICReg", "SIGReg", "none", "untrained"}
        assert all(set(found["JEPA-SCORE"]) == {"2", "3"} for found in panels.values())
    for by_rule in results["curation"]["gain_over_random"].values():
        shares = {rule: set(found) for rule, found in by_rule.items()}
        assert shares == dict.fromkeys(("JEPA-SCORE", "kNN similarity"), {"0.1", "0.2"})


def test_the_linear_theory_holds_in_the_matrices(finished):
    """Times within 2 %, ends within 0.1 %, first order in the step size, order as in the table."""
    results = finished("05_linear_dynamics").results
    assert results["largest_error_of_a_time"] < 0.02
    assert results["largest_error_of_a_fixed_point"] < 1e-3
    for slopes in results["first_order"].values():
        assert slopes == pytest.approx({"jepa": 1, "mae": 1}, abs=0.05)
    found = [(round(row["JEPA"], 2), round(row["MAE"], 2)) for row in results["order"]]
    expected = [(0.64, 0.63), (1.06, 0.78), (1.35, 0.81), (1.77, 0.83)]
    assert found == [*expected, (1.03, 0.83), (0.84, 0.83), (2.94, 0.83)]
    assert 1 < results["largest_lead"]["jepa"]["1"] < results["one_layer_bound"]


def test_the_nonlinear_part_has_all_its_measures(finished):
    """Three measures of two features for two objectives, a row a seed, step 0 the same for both."""
    nonlinear = finished("05_linear_dynamics").results["nonlinear"]
    asked = STUDY["05_linear_dynamics"]
    assert (nonlinear["checkpoints"][0], nonlinear["checkpoints"][-1]) == (0, asked["steps"])
    for measure in ("decoded", "leading", "share"):
        for feature in ("signal", "nuisance"):
            jepa, mae = (nonlinear["measures"][measure][feature][o] for o in ("jepa", "mae"))
            assert len(jepa) == asked["seeds"]
            assert [row[0] for row in jepa] == [row[0] for row in mae]


def test_every_method_is_in_the_sparsity_study(finished):
    """No more and no fewer, each by all probes, with controls that were not trained."""
    results = finished("06_sparsity").results
    assert list(results["methods"]) == list(METHODS)
    assert set(results["controls"]) == {"untrained encoder", "raw pixels", "majority class"}
    for cell in (results["methods"] | results["controls"]).values():
        assert set(cell["accuracy"]) == set(PROBES)
        assert all(0 <= found["value"] <= 1 for found in cell["accuracy"].values())
    assert all(cell["steps"] > 0 for cell in results["methods"].values())
    assert not any(cell["steps"] for cell in results["controls"].values())
    strengths = {name: [c["strength"] for c in path] for name, path in results["paths"].items()}
    assert strengths == {"R1": [0.0, 0.003], "R2": [0.0, 0.01]}


def test_groupings_are_compared_seed_by_seed(finished):
    """Each has every seed; a difference is that of the accuracies of the first, below three."""
    results = finished("06_sparsity").results
    groups, seeds = results["groupings"], dict.fromkeys(sum(DIFFERENCES.values(), ()), ["5", "6"])
    assert {name: list(found) for name, found in groups.items()} == seeds
    for name, sides in DIFFERENCES.items():
        for probe, found in results["differences"][name].items():
            ours, base = (groups[side]["5"]["accuracy"][probe]["value"] for side in sides)
            assert found["value"] == pytest.approx(ours - base, abs=1e-9)
