"""Shared figures show the numbers that they are given, with or without colour."""

import numpy as np
import pandas as pd
import pytest
import torch
from matplotlib import pyplot as plt

from sparsejepa import plots
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.randomness import generator


@pytest.fixture(autouse=True)
def closed_figures():
    yield
    plt.close("all")


def dots(figure, panel: int) -> list[tuple[float, float]]:
    """Where the dots of a panel stand."""
    bars = [container.lines[0] for container in figure.axes[panel].containers]
    return [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in bars]


def test_every_estimate_stands_at_its_value_with_its_interval():
    """Rows in the order given, panels side by side, the interval from low to high."""
    frame = pd.DataFrame(
        [
            {"panel": p, "row": r, "method": r, "value": v, "low": v - 2, "high": v + 3}
            for p, r, v in [("kNN", "jepa", 40.0), ("kNN", "l1", 30.0), ("count", "l1", 20.0)]
        ]
    )
    figure = plots.interval_dots(frame, "%", lines={"chance": 5.0, "pixels": {"count": 12.0}})
    assert [dots(figure, 0), dots(figure, 1)] == [[(40, 0), (30, 1)], [(20, 1)]]
    interval = figure.axes[0].containers[0].lines[2][0].get_segments()[0]
    np.testing.assert_allclose(interval, [[38, 0], [43, 0]])
    assert figure.axes[0].containers[1].lines[0].get_color() == plots.method_color("l1")
    levels = [
        {line.get_label(): line.get_xdata()[0] for line in axis.lines if len(line.get_xdata()) == 2}
        for axis in figure.axes
    ]
    assert levels == [{"chance": 5}, {"chance": 5, "pixels": 12}]


def test_series_have_places_and_markers_of_their_own():
    """Side by side within half a row; a missing interval is not drawn; hollow dots are white."""
    frame = pd.DataFrame(
        {
            "row": ["a", "a", "b", "b"],
            "series": ["held out", "fitted"] * 2,
            "value": [0.5, 0.6, 0.7, 0.8],
            "low": [0.4, np.nan, 0.6, np.nan],
            "high": [0.6, np.nan, 0.8, np.nan],
        }
    )
    figure = plots.interval_dots(frame, "AUROC", hollow=["fitted"], limits=(0.0, 1.0))
    places = dict(dots(figure, 0))
    assert places[0.5] < places[0.6] < 0.5 < places[0.7] < places[0.8]
    marks = {
        (c.lines[0].get_marker(), c.lines[0].get_markerfacecolor())
        for c in figure.axes[0].containers
    }
    assert len({marker for marker, _ in marks}) == 2 and "white" in {face for _, face in marks}
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["held out", "fitted"]
    assert figure.axes[0].get_xlim() == (0, 1)
    figure.canvas.draw()


def test_runs_are_drawn_over_epochs():
    """One history, or several by name."""
    history = [{"epoch": 1, "knn": 40.0}, {"epoch": 2, "knn": 30.0}]
    for histories in (history, {"R2": history}):
        figure = plots.curves(histories, {"knn": "kNN, %"}, {"R2": "sparsejepa-r2"})
        (line,) = figure.axes[0].lines
        assert (list(line.get_xdata()), list(line.get_ydata())) == ([1, 2], [40, 30])


def test_a_small_norm_is_no_exact_zero_in_the_matrix():
    """Exact zeros have no text; a norm far below the largest has one that is no zero."""
    figure = plots.norm_matrix({"W": torch.tensor([[0.4, 0.0], [0.0, 4e-5]])})
    assert sorted(float(text.get_text()) for text in figure.axes[0].texts) == [4e-5, 0.4]


def test_colours_can_be_told_apart_without_red_and_green():
    """The methods compared most, in an approximate simulation of deuteranopia."""
    blind = np.array([[0.625, 0.375, 0], [0.7, 0.3, 0], [0, 0.3, 0.7]])
    names = ("jepa", "sparsejepa", "sparsejepa-r2", "cjepa", "untrained encoder")
    seen = [
        blind @ [int(plots.COLORS[name][i : i + 2], 16) / 255 for i in (1, 3, 5)] for name in names
    ]
    apart = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(apart) > 0.1


def test_masks_and_their_coverage_are_drawn():
    """A row an image, a column for the image, the context and each target block."""
    config = MaskConfig(grid=8)
    images = torch.zeros(2, 32, 32, 3, dtype=torch.uint8)
    figure = plots.mask_grid(images, sample_masks(config, 2, generator(0, "masks")), 8)
    assert len(figure.axes) == 2 * (2 + config.targets)
    plots.coverage_maps({"context": torch.ones(8, 8), "target": torch.ones(8, 8)})
    plots.accuracies([("jepa", "kNN", 0.4, (0.3, 0.5))], 0.01).canvas.draw()
    plots.image_grid(images, ["a", "b"])
