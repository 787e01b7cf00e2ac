import hashlib

import pytest
import torch
from torch import nn

from sparsejepa.data.batches import to_unit
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.probing.evaluate import cross_validate
from sparsejepa.probing.features import as_float, pooled_features
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import knn_accuracy
from sparsejepa.probing.spectrum import structure, token_spread
from sparsejepa.randomness import generator

TINY = EncoderConfig(image_size=8, patch_size=4, width=8, depth=3, heads=2)


def encoder() -> Encoder:
    return Encoder(TINY, generator(0, "weights"))


def images(count: int = 7) -> torch.Tensor:
    draw = torch.randint(256, (count, 8, 8, 3), generator=generator(1, "images"))
    return draw.to(torch.uint8)


class Dropping(nn.Module):
    """An encoder that answers differently in training mode."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        return self.drop(self.scale * x.flatten(2).transpose(1, 2))


def digest(module: nn.Module) -> str:
    parts = [p.detach().numpy().tobytes() for p in module.state_dict().values()]
    return hashlib.sha256(b"".join(parts)).hexdigest()


def test_pools_over_patches() -> None:
    """The average is over the patch axis: one vector of width d an image, by hand."""
    model = encoder()
    with torch.no_grad():
        tokens = model(to_unit(images()))
    features = pooled_features(model, images())
    assert features.shape == (7, 8) and features.dtype == torch.float32
    torch.testing.assert_close(features, sum(tokens[:, i] for i in range(4)) / 4)


def test_last_layers_are_concatenated() -> None:
    """The last n blocks give n d numbers, of which the last d are the last block's."""
    model = encoder()
    features = pooled_features(model, images(), last=3)
    assert features.shape == (7, 24)
    torch.testing.assert_close(features[:, -8:], pooled_features(model, images()))


@pytest.mark.parametrize("batch_size", [1, 3, 7, 100])
def test_batch_size_changes_nothing(batch_size: int) -> None:
    """Images do not see each other, and the last, smaller batch is kept."""
    features = pooled_features(encoder(), images(), batch_size)
    torch.testing.assert_close(features, pooled_features(encoder(), images()))


@pytest.mark.parametrize("training", [True, False])
def test_reads_in_evaluation_mode_and_restores(training: bool) -> None:
    """Dropout is off while features are computed, and the mode is as before afterwards."""
    model = Dropping().train(training)
    expected = to_unit(images()).mean((2, 3))
    torch.testing.assert_close(pooled_features(model, images()), expected)
    assert model.training == model.drop.training == training


def test_mode_is_restored_after_an_error() -> None:
    """An encoder that fails on the images is still back in training mode."""
    model = encoder().train()
    with pytest.raises(AssertionError):
        pooled_features(model, torch.zeros(2, 12, 12, 3, dtype=torch.uint8))
    assert model.training


def test_encoder_is_only_read() -> None:
    """The weights' hash is equal before and after, and no gradient is left."""
    model = encoder()
    before = digest(model)
    features = pooled_features(model, images())
    assert digest(model) == before
    assert all(p.grad is None for p in model.parameters())
    # A probe trained on them by autograd works: they are no inference tensors.
    assert not features.requires_grad and not features.is_inference()


def test_autocast_is_close_and_float32() -> None:
    """A bf16 pass agrees within bf16's precision and still returns float32."""
    exact = pooled_features(encoder(), images())
    rounded = pooled_features(encoder(), images(), autocast=torch.bfloat16)
    assert rounded.dtype == torch.float32
    assert not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)


def test_refuses_nothing_to_do() -> None:
    """No images are a one-sentence error."""
    with pytest.raises(ValueError, match="no images"):
        pooled_features(encoder(), images(0))


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_function_reads_features_of_any_precision(kind: torch.dtype) -> None:
    """The numbers are those of the same rounded features, handed over as float32."""
    y = torch.arange(60) % 3
    x = (2 * torch.eye(3)[y] + torch.randn(60, 3, generator=generator(2))).to(kind)
    groups = y[40:]

    def measured(z: torch.Tensor) -> list[float]:
        train_x, test_x = z[:40], z[40:]
        return [
            linear_probe(train_x, y[:40], test_x, y[40:], seed=0, steps=100).top1,
            knn_accuracy(train_x, y[:40], test_x, y[40:]),
            cross_validate(z, y, seed=0, steps=50).correct.double().mean().item(),
            *structure(test_x, test_x, groups).values(),
            token_spread(z[None]),
        ]

    assert measured(x) == pytest.approx(measured(x.float()), rel=1e-5)
    assert measured(x)[0] > 0.6


def test_features_of_two_precisions_meet() -> None:
    """Training features in float64 and test features in float16, and 0/1 codes as integers."""
    y = torch.arange(60) % 2
    x = y[:, None] + 0.1 * torch.randn(60, 2, generator=generator(3))
    assert linear_probe(x[:40].double(), y[:40], x[40:].half(), y[40:], seed=0, steps=50).top1 == 1
    assert as_float(torch.tensor([[1, 0]])).dtype == torch.float32
    with pytest.raises(ValueError, match="complex"):
        as_float(x + 1j)
