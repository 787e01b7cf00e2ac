"""Shared figures show the numbers that they are given, with or without colour."""

import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.colors import to_rgb

from sparsejepa import plots
from sparsejepa.intervals import Interval
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.randomness import generator


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def marks(figure, panel: int, bars: bool = True) -> list:
    """What a panel shows with intervals, or without."""
    return [one for one in figure.axes[panel].containers if one.has_xerr == bars]


def dots(figure, panel: int) -> list[tuple[float, float]]:
    """Where the dots of a panel stand."""
    return [tuple(one.lines[0].get_xydata()[0].tolist()) for one in marks(figure, panel)]


def test_every_estimate_stands_at_its_value_with_its_interval():
    """Rows in the order given, panels side by side, the interval from low to high."""
    values = {("kNN", "jepa"): 0.4, ("kNN", "l1"): 0.3, ("count", "l1"): 0.2}
    cells = {(*key, ""): Interval(v, v - 0.02, v + 0.03, 0.95) for key, v in values.items()}
    methods, lines = {"jepa": "jepa", "l1": "l1"}, {"chance": 0.05, "pixels": {"count": 0.12}}
    figure = plots.interval_dots(cells, "%", methods=methods, lines=lines, factor=100)
    assert [dots(figure, 0), dots(figure, 1)] == [[(40, 0), (30, 1)], [(20, 1)]]
    first, second = marks(figure, 0)
    np.testing.assert_allclose(first.lines[2][0].get_segments()[0], [[38, 0], [43, 0]])
    assert second.lines[0].get_color() == plots.method_color("l1")
    for panel, expected in enumerate(({"chance": 5}, {"chance": 5, "pixels": 12})):
        lines = {one.get_label(): one.lines[0].get_xdata() for one in marks(figure, panel, False)}
        assert {label: x[0] for label, x in lines.items() if len(x) == 2} == expected


def test_series_have_places_and_markers_of_their_own():
    """Side by side within half a row; a missing interval is not drawn; hollow dots are white."""
    cells, values = {}, iter((0.5, 0.6, 0.7, 0.8))
    for row in "ab":
        for name, half in (("held out", 0.1), ("fitted", float("nan"))):
            value = next(values)
            cells["", row, name] = Interval(value, value - half, value + half, 0.95)
    figure = plots.interval_dots(cells, "AUROC", hollow=["fitted"])
    places = dict(dots(figure, 0))
    assert sorted(places) == [0.5, 0.6, 0.7, 0.8]
    assert places[0.5] < places[0.6] < 0.5 < places[0.7] < places[0.8]
    looks = {(one.lines[0].get_marker(), one.lines[0].get_mfc()) for one in marks(figure, 0)}
    assert len({marker for marker, _ in looks}) == 2 and "white" in {face for _, face in looks}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["held out", "fitted"]
    figure.canvas.draw()


def test_seeds_that_agree_can_be_drawn():
    """The mean of equal numbers differs from them by rounding: no bar of negative length."""
    for across in (False, True):
        line = plots.Line([1.0], [1.0], "k", ends=([1 + 1e-15], [1 + 2e-15]), across=across)
        plots.line_panels({"": [line]}, "", "").canvas.draw()


def test_a_line_stands_at_its_values_with_its_intervals():
    """A panel a title, one legend below, a logarithmic axis."""
    lines = [plots.Line([1, 1000], [2.0, 3.0], "red", "jepa", "o-", ends=([1, 2], [3, 5]))]
    figure = plots.line_panels({"a": lines, "b": lines}, "n", "%", below=True, xscale="log")
    assert [axis.get_title() for axis in figure.axes] == ["a", "b"]
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["jepa"]
    (container,) = figure.axes[1].containers
    assert list(container.lines[0].get_ydata()) == [2, 3]
    segments = np.array(container.lines[2][0].get_segments(), dtype=float)
    np.testing.assert_allclose(segments, [[[1, 1], [1, 3]], [[1000, 2], [1000, 5]]])
    figure.canvas.draw()


def test_runs_are_drawn_over_epochs():
    """Each run in its colour."""
    history = [{"epoch": 1, "knn": 40.0}, {"epoch": 2, "knn": 30.0}]
    for histories, color in (({"": history}, plots.COLORS["jepa"]), ({"R2": history}, "red")):
        figure = plots.curves(histories, {"knn": "kNN, %"}, {"R2": "red"})
        (line,) = figure.axes[0].lines
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], [40, 30])
        assert line.get_color() == color


def test_a_small_norm_is_no_exact_zero_in_the_matrix():
    """Exact zeros have no text; a norm far below the largest has one that is no zero."""
    figure = plots.norm_matrix({"W": torch.tensor([[0.4, 0.0], [0.0, 4e-5]])})
    assert sorted(float(text.get_text()) for text in figure.axes[0].texts) == [4e-5, 0.4]


def test_colours_can_be_told_apart_without_red_and_green():
    """The methods compared most, in an approximate simulation of deuteranopia."""
    blind = np.array([[0.625, 0.375, 0], [0.7, 0.3, 0], [0, 0.3, 0.7]])
    names = ("jepa", "sparsejepa", "sparsejepa-r2", "cjepa", "untrained encoder")
    seen = [blind @ to_rgb(plots.COLORS[name]) for name in names]
    apart = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 0.1


def test_masks_are_drawn():
    """A row an image, a column for the image, the context and each target block."""
    config = MaskConfig(grid=8)
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    figure = plots.mask_grid(images, sample_masks(config, 2, generator(0, "masks")), 8)
    assert len(figure.axes) == 2 * (2 + config.targets)
