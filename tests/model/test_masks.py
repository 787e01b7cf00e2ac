"""Multi-block masks: what a draw holds, that it is unbiased, and which settings are refused."""

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2, chisquare, spearmanr
from torch import Tensor

from sparsejepa.chapters.pretraining import coverage
from sparsejepa.model.masks import MaskConfig, Masks, sample_masks
from sparsejepa.randomness import generator


def draws(config: MaskConfig, batches: int, count: int, seed: int) -> list[Masks]:
    """Several batches from one generator."""
    source = generator(seed, "mask tests")
    return [sample_masks(config, count, source) for _ in range(batches)]


def shape_of(block: Tensor, grid: int) -> tuple[int, int]:
    """Height and width of a block, from its patch indices."""
    return len((block // grid).unique()), len((block % grid).unique())


def pair(low: float, high: float) -> st.SearchStrategy[tuple[float, float]]:
    """Two numbers, the smaller first."""
    number = st.floats(low, high)
    return st.tuples(number, number).map(lambda numbers: tuple(sorted(numbers)))


def test_target_positions_are_uniform():
    """All 6·6 positions at which a 3x3 block fits an 8x8 grid are equally likely (chi-square)."""
    # Four 3x3 targets leave 13 patches of a 7x7 context or more: no image draws them anew.
    config = MaskConfig(8, 4, (9 / 64, 9 / 64), (1.0, 1.0), (49 / 64, 49 / 64), context_length=12)
    corners = torch.cat([m.targets[..., 0].flatten() for m in draws(config, 10, 200, seed=2)])
    counts = torch.bincount(corners, minlength=64).view(8, 8)
    assert counts[6:].sum() == counts[:, 6:].sum() == 0
    assert chisquare(counts[:6, :6].flatten()).pvalue > 1e-3


def test_context_is_a_uniform_subset_of_what_is_allowed():
    """Given the target, each of the n = 12 patches left is kept with probability 6/12.

    For subsets drawn without replacement, sum (O - E)² (n - 1) / (n N p (1 - p)) is chi-square
    distributed with n - 1 degrees of freedom.
    """
    config = MaskConfig(4, 1, (0.25, 0.25), (1.0, 1.0), (1.0, 1.0), context_length=6)
    masks = sample_masks(config, 6000, generator(4))
    chosen = masks.context[masks.targets[:, 0, 0] == 0]
    counts = torch.bincount(chosen.flatten(), minlength=16)
    assert counts[[0, 1, 4, 5]].sum() == 0
    allowed = counts[[2, 3, *range(6, 16)]].double()
    statistic = ((allowed - len(chosen) / 2) ** 2).sum() * 11 / (12 * len(chosen) / 4)
    assert 1e-3 < chi2.sf(statistic, 11) < 1 - 1e-3


@pytest.mark.parametrize("grid", [8, 14])
def test_blocks_are_flat_square_and_tall(grid: int):
    """h < w, h = w and h > w all occur; area and aspect ratio keep their law up to rounding."""
    config = MaskConfig(grid=grid)
    blocks = [m.targets[0, 0] for m in draws(config, 300, 1, seed=5)]
    shapes = {shape_of(block, grid) for block in blocks}
    assert {(h > w) - (h < w) for h, w in shapes} == {-1, 0, 1}
    for h, w in shapes:
        assert (h - 0.5) * (w - 0.5) <= config.target_scale[1] * grid**2
        assert (h + 0.5) * (w + 0.5) >= config.target_scale[0] * grid**2
        assert (h - 0.5) / (w + 0.5) <= config.target_aspect[1]
        assert (h + 0.5) / (w - 0.5) >= config.target_aspect[0]


def test_scale_and_aspect_are_two_numbers():
    """Area and aspect ratio of the blocks are uncorrelated (Spearman), so not one random number."""
    config = MaskConfig(grid=48, context_length=1)
    shapes = [shape_of(m.targets[0, 0], 48) for m in draws(config, 200, 1, seed=6)]
    areas, aspects = [h * w for h, w in shapes], [h / w for h, w in shapes]
    assert len(set(areas)) > 20
    assert spearmanr(areas, aspects).pvalue > 1e-3


@settings(max_examples=80)
@given(
    grid=st.integers(4, 14),
    targets=st.integers(1, 5),
    target_scale=pair(0.02, 0.6),
    target_aspect=pair(0.3, 3.0),
    context_scale=pair(0.3, 1.0),
    context_length=st.integers(1, 40),
    seed=st.integers(0, 10**6),
)
def test_sampling_finishes_or_the_settings_are_refused(
    grid, targets, target_scale, target_aspect, context_scale, context_length, seed
):
    """Any setting either draws valid masks, or is refused in one sentence; nothing loops.

    Valid: K distinct context patches; M blocks, full rectangles of one shape in raster order; all
    on the grid; and no patch of an image both context and target.
    """
    settings = (grid, targets, target_scale, target_aspect, context_scale, context_length)
    try:
        config = MaskConfig(*settings)
    except ValueError as error:
        assert re.fullmatch(r"[A-Z a-z].*\.", str(error))
        assert not re.search(r"\. [A-Z]|\n", str(error))
        return
    masks = sample_masks(config, 7, generator(seed))
    assert masks.context.shape == (7, context_length)
    assert masks.targets.shape[:2] == (7, targets)
    height, width = shape_of(masks.targets[0, 0], grid)
    inside = torch.arange(height)[:, None] * grid + torch.arange(width)
    for context, blocks in zip(masks.context.tolist(), masks.targets, strict=True):
        assert len(set(context)) == context_length
        assert set(context) <= set(range(grid * grid))
        assert set(context).isdisjoint(blocks.flatten().tolist())
        for block in blocks:
            assert torch.equal(block, block[0] + inside.flatten())
            assert block[0] % grid + width <= grid
            assert block[-1] < grid * grid


def test_targets_coincide_where_distinct_ones_leave_too_little():
    """With K the most that is possible every draw still succeeds, and only some rows give way."""
    config = MaskConfig(context_length=33)
    masks = torch.cat([m.targets[..., 0] for m in draws(config, 30, 16, seed=7)])
    coincide = (masks == masks[:, :1]).all(1)
    assert 0 < coincide.sum() < len(coincide)


def test_coverage_counts_patches_per_image():
    """The context map sums to K; a single 3x3 target gives every interior patch 9/36."""
    maps = coverage(MaskConfig(), 320, generator(11))
    assert maps["context"].sum().item() == pytest.approx(16, abs=1e-3)
    config = MaskConfig(8, 1, (9 / 64, 9 / 64), (1.0, 1.0), (1.0, 1.0), context_length=16)
    target = coverage(config, 8000, generator(12))["target"]
    assert target.sum().item() == pytest.approx(9, abs=1e-3)
    # Standard error of a share of 1/4 over 8,000 images: 0.005.
    assert target[2:6, 2:6].sub(0.25).abs().max() < 0.025
    assert target[0, 0].item() == pytest.approx(1 / 36, abs=0.01)


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"target_scale": (0.0, 0.2)}, "target_scale"),
        ({"target_scale": (0.5, 0.9), "target_aspect": (0.2, 1.0)}, "8x8 grid"),
        ({"target_aspect": (float("nan"), 1.5)}, "target_aspect"),
        ({"context_scale": (0.1, 1.0)}, "use smaller targets"),
        ({"context_length": 34}, "choose 1 to 33"),
        ({"targets": 0}, "targets must be at least 1"),
        ({"grid": 1}, "1x1 grid"),
    ],
)
def test_impossible_settings_are_refused(settings: dict, word: str):
    """The error names what does not fit; nothing is clipped in silence."""
    with pytest.raises(ValueError, match=re.escape(word)):
        MaskConfig(**settings)
