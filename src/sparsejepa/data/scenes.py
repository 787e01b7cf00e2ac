"""Small drawn images of objects on a ground plane, with everything about them known.

Spheres, cubes, cylinders and cones under a light of random direction, on ground of random colour
with painted discs. In `scenes` they are 3 to 10, small; the tasks `count` and `distance` are those
of CLEVR in VTAB (Zhai et al. 2019). In `objects` they are 1 to 3, large: what `label`, the nearest
one, is can be learned in minutes. All objects share the colours: no mean colour gives a class away.
"""

import itertools
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

from sparsejepa import randomness

SHAPES = ("sphere", "cube", "cylinder", "cone")
COLOURS = ("red", "yellow", "green", "blue")
HUES = (0.0, 0.14, 0.36, 0.61)  # positions of the colours on the colour circle, in turns
SIZE = 32  # pixels on a side
FOCAL_LENGTH = 22.0  # pixels per unit of size at depth 1
TILT = 0.22  # half the height of the ellipses that close cylinders and cones: the view from above
DISCS = 2  # painted discs on the ground, at most
AXIS = torch.arange(SIZE) + 0.5  # centres of the pixels
UP = [0.0, 1.0, 0.0]
CHUNK = 500  # images drawn from one generator: changing it changes every image
ARRANGEMENTS = 16  # drawn for each image, of which the least crowded is kept


class Layout(NamedTuple):
    """How many objects there are, where they stand, and from where they are seen."""

    fewest: int  # objects in an image
    most: int
    nearest: float  # least depth of the nearest object, in ground units, and
    farthest_nearest: float  # its greatest
    farthest: float  # greatest depth of the others
    camera_height: tuple[float, float]  # ground units
    horizon: tuple[float, float]  # pixel row
    window: int  # pixels on a side in which an object is drawn: the largest one fits


LAYOUTS = {
    "scenes": Layout(3, 10, 2.4, 4.5, 8.5, (2.5, 2.75), (4.5, 6.0), window=16),
    "objects": Layout(1, 3, 1.6, 2.8, 5.0, (1.15, 1.6), (4.0, 10.0), window=24),
}
Table = dict[str, Shaped[Tensor, "N ..."]]
# Signed distance to the outline of a shape, negative inside, and the surface normal of each pixel.
Surface = tuple[Float[Tensor, "N W W"], Float[Tensor, "N W W 3"]]


class Scenes(NamedTuple):
    """Drawn images and what is known of them.

    Factors per scene [N]: light_azimuth, light_elevation (radians), exposure, ground_hue (turns),
    camera_height (ground units), horizon (pixel row). Per object [N, K], nearest first, zero where
    absent: present, shape, colour, size (radius), lateral (to the right), depth (ground units), yaw
    (radians), visible (fraction that nothing hides).
    """

    images: UInt8[Tensor, "N 32 32 3"]  # RGB bytes
    labels: dict[str, Int64[Tensor, "N"]]  # label, count, distance
    label_names: dict[str, tuple[str, ...]]
    factors: Table


def draw_scenes(count: int, seed: int, split: str, name: str = "scenes") -> Scenes:
    """Draws the first `count` images of the endless sequence that name, `seed` and `split` tell.

    Bit-equal on one machine and PyTorch version; elsewhere single pixels may round differently.
    """
    parts, layout = [], LAYOUTS[name]
    for start in range(0, count, CHUNK):
        generator = randomness.generator(seed, name, split, start // CHUNK)
        scenes, objects = _draw_tables(layout, CHUNK, generator)
        images, objects["visible"] = render(scenes, objects, generator, layout.window)
        parts.append({"images": images, **scenes, **objects})
    factors = {name: torch.cat([part[name] for part in parts])[:count] for name in parts[0]}
    images = factors.pop("images")
    nearest_depth = factors["depth"][:, 0].contiguous()
    bin_width = (layout.farthest_nearest - layout.nearest) / 6
    edges = [round(layout.nearest + bin_width * i, 2) for i in range(7)]
    labels = {
        "label": factors["shape"][:, 0] * len(COLOURS) + factors["colour"][:, 0],
        "count": factors["present"].sum(1) - layout.fewest,
        "distance": torch.bucketize(nearest_depth, torch.tensor(edges[1:-1]), right=True),
    }
    label_names = {
        "label": tuple(f"{colour} {shape}" for shape in SHAPES for colour in COLOURS),
        "count": tuple(f"{n} objects" for n in range(layout.fewest, layout.most + 1)),
        "distance": tuple(f"{a} to {b}" for a, b in itertools.pairwise(edges)),
    }
    return Scenes(images, labels, label_names, factors)


def _draw_tables(layout: Layout, n: int, generator: torch.Generator) -> tuple[Table, Table]:
    """One row per scene and, for its objects from the nearest to the farthest, K columns."""

    def uniform(low: float, high: float, *shape: int) -> Tensor:
        return low + (high - low) * torch.rand(n, *shape, generator=generator)

    def choice(options: int, columns: int = layout.most) -> Tensor:
        return torch.randint(options, (n, columns), generator=generator)

    ranges = {
        "light_azimuth": (-1.3, 1.3),
        "light_elevation": (0.4, 1.2),
        "exposure": (0.75, 1.15),
        "ground_hue": (0.0, 1.0),
        "camera_height": layout.camera_height,
        "horizon": layout.horizon,
    }
    scenes = {name: uniform(*ends) for name, ends in ranges.items()}
    present = torch.arange(layout.most) < layout.fewest + choice(layout.most - layout.fewest + 1, 1)
    objects = {"present": present, "shape": choice(len(SHAPES)), "colour": choice(len(COLOURS))}
    objects["size"] = uniform(0.52, 0.72, layout.most)
    objects["yaw"] = uniform(0.35, 1.22, layout.most)
    # Uniform in 1 / depth, hence spread evenly over the rows of the image.
    nearest = uniform(layout.nearest, layout.farthest_nearest, 1, 1).expand(-1, ARRANGEMENTS, -1)
    share = torch.rand(n, ARRANGEMENTS, layout.most - 1, generator=generator)
    others = 1 / (share / layout.farthest + (1 - share) / (nearest + 0.3))
    # Present objects first, then by depth.
    depth = torch.cat((nearest, others), 2).where(present[:, None], torch.inf).sort(2).values
    depth = depth.where(present[:, None], 1.0)
    radius = FOCAL_LENGTH * objects["size"][:, None] / depth
    column = radius + (SIZE - 2 * radius) * torch.rand(depth.shape, generator=generator)
    height = FOCAL_LENGTH * scenes["camera_height"][:, None, None] / depth - radius
    # Squared distance over summed radii of the two objects closest to covering each other.
    dx, dy = (x[..., :, None] - x[..., None, :] for x in (column, height))
    gap = (dx.square() + dy.square()) / (radius[..., :, None] + radius[..., None, :]).square()
    pairs = present[:, :, None] & present[:, None, :] & ~torch.eye(layout.most).bool()
    best = torch.arange(n), gap.where(pairs[:, None], torch.inf).flatten(2).amin(2).argmax(1)
    objects["depth"] = depth[best]
    objects["lateral"] = (column[best] - SIZE / 2) * objects["depth"] / FOCAL_LENGTH
    return scenes, {name: x * present for name, x in objects.items()}


def render(
    scenes: Table, objects: Table, generator: torch.Generator, window: int
) -> tuple[UInt8[Tensor, "N 32 32 3"], Float[Tensor, "N K"]]:
    """Images, and the fraction of each object that no nearer one hides; objects nearest first.

    `generator` draws what is no factor: discs, textures, shades of a colour and pixel noise.
    """
    present = objects["present"]
    depth = objects["depth"].where(present, 1.0)
    radius = torch.where(present, FOCAL_LENGTH * objects["size"] / depth, 1.0)
    column = SIZE / 2 + FOCAL_LENGTH * objects["lateral"] / depth
    foot = scenes["horizon"][:, None] + FOCAL_LENGTH * scenes["camera_height"][:, None] / depth
    azimuth, elevation = scenes["light_azimuth"], scenes["light_elevation"]
    flat = elevation.cos()
    light = torch.stack((flat * azimuth.sin(), elevation.sin(), flat * azimuth.cos()), 1)
    # A shade of the named colour for each object.
    jitter = torch.rand(3, *radius.shape, generator=generator)
    hue = torch.tensor(HUES)[objects["colour"]] + 0.07 * (jitter[0] - 0.5)
    albedo = _hsv_to_rgb(hue, 0.6 + 0.35 * jitter[1], 0.7 + 0.3 * jitter[2])
    ground, haze = _background(scenes, generator)
    canvas, visible = torch.zeros_like(ground).flatten(1, 2), torch.zeros_like(radius)
    shade = torch.ones_like(ground[..., 0])  # soft shadows around the feet, away from the light
    free = torch.ones_like(canvas[..., 0])  # share of each pixel that no object covers
    for k in range(radius.shape[1]):
        here, centre, bottom, size = (x[:, [k]] for x in (present, column, foot, radius))
        # Of a window around the object, pushed back into the image at its edges.
        starts = ((x.round().long() - window // 2) for x in (bottom - size, centre))
        rows, columns = (x.clamp(0, SIZE - window) + torch.arange(window) for x in starts)
        u, v = (columns + 0.5 - centre) / size, (bottom - rows - 0.5) / size - 1
        cover, colour = _draw_object(
            u, v, size, objects["shape"][:, k], objects["yaw"][:, k], albedo[:, k], light
        )
        cover = (cover * here[..., None]).flatten(1)
        # Far objects fade into the haze above the horizon.
        fade = (0.05 * (depth[:, [k]] - 2)).clamp(0, 1)[..., None]
        colour = torch.lerp(colour.flatten(1, 2), haze, fade)
        pixels = (rows[:, :, None] * SIZE + columns[:, None, :]).flatten(1)
        free_here = free.gather(1, pixels)
        seen = free_here * cover
        canvas.scatter_add_(1, pixels[..., None].expand(-1, -1, 3), seen[..., None] * colour)
        free.scatter_(1, pixels, free_here - seen)
        visible[:, k] = seen.sum(1) / cover.sum(1).clamp(min=1e-6)
        x = (AXIS - (centre - 0.7 * size * light[:, :1])) / (1.1 * size)
        y = (AXIS - bottom + 0.3 * size) / (0.45 * size)
        along, across = 0.6 * here * torch.exp(-y.square()), torch.exp(-x.square())
        shade *= 1 - along[:, :, None] * across[:, None, :]
    ground = (ground * shade[..., None]).flatten(1, 2)
    canvas = (canvas + free[..., None] * ground).unflatten(1, (SIZE, SIZE))
    # The sum of two uniforms: noise without the library-dependent rounding of a normal draw.
    noise = torch.rand(2, *canvas.shape, generator=generator).sum(0) - 1
    canvas = canvas * scenes["exposure"][:, None, None, None] + 0.05 * noise
    return (canvas.clamp(0, 1) * 255).round().to(torch.uint8), visible


def _draw_object(
    u: Tensor, v: Tensor, radius: Tensor, shape: Tensor, yaw: Tensor, albedo: Tensor, light: Tensor
) -> Surface:
    """How much of each pixel one object of each scene covers, and its shaded colour there.

    u to the right and v upwards are in units of the object's radius on the screen, from -1 to 1:
    v = -1 is where it touches the ground. Normals are (right, up, towards the viewer).
    """
    u, v = u[:, None, :].expand(-1, v.shape[1], -1), v[:, :, None].expand(-1, -1, u.shape[1])
    distance, normal = torch.empty(u.shape), torch.empty(*u.shape, 3)
    for index, surface in enumerate((_sphere, _cube, _cylinder, _cone)):
        rows = (shape == index).nonzero()[:, 0]
        distance[rows], normal[rows] = surface(u[rows], v[rows], yaw[rows, None, None])
    halfway = F.normalize(light + torch.tensor([0.0, 0.3, 0.95]), dim=1)
    lit, gloss = ((normal @ x[:, None, :, None]).clamp(min=0) for x in (light, halfway))
    colour = albedo[:, None, None] * (0.38 + 0.72 * lit) + 0.3 * gloss.pow(24)
    return (0.5 - distance * radius[..., None]).clamp(0, 1), colour


def _sphere(u: Tensor, v: Tensor, yaw: Tensor) -> Surface:
    return torch.sqrt(u.square() + v.square()) - 1, _round_normal(u, v)


def _cube(u: Tensor, v: Tensor, yaw: Tensor) -> Surface:
    width, height = 0.86, 1.25
    # The foot prints of the two visible side faces run from the front edge up to both sides.
    left, right = torch.cos(yaw), torch.sin(yaw)
    edge = width * (left - right) / (left + right)
    rise_left, rise_right = TILT * right / left, TILT * left / right
    bottom = -1 + torch.where(u < edge, (edge - u) * rise_left, (u - edge) * rise_right)
    back = height - 1 + torch.minimum(
        (edge + width) * rise_left + (u + width) * rise_right,
        (width - edge) * rise_right + (width - u) * rise_left,
    )  # fmt: skip
    distance = torch.maximum(u.abs() - width, torch.maximum(bottom - v, v - back))
    left_face = torch.stack((-right, 0 * yaw, left), -1)
    right_face = torch.stack((left, 0 * yaw, right), -1)
    side = torch.where((u < edge)[..., None], left_face, right_face)
    return distance, torch.where((v > bottom + height)[..., None], torch.tensor(UP), side)


def _cylinder(u: Tensor, v: Tensor, yaw: Tensor) -> Surface:
    width = 0.74
    body = torch.maximum(u.abs() - width, v.abs() - (1 - TILT))
    top, bottom = _ellipse(u, v - 1 + TILT, width), _ellipse(u, v + 1 - TILT, width)
    distance = torch.minimum(body, torch.minimum(top, bottom))
    side = _round_normal(u / width, 0 * v)
    return distance, torch.where((top < 0)[..., None], torch.tensor(UP), side)


def _cone(u: Tensor, v: Tensor, yaw: Tensor) -> Surface:
    width = 0.92
    slope = (4 - 2 * TILT + TILT**2 / 4 + width**2) ** 0.5
    side = (u.abs() * (2 - TILT) + (v - 1) * width) / slope
    body = torch.maximum(side, TILT - 1 - v)
    distance = torch.minimum(body, _ellipse(u, v + 1 - TILT, width))
    half = (width * (1 - v) / (2 - TILT)).clamp(min=0.05)
    return distance, _round_normal(0.9 * u / half, 0 * v + 0.4)


def _ellipse(u: Tensor, v: Tensor, width: float) -> Tensor:
    return TILT * (torch.sqrt((u / width).square() + (v / TILT).square()) - 1)


def _round_normal(right: Tensor, up: Tensor) -> Tensor:
    """The unit normal with these two parts, pointing towards the viewer."""
    normal = torch.stack((right, up, (1 - right.square() - up.square()).clamp(min=0).sqrt()), -1)
    return F.normalize(normal, dim=-1)


def _background(scenes: Table, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Textured ground with painted discs under a plain wall, and the colour of the wall."""
    n = scenes["horizon"].shape[0]
    u = torch.rand(4 + 6 * DISCS, n, generator=generator)
    horizon, row = scenes["horizon"][:, None, None], AXIS[None, :, None]
    below = (row - horizon).clamp(min=0.25)
    depth = FOCAL_LENGTH * scenes["camera_height"][:, None, None] / below
    ground = _hsv_to_rgb(scenes["ground_hue"], 0.1 + 0.4 * u[0], 0.4 + 0.4 * u[1])[:, None, None]
    wall = _hsv_to_rgb(u[2], 0.05 + 0.25 * u[3], 0 * u[3] + 0.8)[:, None, None]
    patches = torch.rand(n, 1, 9, 9, generator=generator) - 0.5
    texture = F.interpolate(patches, (SIZE, SIZE), mode="bilinear")[:, 0]
    image = ground * (1 + 0.3 * texture)[..., None]
    for present, x, z, size, hue, value in u[4:].view(DISCS, 6, n, 1, 1):
        z = 2.5 + 4 * z
        lateral = (AXIS - SIZE * x) * depth / FOCAL_LENGTH
        inside = 0.35 + 0.4 * size - torch.sqrt(lateral.square() + (depth - z).square())
        # Pixels per ground unit along the row; along the column they are fewer.
        cover = (0.5 + inside * FOCAL_LENGTH / depth).clamp(0, 1) * (present < 0.6)
        paint = _hsv_to_rgb(hue, 0 * hue + 0.7, 0.4 + 0.4 * value)
        image = image + cover[..., None] * (paint * (1 + 0.2 * texture)[..., None] - image)
    haze = (0.05 * (depth - 2)).clamp(0, 0.8)[..., None]
    image = image + haze * (wall - image)
    above = (horizon - row + 0.5).clamp(0, 1)[..., None]
    return image + above * (wall * (1 - 0.015 * row[..., None]) - image), wall[:, 0]


def _hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Colour from hue in turns, saturation and value in [0, 1]."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * hue[..., None]) % 6
    dip = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * dip)
