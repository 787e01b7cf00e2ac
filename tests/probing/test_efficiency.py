import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.probing.efficiency import data_efficiency, stratified_subset
from sparsejepa.probing.linear import linear_probe
from sparsejepa.randomness import generator

OPTIONS = {"steps": 60, "weight_decays": (1e-4, 1e-2)}


def clusters(count: int, classes: int, noise: float):
    draw = generator(0, "clusters")
    y = torch.arange(count) % classes
    y = y[torch.randperm(count, generator=draw)]
    centres = torch.randn(classes, 8, generator=draw)
    return centres[y] + noise * torch.randn(count, 8, generator=draw), y


@given(
    st.integers(1, 6),
    st.integers(6, 200),
    st.floats(0.001, 1.0),
    st.floats(0.001, 1.0),
    st.integers(0, 2**32),
)
def test_subsets_are_stratified_and_nested(classes, count, one, two, seed) -> None:
    """Each class gives its share, rounded, and one row at least; a smaller set lies in a larger."""
    labels = torch.randint(classes, (count,), generator=generator(seed, "labels"))
    small, large = (stratified_subset(labels, f, seed) for f in sorted((one, two)))
    assert set(small.tolist()) <= set(large.tolist())
    for name, total in zip(*labels.unique(return_counts=True), strict=True):
        expected = max(1, round(max(one, two) * total.item()))
        assert (labels[large] == name).sum() == expected
    assert (large.diff() > 0).all()


def test_all_is_all_and_the_seed_decides() -> None:
    """Fraction 1 takes every row once; another seed takes other rows."""
    labels = torch.arange(200) % 4
    assert torch.equal(stratified_subset(labels, 1.0, 0), torch.arange(200))
    first, other = (stratified_subset(labels, 0.1, seed) for seed in (0, 1))
    assert torch.equal(first, stratified_subset(labels, 0.1, 0))
    assert not torch.equal(first, other)


@pytest.mark.parametrize("fraction", [0.0, -0.1, 1.1, float("nan")])
def test_fractions_outside_zero_to_one_are_refused(fraction: float) -> None:
    """One sentence that names the value."""
    with pytest.raises(ValueError, match="above 0 and at most 1, not"):
        stratified_subset(torch.arange(5), fraction, 0)


def test_the_curve_rises_and_ends_at_the_full_probe() -> None:
    """More labels help where there is noise, and the last point is the probe on all rows."""
    x, y = clusters(3000, 10, noise=0.9)
    data = (x[:2000], y[:2000], x[2000:], y[2000:])
    curve = data_efficiency(*data, seed=0, **OPTIONS)
    assert list(curve) == [0.01, 0.1, 1.0]
    top1 = [result.top1 for result in curve.values()]
    assert top1[0] < top1[1] - 0.02 and top1[1] < top1[2]
    full = linear_probe(*data, seed=0, **OPTIONS)
    assert torch.equal(curve[1.0].predictions, full.predictions)


def test_labels_that_are_left_out_are_not_read() -> None:
    """Wrong labels outside the fraction change nothing."""
    x, y = clusters(1500, 5, noise=0.5)
    rows = stratified_subset(y[:1000], 0.1, 0)
    spoilt = y.clone()
    spoilt[:1000] = y[:1000].roll(1)
    spoilt[rows] = y[rows]
    one, two = (
        linear_probe(x[rows], labels[rows], x[1000:], y[1000:], seed=0, **OPTIONS)
        for labels in (y, spoilt)
    )
    assert torch.equal(one.predictions, two.predictions)
    curve = data_efficiency(
        x[:1000], y[:1000], x[1000:], y[1000:], seed=0, fractions=(0.1,), **OPTIONS
    )
    assert torch.equal(curve[0.1].predictions, one.predictions)
