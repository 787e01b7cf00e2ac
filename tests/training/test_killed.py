"""SIGKILL at any moment costs time, never the result: real processes, really killed."""

import os
import random
import signal
import time
from pathlib import Path

import pytest

from sparsejepa.training.checkpoint import load_checkpoint
from tests.training.tiny import flat, same_bits, start, timeless, train_here, train_until

# A checkpoint every step: nearly every moment is near a save.
CHANGES = {"epochs": 12, "checkpoint_minutes": 0.0}


def finish(folder: Path) -> None:
    """Lets a run go on to its end."""
    process, _ = start(train_here, folder, CHANGES)
    process.join()
    assert process.exitcode == 0


def assert_same_run(folder: Path, whole: Path) -> None:
    """Final checkpoints equal to the bit: network, moments, history."""
    (one, facts), (two, more) = (load_checkpoint(f / "checkpoint.pt") for f in (folder, whole))
    assert same_bits(flat(one), flat(two))
    assert facts["progress"]["step"] == more["progress"]["step"] == 60
    assert timeless(facts["progress"]["history"]) == timeless(more["progress"]["history"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, float]:
    """The folder of a run that nobody killed, and the seconds it took on this machine."""
    folder, began = tmp_path_factory.mktemp("whole"), time.perf_counter()
    finish(folder)
    return folder, time.perf_counter() - began


def kill_at_random(folder: Path, kills: int, longest: float) -> int:
    """Kills runs that go on from each other within `longest` seconds; how many had not ended."""
    moments, killed = random.Random(0), 0
    for _ in range(kills):
        process, pipe = start(train_here, folder, CHANGES)
        pipe.recv()
        time.sleep(moments.uniform(0.0, longest))
        process.kill()
        process.join()
        killed += process.exitcode == -signal.SIGKILL
    return killed


def test_killed_at_random_moments(tmp_path: Path, undisturbed: tuple[Path, float]):
    """Five times, from before the first step on: the end is equal to the bit."""
    whole, seconds = undisturbed
    assert kill_at_random(tmp_path, 5, seconds / 4) >= 2
    finish(tmp_path)
    assert_same_run(tmp_path, whole)


def test_killed_at_every_point_of_a_save(tmp_path: Path, undisturbed: tuple[Path, float]):
    """Before and after the content, and the name, reach the disk; of the plan and of checkpoints.

    Whatever is there can be loaded, and the end is equal to the bit.
    """
    path = tmp_path / "checkpoint.pt"
    points = [(name, after) for name in ("fsync", "replace") for after in (False, True)]
    for count in (1, 4):
        for name, after in points:
            process, _ = start(train_until, tmp_path, CHANGES, name, count, after)
            process.join()
            assert process.exitcode == -signal.SIGKILL
            assert not path.exists() or load_checkpoint(path)[1]["progress"]["step"] < 60
    assert load_checkpoint(path)[1]["progress"]["step"] >= 12
    finish(tmp_path)
    assert_same_run(tmp_path, undisturbed[0])
    # What a kill during a save leaves beside the files is hidden and harms nothing.
    visible = [name for name in os.listdir(tmp_path) if not name.startswith(".")]
    assert sorted(visible) == ["checkpoint.pt", "plan.json"]
