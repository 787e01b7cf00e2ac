"""oi-VAE on bars: the proximal penalty finds the rows, and its objective is what it says."""

import dataclasses

import pytest
import torch

from sparsejepa.randomness import generator
from sparsejepa.theory import oi_vae

SMALL = oi_vae.BarsConfig(size=4, latents=4, images=512)


def decoded(parameters: dict[str, torch.Tensor], z: torch.Tensor) -> torch.Tensor:
    """f^(g)(W^(g) z) for every row g, written row by row."""
    rows = []
    for g, row in enumerate(parameters["weight"]):
        bias = parameters["bias"].view(len(parameters["weight"]), -1)[g]
        rows.append((z @ row)[:, None] * parameters["generator"][g] + bias)
    return torch.cat(rows, dim=1)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_the_proximal_version_recovers_the_rows(seed: int) -> None:
    """Each latent drives one row and each row has one latent; all other norms are exactly zero."""
    norms = oi_vae.bars_experiment(oi_vae.BarsConfig(), seed)
    assert oi_vae.recovered(norms)
    assert (norms == 0).sum() == 8 * 7
    assert norms[norms > 0].min() > 0.1


def test_the_subgradient_version_leaves_no_exact_zero() -> None:
    """The same penalty in the gradient: small columns tremble around zero and never stay there."""
    norms = oi_vae.bars_experiment(dataclasses.replace(oi_vae.BarsConfig(), proximal=False), 0)
    assert not oi_vae.recovered(norms)
    assert (norms > 0).all() and norms.min() < 0.01


def test_the_closed_form_is_the_average_over_images_and_latents() -> None:
    """Reconstruction and KL divergence against draws of z for every image, within 1 %.

    The KL divergence of each image is in closed form on both sides.
    """
    images = oi_vae.draw_bars(SMALL, 0)
    parameters = oi_vae.initial_parameters(SMALL, 0)
    draw = generator(0, "parameters")
    with torch.no_grad():
        for value in parameters.values():
            value.add_(0.3 * torch.randn(value.shape, generator=draw, dtype=torch.float64))
        parts = oi_vae.negative_elbo(parameters, images.mean(0), torch.cov(images.T, correction=0))
        mean = images @ parameters["encoder"].T + parameters["encoder_bias"]
        std, sigma = parameters["log_std"].exp(), parameters["log_noise"].exp()
        likelihood = []
        for _ in range(400):
            noise = torch.randn(mean.shape, generator=draw, dtype=torch.float64)
            law = torch.distributions.Normal(decoded(parameters, mean + std * noise), sigma)
            likelihood.append(-law.log_prob(images).sum(1).mean())
        posterior = torch.distributions.Normal(mean, std.expand_as(mean))
        standard = torch.distributions.Normal(torch.zeros_like(mean), 1.0)
        kl = torch.distributions.kl_divergence(posterior, standard).sum(1).mean()
    expected = torch.stack(likelihood).mean()
    assert parts["reconstruction"].item() == pytest.approx(expected.item(), rel=0.01)
    assert parts["kl"].item() == pytest.approx(kl.item(), rel=1e-9)
    theta = torch.cat([parameters["generator"].flatten(), parameters["bias"]])
    unit = torch.distributions.Normal(torch.zeros((), dtype=torch.float64), 1.0)
    log_prior = (unit.log_prob(theta) - unit.log_prob(torch.zeros_like(theta))).sum()
    assert parts["prior"].item() == pytest.approx(-log_prior.item(), rel=1e-9)


def test_bars_have_one_lit_row() -> None:
    """Brightness and noise are what was asked for, and every row is lit somewhere."""
    rows = oi_vae.draw_bars(oi_vae.BarsConfig(), 0).view(-1, 8, 8)
    lit = rows.mean(dim=2).argmax(dim=1)
    bright = rows[torch.arange(len(lit)), lit]
    assert bright.mean().item() == pytest.approx(0.5, abs=0.002)
    rows[torch.arange(len(lit)), lit] -= 0.5
    assert rows.std().item() == pytest.approx(0.05, rel=0.01)
    assert set(lit.tolist()) == set(range(8))
