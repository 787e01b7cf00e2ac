from pathlib import Path

import pytest
import torch
from torch import nn

from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.probing import cache
from sparsejepa.probing.cache import cached_features, features_key
from sparsejepa.probing.features import pooled_features
from sparsejepa.randomness import generator

TINY = EncoderConfig(image_size=8, patch_size=4, width=8, depth=2, heads=2)


def encoder(seed: int = 0) -> Encoder:
    return Encoder(TINY, generator(seed, "weights"))


def images(count: int = 9, seed: int = 1) -> torch.Tensor:
    return torch.randint(256, (count, 8, 8, 3), generator=generator(seed, "images")).byte()


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many images each call of `pooled_features` computed."""
    counts = []

    def counted(encoder, images, **options):
        counts.append(len(images))
        return pooled_features(encoder, images, **options)

    monkeypatch.setattr(cache, "pooled_features", counted)
    return counts


def test_the_second_call_reads(tmp_path: Path, passes: list[int]) -> None:
    """Features are those of `pooled_features`, to the bit, and computed once; four are checked."""
    first = cached_features(encoder(), images(), last=2, folder=tmp_path)
    again = cached_features(encoder(), images(), last=2, folder=tmp_path, batch_size=3)
    assert torch.equal(first, pooled_features(encoder(), images(), last=2))
    assert torch.equal(first, again)
    assert passes == [9, 4]
    assert len(list(tmp_path.iterdir())) == 1


def test_other_content_is_another_file(tmp_path: Path, passes: list[int]) -> None:
    """Weights, a buffer, pixels, their number and settings: each has its own features."""
    normalised = encoder()
    normalised.mean.add_(0.1)
    changed = images()
    changed[3, 0, 0, 0] ^= 1
    for model, shown, options in (
        (encoder(), images(), {}),
        (encoder(1), images(), {}),
        (normalised, images(), {}),
        (encoder(), changed, {}),
        (encoder(), images()[:8], {}),
        (encoder(), images(), {"last": 2}),
        (encoder(), images(), {"autocast": torch.bfloat16}),
    ):
        found = cached_features(model, shown, folder=tmp_path, **options)
        assert torch.equal(found, pooled_features(model, shown, **options))
    assert passes == [9, 9, 9, 9, 8, 9, 9]


def test_the_key_is_of_the_content_alone() -> None:
    """Equal weights in another object have the same key; training mode is no part of it."""
    settings = (images(), 1, None)
    assert features_key(encoder(), *settings) == features_key(encoder().eval(), *settings)
    assert features_key(encoder(), *settings) != features_key(encoder(1), *settings)


@pytest.mark.parametrize("damage", ["cut", "bit", "empty"])
def test_damaged_files_are_computed_again(tmp_path: Path, passes: list[int], damage: str) -> None:
    """A file that is cut off, or of which a bit has flipped, is neither used nor an error."""
    expected = cached_features(encoder(), images(), folder=tmp_path)
    (file,) = tmp_path.iterdir()
    content = bytearray(file.read_bytes())
    content[-3] ^= 4
    file.write_bytes({"cut": content[:-20], "bit": content, "empty": b""}[damage])
    assert torch.equal(cached_features(encoder(), images(), folder=tmp_path), expected)
    assert torch.equal(cached_features(encoder(), images(), folder=tmp_path), expected)
    assert passes == [9, 9, 4]


class Scaled(nn.Module):
    """An encoder with a factor that its weights do not show, like a number of heads."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.weight, self.factor = nn.Parameter(torch.ones(())), factor

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.factor * self.weight * x.flatten(2).transpose(1, 2)


def test_what_no_hash_sees_is_caught(tmp_path: Path, passes: list[int]) -> None:
    """The same weights and the same key, but other features: all are computed again."""
    cached_features(Scaled(1.0), images(), folder=tmp_path)
    found = cached_features(Scaled(1.5), images(), folder=tmp_path)
    assert torch.equal(found, pooled_features(Scaled(1.5), images()))
    assert passes == [9, 4, 9]
    assert len(list(tmp_path.iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    """Features come all the same, and nothing half-written stays."""
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    found = cached_features(encoder(), images(), folder=blocked / "features")
    assert torch.equal(found, pooled_features(encoder(), images()))


def test_the_default_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the decoded images, under SPARSEJEPA_CACHE."""
    monkeypatch.setenv("SPARSEJEPA_CACHE", str(tmp_path))
    cached_features(encoder(), images())
    assert len(list((tmp_path / "features").glob("*.safetensors"))) == 1
