"""SIGKILL at any moment costs time, never the result: real processes, really killed."""

import os
import signal
from pathlib import Path

from sparsejepa.training.checkpoint import load_checkpoint
from tests.training.tiny import flat, same_bits, start, timeless, train_here, train_until

# A checkpoint every step: nearly every moment is near a save.
CHANGES = {"epochs": 12, "checkpoint_minutes": 0.0}


def finish(folder: Path) -> None:
    process, _ = start(train_here, folder, CHANGES)
    process.join()
    assert process.exitcode == 0


def test_killed_at_every_point_of_a_save(tmp_path: Path):
    """Before and after the content, and the name, reach the disk; of the plan and of checkpoints.

    Whatever is there can be loaded, and the end is equal to the bit.
    """
    path, whole = tmp_path / "run" / "checkpoint.pt", tmp_path / "whole" / "checkpoint.pt"
    points = [(name, after) for name in ("fsync", "replace") for after in (False, True)]
    for count in (1, 4):
        for name, after in points:
            process, _ = start(train_until, path.parent, CHANGES, name, count, after)
            process.join()
            assert process.exitcode == -signal.SIGKILL
            assert not path.exists() or load_checkpoint(path)[1]["progress"]["step"] < 60
    assert load_checkpoint(path)[1]["progress"]["step"] >= 12
    for checkpoint in (path, whole):
        finish(checkpoint.parent)
    (one, facts), (two, more) = load_checkpoint(path), load_checkpoint(whole)
    assert same_bits(flat(one), flat(two))
    assert facts["progress"]["step"] == more["progress"]["step"] == 60
    assert timeless(facts["progress"]["history"]) == timeless(more["progress"]["history"])
    # What a kill during a save leaves beside the files is hidden and harms nothing.
    visible = [name for name in os.listdir(path.parent) if not name.startswith(".")]
    assert sorted(visible) == ["checkpoint.pt", "plan.json"]
