"""The JEPA objective: what the targets see, what the predictions don't, and what it costs."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import norm
from torch import Tensor

from sparsejepa.model.jepa import Jepa, ModelConfig
from sparsejepa.model.masks import Masks
from sparsejepa.model.vit import EncoderConfig, PredictorConfig
from sparsejepa.randomness import generator
from tests.model.tiny import ENCODER, PREDICTOR, images, masks, model, predictions


def repaint(batch: Tensor, patches: list[list[int]]) -> Tensor:
    """Other pixels in the given 4x4 patches of each image."""
    painted, other = batch.clone(), images(len(batch), seed=99)
    for image, indices in enumerate(patches):
        for index in indices:
            rows = slice(index // 8 * 4, index // 8 * 4 + 4)
            columns = slice(index % 8 * 4, index % 8 * 4 + 4)
            painted[image, :, rows, columns] = other[image, :, rows, columns]
    return painted


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
def test_predicting_nothing_costs_what_it_must():
    """A prediction of 0 costs E smoothL1(N(0, 1)) = 0.4247 where target channels are Gaussian.

    They are at random weights without positions. Positions make them flatter, which costs more,
    yet at most ½, for smoothL1(x) <= x²/2 and targets have variance 1.
    """
    expected = 2 * norm.expect(lambda x: x * x / 2, lb=0, ub=1)
    expected += 2 * norm.expect(lambda x: x - 0.5, lb=1)
    assert expected == pytest.approx(0.4247, abs=5e-5)
    jepa = Jepa(ModelConfig(EncoderConfig(depth=2), PredictorConfig(depth=1)), seed=0)
    batch, kept = images(4), masks(4)
    jepa.predictor.output.weight.zero_()
    assert expected < jepa(batch, kept, 0).loss.item() < 0.5
    jepa.target_encoder.vit.pos_embed.zero_()
    assert jepa(batch, kept, 0).loss.item() == pytest.approx(expected, abs=0.01)


@torch.no_grad()
def test_constant_targets_show_in_the_spread_and_not_in_the_loss():
    """With constant target features the loss can vanish; target_spread = 0 tells the collapse."""
    jepa, batch, kept = model(), images(4), masks(4)
    healthy = jepa(batch, kept, 0).target_spread
    norm = jepa.target_encoder.vit.norm
    norm.weight.zero_()
    norm.bias.copy_(torch.linspace(-1, 1, 32))
    jepa.predictor.output.weight.zero_()
    jepa.predictor.output.bias.copy_(F.layer_norm(norm.bias, (32,)))
    output = jepa(batch, kept, 0)
    assert output.loss < 1e-10
    assert output.target_spread < 1e-6 < 0.01 < healthy


def variant(**changes) -> Jepa:
    return Jepa(ModelConfig(ENCODER, PREDICTOR, **changes), seed=0)


@torch.no_grad()
def test_targets_of_several_blocks_are_the_mean_of_their_normalised_outputs():
    """data2vec: LN of each of the last K blocks, averaged; K = 1 is I-JEPA's to the bit."""
    batch, kept = images(3), masks(3)
    layers = variant().target_encoder.last_layers(batch, 2).unflatten(-1, (2, 32))
    mean = F.layer_norm(layers, (32,)).mean(-2)
    expected = F.layer_norm(mean, (32,))[torch.arange(3).view(3, 1, 1), kept.targets]
    torch.testing.assert_close(variant(target_blocks=2).targets(batch, kept), expected)
    one, plain = (variant(**c) for c in ({"target_blocks": 1}, {}))
    assert torch.equal(one.targets(batch, kept), plain.targets(batch, kept))
    with pytest.raises(ValueError, match="target_blocks must be 1 to 2, not 3"):
        variant(target_blocks=3)


@torch.no_grad()
def test_what_all_images_share_at_a_position_is_no_target_when_centred():
    """Equal images: zero before the norm, hence after it. Others: the mean over the batch is 0."""
    kept, centred = masks(4), variant(batch_targets="centred", normalise_targets=False)
    alike = images(1).expand(4, -1, -1, -1)
    assert centred.targets(alike, kept).abs().max() < 1e-5
    same_place = Masks(kept.context, kept.targets[:1].expand(4, -1, -1))
    targets = centred.targets(images(4), same_place)
    assert targets.mean(0).abs().max() < 1e-5 < 0.1 < targets.std()
    raw = variant(normalise_targets=False).targets(images(4), same_place)
    torch.testing.assert_close(targets, raw - raw.mean(0))


@torch.no_grad()
def test_standardised_targets_have_unit_variance_however_little_images_differ():
    """Of each feature over images and positions; neither its mean at a position nor its scale."""
    jepa = variant(batch_targets="standardised", normalise_targets=False)
    draws = generator(0, "features")
    positions, differences = torch.randn(2, 16, 16, 32, generator=draws)
    everywhere = Masks(torch.arange(16).expand(16, -1), torch.arange(16).expand(16, 1, -1))
    targets = jepa._cut(positions[:1] + 0.3 * differences, everywhere)
    assert targets.mean(0).abs().max() < 1e-5
    torch.testing.assert_close(targets.square().mean((0, 1, 2)), torch.ones(32), atol=1e-3, rtol=0)
    others = jepa._cut(5 * positions[1:2] + 3 * differences, everywhere)
    torch.testing.assert_close(others, targets, atol=1e-3, rtol=1e-3)


def test_an_own_batch_norm_is_probed_with_its_own_statistics():
    """The moving average copies buffers: running means, and the count of batches."""
    jepa = model()
    for encoder in (jepa.context_encoder, jepa.target_encoder):
        parts = (Transposed(), torch.nn.BatchNorm1d(32), Transposed())
        encoder.vit.patch_embed.norm = torch.nn.Sequential(*parts)
    jepa.target_encoder.requires_grad_(False)
    jepa(images(4) + 1, masks(4), 0)
    jepa.update_target(0.996)
    ours, theirs = (dict(e.named_buffers()) for e in (jepa.target_encoder, jepa.context_encoder))
    name = "vit.patch_embed.norm.1.running_mean"
    assert theirs[name].abs().max() > 0.01
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[n], theirs[n]) for n in ours)


class Transposed(torch.nn.Module):
    """Tokens to channels, and back."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)
