"""What training changes: which parameters decay, how the target follows, what is saved."""

import copy
import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsejepa.model.jepa import Jepa
from sparsejepa.randomness import generator
from sparsejepa.training.checkpoint import load_checkpoint
from sparsejepa.training.muon import Muon
from sparsejepa.training.precision import Precision
from sparsejepa.training.state import Progress, TrainingState
from tests.training.tiny import MODEL, SPARSE

FP32 = Precision("fp32", None, scale_loss=False, fused_attention=False)
BLOCK = {"attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2"}
MATRICES = {
    "context_encoder.vit.patch_embed.proj.weight",
    *(f"context_encoder.vit.blocks.0.{layer}.weight" for layer in BLOCK),
    *(f"predictor.blocks.0.{layer}.weight" for layer in BLOCK),
    "predictor.output.weight",
    "predictor.projection.weight",
}


def fresh(model=MODEL, optimizer="adamw") -> TrainingState:
    return TrainingState(Jepa(model, seed=0), FP32, optimizer)


def pretend_gradients(state: TrainingState, scale: float) -> None:
    """Random gradients of the given size on everything that is trained."""
    draws = generator(0, "gradients")
    for parameter in state.jepa.parameters():
        if parameter.requires_grad:
            parameter.grad = scale * torch.randn(parameter.shape, generator=draws)


def test_weight_decay_shrinks_matrices_and_spares_the_rest():
    """100 steps with zero gradients: matrices times (1 - rate · decay)^100, vectors untouched.

    So are mask and register tokens, though the latter have three axes in timm.
    """
    state = fresh(replace(MODEL, encoder=replace(MODEL.encoder, register_tokens=1)))
    pretend_gradients(state, 1.0)
    state.apply_gradients(0.01, 0.0, 0.0)  # moves biases away from zero
    state.adamw.state.clear()
    before = copy.deepcopy(state.jepa.state_dict())
    for _ in range(100):
        pretend_gradients(state, 0.0)
        state.apply_gradients(0.01, 0.4, 0.0)
    for name, parameter in state.jepa.named_parameters():
        factor = (1 - 0.01 * 0.4) ** 100 if name in MATRICES else 1.0
        torch.testing.assert_close(parameter, factor * before[name], rtol=1e-4, atol=1e-7)
        assert name in MATRICES or torch.equal(parameter, before[name])


def test_muon_takes_the_matrices_of_blocks():
    """The block matrices of both trained networks, with AdamW's rate and decay; AdamW the rest."""
    state = fresh(SPARSE, "muon")
    blocks = {name for name in MATRICES if ".blocks." in name}
    adamw = {p for group in state.adamw.param_groups for p in group["params"]}
    muon = set(state.muon.param_groups[0]["params"])
    assert muon == {state.jepa.get_parameter(name) for name in blocks} and not adamw & muon
    trained = {p for p in state.jepa.parameters() if p.requires_grad}
    assert trained - adamw - muon == {state.jepa.predictor.projection.weight}
    before = copy.deepcopy(state.jepa.state_dict())
    pretend_gradients(state, 0.0)
    state.apply_gradients(0.5, 0.25, 0.0)
    for name in blocks:
        torch.testing.assert_close(state.jepa.get_parameter(name), before[name] * (1 - 0.5 * 0.25))
    assert fresh().muon is None


def test_muon_in_batches_is_torch_s_own():
    """Three steps of square, wide and tall matrices: bf16's rounding apart, and one state."""
    shapes = [(48, 16), (16, 16), (16, 64), (48, 16), (64, 16)]
    draws = generator(0, "matrices")
    first = [torch.randn(shape, generator=draws) for shape in shapes]
    ours, theirs = ([torch.nn.Parameter(m.clone()) for m in first] for _ in range(2))
    own = Muon(ours)
    torch_s = torch.optim.Muon(theirs, adjust_lr_fn="match_rms_adamw")
    for optimiser in (own, torch_s):
        optimiser.param_groups[0] |= {"lr": 0.1, "weight_decay": 0.3}
    for _ in range(3):
        for one, other in zip(ours, theirs, strict=True):
            one.grad = torch.randn(one.shape, generator=draws)
            other.grad = one.grad.clone()
        own.step()
        torch_s.step()
    for one, other, start in zip(ours, theirs, first, strict=True):
        assert (one - start).abs().max() > 0.1
        torch.testing.assert_close(one, other, rtol=0, atol=2e-3)
        momenta = (o.state[p]["momentum_buffer"] for o, p in ((own, one), (torch_s, other)))
        torch.testing.assert_close(*momenta, rtol=0, atol=0)
    torch_s.load_state_dict(own.state_dict())


def test_a_step_of_r1_is_descent_and_shrinkage():
    """W <- prox(W - rate · mean gradient), once every 3 minibatches: by column from the formula."""
    state, rate = fresh(SPARSE), 0.1
    weight = state.jepa.predictor.projection.weight
    before = weight.detach().clone()
    for size in (0.01, 0.02, 0.06):
        torch.testing.assert_close(weight.detach(), before, rtol=0, atol=0)
        pretend_gradients(state, size)
        direction = weight.grad / size
        state.apply_gradients(0.0, 0.0, rate)
    moved = before - rate * 0.03 * direction
    threshold = rate * SPARSE.sparsity.strength
    for rows in (slice(0, 4), slice(4, 8)):
        for column in range(weight.shape[1]):
            part = moved[rows, column]
            expected = part * max(0.0, 1 - threshold / part.norm().item())
            torch.testing.assert_close(weight[rows, column].detach(), expected)


def test_losses_may_be_scaled(tmp_path: Path):
    """float16: the step of R1's W is that of the true gradient.

    From bf16 on one GPU to float16 on the next, whose scale starts anew, a run goes on, and back.
    """
    plain, scaled, path = fresh(SPARSE), fresh(SPARSE), tmp_path / "x.pt"
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    plain.save(path)
    scaled.load(path)
    assert scaled.scaler.get_scale() == 1024.0
    for size in (0.01, 0.02, 0.06):
        for state, factor in ((plain, 1.0), (scaled, 1024.0)):
            if state is scaled:
                state.scaler.scale(torch.zeros(()))  # as the loss is, which starts the scale
            pretend_gradients(state, size * factor)
            state.apply_gradients(0.0, 0.0, 0.1)
    weights = [s.jepa.predictor.projection.weight for s in (plain, scaled)]
    torch.testing.assert_close(*weights)
    scaled.save(path)
    plain.load(path)


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_weights_that_are_not_finite_are_not_saved(tmp_path: Path, bad: float):
    """A gradient can overflow while the loss is fine: the good file before it must survive."""
    state, path = fresh(), tmp_path / "x.pt"
    state.progress.step = 1
    state.save(path)
    state.progress.step = 2
    with torch.no_grad():
        state.jepa.predictor.output.bias[0] = bad
    with pytest.raises(FloatingPointError, match="predictor.output.bias is not finite after 2 "):
        state.save(path)
    assert load_checkpoint(path)[1]["progress"]["step"] == 1


def test_an_epoch_is_the_mean_of_its_steps():
    """Read back every 20 steps or when asked, in whatever portions: the means are the same."""
    progress = Progress()
    for step in range(45):
        progress.record(torch.tensor([step, 2.0 * step]))
        assert len(progress.pending) < 20
    progress.settle()
    progress.end_epoch({"rankme": 3.0})
    progress.record(torch.tensor([5.0, 7.0]))
    progress.settle()
    progress.end_epoch({})
    first, second = progress.history
    assert (first["loss"], first["target_spread"], first["rankme"]) == (22.0, 44.0, 3.0)
    assert (first["epoch"], first["step"]) == (1, 45)
    assert (second["epoch"], second["step"], second["loss"]) == (2, 46, 5.0)


@pytest.mark.parametrize(("bad", "step"), [(math.nan, 0), (math.inf, 19), (-math.inf, 33)])
def test_a_loss_that_is_not_finite_names_its_step(bad: float, step: int):
    """Steps count from 0, wherever the bad one stands among those not yet read back."""
    progress = Progress()
    with pytest.raises(FloatingPointError, match=f"loss is {bad} at step {step};"):
        for index in range(40):
            progress.record(torch.tensor([bad if index == step else 0.5, 1.0]))
        progress.settle()
