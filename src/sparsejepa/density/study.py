"""The comparisons of the JEPA-SCORE chapter: encoders × image sets × scores."""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float, Int64, UInt8
from PIL import Image
from torch import Tensor, nn

from sparsejepa.data.batches import to_unit
from sparsejepa.density.jepa_score import EPS, JepaScore, combine_views, jepa_score
from sparsejepa.density.outliers import Fit, mahalanobis
from sparsejepa.density.rank_correlation import rank_correlation
from sparsejepa.density.scored_backbone import ScoredBackbone
from sparsejepa.density.separation import Separation, separation
from sparsejepa.density.toy_densities import GaussianMixture
from sparsejepa.density.toy_encoders import ToyConfig, train_toys
from sparsejepa.intervals import Interval, seed_interval
from sparsejepa.probing.linear import linear_probe
from sparsejepa.probing.neighbours import nearest
from sparsejepa.randomness import generator

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
    network: ScoredBackbone,
    images: UInt8[Tensor, "N H W 3"],
    null_directions: int | None = None,
    chunk_size: int = 64,
) -> JepaScore:
    """JEPA-SCORE of bytes of any size by any backbone, through its own preprocessing."""
    return jepa_score(
        network.encoder,
        torch.stack([network.prepare(Image.fromarray(image.numpy())) for image in images]),
        null_directions=null_directions,
        chunk_size=chunk_size,
        batch_size=1,
    )


@torch.no_grad()
def backbone_embeddings(
    network: ScoredBackbone, images: UInt8[Tensor, "N H W 3"]
) -> Float[Tensor, "N K"]:
    """Embeddings alone, image by image."""
    device = next(network.encoder.parameters()).device
    return torch.cat(
        [
            network.encoder(network.prepare(Image.fromarray(i.numpy()))[None].to(device)).cpu()
            for i in images
        ]
    )


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
        bounds: what the quantities can be at all; Student's interval knows nothing of it.
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
