"""A stranger's script of ten lines adds a penalty, is killed, and goes on where it was."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from sparsejepa.training.checkpoint import load_checkpoint
from tests.repository import ROOT
from tests.training.test_distributed import free_port
from tests.training.tiny import flat, same_bits, tiny_images

SCRIPT = """\
import torch
from sparsejepa import PENALTIES, Penalty, pretrain
class MeanAbsolute(Penalty):
    def forward(self, latents, step):
        return latents, self.config.strength * latents.float().abs().mean()
    measures = lambda self: {"strength": self.config.strength}
PENALTIES["mean-absolute"] = MeanAbsolute
sizes = {"width": 16, "depth": 1, "heads": 2, "batch_size": 8, "precision": "fp32"}
pretrain(method="mean-absolute", images=torch.load("i.pt"), folder="run", epochs=8,
         checkpoint_minutes=0.0, **sizes)
"""


def launch(folder: Path, processes: int) -> list[subprocess.Popen]:
    """The script in processes with the environment that `accelerate launch --cpu` gives them."""
    (folder / "train.py").write_text(SCRIPT)
    torch.save(tiny_images(), folder / "i.pt")
    path = os.pathsep.join([str(ROOT / "src"), os.environ.get("PYTHONPATH", "")])
    shared = os.environ | {"PYTHONPATH": path, "ACCELERATE_USE_CPU": "true"}
    if processes > 1:
        address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
        shared |= address | {"WORLD_SIZE": str(processes), "GLOO_SOCKET_IFNAME": "lo"}
    own = [{"RANK": str(r), "LOCAL_RANK": str(r)} for r in range(processes)]
    return [
        subprocess.Popen(
            [sys.executable, "train.py"],
            cwd=folder,
            env=shared | (rank if processes > 1 else {}),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for rank in own
    ]


def kill_after(step: int, started: list[subprocess.Popen], checkpoint: Path) -> None:
    """Kills every process of the run once a checkpoint says that it has taken `step` steps."""
    deadline = time.monotonic() + 300
    while not checkpoint.exists() or load_checkpoint(checkpoint)[1]["progress"]["step"] < step:
        assert started[0].poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    for process in started:
        process.kill()
        process.wait()


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_script_ends_as_an_undisturbed_one(tmp_path: Path, processes: int):
    """In one process to the bit; two average their gradients, and end as one does to 1e-4."""
    ends = []
    for name in ("killed", "whole"):
        (tmp_path / name).mkdir()
        checkpoint = tmp_path / name / "run" / "checkpoint.pt"
        if name == "killed":
            kill_after(7, launch(tmp_path / name, processes), checkpoint)
            assert load_checkpoint(checkpoint)[1]["progress"]["step"] < 40
        again = launch(tmp_path / name, processes if name == "killed" else 1)
        assert [process.wait() for process in again] == [0] * len(again)
        ends.append(load_checkpoint(checkpoint))
    (killed, facts), (whole, _) = ends
    assert facts["progress"]["step"] == 40 and facts["progress"]["history"][-1]["strength"] == 1e-3
    if processes == 1:
        assert same_bits(flat(killed), flat(whole))
    losses = [f["progress"]["history"][-1]["loss"] for _, f in ends]
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
