"""Which latents a predictor reads is told by the columns that matter."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from sparsejepa.chapters.multiinformation import read_groups
from sparsejepa.companion.pretrained import Pretrained
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.randomness import generator


def run_in(folder: Path) -> Pretrained:
    config = EncoderConfig(image_size=8, patch_size=4, width=4, depth=1, heads=1)
    encoder = Encoder(config, generator(0, "encoder"))
    return Pretrained("sparsejepa-seed0", "sparsejepa", 0, encoder, {}, folder, folder)


def test_small_columns_do_not_read(tmp_path: Path) -> None:
    """The first latent is read by two groups, the second by one, and the third by leftovers."""
    norms = torch.tensor([[2.0, 0.0, 1e-4, 0.0], [0.5, 0.03, 0.0, 0.0], [0.01, 1e-3, 1e-3, 0.0]])
    save_file({"norms": norms}, tmp_path / "groups.safetensors")
    groups, readers = read_groups(run_in(tmp_path))
    assert groups.tolist() == [0, 1, -1, -1]
    assert readers.tolist() == [2, 1, 0, 0]


def test_a_run_without_groups_is_named(tmp_path: Path) -> None:
    """It is from before groups were kept."""
    with pytest.raises(FileNotFoundError, match="sparsejepa-seed0 has no groups.safetensors"):
        read_groups(run_in(tmp_path))
