import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from sparsejepa.chapters.jepa_score import closed_forms
from sparsejepa.density.jepa_score import (
    combine_views,
    jepa_score,
    log_singular_values,
    structural_nulls,
)
from sparsejepa.randomness import generator
from tests.density.listing import listing_jacobian, listing_score
from tests.density.tiny_encoders import images, tiny_convnext, tiny_encoder, tiny_vit


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed, "drawn"), dtype=torch.float64)


def linear(matrix: torch.Tensor):
    return lambda x: x @ matrix.T


def with_log_spectrum(logs: list[float], rows: int, columns: int, seed: int) -> torch.Tensor:
    """A matrix whose log singular values are exactly these, in random directions."""
    left = torch.linalg.qr(drawn(rows, len(logs), seed=seed)).Q
    right = torch.linalg.qr(drawn(columns, len(logs), seed=seed + 1)).Q
    return left * torch.tensor(logs).double().exp() @ right.T


@given(
    st.lists(st.floats(-4, 4), min_size=1, max_size=6), st.integers(-8, 8), st.integers(0, 2**32)
)
def test_linear_map_is_its_own_volume(logs: list[float], more: int, seed: int) -> None:
    """f(x) = A x: score = sum of log singular values of A, everywhere, none of them left out."""
    # One side is as long as the spectrum, the other one longer.
    rows, columns = len(logs) + max(more, 0), len(logs) + max(-more, 0)
    matrix = with_log_spectrum(logs, rows, columns, seed)
    found = jepa_score(linear(matrix), drawn(3, columns, seed=seed + 1))
    expected = torch.tensor(sorted(logs, reverse=True)).double()
    assert found.null_directions == 0
    torch.testing.assert_close(found.log_spectrum, expected.expand(3, -1), rtol=0, atol=1e-7)
    torch.testing.assert_close(found.score, expected.sum().expand(3), rtol=0, atol=1e-7)


@settings(max_examples=20)
@given(st.integers(0, 2**32), st.floats(0.01, 100))
def test_rotation_leaves_the_score_and_scaling_adds_its_logarithm(seed: int, scale: float) -> None:
    """f -> Q f changes nothing, f -> c f adds K log c, x -> Q x changes nothing."""
    matrix, x = with_log_spectrum([-1, 0, 0.5, 2], 4, 6, seed), drawn(2, 6, seed=seed + 1)
    left, right = torch.linalg.qr(drawn(4, 4)).Q, torch.linalg.qr(drawn(6, 6)).Q

    def curved(x):
        return x @ matrix.T + (x @ matrix.T).sin() / 2

    score = jepa_score(curved, x).score
    for other, added in (
        (lambda x: curved(x) @ left.T, 0.0),
        (lambda x: scale * curved(x), 4 * math.log(scale)),
    ):
        torch.testing.assert_close(jepa_score(other, x).score, score + added, rtol=0, atol=1e-6)
    turned = jepa_score(lambda x: curved(x @ right.T), x @ right).score
    torch.testing.assert_close(turned, score, rtol=0, atol=1e-6)


def test_change_of_variables_is_exact() -> None:
    """A Gaussian whitened, 1-D monotone, 2-D triangular: score + log phi(f) = log p(x)."""
    for encoder, points, log_density in closed_forms(40, seed=0).values():
        found = jepa_score(encoder, points)
        torch.testing.assert_close(found.log_density, log_density)


def test_the_closed_forms_are_those_densities() -> None:
    """The true log-densities are scipy's."""
    maps, (x, line, plane), found = zip(*closed_forms(40, seed=0).values(), strict=True)
    whiten = maps[0](torch.eye(4, dtype=torch.float64)).numpy()
    gaussian = stats.multivariate_normal(cov=np.linalg.pinv(whiten @ whiten.T))
    one = np.log(0.3) + stats.multivariate_normal([-1.5, 2.0]).logpdf(plane)
    two = np.log(0.7) + stats.multivariate_normal([1.0, -1.0]).logpdf(plane)
    known = gaussian.logpdf(x), stats.logistic.logpdf(line[:, 0]), np.logaddexp(one, two)
    for log_density, expected in zip(found, known, strict=True):
        torch.testing.assert_close(log_density, torch.from_numpy(expected))


def test_the_listing_is_reproduced() -> None:
    """Without null directions."""
    encoder, x = tiny_vit(class_token=False, global_pool="avg", final_norm=False), images(5)
    for dtype, error in ((torch.float32, 1e-5), (torch.float64, 1e-9)):
        expected = listing_score(listing_jacobian(encoder.to(dtype), x.to(dtype)))
        found = jepa_score(encoder, x, null_directions=0).score.to(dtype)
        torch.testing.assert_close(found, expected, rtol=error, atol=0)


def test_the_listing_is_reproduced_with_a_null_direction() -> None:
    """It is clipped at eps in both, and counted; left out, the score is larger by log 1/eps.

    The listing is evaluated in float64: in float32, rounding of the SVD lifts the null direction to
    about 1e-6, at one image above eps and at the next below.
    """
    encoder, x = tiny_encoder(), images(5)
    expected = listing_score(listing_jacobian(encoder, x).double())
    found = jepa_score(encoder, x, null_directions=0)
    torch.testing.assert_close(found.score, expected, rtol=1e-6, atol=0)
    assert found.clipped.tolist() == [1] * 5
    without = jepa_score(encoder, x)
    assert without.clipped.tolist() == [0] * 5
    torch.testing.assert_close(without.score, found.score + math.log(1e6))


def test_eps_clips_from_below_and_is_counted() -> None:
    """Singular values 1, 1e-3, 1e-9 with eps 1e-6: 0 + log 1e-3 + log 1e-6, one clipped."""
    matrix = torch.diag(torch.tensor([1, 1e-3, 1e-9]).double())
    found = jepa_score(linear(matrix), drawn(1, 3), null_directions=0)
    torch.testing.assert_close(found.score, torch.tensor([math.log(1e-9)]).double())
    assert found.clipped.tolist() == [1]
    unclipped = jepa_score(linear(matrix), drawn(1, 3), null_directions=0, eps=1e-12)
    assert unclipped.score.item() == pytest.approx(math.log(1e-12), rel=1e-2)


def test_spectrum_is_that_of_an_svd() -> None:
    """Wide and tall Jacobians; also when the columns come in several slices."""
    for shape in ((3, 4, 9), (3, 9, 4), (1, 3, 40_000)):
        jacobian = drawn(*shape).float()
        expected = torch.linalg.svdvals(jacobian.double()).log()
        torch.testing.assert_close(log_singular_values(jacobian), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("encoder", "expected"),
    [
        (tiny_encoder(), 1),
        (tiny_vit(class_token=False, global_pool="avg", fc_norm=False), 1),
        (tiny_vit(class_token=False, global_pool="avg", fc_norm=True), 2),
        (tiny_vit(reg_tokens=2), 2),
        (tiny_vit(pre_norm=True), 2),
        (tiny_convnext(), 2),
        (tiny_vit(class_token=False, global_pool="avg", final_norm=False), 0),
    ],
    ids=["ours", "I-JEPA", "pool, norm", "DINOv2", "CLIP", "ConvNeXt", "no norm"],
)
def test_layer_norm_makes_exactly_these_null_directions(encoder, expected: int) -> None:
    """One for LayerNorm then pooling; two if it comes last; none without it. In both precisions."""
    for x in (images(3), images(1, seed=5)):
        assert jepa_score(encoder, x).null_directions == expected
    exact = jepa_score(encoder.double(), images(2))
    encoder.float()
    assert exact.null_directions == expected
    assert exact.clipped.tolist() == [0, 0]


def test_null_directions_are_common_to_all_images() -> None:
    """A gap that one image lacks is not structural; fading out or being flat is no gap."""
    lowest = torch.tensor([[0.0, -1, -20], [0, -1, -12]]).double()
    assert structural_nulls(lowest) == 1
    assert structural_nulls(torch.cat([lowest, torch.tensor([[0.0, -1, -2]])])) == 0
    assert structural_nulls(torch.linspace(0, -30, 40).double()[None]) == 0
    flat = torch.full((1, 3), -math.inf).double()
    assert structural_nulls(flat) == 0
    assert structural_nulls(torch.cat([lowest, flat])) == 1
    assert structural_nulls(torch.tensor([[0.0, -math.inf, -math.inf]]).double()) == 2


def test_an_image_without_a_derivative_has_no_score() -> None:
    """The root has none at zero: NaN for that image alone, and it decides nothing of the others."""
    points = torch.tensor([[1.0, 4.0], [0.0, 1.0], [4.0, 9.0]], dtype=torch.float64)
    found = jepa_score(torch.sqrt, points)
    expected = [math.log(0.5 * 0.25), math.nan, math.log(0.25 / 6)]
    assert found.score.tolist() == pytest.approx(expected, nan_ok=True)
    assert found.null_directions == 0


def test_chunks_and_batches_change_nothing() -> None:
    x, whole = images(5), jepa_score(tiny_encoder(), images(5))
    for chunk, batch in ((1, 1), (7, 2), (100, 5)):
        cut = jepa_score(tiny_encoder(), x, chunk_size=chunk, batch_size=batch)
        torch.testing.assert_close(cut.score, whole.score, rtol=1e-6, atol=0)
        torch.testing.assert_close(cut.embeddings, whole.embeddings)


def test_views_are_combined_by_equation_4() -> None:
    """-log mean exp(-s): one view gives itself, two the harmonic mean of the densities."""
    scores = torch.tensor([[1.0, -900.0], [3.0, -900.0]])
    expected = -math.log((math.exp(-1) + math.exp(-3)) / 2)
    torch.testing.assert_close(combine_views(scores), torch.tensor([expected, -900.0]))
    torch.testing.assert_close(combine_views(scores[:1]), scores[0])
