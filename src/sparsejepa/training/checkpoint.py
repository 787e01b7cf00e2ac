"""Files that survive a kill: atomic checkpoints with a checksum, and encoder weights for timm."""

import dataclasses
import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Shaped
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from sparsejepa.atomic_files import write_atomically
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


@torch.no_grad()
def round_to_half(encoder: Encoder) -> None:
    """Rounds the weights in place to float16 values, what `save_encoder` keeps of them.

    Done before an encoder is measured, it makes the numbers those of the file, to the bit.
    """
    for value in encoder.vit.state_dict().values():
        value.copy_(value.half())


def save_encoder(path: Path, encoder: Encoder) -> None:
    """Encoder weights as float16 under timm's own names; the metadata holds our config as JSON.

    `timm`'s `VisionTransformer(**timm_arguments(config))` takes the file with no key renamed.
    """
    config = json.dumps(dataclasses.asdict(encoder.config))
    weights = {k: v.detach().cpu().half().contiguous() for k, v in encoder.vit.state_dict().items()}
    write_atomically(path, save(weights, {"encoder": config}))


def load_encoder(path: Path) -> Encoder:
    """The encoder that `save_encoder` wrote, in float32 and in eval mode.

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
