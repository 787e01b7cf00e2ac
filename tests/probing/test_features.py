import pytest
import torch
from torch import nn

from sparsejepa.data.batches import to_unit
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.probing.evaluate import cross_validate
from sparsejepa.probing.features import pooled_features
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import knn_accuracy
from sparsejepa.probing.spectrum import structure, token_spread
from sparsejepa.randomness import generator

TINY = EncoderConfig(image_size=8, patch_size=4, width=8, depth=3, heads=2)
IMAGES = torch.randint(256, (7, 8, 8, 3), generator=generator(1, "images")).byte()


def encoder() -> Encoder:
    return Encoder(TINY, generator(0, "weights"))


class Dropping(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))
        self.drop = nn.Dropout(0.5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        assert torch.is_inference_mode_enabled()
        return self.drop(self.scale * x.flatten(2).transpose(1, 2))


def test_pools_over_patches() -> None:
    """Of the last n blocks, the last numbers are the last block's."""
    model = encoder()
    with torch.no_grad():
        tokens = model(to_unit(IMAGES))
    expected = sum(tokens[:, i] for i in range(4)) / 4
    torch.testing.assert_close(pooled_features(model, IMAGES), expected)
    three = pooled_features(model, IMAGES, last=3)
    assert three.shape == (7, 24)
    torch.testing.assert_close(three[:, -8:], expected)


@pytest.mark.parametrize("training", [True, False])
def test_reads_in_evaluation_mode_and_restores(training: bool) -> None:
    """Dropout is off while features are computed, and the mode is as before, after an error too."""
    model, broken = Dropping().train(training), encoder().train(training)
    features = pooled_features(model, IMAGES)
    torch.testing.assert_close(features, to_unit(IMAGES).mean((2, 3)))
    # A probe trained on them by autograd works: they are no inference tensors.
    assert not features.requires_grad and not features.is_inference()
    with pytest.raises(AssertionError):
        pooled_features(broken, torch.zeros(2, 12, 12, 3, dtype=torch.uint8))
    assert broken.training == model.training == model.drop.training == training


def test_autocast_is_close_and_float32() -> None:
    exact = pooled_features(encoder(), IMAGES)
    rounded = pooled_features(encoder(), IMAGES, autocast=torch.bfloat16)
    assert rounded.dtype == torch.float32 and not torch.equal(rounded, exact)
    torch.testing.assert_close(rounded, exact, rtol=0.05, atol=0.02)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16, torch.float64])
def test_every_function_reads_features_of_any_precision(kind: torch.dtype) -> None:
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
    assert linear_probe(x[:40].float(), y[:40], x[40:], y[40:], seed=0, steps=100).top1 > 0.6
