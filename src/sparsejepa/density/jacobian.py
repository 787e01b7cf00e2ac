"""Exact Jacobians of an encoder with respect to its images, chunk by chunk."""

import contextlib
import warnings
from collections.abc import Callable, Iterator

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.modules.batchnorm import _BatchNorm

Map = Callable[[Tensor], Tensor]  # images Float["B ..."] to embeddings Float["B K"]

# Between the features of an image alone and beside another one, relative to their size: what the
# order of float32 sums changes stays far below.
COUPLING = 1e-3


def pooled(encoder: nn.Module) -> nn.Module:
    """Our encoder as a map to one vector an image: its tokens, averaged over the patches."""
    both = nn.Sequential(encoder, _MeanOverPatches())
    # A new module counts as training, which nobody asked for.
    both.training = both[1].training = encoder.training
    return both


def jacobians(
    encoder: Map, images: Float[Tensor, "B ..."], chunk_size: int
) -> tuple[Float[Tensor, "B K D"], Float[Tensor, "B K"]]:
    """J[b, k, i] = d f_k / d x_i of every image, and the embeddings f(x); D is an image's size.

    Row k of all images comes from one backward pass of the embeddings' sum over the batch, as in
    the listing of JEPA-SCORE (2510.05949, appendix B), which is right because no image depends on
    another (`check_map`); `chunk_size` of the K passes run as one. To be called inside `frozen`.

    As `torch.func.jacrev`, which collects its chunks and then copies them together: here they are
    written where they belong, so that J is in memory once.
    """

    def summed(batch: Tensor) -> tuple[Tensor, Tensor]:
        embeddings = encoder(batch)
        return embeddings.sum(dim=0), embeddings

    total, backward, embeddings = torch.func.vjp(summed, images, has_aux=True)
    rows = images.new_empty(len(total), *images.shape)
    directions = torch.eye(len(total), device=total.device, dtype=total.dtype)
    for place, chunk in zip(rows.split(chunk_size), directions.split(chunk_size), strict=True):
        place.copy_(torch.vmap(backward)(chunk)[0])
    return rows.flatten(2).transpose(0, 1), embeddings


@contextlib.contextmanager
def frozen(encoder: Map) -> Iterator[None]:
    """Evaluation mode, full precision and differentiable attention; all put back afterwards.

    Fused attention has no batched backward pass. Autocast and TF32 would blur the small singular
    values. Modules inside a function are not seen: those are left to `check_map`.

    Raises:
        ValueError: batch normalisation in training mode, or weights in half precision.
    """
    modules = list(encoder.modules()) if isinstance(encoder, nn.Module) else []
    _check_modules(modules)
    modes = [(module, module.training) for module in modules]
    if any(was_training for _, was_training in modes):
        warnings.warn(
            "The encoder was in training mode: its Jacobian is taken in evaluation mode, and the "
            "mode is put back.",
            stacklevel=3,
        )
    precision = torch.get_float32_matmul_precision()
    try:
        for module, _ in modes:
            module.training = False
        torch.set_float32_matmul_precision("highest")
        with (
            torch.no_grad(),
            sdpa_kernel(SDPBackend.MATH),
            torch.autocast("cpu", enabled=False),
            torch.autocast("cuda", enabled=False),
            torch.backends.cudnn.flags(enabled=True, allow_tf32=False),
        ):
            yield
    finally:
        torch.set_float32_matmul_precision(precision)
        for module, was_training in modes:
            module.training = was_training


def check_map(encoder: Map, images: Float[Tensor, "B ..."]) -> None:
    """Refuses what has no Jacobian of its own for each image. To be called inside `frozen`.

    Raises:
        ValueError: half precision, embeddings that are not [B, K] or not finite, or embeddings
            that change with the other images of the batch or from call to call.
    """
    alone = encoder(images[:1])
    if alone.ndim != 2 or len(alone) != 1:
        raise ValueError(
            f"The encoder maps one image to shape {tuple(alone.shape)}, and [1, K] is needed: "
            "average its tokens first (see sparsejepa.density.jacobian.pooled)."
        )
    _check_dtype("embeddings", alone.dtype)
    # A paler copy, whose statistics are sure to be others.
    beside = encoder(torch.cat([images[:1], images[:1] / 2 + 1]))[:1]
    if not alone.isfinite().all():
        raise ValueError("The embedding of the first image contains NaN or infinity.")
    if (alone - beside).abs().max() > COUPLING * alone.abs().max():
        raise ValueError(
            "The encoder gives an image other features beside another image than alone (batch "
            "normalisation or dropout in training mode?): call .eval() on it first."
        )


def _check_modules(modules: list[nn.Module]) -> None:
    for module in modules:
        if isinstance(module, _BatchNorm) and (module.training or not module.track_running_stats):
            raise ValueError(
                f"{type(module).__name__} normalises by the other images of the batch, so that no "
                "image has a score of its own: call .eval() on an encoder that keeps running "
                "statistics."
            )
        for tensor in (*module.parameters(recurse=False), *module.buffers(recurse=False)):
            _check_dtype("weights", tensor.dtype)


def _check_dtype(what: str, dtype: torch.dtype) -> None:
    if dtype in (torch.float16, torch.bfloat16):
        raise ValueError(
            f"The {what} are {dtype}, whose rounding is larger than the small singular values of "
            "the Jacobian: call .float() on encoder and images."
        )


class _MeanOverPatches(nn.Module):
    def forward(self, tokens: Float[Tensor, "B N d"]) -> Float[Tensor, "B d"]:
        return tokens.mean(dim=1)
