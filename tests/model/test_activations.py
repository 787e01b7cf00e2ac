"""Sparsity of activations, where it is known."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.model.activations import activation_sparsity, group_sparsity
from sparsejepa.randomness import generator


def test_activation_measures_closed_forms():
    """Shares of entries and of units; a constant unit is dead however large it is."""
    activations = torch.zeros(4, 5)
    activations[:, 0], activations[:, 1] = 7.0, torch.tensor([1.0, -1.0, 2.0, 0.0])
    activations[:, 2] = torch.tensor([1e-6, 0.0, 0.0, 0.0])
    measures = activation_sparsity(activations)
    assert measures == pytest.approx({"activation_density": 7 / 20, "dead_units": 4 / 5})
    assert activation_sparsity(torch.full((3, 4), 0.1))["dead_units"] == 1
    groups = torch.tensor([[0, 1], [2, 3]])
    equal, one = torch.ones(3, 4), torch.tensor([[0.0, 0.0, 3.0, 4.0]])
    assert group_sparsity(equal, groups) == pytest.approx({"hoyer": 0, "effective_groups": 2})
    assert group_sparsity(one, groups) == pytest.approx({"hoyer": 1, "effective_groups": 1})
    assert group_sparsity(0 * one, groups)["effective_groups"] == 1
    assert group_sparsity(one, groups[:1])["hoyer"] == 0


@given(st.integers(0, 10**6), st.floats(1e-3, 1e3))
def test_no_scale_feigns_sparse_activations(seed: int, scale: float):
    """Smaller activations are no sparser ones."""
    activations = torch.randn(20, 6, generator=generator(seed))
    activations[:, 2] *= 1e-4
    groups = torch.arange(6).view(3, 2)
    for measure in (activation_sparsity, lambda a: group_sparsity(a, groups)):
        assert measure(scale * activations) == pytest.approx(measure(activations), abs=1e-5)
