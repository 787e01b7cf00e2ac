"""The drawn scenes: what is known of them is true, and they are a fair toy."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chi2_contingency, chisquare

from sparsejepa.data import scenes
from sparsejepa.data.batches import crop_and_resize, to_unit
from sparsejepa.data.scenes import (
    CHUNK,
    COLOURS,
    FOCAL_LENGTH,
    LAYOUTS,
    SHAPES,
    SIZE,
    draw_scenes,
)
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.randomness import generator


@pytest.fixture(scope="module")
def train():
    return draw_scenes(4000, 0, "train")


@pytest.fixture(scope="module")
def test():
    return draw_scenes(1500, 0, "test")


def nearest_object(scenes, half: int = 0) -> torch.Tensor:
    """The nearest object, cut out with the help of the factors (its left or right half)."""
    f = {name: x[:, 0] if x.ndim == 2 else x for name, x in scenes.factors.items()}
    radius = FOCAL_LENGTH * f["size"] / f["depth"]
    column = SIZE / 2 + FOCAL_LENGTH * f["lateral"] / f["depth"]
    foot = f["horizon"] + FOCAL_LENGTH * f["camera_height"] / f["depth"]
    left = column - radius if half < 1 else column
    width = 2 * radius if half == 0 else radius
    box = torch.stack((foot - 2 * radius, left, 2 * radius, width), 1).round().long()
    box[:, :2] = box[:, :2].clamp(min=0)
    box[:, 2:] = torch.minimum(box[:, 2:], SIZE - box[:, :2])
    return crop_and_resize(scenes.images, box, torch.zeros(len(box)).bool(), 10)


def by_hand(*objects: dict[str, float]) -> tuple[torch.Tensor, torch.Tensor]:
    """One scene under plain light with the given objects, nearest first: image and visibility."""
    scene = {"light_azimuth": 0.0, "light_elevation": 0.8, "exposure": 1.0, "ground_hue": 0.8}
    scene |= {"camera_height": 2.6, "horizon": 5.0}
    table = {"present": True, "size": 0.6, "yaw": 0.7, "lateral": 0.0, "shape": 0}
    rows = [table | one for one in objects]
    return scenes.render(
        {name: torch.tensor([value]) for name, value in scene.items()},
        {name: torch.tensor([[row[name] for row in rows]]) for name in rows[0]},
        generator(0, "by hand"),
        LAYOUTS["scenes"].window,
    )


def centre_of(depth: float, size: float = 0.6) -> tuple[int, int]:
    """Row and column of the centre of an object straight ahead in a scene drawn by hand."""
    return int(5.0 + FOCAL_LENGTH * (2.6 - size) / depth), SIZE // 2


def test_labels_agree_with_the_table_of_objects(train):
    """Count, distance and class are those of the objects, which are sorted by depth."""
    present, depth = train.factors["present"], train.factors["depth"]
    ordered = torch.where(present, depth, torch.inf)
    assert torch.equal(ordered, ordered.sort(1).values)
    for name in ("shape", "colour", "size", "lateral", "depth", "yaw", "visible"):
        assert not train.factors[name][~present].any(), name
    count = present.sum(1)
    assert torch.equal(train.labels["count"], count - 3)
    assert count.min() == 3 and count.max() == 10
    nearest = ordered[:, 0]
    assert (nearest >= 2.4).all() and (nearest <= 4.5).all()
    bins = (nearest[:, None] >= torch.tensor([2.75, 3.1, 3.45, 3.8, 4.15])).sum(1)
    assert torch.equal(train.labels["distance"], bins)
    for row in range(50):
        shape = SHAPES[train.factors["shape"][row, 0]]
        colour = COLOURS[train.factors["colour"][row, 0]]
        assert train.label_names["label"][train.labels["label"][row]] == f"{colour} {shape}"


@pytest.mark.parametrize("name", LAYOUTS)
def test_every_object_stands_inside_the_image(name: str):
    """Outlines, computed from the factors by perspective, lie within the 32 by 32 pixels."""
    f, (fewest, most, *_) = draw_scenes(1000, 0, "train", name).factors, LAYOUTS[name]
    assert f["present"].sum(1).unique().tolist() == list(range(fewest, most + 1))
    depth = torch.where(f["present"], f["depth"], 3.0)
    radius = FOCAL_LENGTH * f["size"] / depth
    column = SIZE / 2 + FOCAL_LENGTH * f["lateral"] / depth
    foot = f["horizon"][:, None] + FOCAL_LENGTH * f["camera_height"][:, None] / depth
    inside = (column - radius > -0.01) & (column + radius < SIZE + 0.01)
    inside &= (foot < SIZE) & (foot - 2 * radius > 0)
    assert inside[f["present"]].all()


def test_nearer_objects_hide_farther_ones():
    """Where two objects overlap, the pixel shows the nearer one, whichever colour it has."""
    row, column = centre_of(3.0)
    for near, far, channel in ((0, 3, 0), (3, 0, 2)):
        image, visible = by_hand({"depth": 3.0, "colour": near}, {"depth": 3.2, "colour": far})
        assert image[0, row, column].argmax() == channel
        assert visible[0, 0] == 1 and 0 < visible[0, 1] < 0.4


def test_light_from_one_side_brightens_that_side(train):
    """With the light at the right, right halves of the nearest spheres are brighter than left."""
    f = train.factors
    for side in (-1, 1):
        rows = (f["shape"][:, 0] == 0) & (side * f["light_azimuth"] > 0.6)
        left, right = (nearest_object(train, half)[rows].mean() for half in (-1, 1))
        assert side * (right - left) > 0.05


def test_scene_does_not_depend_on_how_many_are_drawn():
    """The first scenes of a long draw are those of a short one, pixel for pixel."""
    short, long = draw_scenes(3, 5, "train"), draw_scenes(CHUNK + 1, 5, "train")
    assert len(short.images) == 3 and len(long.images) == CHUNK + 1
    assert torch.equal(short.images, long.images[:3])
    for name, values in short.factors.items():
        assert torch.equal(values, long.factors[name][:3]), name


def test_splits_seeds_and_chunks_share_no_image(train, test):
    """No image appears twice, within a split or between splits and seeds."""
    other = draw_scenes(500, 1, "train")
    images = torch.cat((train.images, test.images, other.images)).flatten(1)
    assert len({row.numpy().tobytes() for row in images}) == len(images)


def test_classes_are_balanced_and_tasks_independent(train):
    """Every label is uniform over its classes, and no label tells of another (p > 0.0001)."""
    names = list(train.labels)
    for name in names:
        classes = len(train.label_names[name])
        assert chisquare(train.labels[name].bincount(minlength=classes)).pvalue > 1e-4
    for a, b in (names[:2], names[1:], names[::2]):
        table = torch.zeros(len(train.label_names[a]), len(train.label_names[b]))
        table.index_put_(
            (train.labels[a], train.labels[b]), torch.ones(len(train.images)), accumulate=True
        )
        assert chi2_contingency(table.numpy()).pvalue > 1e-4


def ridge_accuracy(train_x, train_y, test_x, test_y) -> float:
    """Test accuracy of one-against-all ridge regression, the best of four penalties.

    Choosing on the test set flatters the readout, which makes an upper bound on it stricter.
    """
    mean, std = train_x.mean(0), train_x.std(0).clamp(min=1e-6)
    a, b = ((x - mean).double() / std for x in (train_x, test_x))
    a, b = (torch.cat((x, torch.ones(len(x), 1).double()), 1) for x in (a, b))
    targets = F.one_hot(train_y).double()
    best = 0.0
    for penalty in (1e1, 1e2, 1e3, 1e4):
        gram = a.T @ a + penalty * torch.eye(a.shape[1]).double()
        weights = torch.cholesky_solve(a.T @ targets, torch.linalg.cholesky(gram))
        best = max(best, ((b @ weights).argmax(1) == test_y).float().mean().item())
    return best


def test_linear_readouts_of_pixels_and_random_features_fail(train, test):
    """Fair toy: neither pixels nor a random encoder give the class; the nearest object does.

    Positive control: the same readout reaches far more once somebody cuts out the right object,
    so that the class is in the image and what is missing is finding it.
    """
    y, z = train.labels["label"], test.labels["label"]
    sets = train, test
    pixels = [F.avg_pool2d(to_unit(s.images), 2).flatten(1) for s in sets]
    encoder = Encoder(EncoderConfig(width=64, depth=4), generator(0, "random encoder")).eval()
    with torch.inference_mode():
        random = [
            torch.cat([encoder(part).mean(1) for part in to_unit(s.images).split(500)])
            for s in sets
        ]
    found = [nearest_object(s).flatten(1) for s in sets]
    assert ridge_accuracy(pixels[0], y, pixels[1], z) < 0.3
    assert ridge_accuracy(random[0], y, random[1], z) < 0.2
    assert ridge_accuracy(found[0], y, found[1], z) > 0.6
