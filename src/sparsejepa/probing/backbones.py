"""Any timm backbone, by name or file, as an encoder that the probes can read.

It gets images in [0, 1] as ours do, brings its own mean, standard deviation and image size, and
answers with tokens. Images of another size are refused unless resizing is asked for: features of
images blown up from 32 to 224 pixels are a choice that belongs into a table's caption.
"""

import difflib
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from sparsejepa.model.vit import Encoder
from sparsejepa.training.checkpoint import load_encoder


class Backbone(nn.Module):
    """A timm model with its preprocessing, or an encoder of ours, behind one interface.

    `forward` and `last_layers` are what `pooled_features` calls.
    """

    def __init__(
        self,
        network: nn.Module,
        name: str,
        size: tuple[int, int],
        mean: tuple[float, ...],
        std: tuple[float, ...],
        resize: bool,
    ) -> None:
        """Wraps `network`, which takes normalised images of `size` (height, width)."""
        super().__init__()
        self.network, self.name, self.size, self.resize = network, name, size, resize
        # What weights do not show and `cached_features` has to know.
        self.config = (name, size, resize)
        self.register_buffer("mean", torch.tensor(mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(std).view(1, -1, 1, 1))

    def forward(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B N d"]:
        """Tokens after the final norm, without class and register tokens.

        The tokens of a convolutional network are the places of its last feature map.

        Raises:
            ValueError: images of another size than `size`, and `resize` is off.
        """
        x = self._prepared(images)
        if isinstance(self.network, Encoder):
            return self.network(x)
        tokens = self.network.forward_features(x)
        if tokens.ndim == 4:
            last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
            return tokens.flatten(1, 2) if last else tokens.flatten(2).transpose(1, 2)
        return tokens[:, getattr(self.network, "num_prefix_tokens", 0) :]

    def last_layers(self, images: Float[Tensor, "B 3 H W"], layers: int) -> Float[Tensor, "B N D"]:
        """Tokens of the last `layers` blocks, each through the final norm, concatenated.

        Raises:
            ValueError: as `forward`, too few blocks, or a network that is no vision transformer.
        """
        x = self._prepared(images)
        if isinstance(self.network, Encoder):
            return self.network.last_layers(x, layers)
        blocks = getattr(self.network, "blocks", ())
        if not hasattr(self.network, "num_prefix_tokens") or not 1 <= layers <= len(blocks):
            raise ValueError(
                f"{self.name} has no {layers} transformer blocks to concatenate; probe its last "
                "layer alone (last=1)."
            )
        outputs = self.network.forward_intermediates(
            x, indices=layers, norm=True, output_fmt="NLC", intermediates_only=True
        )
        return torch.cat(outputs, dim=-1)

    def _prepared(self, images: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B 3 h w"]:
        given = tuple(images.shape[2:])
        if given != self.size and not self.resize:
            height, width = self.size
            raise ValueError(
                f"{self.name} takes images of {width}x{height} pixels, not {given[1]}x{given[0]}: "
                "load it with resize=True to have images resized."
            )
        if given != self.size:
            images = F.interpolate(images, self.size, mode="bicubic", antialias=True).clamp(0, 1)
        return (images - self.mean) / self.std


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
        name: of a timm model, as "vit_tiny_patch16_224", or "" for a file that `save_encoder`
            wrote, which knows its own architecture.
        weights: file of the model's weights (safetensors or torch's own format).
        pretrained: without `weights`, fetch timm's; False gives the untrained control.
        resize: resize images of another size, bicubic with antialiasing, the whole image.
        seed: of the untrained control's weights.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: timm has no such model or no weights for it, or a file's are not the model's.
        ConnectionError: the weights could not be fetched.
    """
    if weights is not None and not weights.is_file():
        raise FileNotFoundError(f"There is no file of weights {weights}.")
    if not name:
        if weights is None:
            raise ValueError(
                "Name a timm model, or give a file of weights that save_encoder wrote."
            )
        return _ours(weights, resize)
    network = _timm_model(name, pretrained and weights is None, seed)
    if weights is not None:
        _load(network, weights, name)
    from timm.data import resolve_model_data_config

    settings = resolve_model_data_config(network)
    size, mean, std = tuple(settings["input_size"][1:]), settings["mean"], settings["std"]
    return _frozen(Backbone(network, name, size, mean, std, resize))


def _ours(file: Path, resize: bool) -> Backbone:
    encoder = load_encoder(file)
    side = encoder.config.image_size
    # It normalises by itself.
    return _frozen(Backbone(encoder, file.name, (side, side), (0.0,) * 3, (1.0,) * 3, resize))


def _timm_model(name: str, fetch: bool, seed: int) -> nn.Module:
    import timm

    if not timm.is_model(name):
        similar = difflib.get_close_matches(name.split(".")[0], timm.list_models(), 3)
        hint = f"did you mean {' or '.join(similar)}?" if similar else "see timm.list_models()."
        raise ValueError(f"timm has no model {name!r}; {hint}")
    if fetch and not timm.models.get_pretrained_cfg(name).has_weights:
        raise ValueError(
            f"timm has no weights for {name}: give a file as `weights`, or pretrained=False for "
            "the untrained control."
        )
    # timm draws initial weights from the global generator.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return timm.create_model(name, pretrained=fetch, num_classes=0)
        except OSError as error:
            raise ConnectionError(
                f"The weights of {name} could not be fetched ({_first_line(error)}): fetch them "
                "where there is a network and give the file as `weights`."
            ) from error


def _load(network: nn.Module, file: Path, name: str) -> None:
    from timm.models import load_state_dict

    try:
        state = load_state_dict(str(file))
    except Exception as error:  # every format has its own errors
        raise ValueError(f"{file} is no file of weights ({_first_line(error)}).") from error
    # A classifier's head is not part of the features.
    heads = network.pretrained_cfg["classifier"]
    heads = (heads,) if isinstance(heads, str) else tuple(heads or ())
    state = {key: value for key, value in state.items() if key.rsplit(".", 1)[0] not in heads}
    try:
        network.load_state_dict(state)
    except RuntimeError as error:
        raise ValueError(
            f"{file} does not hold the weights of {name} ({_first_line(error)})."
        ) from error


def _frozen(backbone: Backbone) -> Backbone:
    return backbone.eval().requires_grad_(False)


def _first_line(error: Exception) -> str:
    return " ".join(str(error).split())[:160].rstrip(".") or type(error).__name__
