"""Frozen networks of timm's and of ours: tokens for probes, one vector an image for scores.

Images of another size than the network's are refused unless resizing is asked for, a choice that a
caption has to name.
"""

import difflib
import hashlib
import json
from pathlib import Path
from typing import Any

import timm
import torch
import torch.nn.functional as F
from jaxtyping import Float
from PIL import Image
from timm.data import create_transform, resolve_model_data_config
from torch import Tensor, nn
from torchvision.transforms import Normalize

from sparsejepa.errors import in_short
from sparsejepa.model.vit import TORCH, Encoder, load_encoder, read_weights
from sparsejepa.probing.features import pooled

ELSEWHERE = ("hf-hub:", "hf_hub:", "local-dir:")  # names of models that timm does not list
WEIGHTS = "name the timm model as --backbone and give this file as --weights"


class Backbone(nn.Module):
    """A network and its preprocessing, `cfg` as of timm's `resolve_model_data_config`."""

    def __init__(self, network: nn.Module, name: str, cfg: dict[str, Any], resize: bool) -> None:
        super().__init__()
        self.network, self.name, self.cfg, self.resize = network, name, cfg, resize
        self.size = tuple(cfg["input_size"][1:])  # height, width
        self.register_buffer("mean", torch.tensor(cfg["mean"]).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(cfg["std"]).view(1, -1, 1, 1))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N d"]:
        """Patch tokens after the final norm, or the places of a network's last feature map.

        ValueError: images of another size while `resize` is off, or no one token a patch.
        """
        (height, width), given = self.size, tuple(images.shape[2:])
        if given != self.size and not self.resize:
            what = f"{self.name} takes images of {width}x{height} pixels, not {given[1]}x{given[0]}"
            raise ValueError(f"{what}: load it with resize=True to have images resized.")
        if given != self.size:
            images = F.interpolate(images, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        x = (images - self.mean) / self.std
        if isinstance(self.network, Encoder):
            return self.network(x)
        tokens = self.network.forward_features(x)
        if not isinstance(tokens, Tensor):
            raise ValueError(f"{self.name} has features at {len(tokens)} scales, not one.")
        if tokens.ndim == 4:
            last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
            return tokens.flatten(1, 2) if last else tokens.flatten(2).transpose(1, 2)
        prefix, count = getattr(self.network, "num_prefix_tokens", None), tokens.shape[1]
        if prefix is None:
            # It does not say how many tokens stand before the patches: those fill a grid.
            grids = {-(-height // r) * -(-width // r) for r in range(1, min(self.size))} - {1}
            prefix = next((prefix for prefix in (0, 1, 2) if count - prefix in grids), None)
        if prefix is None:
            raise ValueError(f"{self.name} has {count} tokens, no grid of patches: choose another.")
        return tokens[:, prefix:]

    def embedding(self) -> nn.Module:
        """The map from images of `size` in [0, 1] to what a classifier would read, [B, K]."""
        network = pooled(self.network) if isinstance(self.network, Encoder) else self.network
        return nn.Sequential(Normalize(self.cfg["mean"], self.cfg["std"]), network).eval()

    def prepare(self, image: Image.Image) -> Float[Tensor, "3 H W"]:
        """An RGB image in [0, 1], resized and cropped as timm does for the network's evaluation."""
        crop = {key: self.cfg[key] for key in ("interpolation", "crop_pct", "crop_mode")}
        return create_transform((3, *self.size), mean=(0.0,) * 3, std=(1.0,) * 3, **crop)(image)

    def identity(self) -> dict[str, Any]:
        """What the embedding depends on: weights by their content, architecture, preprocessing."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy())
        preparation = json.loads(json.dumps(self.cfg, sort_keys=True))
        return {"weights": digest.hexdigest(), "preparation": preparation}


def load_backbone(
    name: str,
    weights: Path | None = None,
    *,
    pretrained: bool = True,
    resize: bool = False,
    seed: int = 0,
) -> Backbone:
    """A frozen backbone in evaluation mode.

    Args:
        name: of a timm model ("vit_tiny_patch16_224"), of one on the Hub ("hf-hub:owner/name"), of
            a folder with timm's config.json ("local-dir:folder"); or a file of `save_encoder`.
        weights: file of the named timm model's weights (safetensors or torch's own format).
        pretrained: without `weights`, fetch timm's; False gives the untrained control, by `seed`.
        resize: resize images of another size, bicubic with antialiasing, the whole image.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: timm has no such model or no weights for it, or a file's are not the model's.
        ConnectionError: the weights could not be fetched.
    """
    file = Path(name).expanduser()
    for given in (file, weights):
        if given and given.suffix.lower() in (".safetensors", *TORCH) and not given.is_file():
            raise FileNotFoundError(f"There is no file of weights {given}.")
    if file.is_file():
        name, facts = file.name, read_weights(file)[1]
        if "encoder" not in facts:
            raise ValueError(f"{file} does not say of which network it holds weights: {WEIGHTS}.")
        network = load_encoder(file)
        side = network.config.image_size
        # It normalises by itself. `heads` and the like do not show in weights.
        cfg = {"input_size": (3, side, side), "config": facts["encoder"]}
        cfg |= {"mean": (0.0,) * 3, "std": (1.0,) * 3, "interpolation": "bicubic"}
        cfg |= {"crop_pct": 1.0, "crop_mode": "center"}
    else:
        network = _timm_model(name.removeprefix("timm/"), pretrained and weights is None, seed)
        cfg = resolve_model_data_config(network)
        cfg["architecture"] = network.pretrained_cfg.get("architecture", "")
        if weights:
            # A classifier's head, or its heads, are not part of the features.
            heads = network.pretrained_cfg.get("classifier") or ()
            heads = (heads,) if isinstance(heads, str) else heads
            found = read_weights(weights)[0].items()
            try:
                network.load_state_dict(
                    {k: v for k, v in found if k.rpartition(".")[0] not in heads}
                )
            except (RuntimeError, AttributeError) as error:
                what = f"The weights in {weights} are not those of the network"
                raise ValueError(f"{what} ({in_short(error)}).") from error
    return Backbone(network, name, cfg, resize).eval().requires_grad_(False)


def _timm_model(name: str, fetch: bool, seed: int) -> nn.Module:
    if not name.startswith(ELSEWHERE) and not timm.is_model(name):
        similar = difflib.get_close_matches(name.partition(".")[0], timm.list_models(), 3)
        hint = f"did you mean {' or '.join(similar)}?" if similar else "see timm.list_models()."
        if Path(name).expanduser().is_dir():
            hint = "this is a folder: name a file of weights in it."
        elif name.count("/") == 1:
            hint = f"a model on the Hub is written hf-hub:{name}."
        raise ValueError(f"timm has no model {name!r}; {hint}")
    # timm draws initial weights from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return timm.create_model(name, pretrained=fetch, num_classes=0)
        except RuntimeError as error:
            what = f"timm has no {name} with these weights ({in_short(error)})."
            raise ValueError(what) from error
        except Exception as error:  # the clients of the Hub have some twenty types
            what = (
                f"The weights of {name} are not here and could not be fetched ({in_short(error)})"
            )
            advice = "give the command once where there is a network, or give a file as --weights"
            raise ConnectionError(f"{what}: {advice}.") from error
