"""Known densities, outliers, properties of images, and what the chapter measures on them."""

import math
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from scipy import stats

from sparsejepa.chapters import jepa_score as chapter
from sparsejepa.chapters.jepa_score import (
    GaussianMixture,
    by_method,
    curate,
    drawn_outliers,
    image_statistics,
    kept_rows,
    outlier_set,
    own_similarity,
    resized,
    toy_correlations,
    train_toys,
)
from sparsejepa.intervals import Interval
from sparsejepa.model.regularisers import covariance_cost
from sparsejepa.randomness import generator
from tests.data.tiny_parquet import pixels, png, structs

IMAGES = torch.from_numpy(pixels(4, size=16))


def test_a_grey_set_of_another_size_is_loaded(tmp_path: Path, monkeypatch) -> None:
    """As RGB at the size asked for; the test split is preferred, the training split will do."""
    monkeypatch.setenv("SPARSEJEPA_DATA", str(tmp_path))
    (tmp_path / "letters").mkdir()

    def write(split: str, size: int) -> None:
        encoded = [png(image[..., 0]) for image in pixels(3, size=size)]
        table = pa.table({"image": structs(encoded), "label": pa.array([0, 1, 2])})
        pq.write_table(table, tmp_path / f"letters/{split}-00000-of-00001.parquet")

    write("train", 28)
    counts = []
    with monkeypatch.context() as patch:
        # Only the images that are used: a large set would need many times its own memory.
        patch.setattr(chapter, "resized", lambda x, _: (counts.append(len(x)), x)[1])
        outlier_set("letters", 32, 2, seed=0)
    assert counts == [2]
    found = outlier_set("letters", 32, 3, seed=0)
    assert found.shape == (3, 32, 32, 3)
    assert torch.equal(found[..., 0], found[..., 2])
    write("test", 32)
    drawn = outlier_set("letters", 32, 2, seed=0)[..., 0]
    whole = list(torch.from_numpy(pixels(3, size=32))[..., 0])
    assert len(drawn) == 2 and all(any(torch.equal(x, y) for y in whole) for x in drawn)
    with pytest.raises(FileNotFoundError, match="digits train is not here: .* holds no images"):
        outlier_set("digits", 32, 1, seed=0)


def test_resizing_agrees_with_pillow() -> None:
    """Antialiased bilinear to half the size, within a grey level of rounding."""
    for found, image in zip(resized(IMAGES, 8), IMAGES, strict=True):
        expected = Image.fromarray(image.numpy()).resize((8, 8), Image.Resampling.BILINEAR)
        assert np.abs(found.int().numpy() - np.asarray(expected)).max() <= 1
    assert resized(IMAGES, 16) is IMAGES


def test_drawn_outliers_are_what_they_say() -> None:
    """Each kept and each destroyed property; the same seed draws the same."""
    found = drawn_outliers(IMAGES, 4, seed=0)
    assert all(made.shape == IMAGES.shape and made.dtype == torch.uint8 for made in found.values())
    assert torch.equal(255 - found["inverted"], IMAGES)
    assert (image_statistics(found["plain colours"])["contrast"] == 0).all()
    assert found["noise"].float().std() == pytest.approx(255 / 12**0.5, rel=0.05)

    def patches(images):
        cut = images.view(-1, 4, 4, 4, 4, 3).transpose(2, 3).flatten(3).flatten(1, 2)
        return [{tuple(patch) for patch in image.tolist()} for image in cut]

    shuffled = found["shuffled patches"]
    assert patches(shuffled) == patches(IMAGES) and not torch.equal(shuffled, IMAGES)
    before, after = (image_statistics(x) for x in (IMAGES, found["low contrast"]))
    torch.testing.assert_close(after["contrast"], before["contrast"] / 3, rtol=0.02, atol=0)
    torch.testing.assert_close(after["brightness"], before["brightness"], rtol=0.01, atol=0)
    assert (image_statistics(found["blurred"])["edges"] < before["edges"] / 2).all()
    again, other = (drawn_outliers(IMAGES, 4, seed=seed)["noise"] for seed in (0, 1))
    assert torch.equal(found["noise"], again) and not torch.equal(found["noise"], other)


def test_statistics_of_a_checkerboard() -> None:
    """Half 0, half 200: contrast 100, entropy log 2, every neighbour 200 away, brightness 100."""
    board = 200 * ((torch.arange(8)[:, None] + torch.arange(8)) % 2)
    images = torch.stack([board, torch.full((8, 8), 100)])[..., None].expand(-1, -1, -1, 3).byte()
    found = image_statistics(images)
    expected = {"contrast": 100, "entropy": math.log(2), "edges": 200, "brightness": 100}
    for name, value in expected.items():
        assert found[name][0].item() == pytest.approx(value)
    assert [found[name][1].item() for name in ("contrast", "entropy", "edges")] == [0, 0, 0]
    assert found["JPEG size"][0] > found["JPEG size"][1] > 0
    assert found["saturation"].tolist() == [0, 0]
    # Half of the pixels (250, 50, 100), half grey: (200 + 0) / 2.
    image = torch.full((1, 8, 8, 3), 70, dtype=torch.uint8)
    image[:, :4] = torch.tensor([250, 50, 100], dtype=torch.uint8)
    assert image_statistics(image)["saturation"].tolist() == [100]


PLANE = GaussianMixture(2, 4, seed=0)


def test_log_density_is_scipys() -> None:
    """Weights, means and covariances with the drawn axes and scales."""
    mixture = GaussianMixture(3, 4, seed=1)
    x = mixture.sample(30, generator(0))
    drawn = zip(*map(np.asarray, vars(mixture).values()), strict=True)
    parts = [
        np.log(weight) + stats.multivariate_normal(mean, (axes * scale**2) @ axes.T).logpdf(x)
        for weight, mean, axes, scale in drawn
    ]
    expected = torch.from_numpy(np.logaddexp.reduce(parts))
    torch.testing.assert_close(mixture.log_density(x), expected)


def test_samples_follow_the_density() -> None:
    """Mean and covariance of samples are the mixture's, to what 40,000 of them allow."""
    x = PLANE.sample(40_000, generator(1))
    mean = PLANE.weights @ PLANE.means
    within = PLANE.axes * PLANE.scales[:, None].square() @ PLANE.axes.transpose(1, 2)
    away = PLANE.means - mean
    between = away[:, :, None] * away[:, None]
    covariance = (PLANE.weights[:, None, None] * (within + between)).sum(0)
    torch.testing.assert_close(x.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(x.T.cov(), covariance, rtol=0, atol=0.1)


def test_an_objective_prevents_collapse() -> None:
    """A standard deviation not far below 1, little correlation; without one, nothing is left."""
    x = PLANE.sample(1000, generator(2)).float()
    vicreg, sigreg, none = (
        train_toys(objective, 2, PLANE, (0,), 150)[0](x)
        for objective in ("VICReg", "SIGReg", "none")
    )
    assert min(vicreg.std(0).min(), sigreg.std(0).min()) > 0.8
    assert max(covariance_cost(vicreg), covariance_cost(sigreg)) < 0.2
    assert none.std(0).max() < 0.05


def test_seeds_are_trained_independently() -> None:
    """An encoder is the same alone and beside others, and other seeds give other encoders."""
    (alone,) = train_toys("VICReg", 3, PLANE, (1,), 5)
    other, beside = train_toys("VICReg", 3, PLANE, (0, 1), 5)
    x = PLANE.sample(10, generator(3)).float()
    torch.testing.assert_close(alone(x), beside(x))
    assert not torch.allclose(other(x), beside(x))


def test_correlations_of_what_is_known() -> None:
    """The data's own neighbours find the density; every score has its interval over seeds."""
    encoders = train_toys("untrained", 2, PLANE, (0, 1, 2), 0)
    found = toy_correlations(encoders, PLANE, points=200, seed=0)
    assert found["kNN of the data"].value > 0.7
    assert {"JEPA-SCORE", "JEPA-SCORE, 8 views", "Gaussian alone", "Mahalanobis"} <= set(found)
    # The stretch undoes what the map does to distances.
    assert found["JEPA-SCORE + neighbours"].value > found["kNN of embeddings"].value + 0.1
    assert all(-1 <= cell.value <= 1 and cell.low <= cell.high for cell in found.values())


def test_methods_are_means_over_their_seeds() -> None:
    """By `over_intervals`, within the bounds; one seed keeps its own interval, over images."""
    values = {"a-seed0": 0.4, "a-seed1": 0.5, "a-seed2": 0.6, "b-seed0": 0.7}
    cells = {name: {"AUROC": Interval(v, v - 0.1, v + 0.2, 0.95)} for name, v in values.items()}
    found = by_method(cells, {name: name[0] for name in cells}, (0.3, 0.8))
    three, one = found["a"]["AUROC"], found["b"]["AUROC"]
    assert (one.value, one.low, one.high) == (0.7, 0.7 - 0.1, 0.8) and one.seeds == 1
    assert (three.value, three.low, three.high) == pytest.approx((0.5, 0.3, 0.7484), abs=1e-4)


def test_rankings_of_rows() -> None:
    """Those with the highest scores stay, of equal ones the first; no row is its own neighbour."""
    score = torch.tensor([3.0, 1.0, 2.0, 2.0, 5.0])
    assert kept_rows(score, 0.4).tolist() == [0, 2, 4]
    assert kept_rows(score, 0.0).tolist() == [0, 1, 2, 3, 4]
    rows = torch.tensor([[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [-1.0, 0.0]])
    assert own_similarity(rows, k=2).tolist() == pytest.approx([1, 1, 1, -1])


def test_curation_finds_wrong_labels() -> None:
    """A rule that keeps the rightly labelled half beats keeping a random half."""
    draw = generator(4)
    y = torch.randint(3, (600,), generator=draw)
    x = torch.nn.functional.one_hot(y, 3) + 0.4 * torch.randn(600, 3, generator=draw)
    wrong = torch.arange(300) < 150
    noisy = torch.where(wrong, (y[:300] + 1) % 3, y[:300])
    training, test = (x[:300], noisy), (x[300:], y[300:])
    kept = kept_rows(-wrong.float(), 0.5), torch.randperm(300, generator=generator(0))[:150]
    right, random = (curate(rows, training, test, seed=0).double().mean() for rows in kept)
    assert right > random + 0.1


def test_a_lost_class_counts_as_wrong() -> None:
    """Class 2 is dropped whole: its test images stay in the denominator."""
    y = torch.arange(90) % 3
    x = torch.nn.functional.one_hot(y, 3) + 0.01 * torch.randn(90, 3, generator=generator(5))
    found = curate((y < 2).nonzero()[:, 0], (x, y), (x, y), seed=0)
    assert found.double().mean().item() == pytest.approx(2 / 3)
