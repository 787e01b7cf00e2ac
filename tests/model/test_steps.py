"""What one step of a JEPA changes: gradients, weight decay, moving average, groups, precision."""

import copy

import pytest
import torch

from sparsejepa.model.jepa import Jepa, ModelConfig
from sparsejepa.model.penalties import SparsityConfig, proximal_step
from sparsejepa.randomness import generator
from sparsejepa.training.state import parameter_groups
from tests.model.tiny import ENCODER, PREDICTOR, R1, images, masks, model


def test_weight_decay_reaches_matrices_only():
    """Neither biases, norms, mask token nor positions decay; the target encoder is not stepped."""
    jepa = model(R1)
    decayed, others = parameter_groups(jepa, jepa.penalty.own_parameters())
    names = {id(parameter): name for name, parameter in jepa.named_parameters()}
    blocks = [f"context_encoder.vit.blocks.{i}" for i in range(2)]
    blocks += [f"predictor.blocks.{i}" for i in range(2)]
    layers = ("attn.qkv", "attn.proj", "mlp.fc1", "mlp.fc2")
    expected = {f"{block}.{layer}.weight" for block in blocks for layer in layers}
    expected |= {"context_encoder.vit.patch_embed.proj.weight", "predictor.output.weight"}
    assert {names[id(p)] for p in decayed["params"]} == expected
    kept = {names[id(p)] for p in others["params"]}
    assert "predictor.mask_token" in kept and "predictor.projection.bias" in kept
    assert all(n.endswith(".bias") or "norm" in n or n.endswith("mask_token") for n in kept)
    trained = {n for n, p in jepa.named_parameters() if p.requires_grad}
    assert expected | kept | {"predictor.projection.weight"} == trained
    assert not any(name.startswith("target_encoder") for name in trained)


@pytest.mark.parametrize("momentum", [0.0, 0.25, 0.996, 1.0])
def test_target_is_the_moving_average_of_every_tensor(momentum: float):
    """θ̄ <- mθ̄ + (1 - m)θ, in float32, patch embedding and norms too; m = 1 freezes, 0 copies."""
    jepa = model()
    with torch.no_grad():
        for index, parameter in enumerate(jepa.context_encoder.parameters()):
            if parameter.requires_grad:
                parameter.add_(0.1 * torch.rand(parameter.shape, generator=generator(index)))
    before = copy.deepcopy(jepa.target_encoder.state_dict())
    jepa.update_target(momentum)
    context = jepa.context_encoder.state_dict()
    for name, tensor in jepa.target_encoder.state_dict().items():
        expected = momentum * before[name].double() + (1 - momentum) * context[name].double()
        close = 0 if momentum in (0.0, 1.0) else 1e-7
        torch.testing.assert_close(tensor.double(), expected, rtol=close, atol=close)
        assert tensor.dtype == torch.float32


def test_only_the_online_branch_gets_gradients():
    """Every trained parameter has a gradient; the target encoder has none."""
    jepa = model()
    jepa(images(2), masks(2), 0).loss.backward()
    for name, parameter in jepa.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not any(p.requires_grad for p in jepa.target_encoder.parameters())


def test_the_group_penalty_is_not_counted_twice():
    """Reading R1 leaves loss and gradients as they are, to the bit: its proximal step is all."""
    plain, sparse, batch, kept = model(), model(R1), images(2), masks(2)
    outputs = [jepa(batch, kept, 0) for jepa in (plain, sparse)]
    assert torch.equal(outputs[0].loss, outputs[1].loss)
    for output in outputs:
        output.loss.backward()
    for a, b in zip(plain.parameters(), sparse.parameters(), strict=True):
        assert a.grad is b.grad is None or torch.equal(a.grad, b.grad)
    weight = sparse.predictor.projection.weight
    expected = weight.detach().clone()
    proximal_step(expected, sparse.penalty.groups, 0.05 * R1.strength)
    sparse.penalty.after_step(0.05)
    assert torch.equal(weight, expected)
    assert 0 < sparse.penalty.measures()["zero_columns"] < 1


def test_methods_start_from_equal_weights():
    """JEPA and SparseJEPA of one seed differ in the penalty only; another seed differs in all."""
    config = ModelConfig(ENCODER, PREDICTOR, SparsityConfig(groups=4))
    plain, sparse = Jepa(config, 3), Jepa(ModelConfig(ENCODER, PREDICTOR, R1), 3)
    weights = plain.state_dict()
    assert weights.keys() == sparse.state_dict().keys()
    assert all(torch.equal(t, weights[name]) for name, t in sparse.state_dict().items())
    other = Jepa(config, 4).state_dict()
    for name in ("predictor.projection.weight", "context_encoder.vit.patch_embed.proj.weight"):
        assert not torch.equal(other[name], weights[name])


@pytest.mark.parametrize("sparsity", [SparsityConfig(groups=4), R1])
def test_autocast_leaves_targets_loss_and_average_in_float32(sparsity: SparsityConfig):
    """bf16 products only: loss, targets, gradients and EMA are float32, the loss within 1e-2."""
    jepa, batch, kept = model(sparsity), images(4), masks(4)
    with torch.no_grad():
        exact = jepa(batch, kept, 0).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = jepa(batch, kept, 0)
        targets = jepa.targets(batch, kept)
    assert {t.dtype for t in (output.loss, output.target_spread, targets)} == {torch.float32}
    assert output.loss.item() != exact.item()
    assert output.loss.item() == pytest.approx(exact.item(), abs=1e-2)
    output.loss.backward()
    jepa.update_target(0.996)
    assert {p.grad.dtype for p in jepa.parameters() if p.requires_grad} == {torch.float32}
    assert {t.dtype for t in jepa.target_encoder.state_dict().values()} == {torch.float32}


@pytest.mark.parametrize("grouping", ["contiguous", "heads", "random"])
def test_groups_part_the_width_of_the_predictor(grouping: str):
    """Every row of W belongs to exactly one group, whichever way the channels are parted."""
    config = ModelConfig(ENCODER, PREDICTOR, SparsityConfig("R1", groups=4, grouping=grouping))
    groups = Jepa(config, 0).penalty.groups
    assert groups.shape == ((2, 12) if grouping == "heads" else (4, 6))
    assert groups.flatten().sort().values.tolist() == list(range(24))
