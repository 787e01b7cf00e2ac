"""How many times faster batched crops are than a torchvision transform in a DataLoader."""

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sparsejepa.data.batches import crop_and_resize, draw_crops, draw_flips, epoch_order
from sparsejepa.randomness import generator
from tests.benchmarks.interleaved import race

COUNT, BATCH = 4096, 512


class PerImage(Dataset):
    """What torchvision's CIFAR100 does: a Pillow image and one transform call for each index."""

    def __init__(self, images: torch.Tensor):
        from torchvision import transforms

        self.images = images.numpy()
        crop = transforms.RandomResizedCrop(32, scale=(0.3, 1.0))
        parts = [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor()]
        self.transform = transforms.Compose(parts)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> torch.Tensor:
        return self.transform(Image.fromarray(self.images[index]))


def per_image(images: torch.Tensor) -> int:
    with torch.random.fork_rng(devices=[]):
        return sum(len(x) for x in DataLoader(PerImage(images), BATCH, shuffle=True))


def batched(images: torch.Tensor) -> int:
    seen = 0
    for step, rows in enumerate(epoch_order(len(images), 0, 0).split(BATCH)):
        source = generator(0, "crops", step)
        boxes, flips = draw_crops(len(rows), 32, 32, source), draw_flips(len(rows), source)
        seen += len(crop_and_resize(images[rows], boxes, flips, 32))
    return seen


@pytest.mark.slow
def test_augmentation_ratio(capsys):
    """Both go through all images."""
    images = torch.randint(256, (COUNT, 32, 32, 3), dtype=torch.uint8, generator=generator(0))
    assert per_image(images) == batched(images) == COUNT
    alternatives = {
        "torchvision transform in a DataLoader": lambda: per_image(images),
        "batched crops and flips": lambda: batched(images),
    }
    race(capsys, "augmentation, images", alternatives, 3, COUNT)
