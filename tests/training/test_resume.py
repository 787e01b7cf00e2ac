"""A run that stops and goes on equals one that never stopped, or says why it can't."""

import errno
import math
import os
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from sparsejepa.model.jepa import ModelConfig
from sparsejepa.model.vit import PredictorConfig
from sparsejepa.training import pretrain as module
from sparsejepa.training.checkpoint import load_checkpoint
from sparsejepa.training.pretrain import PretrainResult
from tests.training.tiny import (
    MODEL,
    SPARSE,
    before_step,
    cut,
    flat,
    interrupt,
    same_bits,
    timeless,
    tiny_images,
    train,
    weights,
)

EVERY_STEP = {"checkpoint_minutes": 0.0}
WIDER = ModelConfig(MODEL.encoder, PredictorConfig(16, 1, 2))


def assert_same(one: PretrainResult, other: PretrainResult) -> None:
    assert same_bits(weights(one), weights(other))
    assert timeless(one.history) == timeless(other.history) and one.steps == other.steps


def saved_step(folder: Path) -> int:
    return load_checkpoint(folder / "checkpoint.pt")[1]["progress"]["step"]


@pytest.mark.parametrize(
    "changes",
    [{}, {"model": SPARSE}, {"precision": "bf16"}, {"optimizer": "muon"}],
    ids=["jepa", "sparsejepa", "bf16", "muon"],
)
def test_a_resumed_run_is_equal_to_the_bit(tmp_path: Path, changes: dict[str, Any]):
    """Stopped at the start, inside, at the end and after the end of an epoch: all the same."""
    changes = changes | EVERY_STEP
    whole = train(tmp_path / "whole", **changes)
    for step in (0, 3, 5, 9):
        cut(tmp_path / "cut", step, **changes)
    assert_same(train(tmp_path / "cut", **changes), whole)
    # Moments are in the files, not in the result.
    one, other = (load_checkpoint(tmp_path / f / "checkpoint.pt") for f in ("whole", "cut"))
    assert same_bits(flat(one[0]), flat(other[0]))


def test_a_kill_costs_what_was_asked_for(tmp_path: Path):
    """With rare checkpoints a run goes back to the last epoch, with frequent ones nowhere."""
    cut(tmp_path / "rare", 8, checkpoint_minutes=9.0)
    cut(tmp_path / "frequent", 8, checkpoint_minutes=0.0)
    assert saved_step(tmp_path / "rare") == 5 and saved_step(tmp_path / "frequent") == 8
    # The interval may change when the run goes on: it does not change what is computed.
    ends = [train(tmp_path / name, checkpoint_minutes=1.0) for name in ("rare", "frequent")]
    assert_same(*ends)


def test_a_finished_run_is_only_loaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Asked again, it takes no step and gives the same weights, history and seconds."""
    whole = train(tmp_path)
    before_step(monkeypatch, whole.steps, interrupt)
    again = train(tmp_path)
    assert_same(again, whole)
    assert again.history == whole.history and again.seconds == whole.seconds


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"crop_scale": (0.5, 1.0)}, r"\(crop_scale.0 0.3 -> 0.5\)"),
        ({"epochs": 3, "flip": False}, r"\(epochs 2 -> 3; flip True -> False\)"),
        ({"model": WIDER}, r"\(model.predictor.width 8 -> 16\)"),
        ({"images": tiny_images(seed=1)}, r"\(images '\w{64}' -> '\w{64}'\)"),
    ],
)
def test_another_run_in_the_folder_is_refused(
    tmp_path: Path, changes: dict[str, Any], sentence: str
):
    """Every field that differs is named with old and new value, other images too."""
    cut(tmp_path, 1)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    with pytest.raises(ValueError, match=f"another configuration {sentence}; choose another"):
        train(tmp_path, **changes)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("name", ["checkpoint.pt", "plan.json"])
def test_damage_never_starts_a_run_anew(tmp_path: Path, name: str):
    """The error names the file; the file stays as it is, to be looked at."""
    train(tmp_path, epochs=1)
    path = tmp_path / name
    content, middle = path.read_bytes(), path.stat().st_size // 2
    # In JSON a flipped digit is another number; a flipped high bit is no text.
    flipped = content[:middle] + bytes([content[middle] ^ 0x80]) + content[middle + 1 :]
    for broken in (content[:middle], flipped, b""):
        path.write_bytes(broken)
        with pytest.raises(ValueError, match=f"{name} is damaged.*delete"):
            train(tmp_path, epochs=1)
        assert path.read_bytes() == broken


def test_a_loss_that_is_no_number_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The error names the step; what was saved before is good, and the run can go on from it."""
    whole = train(tmp_path / "whole", **EVERY_STEP)
    real = module.crop_and_resize

    def broken(*arguments: Any) -> Tensor:
        return real(*arguments) * math.nan

    before_step(monkeypatch, 7, lambda: monkeypatch.setattr(module, "crop_and_resize", broken))
    with pytest.raises(FloatingPointError, match="loss is nan at step 7; the last checkpoint"):
        train(tmp_path / "cut", **EVERY_STEP)
    monkeypatch.undo()
    assert saved_step(tmp_path / "cut") == 7
    assert_same(train(tmp_path / "cut", **EVERY_STEP), whole)


@pytest.mark.parametrize("call", ["fsync", "replace"])
def test_a_disk_that_fills_up_costs_nothing_saved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
):
    """One clear error; the checkpoint before it stays, no other file does; with room it goes on."""
    whole = train(tmp_path / "whole", **EVERY_STEP)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    before_step(monkeypatch, 6, lambda: monkeypatch.setattr(os, call, full))
    with pytest.raises(OSError, match="Could not save .*No space left on device.*run again"):
        train(tmp_path / "cut", **EVERY_STEP)
    monkeypatch.undo()
    assert sorted(os.listdir(tmp_path / "cut")) == ["checkpoint.pt", "plan.json"]
    assert saved_step(tmp_path / "cut") == 6
    assert_same(train(tmp_path / "cut", **EVERY_STEP), whole)


def test_a_run_of_minutes_keeps_its_length(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """How many steps fit is measured once, which leaves no trace: ample minutes are all epochs."""
    ample = train(tmp_path / "minutes", minutes=1000.0)
    assert_same(ample, train(tmp_path / "epochs"))
    assert train(tmp_path / "short", minutes=1e-9).steps == 1
    # A slower machine that goes on does not plan anew.
    speeds = iter([7, 3])
    monkeypatch.setattr(module, "_steps_in", lambda *_: next(speeds))
    cut(tmp_path / "cut", 6, minutes=1.0)
    result = train(tmp_path / "cut", minutes=1.0)
    assert result.steps == 7 and [e["step"] for e in result.history] == [5, 7]
    assert next(speeds) == 3
