"""Files that survive a kill: atomic checkpoints with a checksum, and encoder weights for timm."""

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sparsejepa.config import from_mapping
from sparsejepa.model.vit import Encoder, EncoderConfig
from sparsejepa.randomness import generator

Tensors = dict[str, Shaped[Tensor, "..."]]


def save_checkpoint(path: Path, tensors: Tensors, facts: dict[str, Any]) -> None:
    """Writes tensors and JSON facts as one safetensors file, whole or not at all.

    Raises:
        OSError: the folder can't be written or the disk is full; an earlier file is untouched.
    """
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in tensors.items()}
    text = json.dumps(facts)
    checksum = _checksum(tensors, text)
    write_atomically(path, save(tensors, {"facts": text, "sha256": checksum}))


def load_checkpoint(path: Path) -> tuple[Tensors, dict[str, Any]]:
    """Reads what `save_checkpoint` wrote.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged. It is never skipped silently: delete it to start anew.
    """
    tensors, metadata = _read(path)
    if metadata.get("sha256") != _checksum(tensors, metadata.get("facts", "")):
        raise ValueError(_damaged(path, "its checksum does not match its content"))
    return tensors, json.loads(metadata["facts"])


def write_atomically(path: Path, content: bytes) -> None:
    """Replaces `path` by `content` in one step; a crash leaves the old file or the new one.

    Raises:
        OSError: the folder can't be written or the disk is full; an earlier file is untouched.
    """
    with _explained(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            # mkstemp keeps others from reading; what a run leaves behind is an ordinary file.
            os.chmod(temporary, 0o644)
            os.replace(temporary, path)
        except BaseException:
            Path(temporary).unlink(missing_ok=True)
            raise


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Encoder weights under timm's own names; the file's metadata holds our config as JSON.

    `timm`'s `VisionTransformer(**timm_arguments(config))` takes the file with no key renamed.
    """
    config = json.dumps(dataclasses.asdict(encoder.config))
    weights = {k: v.detach().cpu().contiguous() for k, v in encoder.vit.state_dict().items()}
    write_atomically(path, save(weights, {"encoder": config}))


def load_encoder(path: Path) -> Encoder:
    """The encoder that `save_encoder` wrote, in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged or was not written by `save_encoder`.
    """
    weights, metadata = _read(path)
    if "encoder" not in metadata:
        raise ValueError(f"{path} holds no encoder configuration; it was not made by this library.")
    encoder = Encoder(
        from_mapping(EncoderConfig, json.loads(metadata["encoder"])), generator(0, "replaced")
    )
    encoder.vit.load_state_dict(weights)
    return encoder.eval()


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise OSError(
            error.errno,
            f"Could not save {path} ({error.strerror or error}); what was saved before is intact. "
            f"Free some disk space or choose a writable folder, then run again to resume",
        ) from error


def _read(path: Path) -> tuple[Tensors, dict[str, str]]:
    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            return tensors, file.metadata() or {}
    except SafetensorError as error:
        raise ValueError(_damaged(path, str(error))) from error


def _damaged(path: Path, why: str) -> str:
    return f"{path} is damaged ({why}); delete it to start this run from the beginning."


def _checksum(tensors: Tensors, text: str) -> str:
    digest = hashlib.sha256(text.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
