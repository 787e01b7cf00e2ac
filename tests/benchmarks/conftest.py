"""Fixtures of the benchmarks."""

import pytest
import torch


@pytest.fixture
def one_thread():
    """For ours too, where the plain way has one or gains nothing from a second."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)
