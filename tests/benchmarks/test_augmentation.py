"""How many times faster batched crops are than a torchvision transform in a DataLoader."""

import time

import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from sparsejepa.data.batches import crop_and_resize, draw_crops, draw_flips, epoch_order
from sparsejepa.randomness import generator

COUNT, BATCH, ROUNDS = 4096, 512, 3


class PerImage(Dataset):
    """What torchvision's CIFAR100 does: a Pillow image and one transform call for each index."""

    def __init__(self, images: torch.Tensor):
        from torchvision import transforms

        self.images = images.numpy()
        self.transform = transforms.Compose(
            [
                transforms.RandomResizedCrop(32, scale=(0.3, 1.0)),
                transforms.RandomHorizontalFlip(),
                transforms.ToTensor(),
            ]
        )

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
@pytest.mark.benchmark
def test_augmentation_ratio(capsys):
    """Both go through all images; the ratio of their best times is printed, never asserted."""
    images = torch.randint(256, (COUNT, 32, 32, 3), dtype=torch.uint8, generator=generator(0))
    best = {}
    # Alternating rounds, so that a busy machine slows both; short runs are repeated more often.
    for run in (per_image, *[batched] * 10) * ROUNDS:
        start = time.perf_counter()
        assert run(images) == COUNT
        took = time.perf_counter() - start
        best[run.__name__] = min(best.get(run.__name__, took), took)
    speed = {name: COUNT / took for name, took in best.items()}
    with capsys.disabled():
        print(
            f"\naugmentation, images/s: torchvision in a DataLoader {speed['per_image']:,.0f}, "
            f"batched {speed['batched']:,.0f}, ratio {speed['batched'] / speed['per_image']:.1f}"
        )
