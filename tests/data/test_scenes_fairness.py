"""The scenes are a fair toy: linear readouts fail where a trained network does not."""

import pytest
import timm
import torch
from torch import nn

from sparsejepa.data.batches import epoch_order, to_unit
from sparsejepa.data.scenes import draw_scenes
from sparsejepa.randomness import generator
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


@pytest.mark.slow
def test_a_small_trained_network_solves_the_tasks(test):
    """Fair toy, the other half: three convolutional blocks learn what linear readouts cannot."""

    def block(channels: int, out: int) -> nn.Sequential:
        halve = nn.Conv2d(channels, out, 3, stride=2, padding=1, bias=False)
        mix = nn.Conv2d(out, out, 3, padding=1, bias=False)
        return nn.Sequential(
            halve, nn.BatchNorm2d(out), nn.ReLU(), mix, nn.BatchNorm2d(out), nn.ReLU()
        )

    train = draw_scenes(12_000, 0, "train")
    classes = [len(train.label_names[name]) for name in train.labels]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = nn.Sequential(
            block(3, 24), block(24, 48), block(48, 96), nn.Flatten(), nn.Linear(1536, sum(classes))
        )
    epochs, batch = 8, 100
    steps = epochs * len(train.images) // batch
    optimizer = torch.optim.AdamW(network.parameters(), weight_decay=0.05)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 3e-3, steps)
    for epoch in range(epochs):
        for rows in epoch_order(len(train.images), 0, epoch).split(batch):
            flips = torch.rand(len(rows), generator=generator(epoch, int(rows[0]))) < 0.5
            images = to_unit(train.images[rows]) * 4 - 2
            images = torch.where(flips[:, None, None, None], images.flip(3), images)
            outputs = network(images).split(classes, 1)
            loss = sum(
                nn.functional.cross_entropy(output, labels[rows])
                for output, labels in zip(outputs, train.labels.values(), strict=True)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    network.eval()
    with torch.inference_mode():
        outputs = network(to_unit(test.images) * 4 - 2).split(classes, 1)
    least = {"label": 0.6, "count": 0.3, "distance": 0.6}
    for (name, wanted), output in zip(test.labels.items(), outputs, strict=True):
        assert (output.argmax(1) == wanted).float().mean() > least[name], name
