"""The scenes are a fair toy: linear readouts fail where a trained network does not."""

import timm
import torch

from sparsejepa.data.batches import to_unit
from tests.data.nearest import nearest_object


def ridge_accuracy(train_x, train_y, test_x, test_y) -> float:
    """Test accuracy of one-against-all ridge regression, the best of four penalties.

    Choosing on the test set flatters the readout, which makes an upper bound on it stricter.
    """
    mean, std = train_x.mean(0), train_x.std(0).clamp(min=1e-6)
    a, b = ((x - mean).double() / std for x in (train_x, test_x))
    a, b = (torch.cat((x, torch.ones(len(x), 1).double()), 1) for x in (a, b))
    targets = torch.nn.functional.one_hot(train_y).double()
    best = 0.0
    for penalty in (1e1, 1e2, 1e3, 1e4):
        gram = a.T @ a + penalty * torch.eye(a.shape[1]).double()
        weights = torch.cholesky_solve(a.T @ targets, torch.linalg.cholesky(gram))
        best = max(best, ((b @ weights).argmax(1) == test_y).float().mean().item())
    return best


def random_encoder_features(images: torch.Tensor) -> torch.Tensor:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        vit = timm.models.VisionTransformer(
            img_size=32, patch_size=4, embed_dim=64, depth=4, num_heads=4,
            class_token=False, global_pool="", num_classes=0,
        ).eval()  # fmt: skip
    with torch.inference_mode():
        return torch.cat([vit(part * 4 - 2).mean(1) for part in to_unit(images).split(500)])


def test_linear_readouts_of_pixels_and_random_features_fail(train, test):
    """Fair toy: neither pixels nor a random encoder give the class; the nearest object does.

    Positive control: the same readout reaches far more once somebody cuts out the right object,
    so that the class is in the image and what is missing is finding it.
    """
    y, z = train.labels["label"], test.labels["label"]
    pixels = [
        torch.nn.functional.avg_pool2d(to_unit(s.images), 2).flatten(1) for s in (train, test)
    ]
    random = [random_encoder_features(s.images) for s in (train, test)]
    found = [nearest_object(s).flatten(1) for s in (train, test)]
    assert ridge_accuracy(pixels[0], y, pixels[1], z) < 0.3
    assert ridge_accuracy(random[0], y, random[1], z) < 0.2
    assert ridge_accuracy(found[0], y, found[1], z) > 0.6
