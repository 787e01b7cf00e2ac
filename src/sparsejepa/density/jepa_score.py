"""JEPA-SCORE: the log-volume of an encoder's Jacobian at an image (2510.05949, eq. 5)."""

import contextlib
import copy
import inspect
import math
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, Float64, Int64, Shaped
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.overrides import TorchFunctionMode

from sparsejepa.probing.features import pooled  # noqa: F401
from sparsejepa.randomness import generator

Map = Callable[[Tensor], Tensor]  # images Float["B ..."] to embeddings Float["B K"]

EPS = 1e-6  # the listing's lower clip of singular values
# A structural null direction: its singular value is below SMALL times the largest one and GAP times
# below the next larger one. Networks that end in a LayerNorm have theirs from 1e-8 (float32
# rounding) to 1e-5 (LayerNorm's eps), and the rest of the spectrum above 1e-3.
SMALL, GAP = 1e-4, 30.0
# Columns of a Jacobian that are in float64 at once: 50 MB for 384 embedding dimensions.
COLUMNS = 1 << 14
# A relative difference that float32 sums do not explain: of an image's features beside another
# image and alone, and of a derivative by two modes.
ROUNDING = 1e-3


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
        """score + log N(f(x); 0, I), nats; log p(x) if f is invertible and its embeddings normal.

        The paper takes the embedding's own density as constant, which holds for K to infinity.
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
            back, with a warning if it was in training mode.
        images: what `encoder` takes, as Float["B 3 H W"]; moved to the device of its weights.
        eps: singular values are raised to at least this before the logarithm, as in the listing.
        null_directions: how many of the smallest singular values to leave out because they are
            null for every image; None finds it (`structural_nulls`), 0 is the paper's listing.
        chunk_size: rows of the Jacobian in one backward pass of `batch_size` images; some 16 in all
            are fastest on CPUs, GPUs want hundreds. Memory is batch_size · K · D numbers and the
            activations of batch_size · chunk_size images.

    Returns tensors on the CPU. ValueError: no images, half precision, an encoder whose embeddings
    depend on other images or on chance, or a wrong gradient.

    Example:
        >>> import torch
        >>> jepa_score(lambda x: 3 * x, torch.zeros(1, 2)).score.exp().round().tolist()
        [9.0]
    """
    if not (len(images) and images.is_floating_point()):
        raise ValueError(f"Pass at least one image of floats, not {len(images)} of {images.dtype}.")
    weights = next(encoder.parameters(), None) if isinstance(encoder, nn.Module) else None
    if weights is not None:
        images = images.to(weights.device, weights.dtype)
    spectra, embeddings = [], []
    with frozen(encoder):
        _check_map(encoder, images)
        for batch in images.split(batch_size):
            jacobian, embedding = jacobians(encoder, batch, chunk_size)
            spectra.append(log_singular_values(jacobian).cpu())
            embeddings.append(embedding.cpu())
    log_spectrum, floor = torch.cat(spectra), math.log(eps)
    nulls = structural_nulls(log_spectrum) if null_directions is None else null_directions
    kept = log_spectrum[:, : log_spectrum.shape[1] - nulls]
    score, clipped = kept.clamp(min=floor).sum(dim=1), (kept < floor).sum(dim=1)
    return JepaScore(score, log_spectrum, nulls, clipped, torch.cat(embeddings))


def log_singular_values(jacobian: Float[Tensor, "B K D"]) -> Float64[Tensor, "B m"]:
    """log sigma of each Jacobian, largest first; m = min(K, D), log 0 is -inf, NaN if not finite.

    From the eigenvalues of J J^T (or J^T J), many times faster than an SVD. In float64, because
    squaring costs half of the digits: singular values above 1e-5 of the largest one are right to
    1e-6 of themselves.
    """
    if jacobian.device.type == "mps":  # has no float64
        jacobian = jacobian.cpu()
    wide = jacobian if jacobian.shape[1] <= jacobian.shape[2] else jacobian.transpose(1, 2)
    parts = (columns.double() for columns in wide.split(COLUMNS, dim=2))
    gram = sum(part @ part.transpose(1, 2) for part in parts)
    # eigvalsh refuses a whole batch for one matrix that is not finite.
    finite = gram.isfinite().all(dim=2).all(dim=1)
    values = torch.linalg.eigvalsh(torch.where(finite[:, None, None], gram, 0.0))
    # Rounding can leave eigenvalues of null directions below zero.
    logs = 0.5 * values.clamp(min=0).log().flip(1)
    return torch.where(finite[:, None], logs, math.nan)


def structural_nulls(log_spectrum: Float64[Tensor, "B m"]) -> int:
    """How many directions are null at every image: the smallest count of all images.

    Those of one image lie below the first gap of a factor `GAP` whose lower side is below `SMALL`
    times the largest singular value: a spectrum that fades out gradually has none. Images at which
    the encoder is flat or has no derivative do not count.

    A LayerNorm's outputs z satisfy sum z_i / w_i = constant: one output direction never moves, and
    after pooling hardly a second, along their variance. Their logarithm is that of rounding. A ReLU
    channel that is off everywhere in an image is null at that image alone: beyond those that all
    images share each counts as log eps (`clipped`), which outweighs the rest of the score. An
    encoder that training has made flat in some directions cannot be told from one built so: pass
    `null_directions=0` to keep them.
    """
    steep = log_spectrum[log_spectrum[:, 0].isfinite()]
    if not len(steep):
        return 0
    relative = steep - steep[:, :1]
    upper, lower = relative[:, :-1], relative[:, 1:]
    # -inf below -inf is no gap: it lies within the null directions.
    steps = torch.where(upper.isfinite(), upper - lower, 0.0)
    below = (lower < math.log(SMALL)) & (steps > math.log(GAP))
    first = F.pad(below, (0, 1), value=True).long().argmax(dim=1)
    return lower.shape[1] - int(first.max())


def combine_views(scores: Float[Tensor, "T B"]) -> Float[Tensor, "B"]:
    """-log mean exp(-score) over T transformed views of each image (2510.05949, eq. 4)."""
    return math.log(len(scores)) - torch.logsumexp(-scores, dim=0)


def jacobians(
    encoder: Map, images: Float[Tensor, "B ..."], chunk_size: int
) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K"]]:
    """J[b, k, i] = d f_k / d x_i of every image, and the embeddings f(x); D is an image's size.

    To be called inside `frozen`. Row k of all images comes from one backward pass of the
    embeddings' sum over the batch (2510.05949, appendix B), since no image depends on another;
    `chunk_size` of the K passes run as one. Unlike in `torch.func.jacrev`, J is in memory once.

    ValueError: the derivative along a random direction is not that of forward-mode differentiation,
    in float64 either: in float32 it may be rounding, as at a collapse.
    """

    def summed(batch: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = encoder(batch)
        return embeddings.sum(dim=0), embeddings

    total, backward, embeddings = torch.func.vjp(summed, images, has_aux=True)
    rows, directions = images.new_empty(len(total), *images.shape), torch.ones_like(total).diag()
    for place, chunk in zip(rows.split(chunk_size), directions.split(chunk_size), strict=True):
        place.copy_(torch.vmap(backward)(chunk)[0])
    found = rows.flatten(2).transpose(0, 1)
    if not _agrees_with_forward_mode(encoder, images, found):
        if images.dtype == torch.float64:
            raise ValueError(
                "The encoder's backward pass does not agree with its forward-mode derivative: an "
                "operation has a wrong gradient, in this version of torch or of its own."
            )
        wide = copy.deepcopy(encoder).double() if isinstance(encoder, nn.Module) else encoder
        jacobians(wide, images.double(), chunk_size)
    return found, embeddings


def _agrees_with_forward_mode(
    encoder: Map, images: Float[Tensor, "B ..."], jacobian: Float[Tensor, "B K D"]
) -> bool:
    direction = torch.randn(images.shape[1:], generator=generator(0, "direction")).to(images)
    along = direction.expand_as(images).contiguous()
    try:
        # Forward mode loads decompositions that torch itself calls deprecated.
        with warnings.catch_warnings(action="ignore"):
            exact = torch.func.jvp(encoder, (images,), (along,))[1]
    except NotImplementedError:  # an operation has no forward mode to compare with
        return True
    found = torch.stack([own @ direction.flatten() for own in jacobian])
    # Where there is no derivative, neither has one. What rounding leaves of a null map is no fault.
    least = 1e-6 * torch.stack([own.norm() for own in jacobian])
    same = (found - exact).norm(dim=1) <= ROUNDING * exact.norm(dim=1) + least
    return bool((same | ~(found.isfinite() & exact.isfinite()).all(dim=1)).all())


class _PlainNorms(TorchFunctionMode):
    """Batch and instance normalisation by plain arithmetic instead of their fused operations.

    The fused backward pass is wrong (torch 2.14, CPU) for a batch of one image, as instance norms
    always make, whose gradient is strided as tokens are.
    """

    def __torch_function__(
        self, func: Callable, types: Any, args: tuple = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if func in (F.batch_norm, F.instance_norm):
            given = inspect.signature(func).bind(*args, **kwargs or {})
            given.apply_defaults()
            if not given.arguments.get("training"):
                return _normalised(given.arguments)
        return func(*args, **kwargs or {})


def _normalised(given: dict[str, Any]) -> Float[Tensor, "B C ..."]:
    x, mean, var = given["input"], given["running_mean"], given["running_var"]
    if given.get("use_input_stats"):
        var, mean = torch.var_mean(x, dim=tuple(range(2, x.ndim)), correction=0)
    places = (..., *(None for _ in x.shape[2:]))
    found = (x - mean[places]) / (var[places] + given["eps"]).sqrt()
    found = found if given["weight"] is None else found * given["weight"][places]
    return found if given["bias"] is None else found + given["bias"][places]


@contextlib.contextmanager
def frozen(encoder: Map) -> Iterator[None]:
    """Evaluation mode, full precision and differentiable attention; all put back afterwards.

    Fused attention has no batched backward pass. Autocast and TF32 would blur the small singular
    values.
    """
    modules = encoder.modules() if isinstance(encoder, nn.Module) else ()
    training = [module for module in modules if module.training]
    if training:
        what = "The encoder was in training mode: its Jacobian is taken in evaluation mode"
        warnings.warn(f"{what}, and the mode is put back.", stacklevel=3)
    cuda, cudnn, cpu = torch.backends.cuda, torch.backends.cudnn, torch.backends.mkldnn
    # Not torch.get_float32_matmul_precision, which raises where the newer setting was used.
    settings = [cuda.matmul, cudnn.conv, cudnn.rnn, cpu.matmul, cpu.conv, cpu.rnn]
    precisions = [setting.fp32_precision for setting in settings]
    try:
        for module in training:
            module.training = False
        for setting in settings:
            setting.fp32_precision = "ieee"
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            _PlainNorms(),
        ):
            yield
    finally:
        for setting, precision in zip(settings, precisions, strict=True):
            setting.fp32_precision = precision
        for module in training:
            module.training = True


def _check_map(encoder: Map, images: Float[Tensor, "B ..."]) -> None:
    """Refuses what has no Jacobian of its own for each image."""
    alone = encoder(images[:1])
    weights = encoder.state_dict().values() if isinstance(encoder, nn.Module) else ()
    if halves := {t.dtype for t in (alone, images, *weights)} & {torch.float16, torch.bfloat16}:
        raise ValueError(
            f"Weights, images or embeddings are {halves.pop()}, whose rounding is larger than the "
            "small singular values of the Jacobian: call .float() on encoder and images."
        )
    if alone.ndim != 2 or len(alone) != 1:
        raise ValueError(
            f"The encoder maps one image to shape {tuple(alone.shape)}, and [1, K] is needed: "
            "average its tokens first (see sparsejepa.density.jepa_score.pooled)."
        )
    if not alone.isfinite().all():
        raise ValueError("The embedding of the first image contains NaN or infinity.")
    # A paler copy, whose statistics are sure to be others.
    beside = encoder(torch.cat([images[:1], images[:1] / 2 + 1]))[:1]
    if (alone - beside).abs().max() > ROUNDING * alone.abs().max():
        raise ValueError(
            "The encoder gives an image other features beside another image than alone (batch "
            "normalisation or dropout in training mode?): call .eval() on it first."
        )
