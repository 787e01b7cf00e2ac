"""Draws the tables of `scenes` as anti-aliased images: painted from the nearest object backwards.

Object coordinates: u to the right and v upwards in units of the object's radius on the screen, from
-1 to 1, so that v = -1 is where it touches the ground. A shape is a signed distance to its outline
(negative inside) and a surface normal (right, up, towards the viewer) at each pixel.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int64, Shaped, UInt8
from torch import Tensor

SHAPES = ("sphere", "cube", "cylinder", "cone")
COLOURS = ("red", "yellow", "green", "blue")
# Positions of the colours on the colour circle, in turns.
HUES = (0.0, 0.14, 0.36, 0.61)
# Pixels on a side.
SIZE = 32
# Pixels per unit of size at depth 1.
FOCAL_LENGTH = 22.0
# Half the height of the ellipses that close cylinders and cones: the view from above.
TILT = 0.22
# Painted discs on the ground, at most.
DISCS = 2
# An object is drawn in a window of this many pixels on a side, which the largest one fits.
WINDOW = 16

Surface = tuple[Float[Tensor, "N W W"], Float[Tensor, "N W W 3"]]


def render(
    scenes: dict[str, Shaped[Tensor, "N"]],
    objects: dict[str, Shaped[Tensor, "N K"]],
    generator: torch.Generator,
) -> tuple[UInt8[Tensor, "N 32 32 3"], Float[Tensor, "N K"]]:
    """Images, and the fraction of each object that no nearer object hides.

    `objects` are sorted from the nearest to the farthest; `generator` draws what is no factor:
    discs, textures, shades of a colour and pixel noise.
    """
    present = objects["present"].float()
    depth = torch.where(objects["present"], objects["depth"], 1.0)
    radius = torch.where(objects["present"], FOCAL_LENGTH * objects["size"] / depth, 1.0)
    column = SIZE / 2 + FOCAL_LENGTH * objects["lateral"] / depth
    foot = scenes["horizon"][:, None] + FOCAL_LENGTH * scenes["camera_height"][:, None] / depth
    light = _direction(scenes["light_azimuth"], scenes["light_elevation"])
    albedo = _object_colours(objects["colour"], generator)
    ground, haze = _background(scenes, generator)
    ground = ground * _shadows(column, foot, radius, present, light)

    ground = ground.flatten(1, 2)
    canvas = torch.zeros_like(ground)
    # What of each pixel is still free.
    free = torch.ones_like(ground[..., 0])
    visible = torch.zeros_like(radius)
    for k in range(radius.shape[1]):
        rows = _window(foot[:, k] - radius[:, k])
        columns = _window(column[:, k])
        u = (columns + 0.5 - column[:, k, None]) / radius[:, k, None]
        v = (foot[:, k, None] - rows - 0.5) / radius[:, k, None] - 1
        cover, colour = _draw_object(
            u, v, radius[:, k], objects["shape"][:, k], objects["yaw"][:, k], albedo[:, k], light
        )
        cover = (cover * present[:, k, None, None]).flatten(1)
        # Far objects fade into the haze above the horizon.
        fade = (0.05 * (depth[:, k] - 2)).clamp(0, 1)[:, None, None]
        colour = torch.lerp(colour.flatten(1, 2), haze, fade)
        pixels = (rows[:, :, None] * SIZE + columns[:, None, :]).flatten(1)
        free_here = free.gather(1, pixels)
        seen = free_here * cover
        canvas.scatter_add_(1, pixels[..., None].expand(-1, -1, 3), seen[..., None] * colour)
        free.scatter_(1, pixels, free_here - seen)
        visible[:, k] = seen.sum(1) / cover.sum(1).clamp(min=1e-6)
    canvas = (canvas + free[..., None] * ground).unflatten(1, (SIZE, SIZE))
    # The sum of two uniforms: noise without the library-dependent rounding of a normal draw.
    noise = torch.rand(2, *canvas.shape, generator=generator).sum(0) - 1
    canvas = canvas * scenes["exposure"][:, None, None, None] + 0.05 * noise
    return (canvas.clamp(0, 1) * 255).round().to(torch.uint8), visible


def _window(centre: Float[Tensor, "N"]) -> Int64[Tensor, "N W"]:
    """The rows or columns of a window around `centre`, pushed back into the image at its edges."""
    start = (centre.round().long() - WINDOW // 2).clamp(0, SIZE - WINDOW)
    return start[:, None] + torch.arange(WINDOW)


def _draw_object(
    u: Float[Tensor, "N W"],
    v: Float[Tensor, "N W"],
    radius: Float[Tensor, "N"],
    shape: Int64[Tensor, "N"],
    yaw: Float[Tensor, "N"],
    albedo: Float[Tensor, "N 3"],
    light: Float[Tensor, "N 3"],
) -> Surface:
    """How much of each pixel one object of each scene covers, and its shaded colour there."""
    u = u[:, None, :].expand(-1, WINDOW, -1)
    v = v[:, :, None].expand(-1, -1, WINDOW)
    distance = torch.empty(u.shape)
    normal = torch.empty(*u.shape, 3)
    for index, surface in enumerate((_sphere, _cube, _cylinder, _cone)):
        rows = (shape == index).nonzero()[:, 0]
        distance[rows], normal[rows] = surface(u[rows], v[rows], yaw[rows, None, None])
    cover = (0.5 - distance * radius[:, None, None]).clamp(0, 1)
    diffuse = (normal @ light[:, None, :, None])[..., 0].clamp(min=0)
    halfway = F.normalize(light + torch.tensor([0.0, 0.3, 0.95]), dim=1)
    gloss = (normal @ halfway[:, None, :, None])[..., 0].clamp(min=0).pow(24)
    colour = albedo[:, None, None] * (0.38 + 0.72 * diffuse)[..., None] + 0.3 * gloss[..., None]
    return cover, colour


def _sphere(u: Tensor, v: Tensor, yaw: Tensor) -> Surface:
    distance = torch.sqrt(u.square() + v.square()) - 1
    return distance, _round_normal(u, v)


def _cube(u: Tensor, v: Tensor, yaw: Tensor) -> Surface:
    width, height = 0.86, 1.25
    # The foot prints of the two visible side faces run from the front edge up to both sides.
    left, right = torch.cos(yaw), torch.sin(yaw)
    edge = width * (left - right) / (left + right)
    rise_left, rise_right = TILT * right / left, TILT * left / right
    bottom = -1 + torch.where(u < edge, (edge - u) * rise_left, (u - edge) * rise_right)
    rim = bottom + height
    back = height - 1 + torch.minimum(
        (edge + width) * rise_left + (u + width) * rise_right,
        (width - edge) * rise_right + (width - u) * rise_left,
    )  # fmt: skip
    distance = torch.maximum(u.abs() - width, torch.maximum(bottom - v, v - back))
    left_face = torch.stack((-right, 0 * yaw, left), -1)
    right_face = torch.stack((left, 0 * yaw, right), -1)
    side = torch.where((u < edge)[..., None], left_face, right_face)
    return distance, torch.where((v > rim)[..., None], torch.tensor([0.0, 1.0, 0.0]), side)


def _cylinder(u: Tensor, v: Tensor, yaw: Tensor) -> Surface:
    width = 0.74
    body = torch.maximum(u.abs() - width, v.abs() - (1 - TILT))
    top, bottom = _ellipse(u, v - 1 + TILT, width), _ellipse(u, v + 1 - TILT, width)
    distance = torch.minimum(body, torch.minimum(top, bottom))
    up = torch.tensor([0.0, 1.0, 0.0])
    return distance, torch.where((top < 0)[..., None], up, _round_normal(u / width, 0 * v))


def _cone(u: Tensor, v: Tensor, yaw: Tensor) -> Surface:
    width = 0.92
    slope = (4 - 2 * TILT + TILT**2 / 4 + width**2) ** 0.5
    side = (u.abs() * (2 - TILT) + (v - 1) * width) / slope
    body = torch.maximum(side, TILT - 1 - v)
    distance = torch.minimum(body, _ellipse(u, v + 1 - TILT, width))
    half = (width * (1 - v) / (2 - TILT)).clamp(min=0.05)
    return distance, _round_normal(0.9 * u / half, 0 * v + 0.4)


def _ellipse(u: Tensor, v: Tensor, width: float) -> Float[Tensor, "N W W"]:
    return TILT * (torch.sqrt((u / width).square() + (v / TILT).square()) - 1)


def _round_normal(right: Tensor, up: Tensor) -> Float[Tensor, "N W W 3"]:
    """The unit normal with these two parts, pointing towards the viewer."""
    normal = torch.stack((right, up, (1 - right.square() - up.square()).clamp(min=0).sqrt()), -1)
    return F.normalize(normal, dim=-1)


def _direction(azimuth: Float[Tensor, "N"], elevation: Float[Tensor, "N"]) -> Float[Tensor, "N 3"]:
    flat = torch.cos(elevation)
    return torch.stack(
        (flat * torch.sin(azimuth), torch.sin(elevation), flat * torch.cos(azimuth)), 1
    )


def _object_colours(
    colour: Shaped[Tensor, "N K"], generator: torch.Generator
) -> Float[Tensor, "N K 3"]:
    """A shade of the named colour for each object."""
    jitter = torch.rand(3, *colour.shape, generator=generator)
    hue = torch.tensor(HUES)[colour] + 0.07 * (jitter[0] - 0.5)
    return _hsv_to_rgb(hue, 0.6 + 0.35 * jitter[1], 0.7 + 0.3 * jitter[2])


def _background(
    scenes: dict[str, Shaped[Tensor, "N"]], generator: torch.Generator
) -> tuple[Float[Tensor, "N 32 32 3"], Float[Tensor, "N 1 3"]]:
    """Textured ground with painted discs under a plain wall, and the colour of the wall."""
    n = scenes["horizon"].shape[0]
    u = torch.rand(4 + 6 * DISCS, n, generator=generator)
    horizon = scenes["horizon"][:, None, None]
    row = (torch.arange(SIZE) + 0.5)[None, :, None]
    below = (row - horizon).clamp(min=0.25)
    depth = FOCAL_LENGTH * scenes["camera_height"][:, None, None] / below
    ground = _hsv_to_rgb(scenes["ground_hue"], 0.1 + 0.4 * u[0], 0.4 + 0.4 * u[1])[:, None, None]
    wall = _hsv_to_rgb(u[2], 0.05 + 0.25 * u[3], 0 * u[3] + 0.8)[:, None, None]
    patches = torch.rand(n, 1, 9, 9, generator=generator) - 0.5
    texture = F.interpolate(patches, (SIZE, SIZE), mode="bilinear")[:, 0]
    image = ground * (1 + 0.3 * texture)[..., None]
    for present, x, z, size, hue, value in u[4:].view(DISCS, 6, n, 1, 1):
        z = 2.5 + 4 * z
        lateral = (torch.arange(SIZE) + 0.5 - SIZE * x) * depth / FOCAL_LENGTH
        inside = 0.35 + 0.4 * size - torch.sqrt(lateral.square() + (depth - z).square())
        # Pixels per ground unit along the row; along the column they are fewer.
        cover = (0.5 + inside * FOCAL_LENGTH / depth).clamp(0, 1) * (present < 0.6)
        paint = _hsv_to_rgb(hue, 0 * hue + 0.7, 0.4 + 0.4 * value)
        image = image + cover[..., None] * (paint * (1 + 0.2 * texture)[..., None] - image)
    haze = (0.05 * (depth - 2)).clamp(0, 0.8)[..., None]
    image = image + haze * (wall - image)
    above = (horizon - row + 0.5).clamp(0, 1)[..., None]
    lit = wall * (1 - 0.015 * row[..., None])
    return image + above * (lit - image), wall[:, 0]


def _shadows(
    column: Float[Tensor, "N K"],
    foot: Float[Tensor, "N K"],
    radius: Float[Tensor, "N K"],
    present: Float[Tensor, "N K"],
    light: Float[Tensor, "N 3"],
) -> Float[Tensor, "N 32 32 1"]:
    """Soft ellipses around the feet of all objects, away from the light."""
    pixel = torch.arange(SIZE) + 0.5
    shade = torch.ones(column.shape[0], SIZE, SIZE)
    for k in range(column.shape[1]):
        centre = column[:, k] - 0.7 * radius[:, k] * light[:, 0]
        x = (pixel - centre[:, None]) / (1.1 * radius[:, k, None])
        y = (pixel - foot[:, k, None] + 0.3 * radius[:, k, None]) / (0.45 * radius[:, k, None])
        across, along = torch.exp(-x.square()), 0.6 * present[:, k, None] * torch.exp(-y.square())
        shade = shade * (1 - along[:, :, None] * across[:, None, :])
    return shade[..., None]


def _hsv_to_rgb(hue: Tensor, saturation: Tensor, value: Tensor) -> Float[Tensor, "*S 3"]:
    """Colour from hue in turns, saturation and value in [0, 1]."""
    k = (torch.tensor([5.0, 3.0, 1.0]) + 6 * hue[..., None]) % 6
    dip = torch.minimum(k, 4 - k).clamp(0, 1)
    return value[..., None] * (1 - saturation[..., None] * dip)
