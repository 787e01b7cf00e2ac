import numpy as np
import pytest
import torch
from scipy import stats
from sklearn.covariance import ledoit_wolf
from torch import Tensor

from sparsejepa.density.detectors import (
    compare_fits,
    detectors,
    feature_norm,
    gaussian_likelihood,
    knn_distance,
    knn_similarity,
    mahalanobis,
)
from sparsejepa.randomness import generator


def gaussian(rows: int, width: int = 6, seed: int = 0) -> Tensor:
    """Rows of one correlated Gaussian with a mean, from draws of their own."""
    mix = torch.randn(width, width, generator=generator(0, "mix"), dtype=torch.float64)
    drawn = torch.randn(rows, width, generator=generator(seed, "rows"), dtype=torch.float64)
    return drawn @ mix + 3


def covariance(rows: Tensor) -> np.ndarray:
    return ledoit_wolf((rows - rows.mean(0)).numpy(), assume_centered=True)[0]


def test_likelihood_of_one_class_is_scipys() -> None:
    """log N(f; mean, Ledoit-Wolf covariance)."""
    x, queries = gaussian(200), gaussian(20, seed=1)
    expected = stats.multivariate_normal(x.mean(0).numpy(), covariance(x)).logpdf(queries.numpy())
    torch.testing.assert_close(gaussian_likelihood(x)(queries), torch.from_numpy(expected))


def test_likelihood_of_classes_is_their_mixture() -> None:
    """Weighted by the classes' shares of the training images; labels need not be consecutive."""
    parts = {3: gaussian(60), 8: gaussian(140, seed=2) - 5}
    x = torch.cat(list(parts.values()))
    classes = torch.tensor([3] * 60 + [8] * 140)
    queries = gaussian(20, seed=1) - 2
    expected = np.logaddexp(
        *(
            np.log(len(rows) / 200)
            + stats.multivariate_normal(rows.mean(0).numpy(), covariance(rows)).logpdf(queries)
            for rows in parts.values()
        )
    )
    found = gaussian_likelihood(x, classes)(queries)
    torch.testing.assert_close(found, torch.from_numpy(expected))


def test_mahalanobis_is_the_quadratic_form() -> None:
    """To the one mean; with classes to the nearest one, under the covariance within classes."""
    x, queries = gaussian(200), gaussian(20, seed=1)
    precision = np.linalg.pinv(covariance(x))
    away = (queries - x.mean(0)).numpy()
    expected = -np.einsum("ni,ij,nj->n", away, precision, away)
    torch.testing.assert_close(mahalanobis(x)(queries), torch.from_numpy(expected))

    classes = (torch.arange(200) % 2).long()
    moved = x + 10 * classes[:, None]
    means = torch.stack([moved[classes == c].mean(0) for c in (0, 1)])
    precision = np.linalg.pinv(
        ledoit_wolf((moved - means[classes]).numpy(), assume_centered=True)[0]
    )
    away = (queries[:, None] - means).numpy()
    expected = -np.einsum("nci,ij,ncj->nc", away, precision, away).min(1)
    torch.testing.assert_close(mahalanobis(moved, classes)(queries), torch.from_numpy(expected))


@pytest.mark.parametrize("name", ["kNN similarity", "kNN distance", "Mahalanobis", "feature norm"])
def test_rotation_of_the_features_changes_nothing(name: str) -> None:
    """No detector prefers single coordinates."""
    turn = torch.linalg.qr(gaussian(6, seed=5)).Q
    x, queries = gaussian(60), gaussian(10, seed=1)
    fit = detectors()[name]
    torch.testing.assert_close(fit(x @ turn)(queries @ turn), fit(x)(queries))


def test_neighbours_and_norm_by_hand() -> None:
    """Cosines or distances to the bank's 2 nearest, averaged; lengths count for distances alone."""
    bank = torch.tensor([[1.0, 0.0], [0.0, 2.0], [-3.0, 0.0]])
    found = knn_similarity(bank, k=2)(torch.tensor([[5.0, 0.0], [-1.0, 1.0]]))
    assert found.tolist() == pytest.approx([0.5, 0.5**0.5])
    bank = torch.tensor([[0.0, 0.0], [3.0, 4.0], [30.0, 40.0]])
    found = knn_distance(bank, k=2)(torch.tensor([[0.0, 0.0], [6.0, 8.0]]))
    assert found.tolist() == [-2.5, -7.5]
    assert feature_norm(bank)(bank).tolist() == [0.0, 5.0, 50.0]


def test_fitting_on_what_is_scored_flatters() -> None:
    """Data and outliers of one and the same law cannot be told apart: AUROC 0.5 held out.

    Fitted on 150 of them in 90 dimensions, Mahalanobis and kNN (which finds each image itself) seem
    to tell them; the norm, which fits nothing, does not.
    """
    training, data, outliers = (gaussian(150, 90, seed) for seed in (1, 2, 3))
    fits = detectors()
    for name in ("Mahalanobis", "kNN similarity"):
        found = compare_fits(fits[name], training, data, outliers, seed=0)
        # Three standard deviations of the AUROC of 150 against 150.
        assert found.held_out.auroc.value == pytest.approx(0.5, abs=0.1)
        assert found.on_scored.auroc.low > 0.7
    same = compare_fits(fits["feature norm"], training, data, outliers, seed=0)
    assert same.held_out == same.on_scored


def test_a_real_outlier_is_found() -> None:
    """Far away from the data in a direction of little variance: every detector but the norm."""
    x, data = gaussian(300), gaussian(100, seed=1)
    outliers = 2 * x.mean(0) - gaussian(100, seed=2) + torch.tensor([9.0, -9, 9, -9, 9, -9])
    classes = torch.arange(300) % 3
    for name, fit in detectors(classes).items():
        if name != "feature norm":
            score = fit(x)
            assert score(outliers).mean() < score(data).mean()


def test_refuses_the_undefined() -> None:
    """A class of one image, features without variance, fewer images than neighbours."""
    x = gaussian(4)
    with pytest.raises(ValueError, match="2 images or more that differ, not 1"):
        gaussian_likelihood(x, torch.tensor([0, 0, 0, 1]))
    with pytest.raises(ValueError, match="2 images or more that differ, not 5"):
        mahalanobis(torch.ones(5, 3))
    with pytest.raises(ValueError, match="k must be from 1 to the 4 rows"):
        knn_similarity(x)(x)
