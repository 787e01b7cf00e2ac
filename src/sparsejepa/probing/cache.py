"""Features extracted once: kept in files named by the content that they were computed from."""

import contextlib
import hashlib
import os
from pathlib import Path

import torch
from jaxtyping import Float, UInt8
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from sparsejepa.atomic_files import write_with
from sparsejepa.data.image_set import pixel_sha256
from sparsejepa.probing.features import pooled_features

# Raised when `pooled_features` means something else than before: older files are then ignored.
_VERSION = 1
# Images whose features are computed again when a file is read. The key knows weights, not code.
_CHECKED = 4


def cached_features(
    encoder: nn.Module,
    images: UInt8[Tensor, "N H W 3"],
    *,
    last: int = 1,
    batch_size: int = 512,
    autocast: torch.dtype | None = None,
    folder: Path | None = None,
) -> Float[Tensor, "N D"]:
    """`pooled_features`, read from a file if weights, pixels and settings are those of before.

    The file's name is their hash, so that nothing has to be invalidated by hand. What a hash of
    weights cannot see, such as the number of heads or a change of the encoder's code, is caught by
    computing the first few images again: where they differ, all are computed. A damaged file is
    computed again as well, and a folder that cannot be written makes the next call slower.

    Args:
        last, batch_size, autocast: as `pooled_features`; all but `batch_size`, which changes
            rounding only, are part of the name.
        folder: default `$SPARSEJEPA_CACHE/features`, in `~/.cache/sparsejepa` unless set. A file
            takes 4 N D bytes.

    Raises:
        ValueError: as `pooled_features`.
    """
    options = {"batch_size": batch_size, "last": last, "autocast": autocast}
    folder = _default_folder() if folder is None else folder
    file = folder / f"{features_key(encoder, images, last, autocast)}.safetensors"
    features = _read(file)
    if features is not None and len(features) == len(images):
        again = pooled_features(encoder, images[:_CHECKED], **options)
        if _same(features[:_CHECKED], again, autocast):
            return features
    features = pooled_features(encoder, images, **options)
    with contextlib.suppress(OSError, SafetensorError):
        facts = {"sha256": _sha256(features)}
        write_with(file, lambda path: save_file({"features": features}, path, facts))
    return features


def features_key(
    encoder: nn.Module,
    images: UInt8[Tensor, "N H W 3"],
    last: int,
    autocast: torch.dtype | None,
) -> str:
    """SHA-256, in hexadecimal, of weights, buffers, pixels and settings."""
    device = next(encoder.parameters()).device.type
    settings = (_VERSION, torch.__version__, device, last, autocast, tuple(images.shape))
    digest = hashlib.sha256(f"{settings} {encoder} {getattr(encoder, 'config', '')}".encode())
    for name, value in sorted(encoder.state_dict().items()):
        digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    digest.update(pixel_sha256(images).encode())
    return digest.hexdigest()


def _default_folder() -> Path:
    root = Path(os.environ.get("SPARSEJEPA_CACHE") or "~/.cache/sparsejepa")
    return root.expanduser() / "features"


def _read(file: Path) -> Float[Tensor, "N D"] | None:
    """The features in a file, or nothing where it is missing or damaged."""
    try:
        with safe_open(file, "pt") as opened:
            features = opened.get_tensor("features")
            whole = opened.metadata()["sha256"] == _sha256(features)
    except (OSError, SafetensorError, KeyError, TypeError):
        return None
    return features if whole else None


def _same(
    old: Float[Tensor, "n D"], new: Float[Tensor, "n D"], autocast: torch.dtype | None
) -> bool:
    """Equal up to rounding, which depends on the batch and, in half precision, is coarse."""
    if old.shape != new.shape:
        return False
    tolerance = (1e-4 if autocast is None else 0.05) * new.abs().max()
    return bool((old - new).abs().max() <= tolerance)


def _sha256(features: Float[Tensor, "N D"]) -> str:
    return hashlib.sha256(features.contiguous().numpy()).hexdigest()
