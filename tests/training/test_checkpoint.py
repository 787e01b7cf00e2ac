"""Checkpoints are whole or absent, and a damaged one is never mistaken for a good one."""

import errno
import json
import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sparsejepa.atomic_files import write_atomically
from sparsejepa.model.vit import Encoder, timm_arguments
from sparsejepa.randomness import generator
from sparsejepa.training.checkpoint import (
    load_checkpoint,
    load_encoder,
    round_to_half,
    save_checkpoint,
    save_encoder,
)
from tests.training.tiny import MODEL, same_bits

TENSORS = {
    "matrix": torch.tensor([[1.5, -2.0, float("nan")], [0.0, -0.0, float("inf")]]),
    "step": torch.tensor(7),
    "half": torch.tensor([1.0, 2.0], dtype=torch.bfloat16),
    "empty": torch.zeros(0, 3),
    "strided": torch.arange(6.0).view(2, 3).T,
}
FACTS = {"step": 7, "history": [{"loss": 0.5}], "scaler": {}}


def flipped(content: bytes, position: int, mask: int) -> bytes:
    """`content` with bits of one byte inverted."""
    return content[:position] + bytes([content[position] ^ mask]) + content[position + 1 :]


def small(path: Path) -> bytes:
    """A small checkpoint at `path`, and its bytes."""
    save_checkpoint(path, {"a": torch.tensor([1.0, 2.0]), "b": torch.tensor(3)}, {"step": 1})
    return path.read_bytes()


def fail(*_: object) -> None:
    """What a full disk says."""
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_was_saved_is_loaded(tmp_path: Path):
    """Bits, shapes and dtypes of tensors, and JSON facts, come back; folders are made."""
    path = tmp_path / "new" / "folder" / "x.safetensors"
    save_checkpoint(path, TENSORS, FACTS)
    tensors, facts = load_checkpoint(path)
    assert facts == FACTS and tensors.keys() == TENSORS.keys()
    for name, tensor in TENSORS.items():
        assert (tensors[name].dtype, tensors[name].shape) == (tensor.dtype, tensor.shape)
        torch.testing.assert_close(tensors[name], tensor, rtol=0, atol=0, equal_nan=True)


def test_saving_again_replaces(tmp_path: Path):
    """One file remains, the newer, which others may read."""
    path = tmp_path / "x.safetensors"
    save_checkpoint(path, {"a": torch.zeros(1)}, {"step": 1})
    save_checkpoint(path, {"a": torch.ones(1)}, {"step": 2})
    assert load_checkpoint(path)[1] == {"step": 2}
    assert os.listdir(tmp_path) == ["x.safetensors"] and path.stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("mask", [0x01, 0x02, 0x0F, 0x80])
def test_a_flipped_byte_is_found_wherever_it_is(tmp_path: Path, mask: int):
    """In header, names, dtypes, shapes, facts, checksum or data: every byte counts."""
    path = tmp_path / "x.safetensors"
    content = small(path)
    for position in range(len(content)):
        path.write_bytes(flipped(content, position, mask))
        with pytest.raises(ValueError, match="x.safetensors is damaged .*; delete it to start"):
            load_checkpoint(path)


def test_a_truncated_file_is_found_at_every_length(tmp_path: Path):
    """From nothing to all but the last byte; a longer file is no better."""
    path = tmp_path / "x.safetensors"
    content = small(path)
    for broken in [*(content[:length] for length in range(len(content))), content + b"\0"]:
        path.write_bytes(broken)
        with pytest.raises(ValueError, match="is damaged"):
            load_checkpoint(path)


def test_foreign_files_are_refused(tmp_path: Path):
    """Sound safetensors that no `save_checkpoint` wrote, with and without metadata."""
    path = tmp_path / "x.safetensors"
    for metadata in (None, {"sha256": "0"}, {"facts": "{}"}):
        save_file({"a": torch.zeros(1)}, path, metadata)
        with pytest.raises(ValueError, match="checksum does not match"):
            load_checkpoint(path)


@pytest.mark.parametrize("load", [load_checkpoint, load_encoder])
def test_a_missing_file_is_not_called_damaged(tmp_path: Path, load):
    """The error is FileNotFoundError and names the file."""
    with pytest.raises(FileNotFoundError, match="absent.safetensors"):
        load(tmp_path / "absent.safetensors")


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


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path):
    """A file where the folder should be (a reader may be root, whom no permission stops)."""
    (tmp_path / "folder").write_text("in the way")
    with pytest.raises(OSError, match="Could not save .*folder/x .*choose a writable folder"):
        write_atomically(tmp_path / "folder" / "x", b"new")
    assert os.listdir(tmp_path) == ["folder"] and (tmp_path / "folder").read_text() == "in the way"


def test_an_interrupt_leaves_the_earlier_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Ctrl-C while the new file waits to take its place: the old one stays, nothing else does."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    path = tmp_path / "x"
    write_atomically(path, b"old")
    monkeypatch.setattr(os, "replace", interrupt)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["x"]


def test_the_file_reaches_the_disk_before_its_name(tmp_path: Path, monkeypatch):
    """fsync comes before replace: after a power cut the name never points to missing content."""
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)
        monkeypatch.setattr(os, name, lambda *a, n=name, r=real: (calls.append(n), r(*a)))
    write_atomically(tmp_path / "x", b"new")
    assert calls == ["fsync", "replace"]


def encoder() -> Encoder:
    """A small encoder, all of whose weights have been moved from where they start."""
    made = Encoder(MODEL.encoder, generator(0, "encoder"))
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator(1)))
    round_to_half(made)
    return made


def test_an_encoder_comes_back(tmp_path: Path):
    """Configuration and every weight; in eval mode, with the same features to the bit."""
    made, images = encoder(), torch.rand(2, 3, 16, 16, generator=generator(2))
    save_encoder(tmp_path / "encoder.safetensors", made)
    loaded = load_encoder(tmp_path / "encoder.safetensors")
    assert loaded.config == made.config and not loaded.training
    assert same_bits(loaded.state_dict(), made.state_dict())
    assert all(value.dtype == torch.float32 for value in loaded.state_dict().values())
    assert torch.equal(loaded(images), made.eval()(images))


def test_rounding_leaves_what_half_precision_can_hold():
    """Every weight moves by at most half a unit in the 11th bit, and a second time not at all."""
    made = Encoder(MODEL.encoder, generator(0, "encoder"))
    before = {name: value.clone() for name, value in made.vit.state_dict().items()}
    round_to_half(made)
    once = {name: value.clone() for name, value in made.vit.state_dict().items()}
    for name, value in once.items():
        assert ((value - before[name]).abs() <= before[name].abs() * 2**-11 + 2**-25).all()
    assert any(not torch.equal(once[name], before[name]) for name in once)
    round_to_half(made)
    assert same_bits(made.vit.state_dict(), once)


def test_plain_timm_opens_an_encoder(tmp_path: Path):
    """No key is renamed: timm's own model, on normalised images, computes the same features."""
    from timm.models.vision_transformer import VisionTransformer

    made, images = encoder().eval(), torch.rand(2, 3, 16, 16, generator=generator(2))
    save_encoder(tmp_path / "encoder.safetensors", made)
    plain = VisionTransformer(**timm_arguments(made.config)).eval()
    plain.load_state_dict(load_file(tmp_path / "encoder.safetensors"), strict=True)
    normalised = (images - made.mean) / made.std
    torch.testing.assert_close(plain(normalised), made(images), rtol=0, atol=1e-6)


def test_an_unfit_encoder_file_is_refused(tmp_path: Path):
    """Truncated, or another program's: one says damaged, the other says whose it is not."""
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, encoder())
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ValueError, match="is damaged"):
        load_encoder(path)
    save_file({"a": torch.zeros(1)}, path)
    with pytest.raises(ValueError, match="not made by this library"):
        load_encoder(path)
    save_file({"a": torch.zeros(1)}, path, {"encoder": json.dumps({"colour": 1})})
    with pytest.raises(ValueError, match="has no field 'colour'"):
        load_encoder(path)
