"""Checkpoints that survive a kill: whole or absent, and never taken for good when damaged."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import torch

from sparsejepa.atomic_files import write_atomically
from sparsejepa.model.vit import load_encoder, round_to_half, save_encoder  # noqa: F401


def save_checkpoint(path: Path, tensors: dict[str, Any], facts: dict[str, Any]) -> None:
    """Writes nested mappings and lists of tensors, and JSON facts, as one file or not at all."""
    buffer = io.BytesIO()
    # As JSON, for a watch may measure NumPy's numbers, which PyTorch would refuse to read back.
    torch.save((tensors, json.dumps(facts)), buffer)
    write_atomically(path, buffer.getvalue())


def load_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """Reads what `save_checkpoint` wrote, onto the CPU.

    A damaged file is a ValueError. It is never skipped silently: delete it to start anew.
    """
    content = io.BytesIO(path.read_bytes())
    try:
        # PyTorch does not check the sums that it writes.
        if damaged := zipfile.ZipFile(content).testzip():
            raise zipfile.BadZipFile(damaged)
        content.seek(0)
        tensors, facts = torch.load(content, map_location="cpu", weights_only=True)
        return tensors, json.loads(facts)
    except Exception as error:  # zip, pickle and PyTorch's reader each have their own
        raise ValueError(
            f"{path} is damaged; delete it to start this run from the beginning."
        ) from error
