"""The readings of SparseJEPA, each by its formula, and what they say of sparsity."""

import dataclasses
import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from torch import Tensor, nn
from torch.distributions import Independent, Normal, kl_divergence

from sparsejepa.model.objective import Jepa, ModelConfig
from sparsejepa.model.readings import gaussian_divergence, soft_threshold
from sparsejepa.model.sparsity import (
    NoPenalty,
    Penalty,
    ProximalGroupLasso,
    Reading,
    SparsityConfig,
    column_sparsity,
    group_column_norms,
    make_penalty,
    projection_groups,
    proximal_step,
)
from sparsejepa.model.vit import EncoderConfig, PredictorConfig
from sparsejepa.randomness import generator
from tests.model.tiny import ENCODER, PREDICTOR, images, masks

seeds = st.integers(0, 10**6)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=generator(seed, "readings"))


def penalty_of(config: SparsityConfig, weight: nn.Parameter) -> Penalty:
    """A reading for an encoder of width 8 and a predictor of width 12."""
    return make_penalty(config, EncoderConfig(width=8), PredictorConfig(12, 1, 2), weight, seed=0)


def test_reading_r1_is_bound_to_the_projection():
    """It owns the very weight of the projection, leaves latents and loss, and shrinks by ηλ."""
    config, projection = SparsityConfig("R1", groups=3, strength=0.5), nn.Linear(8, 12)
    groups = projection_groups(config, PredictorConfig(12, 1, 2), 0)
    before, latents = projection.weight.detach().clone(), torch.ones(1, 1, 8)
    penalty = penalty_of(config, projection.weight)
    assert isinstance(penalty, ProximalGroupLasso) and isinstance(penalty, Penalty)
    assert penalty.own_parameters()[0] is projection.weight
    assert list(penalty.parameters()) == [] and penalty.state_dict() == {}
    read, loss = penalty(latents, 0)
    assert read is latents and loss.item() == 0 and not loss.requires_grad
    penalty.after_step(0.25)
    proximal_step(before, groups, 0.125)
    assert torch.equal(projection.weight, before)
    assert penalty.measures() == column_sparsity(group_column_norms(projection.weight, groups))


def test_plain_jepa_has_an_inert_penalty():
    """No parameters of its own, no loss, no step."""
    projection, latents = nn.Linear(8, 12), torch.ones(1, 1, 8)
    before = projection.weight.detach().clone()
    penalty = penalty_of(SparsityConfig(), projection.weight)
    assert isinstance(penalty, NoPenalty) and penalty.own_parameters() == []
    penalty.after_step(1.0)
    assert torch.equal(projection.weight, before)
    read, loss = penalty(latents, 0)
    assert read is latents and loss.item() == 0


def reading(name: Reading, weight: nn.Parameter, strength: float = 0.5, **rest) -> Penalty:
    return penalty_of(SparsityConfig(name, groups=2, strength=strength, **rest), weight)


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


@pytest.mark.parametrize("threshold", [0.0, 0.3, 1.2])
def test_l1_step_is_what_a_numeric_minimiser_finds(threshold: float):
    """sign(w) max(0, |w| - t) is the argmin of ½ (v - w)² + t |v|; exactly 0 within t of zero."""
    weight = torch.tensor([-1.7, -0.3, 0.0, 0.2, 0.9])
    stepped = soft_threshold(weight, threshold)
    for w, found in zip(weight.tolist(), stepped.tolist(), strict=True):
        least = minimize_scalar(
            lambda v, w=w: 0.5 * (v - w) ** 2 + threshold * abs(v),
            bounds=(-2, 2),
            method="bounded",
            options={"xatol": 1e-9},
        )
        assert found == pytest.approx(least.x, abs=1e-4)
    assert ((stepped == 0) == (weight.abs() <= threshold)).all()


def test_l1_is_r1_with_groups_of_one():
    """It owns the projection's weight, leaves the loss alone, and shrinks single weights by ηλ."""
    weight = nn.Parameter(drawn(12, 8))
    before, latents = weight.detach().clone(), drawn(1, 2, 8)
    penalty = reading("L1", weight, 0.8)
    assert penalty.own_parameters()[0] is weight
    assert penalty(latents, 0)[0] is latents and penalty(latents, 0)[1].item() == 0
    penalty.after_step(0.5)
    singles = torch.arange(12).view(12, 1)
    proximal_step(before, singles, 0.4)
    torch.testing.assert_close(weight.detach(), before, rtol=0, atol=1e-7)
    assert 0 < penalty.measures()["zero_weights"] < 1


def test_r2_is_the_mean_over_tokens_of_summed_group_norms():
    """Tokens (3, 4 | 0, 5) and (0, 0 | 8, 15) of groups of two cost 10 and 17: mean 13.5."""
    config = SparsityConfig("R2", groups=2, strength=0.1)
    latents = torch.tensor([[[3.0, 4.0, 0.0, 5.0]], [[0.0, 0.0, 8.0, 15.0]]], requires_grad=True)
    sizes = EncoderConfig(width=4, heads=1), PredictorConfig(12, 1, 2)
    penalty = make_penalty(config, *sizes, nn.Linear(4, 12).weight, seed=0)
    read, loss = penalty(latents, 0)
    assert read is latents and loss.item() == pytest.approx(1.35, rel=1e-5)
    loss.backward()
    expected = [[[0.6, 0.8, 0.0, 1.0]], [[0.0, 0.0, 8 / 17, 15 / 17]]]
    torch.testing.assert_close(latents.grad, 0.05 * torch.tensor(expected), rtol=1e-4, atol=1e-6)
    measures = penalty.measures()
    assert measures["group_norms"] == pytest.approx(13.5, rel=1e-5)
    assert measures["latent_scale"] == pytest.approx(math.sqrt((50 + 289) / 8), rel=1e-6)
    assert measures["effective_groups"] == pytest.approx((2 + 1) / 2)


@pytest.mark.parametrize(("grouping", "count"), [("contiguous", 8), ("heads", 2), ("random", 8)])
def test_r2_parts_the_width_of_the_encoder(grouping: str, count: int):
    """Its groups hold every channel of the latents once; by head, they are the encoder's heads."""
    sparsity = SparsityConfig("R2", groups=8, grouping=grouping)
    groups = Jepa(ModelConfig(ENCODER, PREDICTOR, sparsity), 0).penalty.groups
    assert groups.shape == (count, 32 // count)
    assert groups.flatten().sort().values.tolist() == list(range(32))


@given(seeds, st.floats(1e-3, 1e3))
def test_scale_lowers_r2_but_feigns_no_sparsity(seed: int, scale: float):
    """c·z costs c times as much; what `measures` calls sparsity does not move."""
    penalty, latents = reading("R2", nn.Linear(8, 12).weight), drawn(2, 3, 8, seed=seed)
    cost = penalty(latents, 0)[1].item()
    before = penalty.measures()
    assert penalty(scale * latents, 0)[1].item() == pytest.approx(scale * cost, rel=1e-3)
    after = penalty.measures()
    assert after["latent_scale"] == pytest.approx(scale * before["latent_scale"], rel=1e-4)
    for name in ("hoyer", "effective_groups", "activation_density", "dead_units"):
        assert after[name] == pytest.approx(before[name], abs=1e-4)


def test_unnormalised_targets_open_the_scale_loophole():
    """Scaling the features by c scales R2 by c; the targets stay only if they are normalised."""
    results = {}
    for normalise in (True, False):
        config = ModelConfig(
            ENCODER,
            PREDICTOR,
            SparsityConfig("R2", groups=4, strength=1.0),
            normalise_targets=normalise,
        )
        jepa, batch, kept = Jepa(config, 0), images(2), masks(2)
        before, cost = jepa.targets(batch, kept), jepa(batch, kept).loss
        with torch.no_grad():
            for encoder in (jepa.context_encoder, jepa.target_encoder):
                encoder.vit.norm.weight.mul_(0.1)
        assert jepa(batch, kept).loss < 0.2 * cost
        results[normalise] = (jepa.targets(batch, kept).norm() / before.norm()).item()
    assert results[True] == pytest.approx(1, abs=1e-3)
    assert results[False] == pytest.approx(0.1, abs=1e-3)


def test_divergence_closed_form():
    """½ Σ (μ² + σ² - 1 - ln σ²), as torch.distributions has it; 0 for N(0, I) itself."""
    mean, log_variance = drawn(4, 8), drawn(4, 8, seed=1)
    normal = Independent(Normal(mean, (0.5 * log_variance).exp()), 1)
    standard = Independent(Normal(torch.zeros(4, 8), torch.ones(4, 8)), 1)
    expected = kl_divergence(normal, standard)
    torch.testing.assert_close(gaussian_divergence(mean, log_variance), expected)
    assert gaussian_divergence(torch.zeros(1, 8), torch.zeros(1, 8)).item() == 0


def test_r3_is_r2_of_the_means_and_the_divergence():
    """λ group norms + β KL; the predictor reads μ + σ · noise, a function of (seed, step)."""
    latents = drawn(64, 16, 8)
    penalty = reading("R3", nn.Linear(8, 12).weight, beta=0.25)
    r2 = reading("R2", nn.Linear(8, 12).weight)(latents, 0)[1]
    read, loss = penalty(latents, 5)
    divergence = 0.5 * latents.square().sum(-1).mean()
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


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"reading": "R7"}, "SparsityConfig.reading must be one of none, R1, R1b.* not 'R7'"),
        ({"grouping": "blocks"}, "SparsityConfig.grouping must be one of .*, not 'blocks'"),
        ({"strength": -0.1}, "strength -0.1 must be at least 0"),
        ({"strength": float("nan")}, "strength nan"),
        ({"learning_rate": 0.0}, "learning_rate 0.0 and average_over 32 above 0"),
        ({"beta": -1.0}, "beta -1.0 must be at least 0"),
    ],
)
def test_unknown_readings_are_refused(settings: dict, sentence: str):
    """An unknown name never falls back to another reading in silence.

    The check is called on its own: the tests' type checks would step in front of it.
    """
    config = object.__new__(SparsityConfig)
    for name, value in (dataclasses.asdict(SparsityConfig()) | settings).items():
        object.__setattr__(config, name, value)
    with pytest.raises(ValueError, match=sentence):
        config.__post_init__()
