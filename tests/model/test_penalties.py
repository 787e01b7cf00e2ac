"""Penalties: each reading by its formula, the proximal step by what defines it, and measures."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from sparsejepa.model.jepa import Jepa, ModelConfig, method_config
from sparsejepa.model.penalties import (
    PENALTIES,
    Penalty,
    SparsityConfig,
    activation_sparsity,
    column_sparsity,
    group_column_norms,
    group_norms,
    group_sparsity,
    projection_groups,
    proximal_step,
    strongest_group,
)
from sparsejepa.model.vit import EncoderConfig, PredictorConfig
from sparsejepa.randomness import generator
from tests.model.tiny import ENCODER, PREDICTOR, R1, images, masks, model

seeds = st.integers(0, 10**6)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "readings"))


def reading(
    name: str, weight: nn.Parameter, strength: float = 0.5, width: int = 8, **rest
) -> Penalty:
    """With two groups of the channels of the encoder, or of a predictor of width 12."""
    config = SparsityConfig(name, groups=2, strength=strength, **rest)
    sizes = EncoderConfig(width=width, heads=1), PredictorConfig(12, 1, 2)
    return PENALTIES[name](config, *sizes, weight, 0)


@pytest.mark.parametrize(
    ("name", "groups"), [("R1", torch.arange(12).view(2, 6)), ("L1", torch.arange(12).view(12, 1))]
)
def test_r1_and_l1_shrink_the_projection_itself(name: str, groups: Tensor):
    """They own its very weight, leave latents and loss, and shrink columns, or weights, by ηλ."""
    projection, latents = nn.Linear(8, 12), torch.ones(1, 1, 8)
    before = projection.weight.detach().clone()
    penalty = reading(name, projection.weight)
    assert penalty.own_parameters()[0] is projection.weight
    assert list(penalty.parameters()) == [] and penalty.state_dict() == {}
    read, loss = penalty(latents, 0)
    assert read is latents and loss.item() == 0 and not loss.requires_grad
    penalty.after_step(0.25)
    proximal_step(before, groups, 0.125)
    torch.testing.assert_close(projection.weight.detach(), before, rtol=0, atol=1e-7)
    measures = penalty.measures()
    columns = column_sparsity(group_column_norms(before, torch.arange(12).view(2, 6)))
    assert measures == pytest.approx(columns | {k: v for k, v in measures.items() if "zero_w" in k})
    assert (0 < measures["zero_weights"] < 1) if name == "L1" else "zero_weights" not in measures


def test_r1b_is_the_group_lasso_with_its_gradient():
    """λ Σ_g Σ_k ||W^(g)_{.,k}||, whose gradient is λ w / ||w||; 0, not NaN, at a zero column."""
    weight = nn.Parameter(drawn(12, 8))
    with torch.no_grad():
        weight[:6, 3] = 0
    penalty, latents = reading("R1b", weight), drawn(2, 3, 8)
    read, loss = penalty(latents, 0)
    assert read is latents and penalty.own_parameters() == []
    norms = torch.stack([weight.detach()[:6].norm(dim=0), weight.detach()[6:].norm(dim=0)])
    assert loss.item() == pytest.approx(0.5 * norms.sum().item(), rel=1e-5)
    loss.backward()
    expected = 0.5 * weight.detach() / norms.repeat_interleave(6, 0).clamp(min=1e-30)
    torch.testing.assert_close(weight.grad, expected, rtol=1e-5, atol=1e-6)
    assert (weight.grad[:6, 3] == 0).all()


def test_gradient_steps_leave_no_exact_zero_where_proximal_steps_do():
    """Nothing but the penalty for 300 steps: R1b's AdamW hovers about zero, R1 and L1 end there."""
    weights = {name: nn.Parameter(drawn(12, 8)) for name in ("R1", "R1b", "L1")}
    penalties = {name: reading(name, weight, 1.0) for name, weight in weights.items()}
    adamw = torch.optim.AdamW([weights["R1b"]], lr=0.02, weight_decay=0.0)
    for _ in range(300):
        penalties["R1b"](torch.zeros(1, 1, 8), 0)[1].backward()
        adamw.step()
        adamw.zero_grad()
        penalties["R1"].after_step(0.02)
        penalties["L1"].after_step(0.02)
    assert (weights["R1b"] != 0).all() and weights["R1b"].abs().max() < 0.1
    assert penalties["R1b"].measures()["zero_columns"] == 0
    for name in ("R1", "L1"):
        assert (weights[name] == 0).all() and penalties[name].measures()["zero_columns"] == 1


def test_r2_is_the_mean_over_tokens_of_summed_group_norms():
    """Tokens (3, 4 | 0, 5) and (0, 0 | 8, 15) of groups of two cost 10 and 17: mean 13.5."""
    latents = torch.tensor([[[3.0, 4.0, 0.0, 5.0]], [[0.0, 0.0, 8.0, 15.0]]], requires_grad=True)
    penalty = reading("R2", nn.Linear(4, 12).weight, 0.1, width=4)
    read, loss = penalty(latents, 0)
    assert read is latents and loss.item() == pytest.approx(1.35, rel=1e-5)
    loss.backward()
    expected = [[[0.6, 0.8, 0.0, 1.0]], [[0.0, 0.0, 8 / 17, 15 / 17]]]
    torch.testing.assert_close(latents.grad, 0.05 * torch.tensor(expected), rtol=1e-4, atol=1e-6)
    measures = penalty.measures()
    assert measures["group_norms"] == pytest.approx(13.5, rel=1e-5)
    assert measures["latent_scale"] == pytest.approx(math.sqrt((50 + 289) / 8), rel=1e-6)
    assert measures["effective_groups"] == pytest.approx((2 + 1) / 2)


def test_r3_is_r2_of_the_means_and_the_divergence():
    """λ group norms + β KL; the predictor reads μ + σ · noise, a function of (seed, step)."""
    latents = drawn(64, 16, 8)
    penalty = reading("R3", nn.Linear(8, 12).weight, beta=0.25)
    r2 = reading("R2", nn.Linear(8, 12).weight)(latents, 0)[1]
    read, loss = penalty(latents, 5)
    standard = Independent(Normal(torch.zeros(8), torch.ones(8)), 1)
    divergence = kl_divergence(Independent(Normal(latents, 1.0), 1), standard).mean()
    torch.testing.assert_close(loss, r2 + 0.25 * divergence)
    assert torch.equal(read, penalty(latents, 5)[0])
    assert not torch.equal(read, penalty(latents, 6)[0])
    assert (read - latents).std().item() == pytest.approx(1, abs=0.03)
    with torch.no_grad():
        penalty.log_variance.bias.fill_(2 * math.log(0.1))
    assert (penalty(latents, 5)[0] - latents).std().item() == pytest.approx(0.1, abs=0.003)
    torch.testing.assert_close(10 * (penalty(latents, 5)[0] - latents), read - latents)
    assert penalty.measures()["divergence"] == pytest.approx(
        divergence.item() + 4 * (0.01 - 1 - 2 * math.log(0.1)), rel=1e-5
    )


KEYS = ["zero_columns", "small_columns", "groups_per_latent", "unread_latents", "hoyer"]


def matrices(seed: int) -> Tensor:
    """A weight of 8 channels and 5 latents."""
    return torch.randn(8, 5, generator=generator(seed, "weight"))


def proximal(weight: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """`proximal_step`, on a copy."""
    stepped = weight.clone()
    proximal_step(stepped, groups, threshold)
    return stepped


def partition(seed: int, groups: int = 4, grouping: str = "random", width: int = 8) -> Tensor:
    """Groups of the channels of a predictor with two heads."""
    config = SparsityConfig("R1", groups=groups, grouping=grouping)
    return projection_groups(config, PredictorConfig(width, 1, 2), seed)


def objective(point: Tensor, weight: Tensor, groups: Tensor, threshold: float) -> float:
    """½||V - W||² + t · sum_g sum_k ||V^(g)_{.,k}||, in float64 and without the library."""
    point = point.double()
    penalty = sum(point[group].square().sum(0).sqrt().sum() for group in groups)
    return (0.5 * (point - weight.double()).square().sum() + threshold * penalty).item()


@given(seeds, st.floats(0, 3), st.sampled_from([0.0, 1.0, None]), st.floats(0.1, 1.5))
def test_proximal_step_is_the_argmin(seed, threshold, shrink, distance):
    """A 1-strongly convex f is least at p if and only if f(v) >= f(p) + ½||v - p||² for all v.

    Here v lies on the way from p to 0, to W, or to anywhere (None), or beyond.
    """
    weight, groups = matrices(seed), partition(seed)
    stepped = proximal(weight, groups, threshold)
    goal = matrices(seed + 1) if shrink is None else shrink * weight
    other = stepped + distance * (goal - stepped)
    gap = 0.5 * (other - stepped).double().square().sum().item()
    least = objective(stepped, weight, groups, threshold)
    assert objective(other, weight, groups, threshold) >= least + gap - 1e-5 * (1 + gap)


@given(seeds, st.floats(0, 3))
def test_threshold_is_in_units_of_the_norm(seed: int, threshold: float):
    """Norms shrink by exactly the threshold; those at most the threshold become exactly zero."""
    weight, groups = matrices(seed), partition(seed)
    weight[:, 2] = 0
    assert torch.equal(proximal(weight, groups, 0.0), weight)
    before = group_column_norms(weight, groups)
    after = group_column_norms(proximal(weight, groups, threshold), groups)
    torch.testing.assert_close(after, (before - threshold).clamp(min=0), rtol=0, atol=1e-5)
    assert ((after == 0) == (before <= threshold)).all()


def test_groupings():
    """Contiguous runs; one run a head, whatever `groups` says; or a partition that is drawn."""
    assert partition(0, 4, "contiguous").tolist() == [[0, 1], [2, 3], [4, 5], [6, 7]]
    assert partition(0, 4, "heads").tolist() == [[0, 1, 2, 3], [4, 5, 6, 7]]
    drawn = [partition(seed, width=64) for seed in (0, 0, 1)]
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert drawn[0].shape == (4, 16) and drawn[0].flatten().sort().values.tolist() == [*range(64)]
    assert not torch.equal(drawn[0].sort(1).values.flatten(), torch.arange(64))
    for count in (0, 3, 9):
        with pytest.raises(ValueError, match=f"8 channels can't be split into {count} groups"):
            partition(0, count, "contiguous")


def test_proximal_gradient_recovers_a_planted_pattern():
    """Regression with a block-sparse true weight: exactly the planted columns stay above zero."""
    groups = partition(0, 4, "contiguous")
    alive = torch.tensor([[1, 0, 0, 1, 0], [0, 1, 0, 0, 0], [0, 0, 1, 1, 0], [0, 0, 0, 0, 1]])
    truth = (2 + matrices(1).abs()) * alive.repeat_interleave(2, dim=0)
    inputs = torch.randn(400, 5, generator=generator(2))
    noise = 0.1 * torch.randn(400, 8, generator=generator(3))
    weight = matrices(4)
    for _ in range(200):
        residual = inputs @ weight.T - (inputs @ truth.T + noise)
        weight = weight - 0.3 * residual.T @ inputs / 400
        proximal_step(weight, groups, 0.3 * 0.1)
    assert torch.equal(group_column_norms(weight, groups) > 0, alive.bool())


def test_column_sparsity_closed_forms():
    """All equal: Hoyer 0; one left, or none: 1; shares are counted over group × latent columns."""
    equal, one, none = torch.full((2, 8), 3.0), torch.zeros(2, 8), torch.zeros(2, 8)
    one[1, 5] = 0.2
    for norms, values in (
        (equal, [0, 0, 2, 0, 0]),
        (one, [15 / 16, 15 / 16, 1 / 8, 7 / 8, 1]),
        (none, [1, 1, 0, 1, 1]),
    ):
        wanted = dict(zip(KEYS, values, strict=True))
        assert column_sparsity(norms) == pytest.approx(wanted, abs=1e-7)
    one[0, 2] = 0.2 * 0.009
    assert column_sparsity(one)["zero_columns"] == 14 / 16
    assert column_sparsity(one)["small_columns"] == 15 / 16


@given(seeds, st.floats(1e-3, 1e3))
def test_no_scale_feigns_sparsity(seed: int, scale: float):
    """A smaller weight is no sparser one, smaller activations neither, though R2 costs less."""
    weight, groups = proximal(matrices(seed), partition(seed), 0.8), partition(seed)
    scaled = column_sparsity(group_column_norms(weight * scale, groups))
    assert scaled == pytest.approx(column_sparsity(group_column_norms(weight, groups)), abs=1e-5)
    activations = torch.randn(20, 8, generator=generator(seed))
    activations[:, 2] *= 1e-4
    for measure in (activation_sparsity, lambda a: group_sparsity(a, groups)):
        assert measure(scale * activations) == pytest.approx(measure(activations), abs=1e-5)
    cost = group_norms(activations[None], groups)
    assert group_norms(scale * activations[None], groups).item() == pytest.approx(
        scale * cost.item(), rel=1e-3
    )


def test_activation_measures_closed_forms():
    """Shares of entries and of units; a constant unit is dead however large it is."""
    activations = torch.zeros(4, 5)
    activations[:, 0], activations[:, 1] = 7.0, torch.tensor([1.0, -1.0, 2.0, 0.0])
    activations[:, 2] = torch.tensor([1e-6, 0.0, 0.0, 0.0])
    measures = activation_sparsity(activations)
    assert measures == pytest.approx({"activation_density": 7 / 20, "dead_units": 4 / 5})
    assert activation_sparsity(torch.full((3, 4), 0.1))["dead_units"] == 1
    groups = torch.tensor([[0, 1], [2, 3]])
    equal, one = torch.ones(3, 4), torch.tensor([[0.0, 0.0, 3.0, 4.0]])
    assert group_sparsity(equal, groups) == pytest.approx({"hoyer": 0, "effective_groups": 2})
    assert group_sparsity(one, groups) == pytest.approx({"hoyer": 1, "effective_groups": 1})
    assert group_sparsity(0 * one, groups)["effective_groups"] == 1
    assert group_sparsity(one, groups[:1])["hoyer"] == 0
    norms = torch.tensor([[0.0, 2.0, 0.1], [0.0, 1.0, 0.2]])
    assert strongest_group(norms).tolist() == [-1, 0, 1]


class MeanAbsolute(Penalty):
    """lambda · mean |z|, as a stranger writes it."""

    def forward(self, latents, step):
        return latents, self.config.strength * latents.float().abs().mean()


def test_an_own_penalty_is_a_method_of_its_name(monkeypatch: pytest.MonkeyPatch):
    """One class and one row; its groups, which it does not have, need not part the width."""
    monkeypatch.setitem(PENALTIES, "mean-absolute", MeanAbsolute)
    sparsity = SparsityConfig(groups=7, strength=0.5)
    config = method_config("mean-absolute", ENCODER, PREDICTOR, sparsity)
    own, plain = Jepa(config, 0), Jepa(ModelConfig(ENCODER, PREDICTOR), 0)
    batch, kept = images(2), masks(2)
    size = own.context_encoder(batch, kept.context).abs().mean()
    expected = plain(batch, kept, 0).loss + 0.5 * size
    torch.testing.assert_close(own(batch, kept, 0).loss, expected)
    with pytest.raises(ValueError, match="mae, mean-absolute, not 'R1'"):
        method_config("R1", ENCODER, PREDICTOR, sparsity)  # its one name is sparsejepa


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"reading": "R7"}, "reading must be one of none, R1, R1b.* not 'R7'"),
        ({"strength": float("nan")}, "strength must be at least 0, not nan"),
        ({"learning_rate": 0.0}, "learning_rate must be above 0, not 0.0"),
    ],
)
def test_impossible_penalties_are_refused(settings: dict, sentence: str):
    """An unknown name never falls back to another reading in silence."""
    with pytest.raises(ValueError, match=sentence):
        SparsityConfig(**settings)


def test_unnormalised_targets_open_the_scale_loophole():
    """Scaling the features by c scales R2 by c; the targets stay only if they are normalised."""
    results = {}
    for normalise in (True, False):
        r2 = SparsityConfig("R2", groups=4, strength=1.0)
        jepa = Jepa(ModelConfig(ENCODER, PREDICTOR, r2, normalise_targets=normalise), 0)
        batch, kept = images(2), masks(2)
        before, cost = jepa.targets(batch, kept), jepa(batch, kept, 0).loss
        with torch.no_grad():
            for encoder in (jepa.context_encoder, jepa.target_encoder):
                encoder.vit.norm.weight.mul_(0.1)
        assert jepa(batch, kept, 0).loss < 0.2 * cost
        results[normalise] = (jepa.targets(batch, kept).norm() / before.norm()).item()
    assert results[True] == pytest.approx(1, abs=1e-3)
    assert results[False] == pytest.approx(0.1, abs=1e-3)


def test_the_group_penalty_is_not_counted_twice():
    """Reading R1 leaves loss and gradients as they are, to the bit: its proximal step is all."""
    plain, sparse, batch, kept = model(), model(R1), images(2), masks(2)
    outputs = [jepa(batch, kept, 0) for jepa in (plain, sparse)]
    assert torch.equal(outputs[0].loss, outputs[1].loss)
    for output in outputs:
        output.loss.backward()
    for a, b in zip(plain.parameters(), sparse.parameters(), strict=True):
        assert a.grad is b.grad is None or torch.equal(a.grad, b.grad)
