"""The chapter on linear theory: planted features, their training and readouts; its figures."""

import pytest
import torch

from sparsejepa.chapters.linear_theory import (
    PATCH,
    TEXTURES,
    decodability,
    explained_share,
    plant,
    readout_score,
    train,
)
from sparsejepa.randomness import generator

TINY = {"batch_size": 8, "width": 16, "depth": 1}
PLANTED = {"signal": 0.9, "nuisance": 0.1}


def images(count: int) -> torch.Tensor:
    """Smooth colour gradients: little of either texture."""
    ramp = torch.arange(32).view(1, 32, 1, 1) * torch.rand(
        count, 1, 1, 3, generator=generator(0, "images")
    )
    return (80 + 5 * ramp).byte().expand(count, 32, 32, 3).contiguous()


def test_planted_features_have_the_stated_moments():
    """Read back by the textures: variance lambda / kappa, covariance between patches lambda."""
    shares = {"signal": 0.8, "nuisance": 0.1}
    # Orthonormal textures do not mix.
    torch.testing.assert_close(TEXTURES.flatten(1) @ TEXTURES.flatten(1).T, torch.eye(2))
    planted, coefficients = plant(images(4000), shares, 4.0, generator(0, "plant"))
    patches = planted.unfold(2, PATCH, PATCH).unfold(3, PATCH, PATCH)
    for (name, rho), texture in zip(shares.items(), TEXTURES, strict=True):
        read = torch.einsum("ncijuv,cuv->nij", patches, texture).flatten(1)
        # The gradients themselves hold next to nothing of a texture of alternating sign.
        added = (4.0 / rho) ** 0.5 * coefficients[name]
        assert (read - added).std() < 0.2
        assert added.var().item() == pytest.approx(4.0 / rho, rel=0.1)
        # kappa is what one patch's coefficient tells of another's.
        between = (added[:, :1] * added[:, 1:]).mean().item()
        assert between == pytest.approx(4.0, rel=0.15)


def test_both_objectives_begin_alike_and_part():
    """One untrained encoder; training repeats with its seed and depends on the target."""
    train_images, _ = plant(images(32), PLANTED, 4.0, generator(0, "plant"))
    kept = [train(o, train_images, 3, (0, 6), **TINY) for o in ("jepa", "mae", "jepa")]
    weights = [{k: e.vit.blocks[0].attn.qkv.weight for k, e in run.items()} for run in kept]
    assert torch.equal(weights[0][0], weights[1][0])
    assert not torch.equal(weights[0][6], weights[1][6])
    assert torch.equal(weights[0][6], weights[2][6])
    assert not torch.equal(weights[0][0], weights[0][6])


def test_measures_have_their_bounds():
    """A coefficient of the input is decoded from an untrained encoder, and its share is below 1."""
    planted = plant(images(64), PLANTED, 4.0, generator(0, "plant"))
    encoder = train("mae", planted[0], 0, (0, 1), **TINY)[0]
    found = decodability(encoder, *planted)
    for name in PLANTED:
        assert 0.5 < found["decoded", name] <= 1
        assert found["leading", name] <= found["decoded", name] + 0.02
        assert 0 < found["share", name] < 1


def test_readout_and_share_in_closed_form():
    """y = x_0 + noise: R² is the signal's share of Var y, and x_0 alone carries y's share of x."""
    x = torch.randn(20_000, 3, generator=generator(0, "x"), dtype=torch.float64)
    x = x * torch.tensor([1.0, 2.0, 2.0])
    y = x[:, 0] + torch.randn(20_000, generator=generator(0, "y"), dtype=torch.float64)
    half = 10_000
    score = readout_score(x[:half], y[:half], x[half:], y[half:])
    assert score == pytest.approx(0.5, abs=0.03)
    # Cov(x_0, y)² / Var y = 1 / 2, of a total variance of 9.
    assert explained_share(x, y) == pytest.approx(1 / 18, rel=0.1)
    assert explained_share(x, x[:, 1]) == pytest.approx(4 / 9, rel=0.05)
