"""`scenes`: small drawn images of objects on a ground plane, with everything about them known.

Each image shows 3 to 10 spheres, cubes, cylinders and cones under a light of random direction, on
ground of random colour, with painted discs on it that are no objects. The tasks are those for
which real sets exist: `label` (what stands nearest), `count` and `distance` (CLEVR's low-level
tasks in VTAB, Zhai et al. 2019). Colours, light and background vary and the other objects wear
the same colours, so that no mean colour gives a class away.
"""

import dataclasses

import torch
from jaxtyping import Bool, Float, Int64, Shaped, UInt8
from torch import Tensor

from sparsejepa import randomness
from sparsejepa.data import rendering
from sparsejepa.data.rendering import COLOURS, FOCAL_LENGTH, SHAPES, SIZE

FEWEST, MOST = 3, 10
# Depths in units of the ground plane, along the line of sight: the nearest object stands between
# the first two, all others behind it.
NEAREST, FARTHEST_NEAREST, FARTHEST = 2.4, 4.5, 8.5
# Inner edges of the six bins of `distance`, equally wide.
DISTANCE_EDGES = (2.75, 3.1, 3.45, 3.8, 4.15)
# Images drawn from one generator. Changing it changes every image.
CHUNK = 500
# Arrangements drawn for each image, of which the least crowded is kept.
ARRANGEMENTS = 16


@dataclasses.dataclass(frozen=True, eq=False)
class Scenes:
    """Drawn images and what is known of them."""

    images: UInt8[Tensor, "N 32 32 3"]  # RGB bytes
    labels: dict[str, Int64[Tensor, "N"]]  # label, count, distance
    label_names: dict[str, tuple[str, ...]]
    factors: dict[str, Shaped[Tensor, "N ..."]]
    # Per scene [N]: light_azimuth, light_elevation (radians), exposure, ground_hue (turns),
    # camera_height (ground units), horizon (pixel row). Per object [N, 10], nearest first, zero
    # where not present: present, shape, colour, size (radius), lateral (to the right), depth
    # (all three in ground units), yaw (radians), visible (fraction that nothing hides).


def draw_scenes(count: int, seed: int, split: str) -> Scenes:
    """Draws the first `count` scenes of the endless sequence that `seed` and `split` name.

    Scene i is the same whatever `count` is. On one machine and one PyTorch version the images
    are bit-equal in every run; elsewhere single pixels may round differently.

    Raises:
        ValueError: `count` is not positive.
    """
    if count < 1:
        raise ValueError(f"The number of scenes must be positive, not {count}.")
    parts = []
    for start in range(0, count, CHUNK):
        generator = randomness.generator(seed, "scenes", split, start // CHUNK)
        scenes, objects = _draw_tables(CHUNK, generator)
        images, objects["visible"] = rendering.render(scenes, objects, generator)
        parts.append({"images": images, **scenes, **objects})
    factors = {name: torch.cat([part[name] for part in parts])[:count] for name in parts[0]}
    images = factors.pop("images")
    nearest_depth = factors["depth"][:, 0].contiguous()
    labels = {
        "label": factors["shape"][:, 0] * len(COLOURS) + factors["colour"][:, 0],
        "count": factors["present"].sum(1) - FEWEST,
        "distance": torch.bucketize(nearest_depth, torch.tensor(DISTANCE_EDGES), right=True),
    }
    edges = (NEAREST, *DISTANCE_EDGES, FARTHEST_NEAREST)
    label_names = {
        "label": tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS),
        "count": tuple(f"{n} objects" for n in range(FEWEST, MOST + 1)),
        "distance": tuple(f"{a} to {b}" for a, b in zip(edges, edges[1:], strict=False)),
    }
    return Scenes(images, labels, label_names, factors)


def _draw_tables(
    n: int, generator: torch.Generator
) -> tuple[dict[str, Shaped[Tensor, "N"]], dict[str, Shaped[Tensor, "N K"]]]:
    """One row per scene and, for its objects from the nearest to the farthest, K = 10 columns."""

    def uniform(low: float, high: float, *shape: int) -> Float[Tensor, "..."]:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    def choice(options: int, *shape: int) -> Int64[Tensor, "..."]:
        return torch.randint(options, (n, *shape), generator=generator)

    scenes = {
        "light_azimuth": uniform(-1.3, 1.3),
        "light_elevation": uniform(0.4, 1.2),
        "exposure": uniform(0.75, 1.15),
        "ground_hue": uniform(0.0, 1.0),
        "camera_height": uniform(2.5, 2.75),
        "horizon": uniform(4.5, 6.0),
    }
    present = torch.arange(MOST) < FEWEST + choice(MOST - FEWEST + 1, 1)
    objects = {
        "present": present,
        "shape": choice(len(SHAPES), MOST),
        "colour": choice(len(COLOURS), MOST),
        "size": uniform(0.52, 0.72, MOST),
        "yaw": uniform(0.35, 1.22, MOST),
    }
    # Uniform in 1 / depth, hence spread evenly over the rows of the image.
    nearest = uniform(NEAREST, FARTHEST_NEAREST, 1, 1).expand(-1, ARRANGEMENTS, -1)
    share = torch.rand(n, ARRANGEMENTS, MOST - 1, generator=generator)
    others = 1 / (share / FARTHEST + (1 - share) / (nearest + 0.3))
    depth = torch.cat((nearest, others), 2)
    # Present objects first, then by depth.
    depth = torch.where(present[:, None], depth, torch.inf).sort(2).values
    depth = torch.where(present[:, None], depth, 1.0)
    radius = FOCAL_LENGTH * objects["size"][:, None] / depth
    column = radius + (SIZE - 2 * radius) * torch.rand(depth.shape, generator=generator)
    height = FOCAL_LENGTH * scenes["camera_height"][:, None, None] / depth - radius
    best = _clearance(column, height, radius, present).argmax(1)
    rows = torch.arange(n)
    objects["depth"] = depth[rows, best]
    objects["lateral"] = (column[rows, best] - SIZE / 2) * objects["depth"] / FOCAL_LENGTH
    return scenes, {name: x * present for name, x in objects.items()}


def _clearance(
    column: Float[Tensor, "N A K"],
    height: Float[Tensor, "N A K"],
    radius: Float[Tensor, "N A K"],
    present: Bool[Tensor, "N K"],
) -> Float[Tensor, "N A"]:
    """Of the two objects closest to covering each other: squared distance over summed radii."""
    dx = column[..., :, None] - column[..., None, :]
    dy = height[..., :, None] - height[..., None, :]
    gap = (dx.square() + dy.square()) / (radius[..., :, None] + radius[..., None, :]).square()
    pairs = present[:, :, None] & present[:, None, :] & ~torch.eye(present.shape[1]).bool()
    return torch.where(pairs[:, None], gap, torch.inf).flatten(2).amin(2)
