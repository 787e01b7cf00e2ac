"""Differences of variants are judged by what their seeds or images say; figures show them."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from matplotlib import pyplot as plt
from scipy import stats
from sparsejepa.companion.comparisons import compare, parse_strengths, verdict

from sparsejepa.chapters.sparsity import Measurement
from sparsejepa.companion import plots_sparsity
from sparsejepa.companion.method_colors import method_color
from sparsejepa.intervals import Interval, paired_difference


def right(values: np.ndarray) -> Measurement:
    return Measurement({"kNN": torch.tensor(values)}, {})


def test_three_seeds_are_judged_by_their_spread():
    """Student's interval of the differences of runs that share a seed."""
    rng = np.random.default_rng(0)
    first = [right(rng.random(500) < share) for share in (0.50, 0.55, 0.60)]
    second = [right(rng.random(500) < share) for share in (0.45, 0.52, 0.53)]
    found = compare(first, second, "kNN", seed=0)
    gaps = [a.accuracy("kNN") - b.accuracy("kNN") for a, b in zip(first, second, strict=True)]
    low, high = stats.t.interval(0.95, 2, np.mean(gaps), stats.sem(gaps))
    assert (found.difference.low, found.difference.high) == pytest.approx((low, high))
    assert found.seeds == 3 and "over 3 seeds" in str(found)


def test_one_seed_is_judged_on_its_images():
    """The paired bootstrap of the first runs, with one seed or with two."""
    rng = np.random.default_rng(1)
    runs = [right(rng.random(400) < 0.5) for _ in range(4)]
    expected = paired_difference(runs[0].correct["kNN"], runs[2].correct["kNN"], 3, 0.99)
    for count in (1, 2):
        found = compare(runs[:count], runs[2 : 2 + count], "kNN", seed=3, level=0.99)
        assert found.difference == expected and found.seeds == 1
        assert "for one seed" in str(found)


def test_runs_that_cannot_be_paired_are_refused():
    """One sentence, with the numbers of runs."""
    run = right(np.array([True, False]))
    with pytest.raises(ValueError, match="there are 2, 1"):
        compare([run, run], [run], "kNN", seed=0)
    with pytest.raises(ValueError, match="there are 0, 0"):
        compare([], [], "kNN", seed=0)


def test_a_verdict_says_who_is_ahead_only_if_it_is_clear():
    """Ahead where zero is outside the interval; both names otherwise."""
    good, bad = np.arange(300) % 10 < 8, np.arange(300) % 10 < 3
    ahead = compare([right(good)], [right(bad)], "kNN", seed=0)
    assert verdict(ahead, "kNN", "A", "B").startswith("By kNN, A is ahead: +50.00 points [")
    behind = compare([right(bad)], [right(good)], "kNN", seed=0)
    assert "B is ahead: -50.00" in verdict(behind, "kNN", "A", "B")
    equal = compare([right(good)], [right(good)], "kNN", seed=0)
    assert "neither A nor B is ahead: +0.00" in verdict(equal, "kNN", "A", "B")


@given(st.lists(st.floats(0, 10), min_size=1, max_size=6).filter(any))
def test_strengths_are_sorted_and_have_their_control(values: list[float]):
    """Each once, in order, with 0, however they are written down."""
    assert parse_strengths(", ".join(map(repr, values))) == tuple(sorted({0.0, *values}))


@pytest.mark.parametrize("text", ["0.1; 0.2", "small", "-0.1", "nan", "inf"])
def test_strengths_that_are_none_are_refused(text: str):
    """The sentence repeats what was given."""
    with pytest.raises(ValueError, match=f"Strengths .*{text}"):
        parse_strengths(text)


@pytest.mark.parametrize("text", ["", "0", "0, 0.0"])
def test_a_path_leads_somewhere(text: str):
    """The control alone is no path."""
    with pytest.raises(ValueError, match="above 0"):
        parse_strengths(text)


def test_the_figures_show_the_numbers():
    """Every accuracy, path, seed and epoch stands at its value, in its method's colour."""
    cell = Interval(0.4, 0.35, 0.45, 0.95)
    figures = [
        plots_sparsity.method_panels({"kNN": {"jepa": cell}}, {"kNN": {"raw pixels": 0.1}}),
        plots_sparsity.path_panels(
            (0.0, 0.1),
            {"kNN, %": [(40.0, 35.0, 45.0), (30.0, 30.0, 30.0)]},
            "sparsejepa",
            {"kNN, %": (1.0, 2.0)},
            {"kNN, %": 5.0},
        ),
        plots_sparsity.seed_panels({"kNN, %": {"R1": [40.0, 30.0]}}, {"R1": "sparsejepa"}),
        plots_sparsity.run_curves(
            {"run": [{"epoch": 1, "knn": 40.0}, {"epoch": 2, "knn": 30.0}]},
            {"knn": "kNN, %"},
            {"run": "sparsejepa-r2"},
        ),
    ]
    expected = [
        ([40.0], [0], "jepa"),
        ([0, 1], [40, 30], "sparsejepa"),
        ([0, 0], [40, 30], "sparsejepa"),
        ([1, 2], [40, 30], "sparsejepa-r2"),
    ]
    for figure, (x, y, method) in zip(figures, expected, strict=True):
        lines = figure.axes[0].lines
        (found,) = [line for line in lines if line.get_marker() == "o"]
        assert found.get_color() == method_color(method)
        assert (list(found.get_xdata()), list(found.get_ydata())) == (x, y)
        plt.close(figure)


def test_a_path_has_the_lines_that_it_is_judged_by():
    """Both ends of JEPA's range and the untrained encoder, only in panels that have them."""
    figure = plots_sparsity.path_panels(
        (0.0, 0.1),
        {"kNN, %": [(40.0, 40.0, 40.0)] * 2, "zeros, %": [(0.0, 0.0, 0.0)] * 2},
        "sparsejepa",
        {"kNN, %": (1.0, 2.0)},
        {"kNN, %": 5.0},
    )
    levels = [{line.get_ydata()[0] for line in axis.lines} for axis in figure.axes]
    assert levels == [{1.0, 2.0, 5.0, 40.0}, {0.0}]
    plt.close(figure)


def test_a_small_norm_is_no_exact_zero_in_the_matrix():
    """Exact zeros have no text; a norm far below the largest has one that is no zero."""
    figure = plots_sparsity.norm_matrices({"W": torch.tensor([[0.4, 0.0], [0.0, 4e-5]])})
    assert sorted(float(text.get_text()) for text in figure.axes[0].texts) == [4e-5, 0.4]
    plt.close(figure)
