"""A GPU's contract without a GPU: everything on a fake `cuda` device, shapes and types alone.

Backward passes need a real device: gradients are planted. A fake tensor has no values, so what
reads one back to decide something (which probe is best, which directions are null) is not covered.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves, tree_map_only

from sparsejepa.density.jepa_score import frozen, log_singular_values, pooled
from sparsejepa.model import regularisers
from sparsejepa.model.jepa import METHODS, Jepa, method_config
from sparsejepa.model.penalties import SparsityConfig
from sparsejepa.model.vit import use_fused_attention
from sparsejepa.probing import linear
from sparsejepa.probing.features import pooled_features
from sparsejepa.training.precision import Precision
from sparsejepa.training.pretrain import compute_loss, draw
from sparsejepa.training.state import TrainingState
from tests.training.tiny import MODEL, tiny_config, tiny_images

GPU = torch.device("cuda:0")
BF16 = Precision("bf16", torch.bfloat16, scale_loss=False, fused_attention=True)
FP16 = Precision("fp16", torch.float16, scale_loss=True, fused_attention=True)
READS = (torch.ops.aten._local_scalar_dense.default, torch.ops.aten.nonzero.default)


class Reads(TorchDispatchMode):
    """Operations for which a host waits for its GPU: values read back, and copies to the host."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple = (), kwargs: dict | None = None
    ) -> Any:
        given = {t.device.type for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        if func in READS and "cuda" in given:
            self.found.append(str(func))
        out = func(*args, **(kwargs or {}))
        made = {t.device.type for t in tree_leaves(out) if isinstance(t, Tensor)}
        if "cuda" in given and "cpu" in made:
            self.found.append(str(func))
        return out


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeTensorMode]:
    # Entered once before a GPU is feigned: it replaces the device guard of a missing driver.
    with FakeTensorMode() as mode:
        pass
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: True)
    with torch.random.fork_rng(devices=[]):
        yield mode
    AcceleratorState._reset_state(reset_partial_state=True)


def on_gpu(fake: FakeTensorMode, tree: Any) -> Any:
    """A fake copy on the GPU."""

    def moved(tensor: Tensor) -> Tensor:
        copied = host(fake, tensor)
        with fake:
            return copied.to(GPU)

    return tree_map_only(Tensor, moved, tree)


def host(fake: FakeTensorMode, tree: Any) -> Any:
    """A fake copy in the host's memory."""
    return tree_map_only(Tensor, lambda tensor: fake.from_tensor(tensor.detach()), tree)


def move(fake: FakeTensorMode, module: nn.Module) -> None:
    """All parameters and buffers of a module; a parameter that two parts share stays one."""
    moved: dict[int, nn.Parameter] = {}
    for part in module.modules():
        for name, buffer in part._buffers.items():
            part._buffers[name] = on_gpu(fake, buffer)
        for values in (part._parameters, part.__dict__):
            for name, value in list(values.items()):
                if isinstance(value, nn.Parameter):
                    new = nn.Parameter(on_gpu(fake, value), value.requires_grad)
                    values[name] = moved.setdefault(id(value), new)


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
@pytest.mark.parametrize("name", METHODS)
def test_a_step_never_waits_for_the_gpu(
    name: str, optimizer: str, fake: FakeTensorMode, monkeypatch: pytest.MonkeyPatch
):
    """Loss, optimisers on planted gradients and moving average: no value is read back."""
    # Fake tensors can't follow the draw of an exponential by an own generator.
    monkeypatch.setattr(regularisers, "rectified_laplace", lambda shape, *_: torch.zeros(shape))
    sparsity = SparsityConfig(groups=2, strength=1e-3, average_over=1)
    model = method_config(name, MODEL.encoder, MODEL.predictor, sparsity)
    config, jepa = tiny_config(model=model), Jepa(model, 0)
    images = on_gpu(fake, tiny_images())
    draws = host(fake, draw(config, images, 0, slice(0, 8)))
    move(fake, jepa)
    use_fused_attention(jepa, True)
    with fake, Reads() as reads:
        state = TrainingState(jepa, BF16, optimizer)
        output = compute_loss(config, images, draws, jepa, state)
        for parameter in jepa.parameters():
            if parameter.requires_grad:
                parameter.grad = torch.empty_like(parameter)
        state.apply_gradients(0.1, 0.1, 0.1)
        jepa.update_target(0.9)
        measures = torch.stack([output.prediction_loss, output.target_spread])
        state.progress.record(measures)
        assert output.loss.device == measures.device == GPU and output.loss.dtype == torch.float32
        assert reads.found == []
        # What is counted is counted: the log reads back.
        with pytest.raises(Exception, match="tolist|data-dependent|item|_local_scalar"):
            state.progress.settle()


def test_features_come_back_once_a_batch(fake: FakeTensorMode, monkeypatch: pytest.MonkeyPatch):
    """Of the watch and of evaluation: float32 on the CPU, one copy a batch, and no other."""
    encoder, images = Jepa(MODEL, 0).target_encoder, host(fake, tiny_images())
    move(fake, encoder)
    monkeypatch.setattr("sparsejepa.probing.features.BATCH", 16)
    for autocast in (None, torch.float16, torch.bfloat16):
        with fake, Reads() as reads:
            z = pooled_features(encoder, images, autocast=autocast)
        assert z.shape == (40, 16) and z.dtype == torch.float32 and z.device.type == "cpu"
        assert len(reads.found) == 3


def test_a_probe_trains_where_its_features_are(fake: FakeTensorMode):
    """200 steps of two probes; the number of classes alone is read back, which a fake can't."""
    x, y = on_gpu(fake, torch.randn(600, 8)), on_gpu(fake, torch.zeros(600, dtype=torch.int64))
    axes, penalty = on_gpu(fake, torch.randn(8, 7)), on_gpu(fake, torch.ones(8))
    rates = on_gpu(fake, torch.ones(2))
    with fake, Reads() as reads, pytest.MonkeyPatch.context() as patch:
        patch.setattr(Tensor, "max", lambda self, *a, **k: 4)
        patch.setattr(linear.torch, "randperm", lambda n, generator: torch.arange(n))
        coordinates = linear.Whitening(x[0], axes, penalty)(x)
        decays = penalty[:, None, None] * rates[:, None]
        used = torch.arange(600, device=GPU)
        weights = linear._train(coordinates, y, used, rates, decays, 200, 0)
        assert weights.shape == (8, 2, 5) and weights.device == GPU and reads.found == []
        assert linear._logits(weights, coordinates).shape == (600, 2, 5)


def test_a_score_is_computed_on_the_gpu(fake: FakeTensorMode):
    """The encoder's forward pass and, of a Jacobian, the float64 spectrum; its checks apart."""
    encoder = Jepa(MODEL, 0).target_encoder
    move(fake, encoder)
    images = on_gpu(fake, torch.rand(2, 3, 16, 16))
    jacobian = on_gpu(fake, torch.rand(2, 16, 768))
    with fake, Reads() as reads, frozen(pooled(encoder.eval()).eval()):
        embeddings = pooled(encoder)(images)
        spectrum = log_singular_values(jacobian)
    assert embeddings.shape == spectrum.shape == (2, 16) and spectrum.dtype == torch.float64
    assert embeddings.device == spectrum.device == GPU and reads.found == []


def test_an_overflow_is_no_step():
    """Planted infinities: weights and moments stay, the scale halves; the next step is taken."""
    jepa = Jepa(MODEL, 0)
    for optimizer in ("adamw", "muon"):
        state = TrainingState(jepa, BF16, optimizer)
        state.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
        before = {name: value.clone() for name, value in jepa.state_dict().items()}
        for bad in (torch.inf, 0.0):
            state.scaler.scale(torch.zeros(()))
            for parameter in jepa.parameters():
                if parameter.requires_grad:
                    parameter.grad = torch.full_like(parameter, 1024.0)
            jepa.predictor.output.weight.grad[0, 0] += bad
            jepa.predictor.blocks[0].attn.qkv.weight.grad[0, 0] += bad
            state.apply_gradients(0.01, 0.0, 0.0)
            moved = [not torch.equal(v, before[n]) for n, v in jepa.state_dict().items()]
            assert any(moved) == (bad == 0) and state.scaler.get_scale() == 512.0
