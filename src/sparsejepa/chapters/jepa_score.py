"""What the JEPA-SCORE chapter (04) alone uses: known densities, outliers, comparisons, figures."""

import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import matplotlib.pyplot as plt
import numpy as np
import seaborn as sns
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from PIL import Image
from torch import Tensor, nn

from sparsejepa.data.batches import to_unit
from sparsejepa.data.image_set import load_image_set
from sparsejepa.density.detectors import Fit, mahalanobis
from sparsejepa.density.jepa_score import EPS, JepaScore, Map, combine_views, jepa_score
from sparsejepa.density.separation import Separation, rank_correlation, separation
from sparsejepa.intervals import Interval, seed_interval
from sparsejepa.model.regularisers import (
    covariance_cost,
    epps_pulley,
    unit_vectors,
    variance_hinge,
)
from sparsejepa.probing.backbones import Backbone
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import nearest
from sparsejepa.randomness import generator

# Maps of known densities to a standard normal: score plus log φ(f) is log p exactly.


@dataclass(frozen=True, eq=False)
class ClosedForm:
    """A density, points, and the map that makes it standard normal."""

    map: Map
    points: Float64[Tensor, "N D"]
    log_density: Float64[Tensor, "N"]  # the true log p at the points, nats


def closed_forms(points: int, seed: int) -> dict[str, ClosedForm]:
    """Change of variables p(x) = φ(f(x)) |det J_f(x)|, where f is known (papers' eq. 4 at K = D).

    A Gaussian whitened in 4 dimensions (the score is constant: all that differs between points is
    φ); the logistic law in one dimension, f = Φ⁻¹ ∘ F; a mixture of two Gaussians in the plane by
    its triangular (Knothe-Rosenblatt) map.
    """
    return {
        "Gaussian, whitened (4-D)": _gaussian(points, seed),
        "logistic, monotone map (1-D)": _logistic(points),
        "mixture, triangular map (2-D)": _mixture(points, seed),
    }


def _gaussian(points: int, seed: int) -> ClosedForm:
    draw = generator(seed, "closed forms", "gaussian")
    root = torch.randn(4, 4, dtype=torch.float64, generator=draw)
    values, vectors = torch.linalg.eigh(root @ root.T)
    whiten = vectors / values.sqrt() @ vectors.T
    unit = torch.randn(points, 4, dtype=torch.float64, generator=draw)
    constant = 4 * math.log(2 * math.pi) + values.log().sum()
    return ClosedForm(
        lambda x: x @ whiten,
        unit @ (vectors * values.sqrt() @ vectors.T),
        -0.5 * (unit.square().sum(dim=1) + constant),
    )


def _logistic(points: int) -> ClosedForm:
    x = torch.linspace(-6, 6, points, dtype=torch.float64)
    density = torch.sigmoid(x) * torch.sigmoid(-x)
    return ClosedForm(lambda x: torch.special.ndtri(torch.sigmoid(x)), x[:, None], density.log())


def _mixture(points: int, seed: int) -> ClosedForm:
    """f_1 normalises x by its marginal law, f_2 normalises y by its law given x."""
    weights = torch.tensor([0.3, 0.7], dtype=torch.float64)
    at_x, at_y = torch.tensor([[-1.5, 1.0], [2.0, -1.0]], dtype=torch.float64)

    def normal(z: Tensor) -> Tensor:
        return torch.exp(-0.5 * z.square()) / math.sqrt(2 * math.pi)

    def normalise(point: Tensor) -> Tensor:
        x, y = point[:, :1], point[:, 1:]
        share = weights * normal(x - at_x)
        share = share / share.sum(dim=1, keepdim=True)
        first = (weights * torch.special.ndtr(x - at_x)).sum(dim=1)
        second = (share * torch.special.ndtr(y - at_y)).sum(dim=1)
        return torch.special.ndtri(torch.stack([first, second], dim=1))

    draw = generator(seed, "closed forms", "mixture")
    drawn = 1.5 * torch.randn(points, 2, dtype=torch.float64, generator=draw)
    density = (weights * normal(drawn[:, :1] - at_x) * normal(drawn[:, 1:] - at_y)).sum(dim=1)
    return ClosedForm(normalise, drawn, density.log())


# Densities that can be written down, and small networks trained on their points.


@dataclass(frozen=True, eq=False)
class GaussianMixture:
    """sum_c weights_c N(x; means_c, axes_c diag(scales_c²) axes_cᵀ)."""

    weights: Float64[Tensor, "C"]  # sum to 1
    means: Float64[Tensor, "C D"]
    axes: Float64[Tensor, "C D D"]  # columns are orthonormal principal axes
    scales: Float64[Tensor, "C D"]  # standard deviations along them

    def log_density(self, x: Float64[Tensor, "N D"]) -> Float64[Tensor, "N"]:
        """log p(x), nats."""
        away = torch.einsum("ncd,cde->nce", x[:, None] - self.means, self.axes) / self.scales
        volume = self.scales.log().sum(dim=1) + 0.5 * x.shape[1] * math.log(2 * math.pi)
        return torch.logsumexp(self.weights.log() - volume - 0.5 * away.square().sum(2), dim=1)

    def sample(self, count: int, draw: torch.Generator) -> Float64[Tensor, "N D"]:
        """Independent draws."""
        component = torch.multinomial(self.weights, count, replacement=True, generator=draw)
        normal = torch.randn(count, self.means.shape[1], dtype=torch.float64, generator=draw)
        along = normal * self.scales[component]
        return self.means[component] + torch.einsum("nde,ne->nd", self.axes[component], along)


def drawn_mixture(dimensions: int, components: int, seed: int) -> GaussianMixture:
    """A mixture whose density varies much between and within its components.

    Means are normal with standard deviation 2, scales log-uniform from 0.3 to 1.2, axes random,
    weights proportional to uniform draws from 0.2 to 1.
    """
    draw = generator(seed, "mixture", dimensions, components)
    shape = (components, dimensions)
    options = {"dtype": torch.float64, "generator": draw}
    low, high = math.log(0.3), math.log(1.2)
    weights = 0.2 + 0.8 * torch.rand(components, **options)
    return GaussianMixture(
        weights / weights.sum(),
        2 * torch.randn(shape, **options),
        torch.linalg.qr(torch.randn(*shape, dimensions, **options)).Q,
        (low + (high - low) * torch.rand(shape, **options)).exp(),
    )


Objective = Literal["VICReg", "SIGReg", "none", "untrained"]


@dataclass(frozen=True)
class ToyConfig:
    """One kind of encoder and its training."""

    objective: Objective  # what prevents collapse; untrained: no training at all
    embedding: int  # K, dimensions of an embedding
    hidden: int = 64  # width of both hidden layers
    steps: int = 1000  # of AdamW, cosine to zero
    batch_size: int = 256  # points a step, two views each
    learning_rate: float = 3e-3  # at the first step
    noise: float = 0.1  # standard deviation of a view's noise, in the units of x
    slices: int = 8  # SIGReg: random directions a step
    weight: float = 0.05  # SIGReg: lambda of (1 - lambda) · invariance + lambda · SIGReg


def train_toys(
    config: ToyConfig, density: GaussianMixture, seeds: tuple[int, ...]
) -> list[nn.Module]:
    """One encoder Float["B D"] to Float["B K"] for each seed, frozen, in evaluation mode.

    Every seed has initial weights, points and noise of its own; the points are new in each step.
    """
    widths = (density.means.shape[1], config.hidden, config.hidden, config.embedding)
    stack = _initial_stack(widths, seeds)
    if config.objective != "untrained":
        parameters = [tensor.requires_grad_() for tensor in stack]
        optimiser = torch.optim.AdamW(parameters, config.learning_rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, config.steps)
        for step in range(config.steps):
            optimiser.zero_grad()
            # The sum over seeds: each one's gradient is its own.
            sum(_loss(config, stack, _views(config, density, seeds, step), seeds, step)).backward()
            optimiser.step()
            schedule.step()
    return [_encoder([tensor.detach()[i] for tensor in stack]) for i in range(len(seeds))]


def _loss(
    config: ToyConfig,
    stack: list[Float[Tensor, "S ..."]],
    views: Float[Tensor, "2 S B D"],
    seeds: tuple[int, ...],
    step: int,
) -> list[Float[Tensor, ""]]:
    """One loss a seed."""
    first, second = (_forward(stack, view) for view in views)
    losses = []
    for seed, z, other in zip(seeds, first, second, strict=True):
        invariance = (z - other).square().mean()
        if config.objective == "none":
            losses.append(invariance)
        elif config.objective == "VICReg":
            spread = (variance_hinge(z) + variance_hinge(other)) / 2
            correlation = (covariance_cost(z) + covariance_cost(other)) / 2
            losses.append(25 * invariance + 25 * spread + correlation)
        else:
            draw = generator(seed, "toy slices", step)
            slices = unit_vectors(config.embedding, config.slices, draw)
            normal = (epps_pulley(z @ slices) + epps_pulley(other @ slices)).mean() / 2
            losses.append((1 - config.weight) * invariance + config.weight * normal)
    return losses


def _views(
    config: ToyConfig, density: GaussianMixture, seeds: tuple[int, ...], step: int
) -> Float[Tensor, "2 S B D"]:
    pairs = []
    for seed in seeds:
        draw = generator(seed, "toy points", step)
        points = density.sample(config.batch_size, draw).float()
        noise = torch.randn(2, *points.shape, generator=draw)
        pairs.append(points + config.noise * noise)
    return torch.stack(pairs, dim=1)


def _initial_stack(widths: tuple[int, ...], seeds: tuple[int, ...]) -> list[Tensor]:
    """Weights [S, in, out] and biases [S, 1, out], in turn, as PyTorch's linear layers start."""
    stack = []
    for layer, (inputs, outputs) in enumerate(zip(widths, widths[1:], strict=False)):
        for name, shape in (("weight", (inputs, outputs)), ("bias", (1, outputs))):
            drawn = [
                torch.rand(shape, generator=generator(seed, "toy initial", layer, name))
                for seed in seeds
            ]
            stack.append((2 * torch.stack(drawn) - 1) / inputs**0.5)
    return stack


def _forward(
    stack: list[Float[Tensor, "S ..."]], x: Float[Tensor, "S B D"]
) -> Float[Tensor, "S B K"]:
    for weight, bias in zip(stack[:-2:2], stack[1:-2:2], strict=True):
        x = F.gelu(torch.baddbmm(bias, x, weight))
    return torch.baddbmm(stack[-1], x, stack[-2])


def _encoder(weights: list[Tensor]) -> nn.Module:
    layers: list[nn.Module] = []
    for weight, bias in zip(weights[::2], weights[1::2], strict=True):
        linear = nn.Linear(*weight.shape)
        linear.load_state_dict({"weight": weight.T, "bias": bias[0]})
        layers += [linear, nn.GELU()]
    return nn.Sequential(*layers[:-1]).eval().requires_grad_(False)


# Images: outliers and plain properties.


def outlier_set(name: str, size: int, count: int, seed: int) -> UInt8[Tensor, "N S S 3"]:
    """Images of a local set, `count` drawn from its test split or else its training, at `size`.

    Images of another size are resized, with antialiasing. What is resized is smoother or sharper
    than the images that an encoder knows: part of what makes such a set easy to tell.

    Raises:
        FileNotFoundError: the set is not here; says where it was looked for.
        ValueError: its files are damaged.
    """
    try:
        images = load_image_set(name, "test").images
    except FileNotFoundError:
        images = load_image_set(name, "train").images
    # Sets may be in the order of their classes.
    order = torch.randperm(len(images), generator=generator(seed, "outlier order", name))
    return resized(images[order[:count]], size)


def resized(images: UInt8[Tensor, "N H W 3"], size: int) -> UInt8[Tensor, "N S S 3"]:
    """Bilinear with antialiasing, rounded to bytes; images of the right size stay as they are."""
    if images.shape[1:3] == (size, size):
        return images
    smaller = F.interpolate(to_unit(images), (size, size), mode="bilinear", antialias=True)
    return _bytes(smaller)


def drawn_outliers(
    images: UInt8[Tensor, "N S S 3"], patch_size: int, seed: int
) -> dict[str, UInt8[Tensor, "N S S 3"]]:
    """Outliers that need no data: five made from `images`, pixel noise and plain colours.

    noise: every byte uniform; plain colours: one colour an image; shuffled patches: same patches
    of `patch_size` in another order; inverted: 255 minus every byte; blurred: averaged over
    5 × 5 pixels; low contrast: a third of each image's deviations from its mean colour.
    The last two keep the scene: a score that ranks them by how much they vary is a contrast meter.
    """
    count, size = len(images), images.shape[1]
    draw = generator(seed, "outliers")
    unit = to_unit(images)
    mean = unit.mean(dim=(2, 3), keepdim=True)
    blurred = F.avg_pool2d(F.pad(unit, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    colours = torch.randint(256, (count, 1, 1, 3), dtype=torch.uint8, generator=draw)
    return {
        "noise": torch.randint(256, images.shape, dtype=torch.uint8, generator=draw),
        "plain colours": colours.expand(-1, size, size, -1).contiguous(),
        "shuffled patches": shuffled_patches(images, patch_size, draw),
        "inverted": 255 - images,
        "blurred": _bytes(blurred),
        "low contrast": _bytes(mean + (unit - mean) / 3),
    }


def shuffled_patches(
    images: UInt8[Tensor, "N S S 3"], patch_size: int, draw: torch.Generator
) -> UInt8[Tensor, "N S S 3"]:
    """Each image's patches in an order of its own.

    Raises:
        ValueError: the patches do not fill the image.
    """
    count, size = len(images), images.shape[1]
    if size % patch_size:
        raise ValueError(f"Images of {size} pixels cannot be cut into patches of {patch_size}.")
    grid = size // patch_size
    patches = images.view(count, grid, patch_size, grid, patch_size, 3).transpose(2, 3)
    patches = patches.reshape(count, grid * grid, -1)
    order = torch.rand(count, grid * grid, generator=draw).argsort(dim=1)
    moved = patches.gather(1, order[:, :, None].expand_as(patches))
    moved = moved.view(count, grid, grid, patch_size, patch_size, 3).transpose(2, 3)
    return moved.reshape(images.shape)


def _bytes(unit: Tensor) -> UInt8[Tensor, "N H W 3"]:
    return (unit.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().contiguous()


# Rec. 601 luma, as in JPEG.
LUMA = (0.299, 0.587, 0.114)


def image_statistics(images: UInt8[Tensor, "N H W 3"]) -> dict[str, Float64[Tensor, "N"]]:
    """contrast, grey-level entropy, edges, brightness, JPEG size and saturation of every image.

    contrast: standard deviation of luma; edges: mean absolute difference of neighbouring luma;
    brightness: mean luma (all three in grey levels, 0 to 255); entropy: of the histogram of luma in
    256 bins, nats; JPEG size: bytes at quality 90; saturation: mean over pixels of the largest of
    red, green and blue minus the smallest (grey levels), 0 for a grey image.
    """
    luma = images.double() @ torch.tensor(LUMA, dtype=torch.float64)
    flat = luma.flatten(1)
    levels = flat.round().long()
    counts = torch.zeros(len(images), 256, dtype=torch.float64)
    counts.scatter_add_(1, levels, torch.ones_like(flat))
    across, down = luma.diff(dim=2).abs(), luma.diff(dim=1).abs()
    return {
        "contrast": flat.std(dim=1, correction=0),
        "entropy": torch.special.entr(counts / flat.shape[1]).sum(dim=1),
        "edges": (across.mean(dim=(1, 2)) + down.mean(dim=(1, 2))) / 2,
        "brightness": flat.mean(dim=1),
        "JPEG size": torch.tensor([_jpeg_bytes(image) for image in images], dtype=torch.float64),
        "saturation": (images.amax(dim=3) - images.amin(dim=3)).double().mean(dim=(1, 2)),
    }


def _jpeg_bytes(image: UInt8[Tensor, "H W 3"]) -> int:
    buffer = io.BytesIO()
    Image.fromarray(image.numpy()).save(buffer, "JPEG", quality=90)
    return len(buffer.getvalue())


# Comparisons: encoders × image sets × scores.

# Noisy copies of a point over which eq. 4 takes its mean.
VIEWS = 8


@dataclass(frozen=True)
class Curation:
    """A probe trained on what one rule leaves of the training images."""

    accuracy: float  # share of test images, 0 to 1; over all draws of a random rule
    correct: list[Bool[Tensor, "M"]]  # one a draw


def score_images(
    encoder: nn.Module, images: UInt8[Tensor, "N H W 3"], null_directions: int | None = None
) -> JepaScore:
    """JEPA-SCORE of bytes by an encoder of images in [0, 1]."""
    return jepa_score(encoder, to_unit(images), null_directions=null_directions)


def backbone_scores(
    backbone: Backbone,
    images: UInt8[Tensor, "N H W 3"],
    null_directions: int | None = None,
    chunk_size: int = 64,
) -> JepaScore:
    """JEPA-SCORE of bytes of any size by any backbone, through its own preprocessing."""
    return jepa_score(
        backbone.embedding(),
        torch.stack([backbone.prepare(Image.fromarray(image.numpy())) for image in images]),
        null_directions=null_directions,
        chunk_size=chunk_size,
        batch_size=1,
    )


@torch.no_grad()
def backbone_embeddings(
    backbone: Backbone, images: UInt8[Tensor, "N H W 3"]
) -> Float[Tensor, "N K"]:
    """Embeddings alone, image by image."""
    encoder, device = backbone.embedding(), backbone.mean.device
    pixels = (backbone.prepare(Image.fromarray(image.numpy())) for image in images)
    return torch.cat([encoder(x[None].to(device)).cpu() for x in pixels])


def without_largest(score: JepaScore, share: float = 0.2) -> Float[Tensor, "B"]:
    """The score without this share of the kept singular values, the largest ones, nats.

    The public evaluation of JEPA-SCORE found it to separate outliers a little better.
    """
    kept = score.log_spectrum[:, : score.log_spectrum.shape[1] - score.null_directions]
    return kept[:, round(share * kept.shape[1]) :].clamp(min=math.log(EPS)).sum(dim=1)


def toy_correlations(
    config: ToyConfig, density: GaussianMixture, seeds: tuple[int, ...], points: int, seed: int
) -> tuple[dict[str, Interval], list[nn.Module]]:
    """Spearman's correlation of each score with the true log-density, and the encoders.

    On new points of the density, the same for all. Intervals are Student's over seeds of training.
    JEPA-SCORE, the same over several views of each point, as training made them (eq. 4), and, from
    the same embeddings: with the Gaussian term, that term alone, with the density that the
    embeddings really have by the distance to the tenth neighbour among as many training points,
    minus that distance alone, Mahalanobis; and that distance in the space of x, which sees the data
    themselves.
    """
    encoders = train_toys(config, density, seeds)
    x, bank = (density.sample(points, generator(seed, "toy", name)) for name in ("points", "bank"))
    truth = density.log_density(x)
    noise = torch.randn(VIEWS, *x.shape, generator=generator(seed, "toy", "views"))
    views = (x.float() + config.noise * noise).flatten(0, 1)
    found: dict[str, list[float]] = {}
    for encoder in encoders:
        score = jepa_score(encoder, x.float(), null_directions=0, batch_size=points)
        embeddings, known = score.embeddings, encoder(bank.float())
        away = torch.cdist(embeddings, known).kthvalue(10).values
        # They lie on a surface of as many dimensions as the score has singular values.
        dimensions = score.log_spectrum.shape[1]
        scores = {
            "JEPA-SCORE": score.score,
            f"JEPA-SCORE, {VIEWS} views": combine_views(
                jepa_score(encoder, views, null_directions=0, batch_size=points).score.view(
                    VIEWS, points
                )
            ),
            "JEPA-SCORE + Gaussian": score.log_density,
            "Gaussian alone": score.log_density - score.score,
            "JEPA-SCORE + neighbours": score.score - dimensions * away.clamp(min=1e-30).log(),
            "kNN of embeddings": -away,
            "Mahalanobis": mahalanobis(known)(embeddings) if known.std() > 0 else truth * 0,
            "kNN of the data": -torch.cdist(x, bank).kthvalue(10).values,
        }
        for name, values in scores.items():
            rho = rank_correlation(values.numpy(), truth.numpy(), seed, draws=2).value
            found.setdefault(name, []).append(rho)
    return {name: seed_interval(values) for name, values in found.items()}, encoders


def by_method(
    found: Mapping[str, Mapping[str, Interval]],
    methods: Mapping[str, str],
    bounds: tuple[float, float] = (-1.0, 1.0),
) -> dict[str, dict[str, Interval]]:
    """The mean over each method's encoders, with Student's interval over their seeds.

    A method with one encoder keeps that encoder's interval, which is over images.

    Args:
        found: encoder -> quantity -> value.
        methods: encoder -> method.
        bounds: of the quantities, to which Student's interval is cut.
    """
    together: dict[str, dict[str, list[Interval]]] = {}
    for encoder, cells in found.items():
        for quantity, cell in cells.items():
            together.setdefault(methods[encoder], {}).setdefault(quantity, []).append(cell)
    return {
        method: {
            quantity: cells[0] if len(cells) == 1 else _over_seeds(cells, bounds)
            for quantity, cells in by_quantity.items()
        }
        for method, by_quantity in together.items()
    }


def _over_seeds(cells: list[Interval], bounds: tuple[float, float]) -> Interval:
    found, (least, most) = seed_interval([cell.value for cell in cells]), bounds
    return replace(found, low=max(found.low, least), high=min(found.high, most))


def separations(
    data: Float[Tensor, "N"], outliers: Mapping[str, Float[Tensor, "M"]], seed: int
) -> dict[str, Separation]:
    """Of one score, against every set of outliers."""
    return {
        name: separation(data.numpy(), scores.numpy(), seed) for name, scores in outliers.items()
    }


def detector_separations(
    fit: Fit,
    training: Float[Tensor, "N d"],
    data: Float[Tensor, "M d"],
    outliers: Mapping[str, Float[Tensor, "L d"]],
    seed: int,
) -> dict[str, Separation]:
    """Of a detector fitted on training features, on held-out data, against every set."""
    score = fit(training)
    return separations(score(data), {name: score(x) for name, x in outliers.items()}, seed)


def own_similarity(features: Float[Tensor, "N d"], k: int = 10) -> Float[Tensor, "N"]:
    """Mean cosine similarity to the k nearest *other* rows."""
    # The nearest one of all is the row itself.
    return nearest(features, features, k + 1)[0][:, 1:].mean(dim=1)


def kept_rows(score: Float[Tensor, "N"], dropped: float) -> Int64[Tensor, "kept"]:
    """The rows that stay when the `dropped` share with the lowest scores goes, in their order."""
    count = len(score) - round(dropped * len(score))
    return score.argsort(descending=True, stable=True)[:count].sort().values


def curate(
    choose: Callable[[int], Int64[Tensor, "kept"]],
    draws: int,
    training: tuple[Float[Tensor, "N d"], Int64[Tensor, "N"]],
    test: tuple[Float[Tensor, "M d"], Int64[Tensor, "M"]],
    seed: int,
) -> Curation:
    """A linear probe of what `choose(draw)` keeps, for every draw of a random rule.

    Test images of a class that has lost all its training images count as wrong.
    """
    x, y = training
    features, labels = test
    correct = []
    for draw in range(draws):
        rows = choose(draw)
        known = labels.clamp(max=int(y[rows].max()))
        found = linear_probe(x[rows], y[rows], features, known, seed=seed)
        correct.append(found.predictions == labels)
    return Curation(torch.stack(correct).double().mean().item(), correct)


# Figures.

# One look a score, in every figure of the chapter: told apart without colour, too.
_LOOKS = {
    "JEPA-SCORE": ("#0072B2", "o"),
    "JEPA-SCORE, 8 views": ("black", "1"),
    "JEPA-SCORE + Gaussian": ("#56B4E9", "s"),
    "JEPA-SCORE + neighbours": ("#882255", "p"),
    "without the largest fifth": ("#332288", "D"),
    "Gaussian alone": ("#E69F00", "^"),
    "kNN similarity": ("#D55E00", "v"),
    "kNN distance": ("#A0522D", "X"),
    "kNN of embeddings": ("#D55E00", "v"),
    "kNN of the data": ("#777777", "x"),
    "Mahalanobis": ("#009E73", "<"),
    "Mahalanobis per class": ("#44AA99", ">"),
    "Gaussian likelihood per class": ("#CC79A7", "P"),
    "feature norm": ("#999933", "*"),
}
_OTHER = ("0.3", ".")


def stretching(
    x: Float64[Tensor, "N"], density: Float64[Tensor, "N"], share: Float64[Tensor, "N"]
) -> Figure:
    """A density above, an even one below, and where the map between them puts points.

    Evenly spaced points x are joined with their images: where the density is high, these lie
    apart. The shade of a line is the logarithm of the density there.

    Args:
        share: the images, shares of the data below x, from 0 to 1.
    """
    figure, (above, fan, below) = plt.subplots(
        3, 1, figsize=(6.5, 4.6), height_ratios=(1, 1.2, 0.8), layout="constrained"
    )
    low, high = x.min().item(), x.max().item()
    shades, logs = plt.get_cmap("crest"), density.log()
    scale = plt.Normalize(logs.min().item(), logs.max().item())
    for start, end, log in zip(((x - low) / (high - low)), share, logs, strict=True):
        fan.plot([start, end], [1, 0], color=shades(scale(log)), lw=1)
    above.fill_between(x.numpy(), density.numpy(), color="0.85")
    above.plot(x.numpy(), density.numpy(), color="0.2")
    above.set(xlim=(low, high), xlabel="x", ylabel="density of\nthe data")
    below.fill_between([0, 1], [1, 1], color="0.85")
    below.plot([0, 1], [1, 1], color="0.2")
    below.set(xlim=(0, 1), ylim=(0, 1.5), xlabel="f(x)", ylabel="density of the\nembeddings")
    fan.set_xlim(0, 1)
    for axis in (above, below):
        axis.set_ylim(0, None)
        sns.despine(ax=axis)
    fan.axis("off")
    return figure


def agreement(
    cases: Mapping[str, tuple[Float64[Tensor, "N"], Float64[Tensor, "N"]]],
) -> Figure:
    """A panel a case: the log-density found against the true one; equal on the diagonal."""
    figure, axes = _panels(len(cases), 3.0, 3.0)
    for axis, (name, (truth, found)) in zip(axes, cases.items(), strict=True):
        ends = [truth.min().item(), truth.max().item()]
        axis.plot(ends, ends, color="0.6", lw=1)
        axis.scatter(truth.numpy(), found.numpy(), s=12, color=_LOOKS["JEPA-SCORE"][0])
        axis.set(title=name, xlabel="true log p(x), nats")
        sns.despine(ax=axis)
    axes[0].set_ylabel("score + log φ(f(x)), nats")
    return figure


def density_maps(
    maps: Mapping[str, Float64[Tensor, "G G"]], extent: float, points: Float64[Tensor, "N 2"]
) -> Figure:
    """Maps over a square of the plane from -extent to extent, each by its own ranks.

    Ranks, because the claim is one of order and the scales have nothing in common. The points are
    data: elsewhere no encoder has learned anything.
    """
    columns = min(5, len(maps))
    rows = -(-len(maps) // columns)
    figure, axes = plt.subplots(
        rows, columns, figsize=(2.3 * columns, 2.5 * rows), squeeze=False, layout="constrained"
    )
    for axis in axes.flat:
        axis.axis("off")
    for axis, (name, values) in zip(axes.flat, maps.items(), strict=False):
        ranks = values.flatten().argsort().argsort().view(values.shape).numpy()
        axis.imshow(ranks, origin="lower", cmap="crest_r", extent=[-extent, extent] * 2)
        axis.plot(*points.T.numpy(), ".", color="#D55E00", ms=1.5)
        axis.set(xlim=(-extent, extent), ylim=(-extent, extent))
        axis.set_title(name, fontsize=9)
    return figure


def correlations_over_width(
    found: Mapping[str, Mapping[str, Mapping[int, Interval]]],
) -> Figure:
    """A panel a case: rank correlation of every score with log p over the embedding's width K.

    Args:
        found: case -> score -> K -> correlation with its interval over seeds.
    """
    figure, axes = _panels(len(found), 2.6, 3.2)
    for axis, (case, scores) in zip(axes, found.items(), strict=True):
        for shift, (name, by_width) in enumerate(scores.items()):
            color, marker = _LOOKS.get(name, _OTHER)
            # Side by side: intervals at one place would hide each other.
            x = np.arange(len(by_width)) + (shift - (len(scores) - 1) / 2) * 0.06
            cells = list(by_width.values())
            axis.errorbar(
                x, [cell.value for cell in cells], yerr=_errors(cells), color=color,
                marker=marker, ms=5, lw=1, capsize=2, label=name,
            )  # fmt: skip
        axis.set_xticks(range(len(by_width)), [str(width) for width in by_width])
        axis.axhline(0, color="0.6", lw=1)
        axis.set(title=case, xlabel="K, embedding dimensions", ylim=(-1.08, 1.08))
        sns.despine(ax=axis)
    axes[0].set_ylabel("Spearman's ρ with log p(x)")
    _legend_below(figure, axes[0], 3)
    return figure


def correlation_dots(found: Mapping[str, Mapping[str, Interval]]) -> Figure:
    """A panel an encoder, a row a property of the image: rank correlation with its interval."""
    figure, axes = _panels(len(found), 2.7, 2.8)
    for axis, (encoder, cells) in zip(axes, found.items(), strict=True):
        for row, cell in enumerate(cells.values()):
            axis.errorbar(
                cell.value, row, xerr=_errors([cell]), fmt="o", capsize=2,
                color=_LOOKS["JEPA-SCORE"][0],
            )  # fmt: skip
        axis.axvline(0, color="0.6", lw=1)
        axis.set(title=encoder, xlim=(-1.05, 1.05), xlabel="Spearman's ρ with the score")
        axis.set_yticks(range(len(cells)), list(cells))
        axis.grid(axis="x", alpha=0.3)
        sns.despine(ax=axis)
    axes[0].invert_yaxis()
    return figure


def outlier_panels(found: Mapping[str, Mapping[str, Mapping[str, Interval]]]) -> Figure:
    """A panel an encoder, a row a set of outliers, a mark a score: AUROC with its interval.

    Args:
        found: encoder -> score -> set -> AUROC.
    """
    sets = list(next(iter(next(iter(found.values())).values())))
    figure, axes = _panels(len(found), 2.9, 0.62 * len(sets) + 1.6)
    for axis, scores in zip(axes, found.values(), strict=True):
        for shift, (name, by_set) in enumerate(scores.items()):
            color, marker = _LOOKS.get(name, _OTHER)
            offset = (shift - (len(scores) - 1) / 2) * 0.8 / len(scores)
            cells = list(by_set.values())
            axis.errorbar(
                [cell.value for cell in cells], np.arange(len(cells)) + offset,
                xerr=_errors(cells), fmt=marker, ms=4, lw=1, color=color, label=name,
            )  # fmt: skip
        axis.axvline(0.5, color="0.4", ls=":", lw=1)
        axis.set(xlim=(-0.03, 1.03), xlabel="AUROC (dotted: chance)")
        axis.grid(axis="y", alpha=0.3)
        sns.despine(ax=axis)
    for axis, encoder in zip(axes, found, strict=True):
        axis.set_title(encoder)
    axes[0].set_yticks(range(len(sets)), sets)
    axes[0].invert_yaxis()
    _legend_below(figure, axes[0], 3)
    return figure


def flattery_dots(found: Mapping[str, tuple[Interval, Interval]]) -> Figure:
    """A row a detector and set: AUROC held out (filled) and fitted on what is scored (hollow)."""
    figure, axis = plt.subplots(figsize=(6.5, 0.3 * len(found) + 1.4), layout="constrained")
    for row, (held_out, on_scored) in enumerate(found.values()):
        axis.axhline(row, color="0.92", lw=8, zorder=0)
        for cell, shift, fill, label in (
            (held_out, -0.12, "#0072B2", "fitted on other images"),
            (on_scored, 0.12, "white", "fitted on the images that it scores"),
        ):
            axis.errorbar(
                cell.value, row + shift, xerr=_errors([cell]), fmt="o", mfc=fill, color="#0072B2",
                capsize=2, lw=1, label=label if row == 0 else None,
            )  # fmt: skip
    axis.set_yticks(range(len(found)), list(found))
    axis.invert_yaxis()
    axis.axvline(0.5, color="0.4", ls=":", lw=1)
    axis.set_xlabel("AUROC (dotted: chance)")
    sns.despine(ax=axis)
    _legend_below(figure, axis, 2)
    return figure


def curation_bars(found: Mapping[str, Mapping[float, Interval]], everything: float) -> Figure:
    """A group of bars a share dropped, a bar a rule: gain in accuracy over random, in points."""
    figure, axis = plt.subplots(figsize=(6.5, 3.2), layout="constrained")
    shares = list(next(iter(found.values())))
    width = 0.8 / len(found)
    for index, (rule, cells) in enumerate(found.items()):
        color = _LOOKS.get(rule, _OTHER)[0]
        x = np.arange(len(shares)) + (index - (len(found) - 1) / 2) * width
        gains = list(cells.values())
        axis.bar(x, [100 * g.value for g in gains], width, color=color, label=rule)
        axis.errorbar(
            x, [100 * g.value for g in gains], yerr=100 * _errors(gains), fmt="none",
            color="black", capsize=2, lw=1,
        )  # fmt: skip
    axis.axhline(0, color="black", lw=0.8)
    axis.set_xticks(range(len(shares)), [f"{100 * share:.0f} % dropped" for share in shares])
    axis.set_ylabel("accuracy minus that of\nrandom dropping, points")
    axis.set_title(f"With all images: {100 * everything:.1f} %", fontsize=10)
    sns.despine(ax=axis)
    _legend_below(figure, axis, len(found))
    return figure


def _panels(count: int, width: float, height: float) -> tuple[Figure, Sequence[Axes]]:
    figure, axes = plt.subplots(
        1, count, figsize=(width * count + 0.8, height), squeeze=False, sharey=True,
        layout="constrained",
    )  # fmt: skip
    return figure, list(axes[0])


def _errors(cells: Sequence[Interval]) -> Float[np.ndarray, "2 n"]:
    # Where all seeds agree, rounding may put the mean outside its interval of no length.
    ends = np.array([[c.value - c.low for c in cells], [c.high - c.value for c in cells]])
    return ends.clip(min=0)


def _legend_below(figure: Figure, axis: Axes, columns: int) -> None:
    handles, labels = axis.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=columns, frameon=False)
