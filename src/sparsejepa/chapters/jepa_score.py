"""What the JEPA-SCORE chapter (04) alone uses: known densities, outliers, comparisons, figures."""

import io
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Float64, Int64, UInt8
from PIL import Image
from torch import Tensor, nn

from sparsejepa.chapters import first_split
from sparsejepa.chapters.probes import augmented_views
from sparsejepa.data.batches import to_unit
from sparsejepa.density.detectors import Fit, mahalanobis
from sparsejepa.density.jepa_score import EPS, JepaScore, Map, combine_views, jepa_score
from sparsejepa.density.separation import Separation, rank_correlation, separation
from sparsejepa.intervals import Bounds, Interval, bootstrap_interval, over_intervals, seed_interval
from sparsejepa.model.regularisers import covariance_cost, epps_pulley, unit_vectors, variance_hinge
from sparsejepa.probing.backbones import Backbone
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import nearest
from sparsejepa.randomness import generator

Images = UInt8[Tensor, "N S S 3"]
Values = Float64[Tensor, "N"]
Embedding = Float[Tensor, "B K"]
Cells = Mapping[str, Interval]
Labelled = tuple[Float[Tensor, "_ d"], Int64[Tensor, "_"]]  # features and labels
# A map of a known density to a standard normal, points, and the true log p there, in nats.
ClosedForm = tuple[Map, Float64[Tensor, "N D"], Values]


def closed_forms(points: int, seed: int) -> dict[str, ClosedForm]:
    """Change of variables p(x) = φ(f(x)) |det J_f(x)|, where f is known (papers' eq. 4 at K = D).

    A Gaussian whitened in 4 dimensions (its score is constant, φ alone varies); the logistic law in
    one, f = Φ⁻¹ ∘ F; a mixture of two Gaussians in the plane by its triangular (Knothe-Rosenblatt)
    map.
    """
    draw = generator(seed, "closed forms", "gaussian")
    root = torch.randn(4, 4, dtype=torch.float64, generator=draw)
    values, vectors = torch.linalg.eigh(root @ root.T)
    whiten = vectors / values.sqrt() @ vectors.T
    unit = torch.randn(points, 4, dtype=torch.float64, generator=draw)
    constant = 4 * math.log(2 * math.pi) + values.log().sum()
    gaussian = -0.5 * (unit.square().sum(dim=1) + constant)
    coloured = unit @ (vectors * values.sqrt() @ vectors.T)
    line = torch.linspace(-6, 6, points, dtype=torch.float64)
    logistic = (torch.sigmoid(line) * torch.sigmoid(-line)).log()
    quantile = torch.special.ndtri
    return {
        "Gaussian, whitened (4-D)": (lambda x: x @ whiten, coloured, gaussian),
        "logistic, monotone map (1-D)": (lambda x: quantile(x.sigmoid()), line[:, None], logistic),
        "mixture, triangular map (2-D)": _mixture(points, seed),
    }


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
    return normalise, drawn, density.log()


class GaussianMixture:
    """sum_c weights_c N(x; means_c, axes_c diag(scales_c²) axes_cᵀ), drawn at random.

    Means are normal with standard deviation 2, scales (standard deviations along orthonormal axes,
    in columns) log-uniform from 0.3 to 1.2, axes random, weights proportional to uniform draws from
    0.2 to 1.
    """

    def __init__(self, dimensions: int, components: int, seed: int) -> None:
        draw = generator(seed, "mixture", dimensions, components)
        shape, options = (components, dimensions), {"dtype": torch.float64, "generator": draw}
        low, high = math.log(0.3), math.log(1.2)
        weights = 0.2 + 0.8 * torch.rand(components, **options)
        self.weights = weights / weights.sum()
        self.means = 2 * torch.randn(shape, **options)
        self.axes = torch.linalg.qr(torch.randn(*shape, dimensions, **options)).Q
        self.scales = (low + (high - low) * torch.rand(shape, **options)).exp()

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


# Toys: width of both hidden layers; points a step, two views each; AdamW's rate at the first step;
# standard deviation of a view's noise in the units of x; views over which eq. 4 takes its mean.
HIDDEN, BATCH, LEARNING_RATE, NOISE, VIEWS = 64, 256, 3e-3, 0.1, 8
# SIGReg: random directions a step, and lambda of (1 - lambda) · invariance + lambda · SIGReg.
SLICES, WEIGHT = 8, 0.05


def train_toys(
    objective: str, width: int, density: GaussianMixture, seeds: tuple[int, ...], steps: int
) -> list[nn.Module]:
    """One encoder Float["B D"] to Float["B width"] for each seed, frozen, in evaluation mode.

    Every seed has initial weights, points and noise of its own; the points are new in each step.
    Objectives are what prevents collapse, VICReg, SIGReg or none, or no training: untrained.
    """
    widths = (density.means.shape[1], HIDDEN, HIDDEN, width)
    encoders = [_initial_encoder(widths, seed) for seed in seeds]
    if objective != "untrained":
        parameters = [tensor for encoder in encoders for tensor in encoder.parameters()]
        optimiser = torch.optim.AdamW(parameters, LEARNING_RATE, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, steps)
        for step in range(steps):
            optimiser.zero_grad()
            for seed, encoder in zip(seeds, encoders, strict=True):
                draw = generator(seed, "toy points", step)
                points = density.sample(BATCH, draw).float()
                noise = torch.randn(2, *points.shape, generator=draw)
                z, other = map(encoder, points + NOISE * noise)
                _loss(objective, z, other, generator(seed, "toy slices", step)).backward()
            optimiser.step()
            schedule.step()
    return [encoder.eval().requires_grad_(False) for encoder in encoders]


def _initial_encoder(widths: tuple[int, ...], seed: int) -> nn.Sequential:
    """As PyTorch's linear layers start, from the generators of a seed."""
    layers: list[nn.Module] = []
    for layer, (inputs, outputs) in enumerate(itertools.pairwise(widths)):
        drawn = {}
        for name, shape in (("weight", (inputs, outputs)), ("bias", (outputs,))):
            draw = generator(seed, "toy initial", layer, name)
            drawn[name] = ((2 * torch.rand(shape, generator=draw) - 1) / inputs**0.5).t()
        layers += [nn.Linear(inputs, outputs), nn.GELU()]
        layers[-2].load_state_dict(drawn)
    return nn.Sequential(*layers[:-1])


def _loss(
    objective: str, z: Embedding, other: Embedding, draw: torch.Generator
) -> Float[Tensor, ""]:
    invariance = (z - other).square().mean()
    if objective == "none":
        return invariance
    if objective == "VICReg":
        costs = variance_hinge, covariance_cost
        spread, correlation = ((cost(z) + cost(other)) / 2 for cost in costs)
        return 25 * invariance + 25 * spread + correlation
    slices = unit_vectors(z.shape[1], SLICES, draw)
    normal = sum(epps_pulley(view @ slices) for view in (z, other)).mean() / 2
    return (1 - WEIGHT) * invariance + WEIGHT * normal


def outlier_set(name: str, size: int, count: int, seed: int) -> Images:
    """Images of a local set, `count` drawn from its test split or else its training, at `size`.

    Resized images are smoother or sharper than those an encoder knows, which helps to tell them.
    """
    images = first_split(name, "test", "train").images
    # Sets may be in the order of their classes.
    order = torch.randperm(len(images), generator=generator(seed, "outlier order", name))
    return resized(images[order[:count]], size)


def resized(images: UInt8[Tensor, "N H W 3"], size: int) -> Images:
    """Bilinear with antialiasing, rounded to bytes; images of the right size stay as they are."""
    if images.shape[1:3] == (size, size):
        return images
    return _bytes(F.interpolate(to_unit(images), (size, size), mode="bilinear", antialias=True))


def drawn_outliers(images: Images, patch_size: int, seed: int) -> dict[str, Images]:
    """Outliers that need no data: five made from `images`, pixel noise and plain colours.

    noise: every byte uniform; plain colours: one colour an image; shuffled patches of `patch_size`;
    inverted: 255 minus every byte; blurred: averaged over 5 × 5 pixels; low contrast: a third of
    each image's deviations from its mean colour. The last two keep the scene: a score that ranks
    them by how much they vary is a contrast meter.
    """
    count, size = len(images), images.shape[1]
    draw = generator(seed, "outliers")
    unit = to_unit(images)
    mean = unit.mean(dim=(2, 3), keepdim=True)
    blurred = F.avg_pool2d(F.pad(unit, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    colours = torch.randint(256, (count, 1, 1, 3), dtype=torch.uint8, generator=draw)
    noise = torch.randint(256, images.shape, dtype=torch.uint8, generator=draw)
    grid = size // patch_size
    patches = images.unflatten(1, (grid, -1)).unflatten(3, (grid, -1)).transpose(2, 3)
    order = torch.rand(count, grid * grid, generator=draw).argsort(dim=1)
    moved = patches.flatten(1, 2)[torch.arange(count)[:, None], order]
    return {
        "noise": noise,
        "plain colours": colours.expand(-1, size, size, -1).contiguous(),
        "shuffled patches": moved.unflatten(1, (grid, grid)).transpose(2, 3).reshape(images.shape),
        "inverted": 255 - images,
        "blurred": _bytes(blurred),
        "low contrast": _bytes(mean + (unit - mean) / 3),
    }


def _bytes(unit: Float[Tensor, "N 3 S S"]) -> Images:
    return (unit.permute(0, 2, 3, 1) * 255).round().clamp(0, 255).byte().contiguous()


def image_statistics(images: Images) -> dict[str, Values]:
    """contrast, grey-level entropy, edges, brightness, JPEG size and saturation of every image.

    contrast: standard deviation of luma; edges: mean absolute difference of neighbouring luma;
    brightness: mean luma (all three in grey levels, 0 to 255); entropy: of the histogram of luma in
    256 bins, nats; JPEG size: bytes at quality 90; saturation: mean over pixels of the largest of
    red, green and blue minus the smallest (grey levels), 0 for a grey image.
    """
    # Rec. 601 luma, as in JPEG.
    luma = images.double() @ torch.tensor((0.299, 0.587, 0.114), dtype=torch.float64)
    flat = luma.flatten(1)
    counts = torch.stack([levels.bincount(minlength=256) for levels in flat.round().long()])
    across, down = luma.diff(dim=2).abs(), luma.diff(dim=1).abs()
    return {
        "contrast": flat.std(dim=1, correction=0),
        "entropy": torch.special.entr(counts.double() / flat.shape[1]).sum(dim=1),
        "edges": (across.mean(dim=(1, 2)) + down.mean(dim=(1, 2))) / 2,
        "brightness": flat.mean(dim=1),
        "JPEG size": torch.tensor([_jpeg_bytes(image) for image in images], dtype=torch.float64),
        "saturation": (images.amax(dim=3) - images.amin(dim=3)).double().mean(dim=(1, 2)),
    }


def _jpeg_bytes(image: UInt8[Tensor, "H W 3"]) -> int:
    buffer = io.BytesIO()
    Image.fromarray(image.numpy()).save(buffer, "JPEG", quality=90)
    return len(buffer.getvalue())


def backbone_scores(
    backbone: Backbone, images: Images, null_directions: int | None = None
) -> JepaScore:
    """JEPA-SCORE of bytes of any size by any backbone, through its own preprocessing."""
    pixels = torch.stack(list(_prepared(backbone, images)))
    options = {"null_directions": null_directions, "chunk_size": 64, "batch_size": 1}
    return jepa_score(backbone.embedding(), pixels, **options)


@torch.no_grad()
def backbone_embeddings(backbone: Backbone, images: Images) -> Float[Tensor, "N K"]:
    """Embeddings alone, image by image."""
    encoder, device = backbone.embedding(), backbone.mean.device
    return torch.cat([encoder(x[None].to(device)).cpu() for x in _prepared(backbone, images)])


def _prepared(backbone: Backbone, images: Images) -> Iterator[Float[Tensor, "3 H W"]]:
    return (backbone.prepare(Image.fromarray(image.numpy())) for image in images)


def _without_largest_fifth(score: JepaScore) -> Float[Tensor, "B"]:
    kept = score.log_spectrum[:, : score.log_spectrum.shape[1] - score.null_directions]
    return kept[:, round(0.2 * kept.shape[1]) :].clamp(min=math.log(EPS)).sum(dim=1)


def toy_correlations(
    encoders: list[nn.Module], density: GaussianMixture, points: int, seed: int
) -> dict[str, Interval]:
    """Spearman's correlation of each score with the true log-density on new points, over encoders.

    JEPA-SCORE, and over views of each point as in training (eq. 4); with the Gaussian term, and it
    alone; with the density of the embeddings by the distance to the tenth neighbour among as many
    training points, minus that distance alone, Mahalanobis; and that distance in the space of x.
    """
    x, bank = (density.sample(points, generator(seed, "toy", name)) for name in ("points", "bank"))
    truth = density.log_density(x)
    noise = torch.randn(VIEWS, *x.shape, generator=generator(seed, "toy", "views"))
    views = (x.float() + NOISE * noise).flatten(0, 1)
    found: dict[str, list[float]] = {}
    for encoder in encoders:
        score = jepa_score(encoder, x.float(), null_directions=0, batch_size=points)
        embeddings, known = score.embeddings, encoder(bank.float())
        away = torch.cdist(embeddings, known).kthvalue(10).values
        # They lie on a surface of as many dimensions as the score has singular values.
        dimensions = score.log_spectrum.shape[1]
        of_views = jepa_score(encoder, views, null_directions=0, batch_size=points).score
        scores = {
            "JEPA-SCORE": score.score,
            f"JEPA-SCORE, {VIEWS} views": combine_views(of_views.view(VIEWS, points)),
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
    return {name: seed_interval(values) for name, values in found.items()}


def by_method(
    found: Mapping[str, Cells], methods: Mapping[str, str], bounds: Bounds = (-1.0, 1.0)
) -> dict[str, dict[str, Interval]]:
    """Method -> quantity -> mean over its encoders, with its interval (`over_intervals`).

    `found` is by encoder and quantity, `methods` by encoder; intervals are cut to `bounds`.
    """
    together: dict[str, list[Cells]] = {}
    for encoder, cells in found.items():
        together.setdefault(methods[encoder], []).append(cells)
    return {
        method: {name: over_intervals([cells[name] for cells in own], bounds) for name in own[0]}
        for method, own in together.items()
    }


def separations(
    data: JepaScore,
    outliers: Mapping[str, JepaScore],
    fits: Mapping[str, Fit],
    training: Float[Tensor, "N d"],
    seed: int,
) -> dict[str, dict[str, Separation]]:
    """Score -> set of outliers -> separation from held-out data; detectors fitted on `training`."""
    sets = (data, *outliers.values())
    scores = {
        "JEPA-SCORE": [found.score for found in sets],
        "JEPA-SCORE + Gaussian": [found.log_density for found in sets],
        "without the largest fifth": [_without_largest_fifth(found) for found in sets],
    }
    for name, fit in fits.items():
        detector = fit(training)
        scores[name] = [detector(found.embeddings) for found in sets]
    return {
        name: {
            kind: separation(of_data.numpy(), of_outliers.numpy(), seed)
            for kind, of_outliers in zip(outliers, others, strict=True)
        }
        for name, (of_data, *others) in scores.items()
    }


def measures_by_method(
    results: Mapping[str, Mapping[str, Mapping[str, Separation]]], methods: Mapping[str, str]
) -> dict[str, dict[str, dict[str, dict[str, Interval]]]]:
    """Measure -> method -> score -> set of outliers -> the mean over encoders, by `by_method`."""
    trees = {}
    for measure in ("auroc", "aupr", "fpr95"):
        tree = trees[measure] = {}
        for score in next(iter(results.values())):
            cells = {
                name: {kind: getattr(cell, measure) for kind, cell in found[score].items()}
                for name, found in results.items()
            }
            for method, by_set in by_method(cells, methods, (0.0, 1.0)).items():
                tree.setdefault(method, {})[score] = by_set
    return trees


def elsewhere(
    encoder: nn.Module,
    projection: Float[Tensor, "p d"] | None,
    data: Images,
    outliers: Mapping[str, Images],
    views: int,
    base: JepaScore,
    seed: int,
) -> dict[str, dict[str, Interval]]:
    """Place -> set of outliers -> AUROC of JEPA-SCORE at the predictor's input, and of crops.

    Scores of an image's `views` become one by `combine_views`. `projection` maps tokens to the
    predictor's input; without it that place is missing. `base` is the score of the images.
    """
    shown = [to_unit(augmented_views(x, views, seed)[0]) for x in (data, *outliers.values())]
    null = {"null_directions": base.null_directions}
    of_crops = [jepa_score(encoder, x, **null).score.view(-1, views).T for x in shown]
    scores = {f"encoder, {views} crops": [combine_views(found) for found in of_crops]}
    if projection is not None:
        layer = nn.Linear(*projection.T.shape, bias=False)
        layer.load_state_dict({"weight": projection})
        at_predictor = nn.Sequential(encoder, layer).eval()
        of_data = jepa_score(at_predictor, to_unit(data))
        null = {"null_directions": of_data.null_directions}
        others = [jepa_score(at_predictor, to_unit(x), **null).score for x in outliers.values()]
        scores["predictor's input"] = [of_data.score, *others]
    return {
        place: {
            kind: separation(of_data.numpy(), found.numpy(), seed).auroc
            for kind, found in zip(outliers, others, strict=True)
        }
        for place, (of_data, *others) in scores.items()
    }


def own_similarity(features: Float[Tensor, "N d"], k: int = 10) -> Float[Tensor, "N"]:
    """Mean cosine similarity to the k nearest *other* rows: the nearest one is the row itself."""
    return nearest(features, features, k + 1)[0][:, 1:].mean(dim=1)


def kept_rows(score: Float[Tensor, "N"], dropped: float) -> Int64[Tensor, "kept"]:
    """The rows that stay when the `dropped` share with the lowest scores goes, in their order."""
    count = len(score) - round(dropped * len(score))
    return score.argsort(descending=True, stable=True)[:count].sort().values


def curate(
    kept: Int64[Tensor, "kept"], training: Labelled, test: Labelled, seed: int
) -> Bool[Tensor, "M"]:
    """Which test images a linear probe gets right that learns from the kept rows of `training`.

    Test images of a class that has lost all its training images count as wrong.
    """
    (x, y), (features, labels) = (training[0][kept], training[1][kept]), test
    known = labels.clamp(max=int(y.max()))
    return linear_probe(x, y, features, known, seed=seed).predictions == labels


def curation(
    ranking: Mapping[str, Float[Tensor, "N"]],
    training: Labelled,
    test: Labelled,
    shares: Sequence[float],
    draws: int,
    part: int,
    seed: int,
) -> tuple[float, dict[str, dict[float, Interval]]]:
    """The probe's accuracy with all training images, and what dropping some of them gains.

    By rule and share: the accuracy without the lowest-ranked share minus the mean without as many
    random ones, over `draws` of these; intervals are over test images. `part` tells random draws of
    one encoder from those of another.
    """

    def right(kept: Tensor) -> Float64[Tensor, "M"]:
        return curate(kept, training, test, seed).double()

    rows, gains = len(training[1]), {rule: {} for rule in ranking}
    for share in shares:
        generators = [generator(seed, "dropped", part, draw) for draw in range(draws)]
        random = [right(kept_rows(torch.rand(rows, generator=g), share)) for g in generators]
        usual = torch.stack(random).mean(dim=0)
        for rule, score in ranking.items():
            gain = right(kept_rows(score, share)) - usual
            gains[rule][share] = bootstrap_interval(gain.numpy(), seed)
    return right(torch.arange(rows)).mean().item(), gains
