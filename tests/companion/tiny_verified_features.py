"""What 02 and 04 would have said of the features of small encoders, as far as `verify` reads it.

Like their notebooks it takes embeddings and scores from one pass; `verify` has two.
"""

from typing import Any

import torch

from sparsejepa.companion.pretrained import Pretrained
from sparsejepa.data.image_set import ImageSet
from sparsejepa.density import study
from sparsejepa.density.closed_forms import closed_forms
from sparsejepa.density.image_statistics import image_statistics
from sparsejepa.density.jacobian import pooled
from sparsejepa.density.jepa_score import JepaScore, jepa_score
from sparsejepa.density.outlier_sets import drawn_outliers
from sparsejepa.density.outliers import detectors
from sparsejepa.density.rank_correlation import explained_share, rank_correlation
from sparsejepa.intervals import Interval
from sparsejepa.probing.features import pooled_features
from sparsejepa.probing.spectrum import spectrum, structure

PROBES = {"dataset": "toy", "test_images": 0, "structure_images": 40}
SCORES = {
    "dataset": "toy",
    "data_images": 12,
    "images_per_set": 6,
    "fit_images": 80,
    "probe_label": "",
}


def probes(found: list[Pretrained], sets: dict[str, ImageSet]) -> dict[str, Any]:
    """02: the shape of features of the first test images."""
    images = sets["test"].images[: PROBES["structure_images"]]
    features = {one.name: pooled_features(one.encoder, images) for one in found}
    # LiDAR wants views of each image; nobody computes it again, so that pairs of images do.
    pairs = torch.arange(len(images)) // 2
    return {
        "structure": {name: structure(z, z, pairs) for name, z in features.items()},
        "spectrum": {name: spectrum(z).tolist() for name, z in features.items()},
    }


def scores(found: list[Pretrained], sets: dict[str, ImageSet], seed: int) -> dict[str, Any]:
    """04: what the score goes along with, and the detectors of drawn outliers."""
    data = sets["test"].images[: SCORES["data_images"]]
    properties = {name: values.numpy() for name, values in image_statistics(data).items()}
    scored = {one.name: study.score_images(pooled(one.encoder), data) for one in found}
    return {
        "exact_error": max(
            (case.log_density - jepa_score(case.map, case.points).log_density).abs().max().item()
            for case in closed_forms(60, seed).values()
        ),
        "seconds_per_image": 0.001,
        "null_directions": {name: score.null_directions for name, score in scored.items()},
        "properties": {
            name: {
                key: stored(rank_correlation(score.score.numpy(), values, seed, draws=2))
                for key, values in properties.items()
            }
            for name, score in scored.items()
        },
        "explained_with_saturation": {
            name: stored(explained_share(score.score.numpy(), properties, seed, draws=2))
            for name, score in scored.items()
        },
        "outliers": {one.name: outliers(one, scored[one.name], sets, seed) for one in found},
    }


def outliers(
    run: Pretrained, data: JepaScore, sets: dict[str, ImageSet], seed: int
) -> dict[str, Any]:
    """AUROC of every detector against every drawn set."""
    train, test = sets["train"], sets["test"]
    count = SCORES["data_images"]
    others = test.images[count : count + SCORES["images_per_set"]]
    known = pooled_features(run.encoder, train.images[: SCORES["fit_images"]])
    embedded = {
        kind: study.score_images(pooled(run.encoder), images, data.null_directions).embeddings
        for kind, images in drawn_outliers(others, run.encoder.config.patch_size, seed).items()
    }
    found = {}
    for name, fit in detectors(train.labels["label"][: SCORES["fit_images"]]).items():
        cells = study.detector_separations(fit, known, data.embeddings, embedded, seed)
        found[name] = {kind: {"auroc": stored(cell.auroc)} for kind, cell in cells.items()}
    return found


def stored(found: Interval) -> dict[str, Any]:
    """As in results.json."""
    return {"value": found.value, "interval": [found.low, found.high]}
