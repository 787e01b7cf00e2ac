"""The chapter of probes: which features stand under which name, and views of one image."""

import pytest
import torch

from sparsejepa.chapters.probes import (
    LAST,
    PIXELS,
    UNTRAINED,
    accuracy_points,
    augmented_views,
    block_features,
    efficiency_curves,
    pixel_control,
    spectra,
)
from sparsejepa.data.batches import resized
from sparsejepa.intervals import Interval
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.probing.features import pixel_features, pooled_features
from sparsejepa.randomness import generator


def images(count: int, seed: int) -> torch.Tensor:
    return torch.randint(256, (count, 8, 8, 3), generator=generator(seed, "images")).byte()


@pytest.mark.parametrize("blocks", [1, 3])
def test_blocks_are_pooled_features(blocks: int) -> None:
    """Of each image set, the last block and the last blocks, as `pooled_features` has them."""
    config = EncoderConfig(image_size=8, patch_size=4, width=8, depth=3, heads=2)
    encoder = Encoder(config, generator(0, "weights"))
    sets = [images(5, 0), images(3, 1)]
    found = block_features(encoder, sets, blocks)
    assert list(found) == [LAST, f"last {blocks} blocks"][: 1 + (blocks > 1)]
    for shown, narrow in zip(sets, found[LAST], strict=True):
        torch.testing.assert_close(narrow, pooled_features(encoder, shown))
    for shown, wide in zip(sets, list(found.values())[-1], strict=True):
        assert torch.equal(wide, pooled_features(encoder, shown, last=blocks))


def test_pixels_are_centred_by_the_first_set() -> None:
    """At full size they are the raw-pixel control; reduced, its mean over each square."""
    sets = [images(6, 0), images(4, 1)]
    whole = pixel_control(sets, 8)[PIXELS]
    for ours, expected in zip(whole, pixel_features(*[s.clone() for s in sets]), strict=True):
        torch.testing.assert_close(ours, expected)
    small = pixel_control(sets, 4)[PIXELS]
    assert [x.shape for x in small] == [(6, 48), (4, 48)]
    first = resized(sets[0], 4).double().permute(0, 3, 1, 2).flatten(1) / 255
    torch.testing.assert_close(small[0].double(), first - first.mean(0), atol=1e-6, rtol=0)


def test_views_are_of_one_image() -> None:
    """Images of one grey each: so are their views, and the seed decides the crops."""
    grey = (20 * torch.arange(5)).byte()[:, None, None, None].expand(-1, 8, 8, 3).contiguous()
    shown, index = augmented_views(grey, 3, seed=0)
    assert index.tolist() == [i for i in range(5) for _ in range(3)]
    assert (shown.flatten(1) == 20 * index[:, None]).all()
    first, again, other = (augmented_views(images(4, 2), 2, seed)[0] for seed in (0, 0, 1))
    assert torch.equal(first, again) and not torch.equal(first, other)


def test_figures_show_every_row() -> None:
    """Rows, panels, dotted chance and markers; controls are dashed."""
    colors = {"jepa": "#0072B2", UNTRAINED: "#777777"}
    found = Interval(0.4, 0.3, 0.5, 0.95)
    panel = {(name, probe): found for name in colors for probe in ("linear", "kNN")}
    figure = accuracy_points({"a": panel, "b": panel}, colors, {"a": 0.1, "b": 0.2})
    assert [label.get_text() for label in figure.axes[0].get_yticklabels()] == list(colors)
    assert [axis.lines[-1].get_xdata()[0] for axis in figure.axes] == pytest.approx([10, 20])
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["linear", "kNN"]
    for figure in (
        efficiency_curves({name: [found, found] for name in colors}, colors, [10, 100]),
        spectra({name: [3.0, 1.0, 0.0] for name in colors}, colors),
    ):
        assert [text.get_text() for text in figure.legends[0].get_texts()] == list(colors)
    assert [line.get_linestyle() for line in figure.axes[0].lines] == ["-", "--"]
    assert figure.axes[0].lines[0].get_ydata().tolist() == [0.75, 0.25]
