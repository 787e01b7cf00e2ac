"""A compiled run ends where a plain one does, but for rounding, and either goes on as the other."""

from multiprocessing.connection import Connection
from pathlib import Path

import pytest
import torch

from sparsejepa.model.jepa import METHODS, Jepa, method_config
from sparsejepa.model.masks import MaskConfig, sample_masks
from sparsejepa.model.penalties import SparsityConfig
from sparsejepa.randomness import generator
from sparsejepa.training.checkpoint import load_checkpoint
from tests.training.tiny import MODEL, SPARSE, cut, flat, start, train_here

# Noise by a key breaks the graph: these compile in parts.
KEYED = {"sparsejepa-r3", "sigreg", "jepa-sigreg", "rectified"}
CHANGES = {"model": SPARSE, "epochs": 2}


def losses(pipe: Connection) -> None:
    """Of every method, traced as one graph for target blocks of two sizes, and plain."""
    found, images = {}, torch.rand(8, 3, 16, 16, generator=generator(0))
    draws = [sample_masks(MaskConfig(4, context_length=4), 8, generator(s)) for s in range(9)]
    sizes = {masks.targets.shape[2]: masks for masks in draws}
    for name in METHODS.keys() - KEYED:
        torch._dynamo.reset()
        sparsity = SparsityConfig(groups=2, strength=1e-3)
        jepa = Jepa(method_config(name, MODEL.encoder, MODEL.predictor, sparsity), 0)
        whole = torch.compile(jepa, backend="eager", fullgraph=True)
        for masks in (sizes[2], sizes[4]):
            torch._dynamo.maybe_mark_dynamic(masks.targets, 2)
            outputs = [network(images, masks, 0).loss for network in (whole, jepa)]
            found[name, masks.targets.shape[2]] = [loss.item() for loss in outputs]
    pipe.send((found, torch._dynamo.utils.counters["stats"]["unique_graphs"]))


@pytest.mark.slow
def test_a_loss_is_one_graph():
    """Whole methods without noise of their own, whatever the size of target blocks."""
    process, pipe = start(losses)
    found, graphs = pipe.recv()
    process.join()
    assert len(found) == 2 * len(METHODS.keys() - KEYED) == 2 * graphs
    assert all(traced == plain for traced, plain in found.values())


def finish(folder: Path, wish: str) -> dict[str, torch.Tensor]:
    """The tensors at the end of a run in a process without checks of types, which do not trace."""
    process, _ = start(train_here, folder, CHANGES | {"compile": wish})
    process.join()
    assert process.exitcode == 0
    return flat(load_checkpoint(folder / "checkpoint.pt")[0]["jepa"])


@pytest.mark.slow
def test_a_compiled_run_is_a_plain_one_to_rounding(tmp_path: Path):
    """Weights after ten steps in float32 to 1e-5, also where a plain run goes on compiled."""
    plain = finish(tmp_path / "off", "off")
    cut(tmp_path / "both", 5, **CHANGES, compile="off", checkpoint_minutes=0.0)
    for folder in ("on", "both"):
        compiled = finish(tmp_path / folder, "on")
        assert any(not torch.equal(plain[name], value) for name, value in compiled.items())
        for name, value in compiled.items():
            if not name.endswith("attn.qkv.bias"):  # of keys there is no gradient but rounding
                torch.testing.assert_close(value, plain[name], rtol=0, atol=1e-5)
