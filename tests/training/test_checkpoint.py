"""Checkpoints are whole or absent, and a damaged one is never mistaken for a good one."""

import errno
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


def fail(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_full_disk_leaves_the_earlier_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    """One sentence that names file, reason and way out; old content, no temporary files."""
    path = tmp_path / "x"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, call, fail)
    with pytest.raises(
        OSError, match="No space left on device.*earlier|before is intact"
    ) as caught:
        write_atomically(path, b"new")
    assert caught.value.errno == errno.ENOSPC and str(path) in str(caught.value)
    assert "\n" not in str(caught.value) and "Free some disk space" in str(caught.value)
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


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


def test_a_truncated_or_foreign_file_is_damaged(tmp_path: Path):
    """From nothing to all but the last byte; another archive. An absent one is only absent."""
    path = tmp_path / "x.pt"
    save_checkpoint(path, {"a": torch.tensor([1.0, 2.0])}, {"step": 1})
    content = path.read_bytes()
    for length in range(0, len(content), 7):
        path.write_bytes(content[:length])
        with pytest.raises(ValueError, match="is damaged"):
            load_checkpoint(path)
    torch.save({"a": 1}, path)
    with pytest.raises(ValueError, match="is damaged"):
        load_checkpoint(path)
    with pytest.raises(FileNotFoundError, match="absent.pt"):
        load_checkpoint(tmp_path / "absent.pt")
