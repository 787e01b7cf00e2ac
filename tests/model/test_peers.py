"""Parts that peers of JEPA change: what is predicted, and extra tokens of the encoders."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from timm.models.vision_transformer import VisionTransformer
from torch import Tensor

from sparsejepa.model.jepa import Jepa, method_config, patch_pixels
from sparsejepa.model.masks import Masks
from sparsejepa.model.penalties import SparsityConfig
from sparsejepa.model.regularisers import uniformity
from sparsejepa.model.vit import Encoder, EncoderConfig, timm_arguments
from sparsejepa.randomness import generator
from tests.model.tiny import ENCODER, PREDICTOR, images, masks, predictions


def method(name: str) -> Jepa:
    return Jepa(method_config(name, ENCODER, PREDICTOR, SparsityConfig(groups=4)), seed=0)


def moved(kept: Masks, **fields: Tensor) -> Masks:
    return Masks(fields.get("context", kept.context), fields.get("targets", kept.targets))


@torch.no_grad()
def test_conditioned_targets_know_where_the_context_is():
    """Another context window changes EC-IJEPA's targets, and JEPA's not; its order changes none."""
    batch, kept = images(2), masks(2)
    elsewhere = moved(kept, context=(kept.context + 21) % 64)
    order = torch.randperm(16, generator=generator(0))
    reordered = moved(kept, context=kept.context[:, order])
    conditioned, plain = method("ec-ijepa"), method("jepa")
    before = conditioned.targets(batch, kept)
    assert not torch.allclose(conditioned.targets(batch, elsewhere), before, atol=1e-3)
    torch.testing.assert_close(conditioned.targets(batch, reordered), before, rtol=0, atol=1e-5)
    assert torch.equal(plain.targets(batch, elsewhere), plain.targets(batch, kept))


@torch.no_grad()
def test_conditioned_context_knows_where_the_targets_are():
    """One token a target block, from its patches' positions only, and none in the output."""
    jepa, batch, kept = method("ec-ijepa"), images(2), masks(2)
    tokens = jepa.context_windows(kept.targets)
    assert tokens.shape == (2, 4, 32)
    means = jepa.context_encoder.vit.pos_embed[0][kept.targets].mean(2)
    torch.testing.assert_close(tokens, jepa.context_windows.projection(means))
    latents = jepa.context_encoder(batch, kept.context, tokens)
    assert latents.shape == (2, 16, 32)
    other = jepa.context_encoder(batch, kept.context, jepa.context_windows((kept.targets + 9) % 64))
    assert not torch.allclose(other, latents, atol=1e-3)
    predicted = jepa.predictor(latents, kept.context, kept.targets)
    expected = F.smooth_l1_loss(predicted, jepa.targets(batch, kept))
    torch.testing.assert_close(jepa(batch, kept, 0).loss, expected)


def test_window_tokens_of_the_target_follow_those_of_the_context():
    """They are a part of the moving average, and get no gradient."""
    jepa = method("ec-ijepa")
    jepa(images(2), masks(2), 0).loss.backward()
    assert jepa.context_windows.projection.weight.grad.any()
    assert jepa.target_windows.projection.weight.grad is None
    with torch.no_grad():
        jepa.context_windows.projection.weight.add_(1)
    before = jepa.target_windows.projection.weight.clone()
    jepa.update_target(0.75)
    torch.testing.assert_close(jepa.target_windows.projection.weight, before + 0.25)


@torch.no_grad()
def test_a_register_token_is_timm_s_own():
    """It enters the blocks, is dropped from the output, and its weights open in plain timm."""
    config = EncoderConfig(width=32, depth=2, heads=2, register_tokens=1)
    encoder, batch = Encoder(config, generator(0)).eval(), images(3)
    assert encoder(batch).shape == (3, 64, 32)
    assert encoder.vit.reg_token.shape == (1, 1, 32)
    assert 0.005 < encoder.vit.reg_token.std() < 0.04
    plain = VisionTransformer(**timm_arguments(config)).eval()
    plain.load_state_dict(encoder.vit.state_dict(), strict=True)
    features = plain.forward_features((batch - encoder.mean) / encoder.std)
    torch.testing.assert_close(encoder(batch), features[:, 1:], rtol=0, atol=2e-6)
    before = encoder(batch)
    encoder.vit.reg_token.add_(torch.linspace(-1, 1, 32))
    assert not torch.allclose(encoder(batch), before, atol=1e-3)


def test_patch_pixels_are_those_of_the_patch():
    """Patch (y, x) of the raster holds the pixels of its square, no other."""
    batch = images(2)
    cut = patch_pixels(batch, 4)
    assert cut.shape == (2, 64, 48)
    for y, x in ((0, 0), (2, 5), (7, 7)):
        square = batch[:, :, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4]
        assert torch.equal(cut[:, 8 * y + x], square.permute(0, 2, 3, 1).flatten(1))


def test_mae_predicts_normalised_pixels_of_hidden_patches_only():
    """Targets are (x - mean) / std over a patch's pixels; the loss is their squared error."""
    jepa, batch, kept = method("mae"), images(2), masks(2)
    standard = (batch - jepa.context_encoder.mean) / jepa.context_encoder.std
    targets = jepa.targets(batch, kept)
    for b, m, t in ((0, 0, 0), (1, 3, 5)):
        index = kept.targets[b, m, t].item()
        y, x = 4 * (index // 8), 4 * (index % 8)
        pixels = standard[b, :, y : y + 4, x : x + 4].permute(1, 2, 0).flatten()
        expected = (pixels - pixels.mean()) / pixels.std(correction=0)
        torch.testing.assert_close(targets[b, m, t], expected, rtol=1e-3, atol=1e-3)
    output = jepa(batch, kept, 0)
    error = (predictions(jepa, batch, kept) - targets).square().mean()
    torch.testing.assert_close(output.loss, error)
    hidden = torch.zeros(2, 64, dtype=torch.bool)
    hidden.scatter_(1, kept.targets.flatten(1), True).scatter_(1, kept.context, True)
    unseen = (~hidden).repeat_interleave(4, 1).view(2, 8, 32).repeat_interleave(4, 1)
    repainted = torch.where(unseen.unsqueeze(1), 1 - batch, batch)
    assert not torch.equal(repainted, batch)
    assert torch.equal(jepa(repainted, kept, 0).loss, output.loss)


def test_a_shared_target_passes_its_gradient():
    """SIGReg: loss and gradient are those of MSE to the context encoder's own features, raw."""
    jepa, batch, kept = method("sigreg"), images(4), masks(4)
    tokens = jepa.context_encoder(batch)
    rows = torch.arange(4).view(4, 1, 1)
    error = (predictions(jepa, batch, kept) - tokens[rows, kept.targets]).square().mean()
    expected = 0.98 * error + 0.02 * jepa.regulariser(tokens.mean(1), 7)
    output = jepa(batch, kept, 7)
    torch.testing.assert_close(output.loss, expected)
    weight = jepa.context_encoder.vit.blocks[0].mlp.fc1.weight
    ours, reference = (torch.autograd.grad(loss, weight)[0] for loss in (output.loss, expected))
    torch.testing.assert_close(ours, reference, rtol=1e-3, atol=1e-6)


@torch.no_grad()
def test_rectified_targets_are_never_negative():
    """Rectified LpJEPA predicts ReLU of the shared encoder's features."""
    jepa, batch, kept = method("rectified"), images(2), masks(2)
    features = jepa.context_encoder(batch)[torch.arange(2).view(2, 1, 1), kept.targets]
    assert torch.equal(jepa.targets(batch, kept), features.relu())


def test_uniformity_is_the_mean_squared_cosine_of_different_images():
    """0 for orthogonal embeddings, 1 for parallel ones, whatever their lengths; else by pairs."""
    assert uniformity(torch.diag(torch.tensor([1.0, 2.0, 0.5]))) == 0
    torch.testing.assert_close(
        uniformity(torch.tensor([[1.0, 2.0], [-3.0, -6.0]])), torch.tensor(1.0)
    )
    drawn = torch.randn(5, 3, generator=generator(0, "test"))
    pairs = [drawn[list(pair)] for pair in itertools.combinations(range(5), 2)]
    squares = [torch.cosine_similarity(one, two, dim=0) ** 2 for one, two in pairs]
    torch.testing.assert_close(uniformity(drawn), torch.stack(squares).mean())


@torch.no_grad()
@pytest.mark.parametrize(
    ("name", "prediction", "term"),
    [("jepa-uniformity", 1, 0.01), ("jepa-sigreg", 0.98, 0.02), ("cjepa", 25, 25)],
)
def test_terms_are_of_the_pooled_context(name: str, prediction: float, term: float):
    """They are added to JEPA's own prediction loss; VICReg's is variance + covariance / 25."""
    jepa, batch, kept = method(name), images(4), masks(4)
    pooled = jepa.context_encoder(batch, kept.context).mean(1)
    plain = method("jepa")(batch, kept, 3).loss
    expected = prediction * plain + term * jepa.regulariser(pooled, 3)
    torch.testing.assert_close(jepa(batch, kept, 3).loss, expected)
    torch.testing.assert_close(jepa(batch, kept, 3).prediction_loss, plain)


@pytest.mark.parametrize("name", ["sigreg", "rectified", "mae"])
def test_the_encoder_to_probe_is_a_copy_where_nothing_is_averaged(name: str):
    """Whatever the momentum, the target encoder is then the context encoder."""
    jepa = method(name)
    with torch.no_grad():
        jepa.context_encoder.vit.norm.bias.add_(1)
    jepa.update_target(0.996)
    for ours, theirs in zip(
        jepa.target_encoder.parameters(), jepa.context_encoder.parameters(), strict=True
    ):
        assert torch.equal(ours, theirs) and not ours.requires_grad
