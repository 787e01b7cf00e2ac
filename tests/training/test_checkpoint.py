"""Checkpoints are whole or absent, and a damaged one is never mistaken for a good one."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch

from sparsejepa.atomic_files import write_atomically
from sparsejepa.training.checkpoint import load_checkpoint, save_checkpoint
from tests.training.tiny import flat

TENSORS = {
    "weights": {
        "matrix": torch.tensor([[1.5, -2.0, float("nan")], [0.0, -0.0, float("inf")]]),
        "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
        "empty": torch.zeros(0, 3),
        "strided": torch.arange(6.0).view(2, 3).T,
    },
    "moments": {0: {"step": torch.tensor(7)}},
    "summed": [torch.ones(2)],
}
FACTS = {"step": 7, "history": [{"loss": 0.5}], "scaler": {}}


def test_the_file_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch):
    """fsync comes before replace: after a power cut the name never points to missing content."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, r=real: (calls.append(n), r(*a)))
    write_atomically(tmp_path / "x", b"new")
    assert calls == ["fsync", "replace"]


def test_what_was_saved_is_loaded(tmp_path: Path):
    """Bits, shapes and dtypes come back, and NumPy's numbers as Python's; folders are made."""
    path = tmp_path / "new" / "x.pt"
    save_checkpoint(path, TENSORS, FACTS | {"spread": np.float64(0.25)})
    tensors, facts = load_checkpoint(path)
    assert facts == FACTS | {"spread": 0.25} and flat(tensors).keys() == flat(TENSORS).keys()
    for name, one in flat(tensors).items():
        assert one.dtype == flat(TENSORS)[name].dtype
        torch.testing.assert_close(one, flat(TENSORS)[name], rtol=0, atol=0, equal_nan=True)


@pytest.mark.parametrize("mask", [0x01, 0x80])
def test_a_flipped_byte_is_found_or_harmless(tmp_path: Path, mask: int):
    """Wherever it is; padding between the parts of the archive is no content."""
    path, found = tmp_path / "x.pt", 0
    save_checkpoint(path, {"a": torch.tensor([1.0, 2.0])}, {"step": 1})
    content = path.read_bytes()
    for position in range(len(content)):
        flipped = bytes([content[position] ^ mask])
        path.write_bytes(content[:position] + flipped + content[position + 1 :])
        try:
            tensors, facts = load_checkpoint(path)
        except ValueError as error:
            found += 1
            assert "x.pt is damaged; delete it to start" in str(error)
        else:
            assert tensors["a"].tolist() == [1.0, 2.0] and facts == {"step": 1}
    assert found > len(content) / 5
