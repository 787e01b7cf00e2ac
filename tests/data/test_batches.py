"""Random resized crops, flips and epoch orders."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.data.batches import (
    channel_statistics,
    crop_and_resize,
    draw_crops,
    draw_flips,
    epoch_order,
    resized,
)
from sparsejepa.randomness import generator

KEEP = torch.zeros(64, dtype=torch.bool)


def random_images(count: int, height: int = 32, width: int = 32) -> torch.Tensor:
    shape = (count, height, width, 3)
    return torch.randint(256, shape, dtype=torch.uint8, generator=generator(0, "images"))


def crop_one_by_one(images, boxes, flips, size):
    """The definition: cut out, interpolate, mirror, for each image in float64."""
    rows = []
    for image, (top, left, height, width), flip in zip(images, boxes, flips, strict=True):
        crop = image[top : top + height, left : left + width].permute(2, 0, 1).double() / 255
        crop = F.interpolate(crop[None], (size, size), mode="bilinear", align_corners=False)[0]
        rows.append(crop.flip(2) if flip else crop)
    return torch.stack(rows)


@pytest.mark.parametrize(("height", "width", "size"), [(20, 44, 32), (48, 40, 17)])
def test_batched_crops_equal_cropping_one_by_one(height, width, size):
    """A batched crop equals crop, then bilinear interpolation, then flip, on every image."""
    images = random_images(64, height, width)
    boxes = draw_crops(64, height, width, generator(0, "crops"), scale=(0.05, 1.0))
    flips = draw_flips(64, generator(0, "flips"))
    assert 12 < flips.sum() < 52  # five standard deviations about a half
    batched = crop_and_resize(images, boxes, flips, size)
    expected = crop_one_by_one(images, boxes, flips, size)
    assert batched.dtype == torch.float32
    torch.testing.assert_close(batched.double(), expected, atol=1e-5, rtol=0)


def test_pixels_outside_the_crop_have_no_influence():
    """What lies outside the box never leaks in, not even at the edges of an enlarged crop."""
    images = random_images(64)
    boxes = draw_crops(64, 32, 32, generator(2, "crops"), scale=(0.1, 0.5))
    changed = 255 - images
    for image, original, (top, left, height, width) in zip(changed, images, boxes, strict=True):
        inside = (slice(top, top + height), slice(left, left + width))
        image[inside] = original[inside]
    before = crop_and_resize(images, boxes, KEEP, 32)
    # Rounding of a coordinate at the crop's edge may weigh a neighbour with some 1e-7.
    torch.testing.assert_close(crop_and_resize(changed, boxes, KEEP, 32), before, atol=1e-5, rtol=0)


@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    seed=st.integers(0, 1000),
    smallest=st.floats(0.01, 1.0),
    ratio=st.tuples(st.floats(0.2, 1.0), st.floats(1.0, 5.0)),
)
def test_boxes_lie_inside_the_image(height, width, seed, smallest, ratio):
    """Every box has an area and fits, for all image shapes, also where no attempt fitted."""
    boxes = draw_crops(50, height, width, generator(seed), scale=(smallest, 1.0), ratio=ratio)
    assert (boxes >= torch.tensor([0, 0, 1, 1])).all()
    assert (boxes[:, :2] + boxes[:, 2:] <= torch.tensor([height, width])).all()


def test_boxes_follow_torchvisions_law():
    """Area, shape and position have torchvision's distributions (two-sample KS test, p > 0.001)."""
    from scipy.stats import ks_2samp
    from torchvision.transforms import RandomResizedCrop

    count, scale, ratio, blank = 3000, (0.3, 1.0), (3 / 4, 4 / 3), torch.zeros(3, 40, 90)
    ours = draw_crops(count, 40, 90, generator(3), scale, ratio).double()
    # torchvision knows the global generator only; fork_rng gives it back untouched.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        draws = [RandomResizedCrop.get_params(blank, scale, ratio) for _ in range(count)]
    theirs = torch.tensor(draws, dtype=torch.float64)
    # Top, left, height, width and area.
    ours, theirs = (torch.cat([x, x[:, 2:3] * x[:, 3:]], 1) for x in (ours, theirs))
    for one, two in zip(ours.T, theirs.T, strict=True):
        assert ks_2samp(one, two).pvalue > 0.001


def test_boxes_that_never_fit_fall_back_to_the_centre():
    """Where no shape within `ratio` fits, the largest centred box that `ratio` allows is taken."""
    wide = draw_crops(20, 10, 100, generator(0), scale=(0.9, 1.0), ratio=(0.5, 2.0))
    assert (wide == torch.tensor([0, 40, 10, 20])).all()


@given(count=st.integers(1, 300), seed=st.integers(0, 100), epoch=st.integers(0, 100))
def test_epoch_order_visits_every_image_once(count, seed, epoch):
    """The order is a permutation, another for other epochs and seeds."""
    order = epoch_order(count, seed, epoch)
    assert torch.equal(order.sort().values, torch.arange(count))
    # Every step asks for it: it is the same tensor, not another draw of a million numbers.
    assert epoch_order(count, seed, epoch) is order
    if count > 50:
        assert not torch.equal(order, epoch_order(count, seed + 1, epoch))
        assert not torch.equal(order, epoch_order(count, seed, epoch + 1))


def test_resizing_keeps_what_fits_and_squeezes_the_rest():
    """Images of the size are passed through; others are the antialiased mean of what they cover."""
    images = random_images(3, 8, 8)
    assert resized(images, 8) is images
    wide = random_images(3, 32, 48)
    small = resized(wide, 16)
    assert small.shape == (3, 16, 16, 3) and small.dtype == torch.uint8
    planes = wide.permute(0, 3, 1, 2).double()
    expected = F.interpolate(planes, (16, 16), mode="bilinear", antialias=True)
    assert (small.permute(0, 3, 1, 2) - expected).abs().max() <= 0.501
    flat = torch.full((300, 12, 18, 3), 77, dtype=torch.uint8)
    assert (resized(flat, 6) == 77).all()


def test_channel_statistics_are_those_of_all_pixels():
    """Mean and standard deviation equal the direct computation, over more than one chunk."""
    images = random_images(5000, 4, 6)
    mean, std = channel_statistics(images)
    pixels = images.double().reshape(-1, 3) / 255
    assert mean == pytest.approx(pixels.mean(0).tolist(), abs=1e-12)
    assert std == pytest.approx(pixels.std(0, correction=0).tolist(), abs=1e-12)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_crops_are_the_same_on_the_gpu():
    """Boxes drawn on the CPU cut the same crops out of images on the GPU."""
    images = random_images(64)
    boxes, flips = draw_crops(64, 32, 32, generator(0)), draw_flips(64, generator(1))
    there = crop_and_resize(images.cuda(), boxes, flips, 32)
    assert there.is_cuda
    here = crop_and_resize(images, boxes, flips, 32)
    torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=0)
