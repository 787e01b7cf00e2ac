"""How many times faster JEPA-SCORE is computed than by the paper's listing, at equal values."""

import pytest
import torch

from sparsejepa.density.jepa_score import frozen, jacobians, jepa_score, log_singular_values, pooled
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.randomness import generator
from tests.benchmarks.interleaved import race
from tests.density.listing import listing_jacobian

pytestmark = pytest.mark.slow
ROUNDS = 3


@pytest.fixture
def encoder() -> torch.nn.Module:
    """As wide and deep as the one that the repository commits."""
    made = pooled(Encoder(EncoderConfig(), generator(0)).eval())
    return made.requires_grad_(False)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 32, 32, generator=generator(0, "images"))


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize(("threads", "width"), [(1, 128), (2, 128), (1, 384), (1, 768)])
def test_spectrum_ratio(threads: int, width: int, capsys):
    """Singular values equal to 1e-6 of themselves, against the SVD in float64.

    The listing's own, in float32, is off by more. How much slower the SVD is depends on the threads
    that its small steps are given, and grows with the embedding: the widths are those of our
    encoders, a ViT-S and a ViT-B.
    """
    draw = generator(0, "jacobian")
    decay = torch.logspace(0, -2, width)[:, None]
    jacobian = torch.randn(2, width, width, generator=draw) @ (
        decay * torch.randn(2, width, 3072, generator=draw)
    )
    exact = torch.linalg.svdvals(jacobian.double()).log()
    ours = (log_singular_values(jacobian) - exact).abs().max().item()
    listing = (torch.linalg.svdvals(jacobian).log() - exact).abs().max().item()
    assert ours < 1e-6 < listing
    torch.set_num_threads(threads)
    ways = {
        "svdvals, float32 (the listing)": lambda: torch.linalg.svdvals(jacobian),
        "svdvals, float64": lambda: torch.linalg.svdvals(jacobian.double()),
        "eigvalsh of the Gram matrix, float64": lambda: log_singular_values(jacobian),
    }
    title = f"spectra of {width} x 3,072, threads: {threads}"
    race(capsys, title, ways, ROUNDS, len(jacobian))
    with capsys.disabled():
        print(f"  largest relative error: listing {listing:.1e}, here {ours:.1e}")


@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("count", [1, 4])
def test_jacobian_ratio(encoder: torch.nn.Module, count: int, capsys):
    """One backward pass a dimension against chunks of them; entries equal to float32 rounding.

    In float64 both give the same singular values to 1e-6 of themselves.
    """
    batch = images(count)

    def chunked(rows: int):
        with frozen(encoder):
            return jacobians(encoder, batch, rows)[0]

    plain = listing_jacobian(encoder, batch)
    assert (chunked(16) - plain).abs().max() < 1e-5 * plain.abs().max()
    ways = {
        "one backward pass a dimension (the listing)": lambda: listing_jacobian(encoder, batch),
        **{f"chunks of {rows}": lambda rows=rows: chunked(rows) for rows in (8, 16, 32)},
    }
    race(capsys, f"Jacobians of a batch of {count}", ways, ROUNDS, count)
    wide = encoder.double()
    exact = torch.linalg.svdvals(listing_jacobian(wide, batch.double())).log()
    found = jepa_score(wide, batch).log_spectrum
    assert (found - exact)[:, :-1].abs().max() < 1e-6


@pytest.mark.usefixtures("one_thread")
def test_whole_score_ratio(encoder: torch.nn.Module, capsys):
    """Jacobian and spectrum together, as they are called."""

    def listing():
        return torch.linalg.svdvals(listing_jacobian(encoder, images(4))).clip(1e-6).log().sum(1)

    ways = {"the listing": listing, "jepa_score": lambda: jepa_score(encoder, images(4))}
    race(capsys, "JEPA-SCORE of 4 images", ways, ROUNDS, 4)
