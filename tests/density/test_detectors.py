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


def test_likelihood_is_scipys() -> None:
    """log N(f; mean, Ledoit-Wolf covariance); of classes, their mixture by shares of the images."""

    def expected(rows: Tensor) -> np.ndarray:
        return stats.multivariate_normal(rows.mean(0).numpy(), covariance(rows)).logpdf(queries)

    one, two, queries = gaussian(60), gaussian(140, seed=2) - 5, gaussian(20, seed=1) - 2
    torch.testing.assert_close(gaussian_likelihood(one)(queries), torch.from_numpy(expected(one)))
    mixture = np.logaddexp(np.log(0.3) + expected(one), np.log(0.7) + expected(two))
    # Labels need not be consecutive.
    found = gaussian_likelihood(torch.cat([one, two]), torch.tensor([3] * 60 + [8] * 140))(queries)
    torch.testing.assert_close(found, torch.from_numpy(mixture))


def test_mahalanobis_is_the_quadratic_form() -> None:
    """To the one mean; with classes to the nearest one, under the covariance within classes."""
    x, queries = gaussian(200), gaussian(20, seed=1)
    for labels, classes in ((torch.zeros(200).long(), None), (torch.arange(200) % 2,) * 2):
        moved = x + 10 * labels[:, None]
        means = torch.stack([moved[labels == label].mean(0) for label in labels.unique()])
        within = ledoit_wolf((moved - means[labels]).numpy(), assume_centered=True)[0]
        away = (queries[:, None] - means).numpy()
        distance = np.einsum("nci,ij,ncj->nc", away, np.linalg.pinv(within), away).min(1)
        found = mahalanobis(moved, classes)(queries)
        torch.testing.assert_close(found, torch.from_numpy(-distance))


@pytest.mark.parametrize("name", detectors(torch.zeros(1).long()))
def test_rotation_of_the_features_changes_nothing(name: str) -> None:
    """No detector prefers single coordinates."""
    turn = torch.linalg.qr(gaussian(6, seed=5)).Q
    x, queries = gaussian(60), gaussian(10, seed=1)
    fit = detectors(torch.arange(60) % 3)[name]
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


def test_refuses_the_undefined() -> None:
    """A class of one image, features without variance, fewer images than neighbours."""
    with pytest.raises(ValueError, match="2 images or more that differ, not 1"):
        gaussian_likelihood(gaussian(4), torch.tensor([0, 0, 0, 1]))
    with pytest.raises(ValueError, match="2 images or more that differ, not 5"):
        mahalanobis(torch.ones(5, 3))
    with pytest.raises(ValueError, match="k must be from 1 to the 4 rows"):
        knn_similarity(gaussian(4))(gaussian(4))
