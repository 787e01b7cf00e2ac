"""JEPA-SCORE: the log-volume of an encoder's Jacobian at an image (2510.05949, eq. 5)."""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor, nn

from sparsejepa.density.jacobian import Map, check_map, frozen, jacobians

EPS = 1e-6  # the listing's lower clip of singular values
# A structural null direction: its singular value is below SMALL times the largest one and GAP times
# below the next larger one. Networks that end in a LayerNorm have theirs from 1e-8 (float32
# rounding) to 1e-5 (LayerNorm's eps), and the rest of the spectrum above 1e-3.
SMALL, GAP = 1e-4, 30.0
# Columns of a Jacobian that are in float64 at once: 50 MB for 384 embedding dimensions.
COLUMNS = 1 << 14


@dataclass(frozen=True, eq=False)
class JepaScore:
    """Scores of images by one encoder. Scores of different encoders cannot be compared."""

    score: Float64[Tensor, "B"]  # sum over kept directions of log max(sigma, eps), nats
    log_spectrum: Float64[Tensor, "B m"]  # all m = min(K, D) log sigma, not clipped, largest first
    null_directions: int  # the last ones of log_spectrum, left out of every image's score
    clipped: Int64[Tensor, "B"]  # kept singular values that were below eps
    embeddings: Float[Tensor, "B K"]  # f(x)

    @property
    def log_density(self) -> Float64[Tensor, "B"]:
        """score + log N(f(x); 0, I), nats.

        The paper takes the embedding's own density as constant, which holds for K to infinity; at
        finite K a Gaussian is not uniform on a sphere. If f is invertible and its embeddings are
        standard normal, this is log p(x) itself.
        """
        wide = self.embeddings.double()
        constant = wide.shape[1] * math.log(2 * math.pi)
        return self.score - 0.5 * (wide.square().sum(dim=1) + constant)


def jepa_score(
    encoder: Map,
    images: Shaped[Tensor, "B ..."],
    *,
    eps: float = EPS,
    null_directions: int | None = None,
    chunk_size: int = 16,
    batch_size: int = 4,
) -> JepaScore:
    """Sum over k of log sigma_k(J_f(x)) for every image, J_f = d f / d x; higher is denser.

    Args:
        encoder: any map from images to embeddings [B, K]. A module is put in evaluation mode and
            back, with a warning if it was in training mode. It is otherwise left as it was.
        images: what `encoder` takes, as Float["B 3 H W"]; moved to the device of its weights.
        eps: singular values are raised to at least this before the logarithm, as in the listing.
        null_directions: how many of the smallest singular values to leave out because the
            encoder's construction makes them zero; None finds it (`structural_nulls`), 0 with the
            default `eps` is the paper's listing.
        chunk_size: rows of the Jacobian in one backward pass. With `batch_size` it changes memory
            and time only: some 16 rows in all are fastest on CPUs, GPUs want hundreds.
        batch_size: images at once.

    Returns: tensors on the CPU. Memory is batch_size · K · D numbers for the Jacobian, at most
        batch_size · K · `COLUMNS` in float64 beside it, and the activations of
        batch_size · chunk_size images.

    Raises:
        ValueError: no images, a setting out of its range, half precision, batch normalisation in
            training mode, or an encoder whose embeddings depend on other images or on chance.
    """
    if not (len(images) and images.is_floating_point()):
        raise ValueError(f"Pass at least one image of floats, not {len(images)} of {images.dtype}.")
    if not (eps > 0 and chunk_size > 0 and batch_size > 0):
        raise ValueError(
            f"eps {eps}, chunk_size {chunk_size} and batch_size {batch_size} must be above 0."
        )
    spectra, embeddings = [], []
    with frozen(encoder):
        images = _like_weights(encoder, images)
        check_map(encoder, images)
        for batch in images.split(batch_size):
            jacobian, embedding = jacobians(encoder, batch, chunk_size)
            spectra.append(log_singular_values(jacobian).cpu())
            embeddings.append(embedding.cpu())
    log_spectrum = torch.cat(spectra)
    if null_directions is None:
        null_directions = structural_nulls(log_spectrum)
    directions = log_spectrum.shape[1]
    if not 0 <= null_directions < directions:
        raise ValueError(
            f"null_directions must be 0 to {directions - 1} of the {directions} singular values, "
            f"not {null_directions}."
        )
    kept = log_spectrum[:, : directions - null_directions]
    floor = math.log(eps)
    return JepaScore(
        score=kept.clamp(min=floor).sum(dim=1),
        log_spectrum=log_spectrum,
        null_directions=null_directions,
        clipped=(kept < floor).sum(dim=1),
        embeddings=torch.cat(embeddings),
    )


def log_singular_values(jacobian: Float[Tensor, "B K D"]) -> Float64[Tensor, "B m"]:
    """log sigma of each Jacobian, largest first; m = min(K, D), log 0 is -inf.

    NaN for a Jacobian that is not finite, as at a point where the encoder has no derivative.

    From the eigenvalues of J J^T (or J^T J if that is smaller), formed in float64: many times
    faster than an SVD. Squaring costs half of the digits, of which float64 has enough: singular
    values above 1e-5 of the largest one are right to 1e-6 of themselves. In float32 they are not.
    """
    wide = jacobian if jacobian.shape[1] <= jacobian.shape[2] else jacobian.transpose(1, 2)
    gram = torch.zeros(1, dtype=torch.float64, device=wide.device)
    for columns in wide.split(COLUMNS, dim=2):
        part = columns.double()
        gram = gram + part @ part.transpose(1, 2)
    # eigvalsh refuses a whole batch for one matrix that is not finite.
    finite = gram.isfinite().all(dim=2).all(dim=1)
    values = torch.linalg.eigvalsh(torch.where(finite[:, None, None], gram, 0.0))
    # Rounding can leave eigenvalues of null directions below zero.
    logs = 0.5 * values.clamp(min=0).log().flip(1)
    return torch.where(finite[:, None], logs, math.nan)


def structural_nulls(log_spectrum: Float64[Tensor, "B m"]) -> int:
    """How many directions the encoder's construction makes null, for every image alike.

    A LayerNorm's outputs z satisfy sum z_i / w_i = constant: one output direction never moves. If
    it comes after pooling, its variance is constant up to its eps too, which nearly stops a second
    one. Such directions say nothing of the density, and their logarithm is that of rounding.

    In an image's spectrum the null directions lie below the first gap of a factor `GAP` whose
    lower side is below `SMALL` times the largest singular value; none without such a gap, so that a
    spectrum that fades out gradually loses nothing. The smallest count over images is structural.
    An encoder that crushes some directions by more than 1 / SMALL by training is indistinguishable
    from one that does so by construction: pass `null_directions=0` to keep them.
    """
    relative = log_spectrum - log_spectrum[:, :1]
    # An image at which the encoder is flat (all -inf) knows no direction from another, nor does
    # one at which it has no derivative (NaN).
    relative = relative[log_spectrum[:, 0].isfinite()]
    if not (len(relative) and relative.shape[1] > 1):
        return 0
    upper, lower = relative[:, :-1], relative[:, 1:]
    # -inf below -inf is no gap: it lies within the null directions.
    steps = torch.where(upper.isfinite(), upper - lower, 0.0)
    below = (lower < math.log(SMALL)) & (steps > math.log(GAP))
    first = below.long().argmax(dim=1)
    return int((below.any(dim=1) * (lower.shape[1] - first)).min())


def combine_views(scores: Float[Tensor, "T B"]) -> Float[Tensor, "B"]:
    """-log mean exp(-score) over T transformed views of each image (2510.05949, eq. 4).

    Eq. 4 divides by the mean of 1 / prod sigma over the transforms of training; one view gives
    back its own score.
    """
    return math.log(len(scores)) - torch.logsumexp(-scores, dim=0)


def _like_weights(encoder: Map, images: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    weights = next(encoder.parameters(), None) if isinstance(encoder, nn.Module) else None
    return images if weights is None else images.to(weights.device, weights.dtype)
