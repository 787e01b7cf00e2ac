"""Encoder and predictor: thin wrappers around timm's vision transformer parts."""

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from jaxtyping import Float, Int64
from safetensors.torch import load, save
from timm.layers import LayerNorm, build_sincos2d_pos_embed
from timm.models.vision_transformer import Block, VisionTransformer
from torch import Tensor, nn

from sparsejepa.atomic_files import write_atomically
from sparsejepa.config import AT_LEAST_ONE, AT_LEAST_ZERO, check_ranges, from_mapping
from sparsejepa.errors import in_short
from sparsejepa.randomness import generator as keyed_generator

# The official std of 0.02 belongs to its width of 1280: 0.02 * sqrt(1280). With it a 128-wide
# network starts from features that hold little but the position.
GAIN = 0.72
TORCH = (".pth", ".pt", ".bin", ".ckpt", ".tar")  # torch's own formats of weights


@dataclass(frozen=True)
class EncoderConfig:
    """A plain vision transformer over all patches, without a class token (I-JEPA §3)."""

    image_size: int = 32  # pixels along a side
    patch_size: int = 4  # pixels along a side of a patch
    width: int = 128  # d, channels of a token
    depth: int = 6  # blocks
    heads: int = 4  # attention heads
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)  # per channel, of the training images in [0, 1]
    std: tuple[float, ...] = (0.25, 0.25, 0.25)  # per channel, of the training images in [0, 1]
    register_tokens: int = 0  # learned tokens beside the patches, dropped at the end; T-JEPA: 1
    # Name of one of timm's vision transformers. It replaces patch_size, width, depth, heads and
    # register_tokens by its own, which `options` of its constructor can change: {"patch_size": 4}.
    timm: str = ""
    options: dict[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if self.timm:
            with torch.device("meta"):
                vit = _plain_vit(self)
            sizes = {"patch_size": vit.patch_embed.patch_size[0], "width": vit.embed_dim}
            sizes |= {"depth": len(vit.blocks), "heads": vit.blocks[0].attn.num_heads}
            vars(self).update(sizes, register_tokens=vit.num_reg_tokens)
        elif self.options:
            raise ValueError(f"options {self.options} belong to a timm model; name it as timm.")
        image, patch = self.image_size, self.patch_size
        if patch < 1 or image < 1 or image % patch:
            raise ValueError(f"image_size {image} is no multiple of patch_size {patch}.")
        check_ranges(self, register_tokens=AT_LEAST_ZERO)
        _check_transformer(self)

    @property
    def grid(self) -> int:
        return self.image_size // self.patch_size


@dataclass(frozen=True)
class PredictorConfig:
    """The narrow transformer that predicts target features from the context (I-JEPA §3)."""

    width: int = 64  # channels of a token; I-JEPA uses about half to a third of the encoder's
    depth: int = 3  # blocks
    heads: int = 4  # attention heads

    def __post_init__(self) -> None:
        _check_transformer(self)


def _check_transformer(config: EncoderConfig | PredictorConfig) -> None:
    check_ranges(config, width=AT_LEAST_ONE, depth=AT_LEAST_ONE, heads=AT_LEAST_ONE)
    if config.width % config.heads or config.width % 4:
        raise ValueError(
            f"{type(config).__name__}.width {config.width} must be a multiple of 4 (sine-cosine "
            f"positions) and of its heads {config.heads}."
        )


class Encoder(nn.Module):
    """Images in [0, 1] to tokens. `self.vit` is a plain timm `VisionTransformer`."""

    def __init__(self, config: EncoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.vit = _plain_vit(config)
        initialise(self.vit, generator)
        if config.register_tokens:
            nn.init.trunc_normal_(self.vit.reg_token, std=0.02, generator=generator)
        # Fixed positions, yet in the state dict: the weights give the same features in plain timm.
        self.vit.pos_embed.requires_grad_(False).copy_(positions(config.grid, config.width))
        self.register_buffer("mean", torch.tensor(config.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, -1, 1, 1))

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        keep: Int64[Tensor, "B K"] | None = None,
        extra: Float[Tensor, "B E d"] | None = None,
        last: int = 1,
    ) -> Float[Tensor, "B K D"]:
        """Patch tokens after the final norm; with `keep`, only those patches enter the blocks.

        Register tokens, and the `extra` tokens if given, enter the blocks too and are dropped
        from the output. `last` blocks, each through the final norm, are concatenated: D = last · d.
        """
        patches = self.vit.patch_embed((images - self.mean) / self.std) + self.vit.pos_embed
        patches = patches if keep is None else patches.take_along_dim(keep.unsqueeze(-1), 1)
        register = self.vit.reg_token
        before = [] if register is None else [register.expand(len(patches), -1, -1)]
        before += [] if extra is None else [extra.to(patches.dtype)]
        tokens = torch.cat([*before, patches], dim=1) if before else patches
        tokens, outputs = self.vit.norm_pre(tokens), []
        for index, block in enumerate(self.vit.blocks, last - len(self.vit.blocks)):
            tokens = block(tokens)
            if index >= 0:
                outputs.append(self.vit.norm(tokens[:, -patches.shape[1] :]))
        return torch.cat(outputs, dim=-1) if last > 1 else outputs[0]

    def last_layers(self, images: Float[Tensor, "B 3 H W"], layers: int) -> Float[Tensor, "B N D"]:
        """Tokens of the last `layers` blocks, each through the final norm, concatenated."""
        if not 1 <= layers <= self.config.depth:
            raise ValueError(f"layers {layers} must be 1 to the encoder's {self.config.depth}.")
        return self(images, last=layers)


class Predictor(nn.Module):
    """Context tokens and target positions to `outputs` predicted values of each target patch.

    `projection` maps encoder latents to its width; SparseJEPA parts the rows into maps W^(g).
    """

    def __init__(
        self,
        config: PredictorConfig,
        encoder: EncoderConfig,
        projection: nn.Module,
        generator: torch.Generator,
        outputs: int,
    ) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            self.blocks = nn.Sequential(
                *[Block(config.width, config.heads, qkv_bias=True) for _ in range(config.depth)]
            )
            self.output = nn.Linear(config.width, outputs)
        self.norm = LayerNorm(config.width)
        self.mask_token = nn.Parameter(torch.empty(config.width))
        nn.init.trunc_normal_(self.mask_token, std=0.02, generator=generator)
        initialise(self, generator)
        # Assigned after `initialise`: a projection brings its own initial values.
        self.projection = projection
        self.register_buffer("positions", positions(encoder.grid, config.width))

    def forward(
        self,
        context: Float[Tensor, "B K d"],
        context_indices: Int64[Tensor, "B K"],
        target_indices: Int64[Tensor, "B M T"],
    ) -> Float[Tensor, "B M T D"]:
        """Each target block is predicted on its own: blocks do not see each other (I-JEPA §3)."""
        batch, blocks, length = target_indices.shape
        known = self.projection(context) + self.positions[context_indices]
        known = known.repeat_interleave(blocks, dim=0)
        asked = self.mask_token + self.positions[target_indices].flatten(0, 1)
        tokens = self.norm(self.blocks(torch.cat([known, asked.to(known.dtype)], dim=1)))
        return self.output(tokens[:, -length:]).unflatten(0, (batch, blocks))


def _plain_vit(config: EncoderConfig) -> nn.Module:
    """The timm model that an exported encoder's weights load into, with no key renamed."""
    what, arguments = f"{config.timm} with options {config.options}", timm_arguments(config)
    # timm draws initial weights from the global generator: shield it, they are replaced anyway.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        try:
            own = config.timm
            vit = timm.create_model(own, **arguments) if own else VisionTransformer(**arguments)
        except (RuntimeError, TypeError, ValueError, AssertionError) as error:
            raise ValueError(f"timm makes no encoder {what}: {in_short(error)}.") from error
    # Dropout draws from the global generator: a resumed run would not equal a whole one.
    random = any("drop" in key and value for key, value in config.options.items())
    fits = isinstance(vit, VisionTransformer) and vit.pos_embed is not None and not random
    if not fits or vit.has_class_token or vit.pos_embed.shape[1] != vit.patch_embed.num_patches:
        raise ValueError(
            f"{what} does not fit: hidden patches leave before the first block, so it must be a "
            "plain vision transformer of timm, with positions, without class token and dropout."
        )
    return vit


def timm_arguments(config: EncoderConfig) -> dict:
    """Keyword arguments of timm's `VisionTransformer`, or of `create_model`, for this encoder."""
    shared = {"img_size": config.image_size, "num_classes": 0, "global_pool": ""}
    shared |= {"class_token": False, "no_embed_class": True}
    if config.timm:
        return shared | config.options
    sizes = {"patch_size": config.patch_size, "embed_dim": config.width, "depth": config.depth}
    others = {"num_heads": config.heads, "reg_tokens": config.register_tokens, "pos_embed": "learn"}
    return shared | sizes | others


def positions(grid: int, width: int) -> Float[Tensor, "N width"]:
    """Fixed 2-D sine-cosine table (as MAE and I-JEPA), rows in raster order."""
    return build_sincos2d_pos_embed([grid, grid], width)


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Normal weights of standard deviation `GAIN` / sqrt(fan-in), zero biases."""
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Conv2d):
            std = GAIN / part.weight[0].numel() ** 0.5
            nn.init.normal_(part.weight, std=std, generator=generator)
            if part.bias is not None:
                nn.init.zeros_(part.bias)


def use_fused_attention(module: nn.Module, fused: bool) -> None:
    """Switches timm's fused attention; on CPUs in bf16 the plain form is the faster one."""
    for part in module.modules():
        if hasattr(part, "fused_attn"):
            part.fused_attn = fused


@torch.no_grad()
def round_to_half(encoder: Encoder) -> None:
    """Rounds the weights in place to the values that `save_encoder` keeps: measure the file's."""
    for value in encoder.vit.state_dict().values():
        if value.is_floating_point():
            value.copy_(value.half())


def save_encoder(path: Path | str, encoder: Encoder, half: bool = True) -> None:
    """Encoder weights, as float16 or whole, under timm's own names; the metadata has the config."""
    weights = {}
    for name, value in encoder.vit.state_dict().items():
        # Counters, such as those of BatchNorm, stay whole numbers.
        value = value.half() if half and value.is_floating_point() else value
        weights[name] = value.cpu().contiguous()
    config = json.dumps(dataclasses.asdict(encoder.config))
    write_atomically(Path(path), save(weights, {"encoder": config}))


def read_weights(file: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a file in safetensors or torch's format; ValueError if damaged."""
    # From bytes: the reader of files refuses names that are not UTF-8.
    content = file.read_bytes()
    if content.startswith(b"version https://git-lfs"):
        raise ValueError(f"{file} is a Git LFS pointer, not the weights: run git lfs pull.")
    try:
        if file.suffix.lower() in TORCH:
            return timm.models.load_state_dict(str(file)), {}
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, header.get("__metadata__", {})
    except Exception as error:  # every format has its own errors
        raise ValueError(
            f"{file} is not a whole file of weights ({in_short(error)}): if it was copied, copy it "
            "again."
        ) from error


def load_encoder(path: Path | str) -> Encoder:
    """The encoder that `save_encoder` wrote, in float32 and in eval mode.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, of another format, or was not written by `save_encoder`.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"There is no file of weights {path}.")
    weights, metadata = read_weights(path)
    if "encoder" not in metadata:
        raise ValueError(f"{path} holds no encoder configuration; it was not made by this library.")
    try:
        config = from_mapping(EncoderConfig, json.loads(metadata["encoder"]))
        encoder = Encoder(config, keyed_generator(0, "replaced"))
        encoder.vit.load_state_dict(weights)
    except (RuntimeError, TypeError, ValueError) as error:
        raise ValueError(
            f"{path} does not hold the weights of the encoder that it describes: {in_short(error)}."
        ) from error
    return encoder.eval()
