"""The JEPA objective: what the targets see, what the predictions don't, and what is stepped."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F
from scipy.integrate import quad
from torch import Tensor

from sparsejepa.model.masks import MaskConfig, Masks, sample_masks
from sparsejepa.model.objective import Jepa, ModelConfig
from sparsejepa.model.sparsity import SparsityConfig, proximal_step
from sparsejepa.model.vit import EncoderConfig, PredictorConfig, gather_tokens
from sparsejepa.randomness import generator
from sparsejepa.training.state import parameter_groups

ENCODER = EncoderConfig(width=32, depth=2, heads=2)
PREDICTOR = PredictorConfig(width=24, depth=2, heads=2)
R1 = SparsityConfig("R1", groups=4, strength=3.0)


def model(sparsity: SparsityConfig | None = None) -> Jepa:
    """A tiny network."""
    return Jepa(ModelConfig(ENCODER, PREDICTOR, sparsity or SparsityConfig(groups=4)), seed=0)


def images(count: int, seed: int = 0) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=generator(seed, "images"))


def masks(count: int) -> Masks:
    return sample_masks(MaskConfig(), count, generator(1, "masks"))


def predictions(jepa: Jepa, batch: Tensor, kept: Masks) -> Tensor:
    return jepa.predictor(jepa.context_encoder(batch, kept.context), kept.context, kept.targets)


def repaint(batch: Tensor, patches: list[list[int]]) -> Tensor:
    """Other pixels in the given 4x4 patches of each image."""
    painted, other = batch.clone(), images(len(batch), seed=99)
    for image, indices in enumerate(patches):
        for index in indices:
            rows = slice(index // 8 * 4, index // 8 * 4 + 4)
            columns = slice(index % 8 * 4, index % 8 * 4 + 4)
            painted[image, :, rows, columns] = other[image, :, rows, columns]
    return painted


def test_targets_are_normalised_per_token():
    """Each target token has mean 0 and variance 1; normalising and gathering commute; no affine."""
    jepa, batch, kept = model(), images(3), masks(3)
    with torch.no_grad():
        jepa.target_encoder.vit.norm.weight.mul_(torch.linspace(0.5, 2, 32))
        features = jepa.target_encoder(batch)
    targets = jepa.targets(batch, kept.targets)
    torch.testing.assert_close(targets.mean(-1), torch.zeros(targets.shape[:-1]), rtol=0, atol=1e-6)
    torch.testing.assert_close(
        targets.var(-1, correction=0), torch.ones(targets.shape[:-1]), rtol=0, atol=1e-4
    )
    gathered = gather_tokens(features, kept.targets.flatten(1)).view(targets.shape)
    torch.testing.assert_close(targets, F.layer_norm(gathered, (32,)), rtol=0, atol=1e-6)


def test_targets_see_the_whole_image():
    """Other pixels in a context patch change the targets: they are cut from the output."""
    jepa, batch, kept = model(), images(2), masks(2)
    painted = repaint(batch, [row[:1] for row in kept.context.tolist()])
    changed = (jepa.targets(painted, kept.targets) - jepa.targets(batch, kept.targets)).abs()
    assert (changed.amax((-1, -2, -3)) > 1e-3).all()


@torch.no_grad()
def test_predictions_see_the_context_only():
    """Other pixels in every patch outside the context change the predictions by exactly 0."""
    jepa, batch, kept = model(), images(2), masks(2)
    outside = [sorted(set(range(64)) - set(row)) for row in kept.context.tolist()]
    before = predictions(jepa, batch, kept)
    assert torch.equal(predictions(jepa, repaint(batch, outside), kept), before)
    inside = repaint(batch, [row[:1] for row in kept.context.tolist()])
    assert not torch.allclose(predictions(jepa, inside, kept), before, atol=1e-3)


@torch.no_grad()
def test_order_of_the_context_means_nothing_but_its_positions_do():
    """Context in another order: equal predictions. Tokens at other positions: others."""
    jepa, batch, kept = model(), images(2), masks(2)
    order = torch.randperm(16, generator=generator(2))
    shuffled = Masks(kept.context[:, order], kept.targets)
    before = predictions(jepa, batch, kept)
    torch.testing.assert_close(predictions(jepa, batch, shuffled), before, rtol=0, atol=3e-6)
    latents = jepa.context_encoder(batch, kept.context)
    moved = jepa.predictor(latents, kept.context[:, order], kept.targets)
    assert not torch.allclose(moved, before, atol=1e-3)


@torch.no_grad()
def test_target_blocks_do_not_see_each_other():
    """Block 1 asked for elsewhere leaves every other block's predictions equal to the bit."""
    jepa, batch, kept = model(), images(2), masks(2)
    elsewhere = kept.targets.clone()
    elsewhere[:, 1] = (elsewhere[:, 1] + 17) % 64
    before, after = (
        predictions(jepa, batch, Masks(kept.context, t)) for t in (kept.targets, elsewhere)
    )
    assert torch.equal(after[:, [0, 2, 3]], before[:, [0, 2, 3]])
    assert not torch.allclose(after[:, 1], before[:, 1], atol=1e-3)


@torch.no_grad()
def test_images_and_blocks_keep_their_order():
    """Row (b, m) is what image b and block m give alone: no image meets another's context."""
    jepa, batch, kept = model(), images(3), masks(3)
    together = predictions(jepa, batch, kept)
    for b in range(3):
        for m in range(4):
            one = Masks(kept.context[b : b + 1], kept.targets[b : b + 1, m : m + 1])
            alone = predictions(jepa, batch[b : b + 1], one)[0, 0]
            torch.testing.assert_close(together[b, m], alone, rtol=0, atol=1e-5)
    assert not torch.allclose(together[0], together[1], atol=1e-3)


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


def test_loss_is_smooth_l1_over_all_targets():
    """Mean of ½δ² where |δ| < 1 and |δ| - ½ elsewhere, over images, blocks, tokens and channels."""
    jepa, batch, kept = model(), images(2), masks(2)
    with torch.no_grad():
        output = jepa(batch, kept)
        gap = (predictions(jepa, batch, kept) - jepa.targets(batch, kept.targets)).abs()
    assert (gap > 1).any() and (gap < 1).any()
    expected = torch.where(gap < 1, gap**2 / 2, gap - 0.5).mean()
    torch.testing.assert_close(output.loss, expected, rtol=1e-6, atol=0)
    torch.testing.assert_close(output.prediction_loss, expected, rtol=1e-6, atol=0)


@torch.no_grad()
def test_predicting_nothing_costs_what_it_must():
    """A prediction of 0 costs E smoothL1(N(0, 1)) = 0.4247 where target channels are Gaussian.

    They are at random weights without positions. Positions make them flatter, which costs more,
    yet at most ½, for smoothL1(x) <= x²/2 and targets have variance 1.
    """

    def integrand(x: float) -> float:
        smooth = x * x / 2 if abs(x) < 1 else abs(x) - 0.5
        return smooth * math.exp(-x * x / 2) / math.sqrt(2 * math.pi)

    # By symmetry, and split at the kink.
    expected = 2 * (quad(integrand, 0, 1)[0] + quad(integrand, 1, math.inf)[0])
    assert expected == pytest.approx(0.4247, abs=5e-5)
    jepa = Jepa(ModelConfig(EncoderConfig(depth=2), PredictorConfig(depth=1)), seed=0)
    batch, kept = images(4), masks(4)
    jepa.predictor.output.weight.zero_()
    assert expected < jepa(batch, kept).loss.item() < 0.5
    jepa.target_encoder.vit.pos_embed.zero_()
    assert jepa(batch, kept).loss.item() == pytest.approx(expected, abs=0.01)


@torch.no_grad()
def test_constant_targets_show_in_the_spread_and_not_in_the_loss():
    """With constant target features the loss can vanish; target_spread = 0 tells the collapse."""
    jepa, batch, kept = model(), images(4), masks(4)
    healthy = jepa(batch, kept).target_spread
    norm = jepa.target_encoder.vit.norm
    norm.weight.zero_()
    norm.bias.copy_(torch.linspace(-1, 1, 32))
    jepa.predictor.output.weight.zero_()
    jepa.predictor.output.bias.copy_(F.layer_norm(norm.bias, (32,)))
    output = jepa(batch, kept)
    assert output.loss < 1e-10
    assert output.target_spread < 1e-6 < 0.01 < healthy


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
    jepa(images(2), masks(2)).loss.backward()
    for name, parameter in jepa.named_parameters():
        assert (parameter.grad is not None) == parameter.requires_grad, name
    assert not any(p.requires_grad for p in jepa.target_encoder.parameters())


def test_the_group_penalty_is_not_counted_twice():
    """Reading R1 leaves loss and gradients as they are, to the bit: its proximal step is all."""
    plain, sparse, batch, kept = model(), model(R1), images(2), masks(2)
    outputs = [jepa(batch, kept) for jepa in (plain, sparse)]
    assert torch.equal(outputs[0].loss, outputs[1].loss)
    for output in outputs:
        output.loss.backward()
    for a, b in zip(plain.parameters(), sparse.parameters(), strict=True):
        assert a.grad is b.grad is None or torch.equal(a.grad, b.grad)
    weight = sparse.predictor.projection.weight
    expected = weight.detach().clone()
    proximal_step(expected, sparse.groups, 0.05 * R1.strength)
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
        exact = jepa(batch, kept).loss
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = jepa(batch, kept)
        targets = jepa.targets(batch, kept.targets)
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
