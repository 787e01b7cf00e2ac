"""A backbone for `sparsejepa score`: its preprocessing, and its map from pixels to one vector."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from sparsejepa.density.jepa_score import pooled
from sparsejepa.model.vit import Encoder
from sparsejepa.probing.backbones import Backbone, load_backbone


@dataclass(frozen=True)
class ScoredBackbone:
    """What JEPA-SCORE differentiates, and how images get there."""

    name: str  # as given
    encoder: nn.Module  # pixels Float["B 3 H W"] in [0, 1] at the network's size to Float["B K"]
    prepare: Callable[[Image.Image], Float[Tensor, "3 H W"]]  # resizes and crops an RGB image
    size: int  # shorter side of what `prepare` gives, pixels
    sha256: str  # of the weights


def scored_backbone(name: str, pretrained: bool = True) -> ScoredBackbone:
    """The encoder of a file that `save_encoder` wrote, or timm's model of that name.

    Ours averages its tokens over the patches. A timm model gives what its classifier would read:
    its own pooling or class token. The Jacobian is taken with respect to pixels in [0, 1] at the
    network's size, so that a model's own mean and standard deviation are part of the map.

    Args:
        pretrained: False draws a timm model's weights: the untrained control.

    Raises:
        FileNotFoundError: the name is that of a file, which is not there.
        ValueError: a damaged file, or timm has no such model, or no such weights for it.
        ConnectionError: the weights could not be fetched.
    """
    file = Path(name).expanduser()
    if file.is_file() or file.suffix == ".safetensors":
        backbone = load_backbone("", file)
    else:
        _check_tag(name)
        try:
            backbone = load_backbone(name, pretrained=pretrained)
        except ConnectionError as error:
            raise ConnectionError(
                f"The weights of {name} are not on this machine, and the Hugging Face Hub could "
                "not be reached: call this once where there is a network (the weights are then "
                "kept), or give the file of an encoder of your own."
            ) from error
    network = backbone.network
    encoder = pooled(network) if isinstance(network, Encoder) else _Pixels(backbone)
    return ScoredBackbone(
        name, encoder, _preparation(backbone), min(backbone.size), _sha256(network)
    )


def _check_tag(name: str) -> None:
    """timm itself raises a RuntimeError, which does not say what tags there are."""
    import timm

    architecture, tag = timm.models.split_model_name_tag(name)
    weights = timm.models.get_arch_pretrained_cfgs(architecture)
    if not tag or not weights or name in weights:
        return
    tags = sorted(full.partition(".")[2] for full, found in weights.items() if found.has_weights)
    choice = f": choose the tag {' or '.join(tags)}" if tags else ", nor any others of it"
    raise ValueError(f"timm has no weights {tag!r} of {architecture}{choice}.")


class _Pixels(nn.Module):
    """Normalises by the backbone's own statistics, then gives its pooled embedding."""

    def __init__(self, backbone: Backbone) -> None:
        super().__init__()
        self.backbone = backbone
        self.training = backbone.training

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B K"]:
        return self.backbone.network((images - self.backbone.mean) / self.backbone.std)


def _preparation(backbone: Backbone) -> Callable[[Image.Image], Float[Tensor, "3 H W"]]:
    """timm's transform for evaluation, without its normalisation."""
    from timm.data import create_transform, resolve_model_data_config

    settings = {"interpolation": "bicubic", "crop_pct": 1.0, "crop_mode": "center"}
    if not isinstance(backbone.network, Encoder):
        found = resolve_model_data_config(backbone.network)
        settings = {key: found[key] for key in settings}
    return create_transform(
        input_size=(3, *backbone.size), mean=(0.0,) * 3, std=(1.0,) * 3, **settings
    )


def _sha256(network: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
    return digest.hexdigest()
