"""Several processes compute what one does: the same batches, each process its share."""

import os
import socket
import time
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsejepa.training import pretrain as module
from sparsejepa.training.checkpoint import load_checkpoint
from tests.training.tiny import SPARSE, cut, flat, start, timeless, train

CHANGES = {"model": SPARSE, "epochs": 2}


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]


def one_of_two(
    pipe: Connection, rank: int, port: int, folder: Path, changes: dict[str, Any]
) -> None:
    """A tiny run as `accelerate launch --cpu --num_processes 2` starts it; sends what it raises."""
    torch.set_num_threads(1)
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2"}
    os.environ |= {"RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"}
    real = module.choose_precision

    def late(*arguments: Any) -> Any:
        # The second process must not take the first one's new plan for an old one.
        time.sleep(rank)
        return real(*arguments)

    module.choose_precision = late
    try:
        train(folder, **changes)
        pipe.send(None)
    except ValueError as error:
        pipe.send(str(error))
    torch.distributed.destroy_process_group()


def train_by_two(folder: Path, changes: dict[str, Any]) -> list[str | None]:
    """What the two processes raised, None where nothing."""
    port = free_port()
    started = [start(one_of_two, rank, port, folder, changes) for rank in range(2)]
    processes, pipes = zip(*started, strict=True)
    try:
        # A process that dies closes its pipe; one that waits for ever is the failure here.
        said = []
        for pipe in pipes:
            assert wait([pipe], timeout=300), "a process hangs"
            said.append(pipe.recv())
        return said
    finally:
        for process in processes:
            process.kill()
            process.join()


def assert_same_run(folder: Path, other: Path) -> None:
    """Final checkpoints agree to 1e-5: network, moments and history.

    Without the biases of attention keys: the softmax takes them out again, so that their gradient
    is nothing but rounding errors, which AdamW scales up to whole steps.
    """
    (one, facts), (two, more) = (load_checkpoint(f / "checkpoint.pt") for f in (folder, other))
    one, two = flat(one), flat(two)
    assert one.keys() == two.keys()
    for name in one:
        a, b = one[name], two[name]
        if name.endswith("attn.qkv.bias"):
            a, b = (torch.cat([bias.chunk(3)[part] for part in (0, 2)]) for bias in (a, b))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-5)
    histories = [timeless(f["progress"]["history"]) for f in (facts, more)]
    for a, b in zip(*histories, strict=True):
        assert a.keys() == b.keys()
        # The spread over a process's own images is another estimate of the same thing.
        for name in a.keys() - {"target_spread"}:
            assert a[name] == pytest.approx(b[name], abs=1e-5), name
        assert a["target_spread"] == pytest.approx(b["target_spread"], rel=0.1)


def test_two_processes_equal_one(tmp_path: Path):
    """Gradients, loss history and weights of SparseJEPA, on halves of the same batches."""
    assert train_by_two(tmp_path / "two", CHANGES) == [None, None]
    train(tmp_path / "one", **CHANGES)
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_two_processes_go_on_where_one_stopped(tmp_path: Path):
    """The number of processes is no part of a run: it may change when a run is resumed."""
    train(tmp_path / "one", **CHANGES)
    cut(tmp_path / "two", 5, **CHANGES)
    assert train_by_two(tmp_path / "two", CHANGES) == [None, None]
    assert_same_run(tmp_path / "one", tmp_path / "two")


def test_a_batch_that_cannot_be_shared_is_an_error(tmp_path: Path):
    """Both processes say the same sentence, with both numbers, and none waits for the other."""
    sentence = "batch_size 5 is no multiple of the 2 processes."
    assert train_by_two(tmp_path, {"batch_size": 5}) == [sentence] * 2
