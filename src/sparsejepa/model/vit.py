"""Encoder and predictor: thin wrappers around timm's vision transformer parts."""

from dataclasses import dataclass

import torch
from jaxtyping import Float, Int64
from torch import Tensor, nn

# The official std of 0.02 belongs to its width of 1280: 0.02 * sqrt(1280). A 128-wide network with
# std 0.02 passes a third of that on, and starts from features that hold little but the position.
GAIN = 0.72


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

    def __post_init__(self) -> None:
        if self.patch_size < 1 or self.image_size < 1 or self.image_size % self.patch_size:
            raise ValueError(
                f"image_size {self.image_size} is no multiple of patch_size {self.patch_size}."
            )
        if self.register_tokens < 0:
            raise ValueError(f"register_tokens {self.register_tokens} must be at least 0.")
        _check_transformer("Encoder", self.width, self.depth, self.heads)

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
        _check_transformer("Predictor", self.width, self.depth, self.heads)


class Encoder(nn.Module):
    """Images in [0, 1] to tokens. `self.vit` is a plain timm `VisionTransformer`."""

    def __init__(self, config: EncoderConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        self.vit = plain_vit(config)
        initialise(self.vit, generator)
        with torch.no_grad():
            self.vit.pos_embed.copy_(positions(config.grid, config.width))
        if config.register_tokens:
            nn.init.trunc_normal_(self.vit.reg_token, std=0.02, generator=generator)
        # Fixed positions, yet in the state dict: the weights give the same features in plain timm.
        self.vit.pos_embed.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(config.mean).view(1, -1, 1, 1))
        self.register_buffer("std", torch.tensor(config.std).view(1, -1, 1, 1))

    def forward(
        self,
        images: Float[Tensor, "B 3 H W"],
        keep: Int64[Tensor, "B K"] | None = None,
        extra: Float[Tensor, "B E d"] | None = None,
    ) -> Float[Tensor, "B K d"]:
        """Patch tokens after the final norm; with `keep`, only those patches enter the blocks.

        Register tokens, and the `extra` tokens if given, enter the blocks too and are dropped
        from the output.
        """
        tokens = self.embed(images, keep)
        return self.vit.norm(self._patches_of(self.vit.blocks(self._joined(tokens, extra)), tokens))

    def embed(
        self, images: Float[Tensor, "B 3 H W"], keep: Int64[Tensor, "B K"] | None = None
    ) -> Float[Tensor, "B K d"]:
        """Patch embedding plus position, before the first block."""
        tokens = self.vit.patch_embed((images - self.mean) / self.std) + self.vit.pos_embed
        return tokens if keep is None else gather_tokens(tokens, keep)

    def last_layers(self, images: Float[Tensor, "B 3 H W"], layers: int) -> Float[Tensor, "B N D"]:
        """Tokens of the last `layers` blocks, each through the final norm, concatenated.

        Raises:
            ValueError: the encoder has not that many blocks.
        """
        if not 1 <= layers <= self.config.depth:
            raise ValueError(f"layers {layers} must be 1 to the encoder's {self.config.depth}.")
        patches, outputs = self.embed(images), []
        tokens = self._joined(patches, None)
        for block in self.vit.blocks:
            tokens = block(tokens)
            outputs.append(self._patches_of(tokens, patches))
        return torch.cat([self.vit.norm(t) for t in outputs[-layers:]], dim=-1)

    def _joined(
        self, patches: Float[Tensor, "B K d"], extra: Float[Tensor, "B E d"] | None
    ) -> Float[Tensor, "B L d"]:
        """Register tokens, extra tokens and patches, in timm's order."""
        register = self.vit.reg_token
        before = [] if register is None else [register.expand(len(patches), -1, -1)]
        before += [] if extra is None else [extra.to(patches.dtype)]
        return torch.cat([*before, patches], dim=1) if before else patches

    @staticmethod
    def _patches_of(
        tokens: Float[Tensor, "B L d"], patches: Float[Tensor, "B K d"]
    ) -> Float[Tensor, "B K d"]:
        length = patches.shape[1]
        return tokens if tokens.shape[1] == length else tokens[:, -length:]


class Predictor(nn.Module):
    """Context tokens and target positions to predicted target features.

    `projection` maps encoder latents to the predictor's width: a plain linear layer, or the maps
    W^(g) of a SparseJEPA reading. `outputs` is the number of values predicted for a patch: the
    encoder's width, or the number of pixel values.
    """

    def __init__(
        self,
        config: PredictorConfig,
        encoder: EncoderConfig,
        projection: nn.Module,
        generator: torch.Generator,
        outputs: int,
    ) -> None:
        from timm.layers import LayerNorm
        from timm.models.vision_transformer import Block

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


def _check_transformer(name: str, width: int, depth: int, heads: int) -> None:
    if min(width, depth, heads) < 1:
        raise ValueError(f"{name} width {width}, depth {depth} and heads {heads} must be above 0.")
    if width % heads or width % 4:
        raise ValueError(
            f"{name} width {width} must be a multiple of 4 (sine-cosine positions) and of its "
            f"heads {heads}."
        )


def plain_vit(config: EncoderConfig) -> nn.Module:
    """The timm model that an exported encoder's weights load into, with no key renamed."""
    from timm.models.vision_transformer import VisionTransformer

    # timm draws initial weights from the global generator: shield it, they are replaced anyway.
    with torch.random.fork_rng(devices=[]):
        return VisionTransformer(**timm_arguments(config))


def timm_arguments(config: EncoderConfig) -> dict:
    """Keyword arguments of timm's `VisionTransformer` for this encoder."""
    return {
        "img_size": config.image_size,
        "patch_size": config.patch_size,
        "embed_dim": config.width,
        "depth": config.depth,
        "num_heads": config.heads,
        "num_classes": 0,
        "global_pool": "",
        "class_token": False,
        "reg_tokens": config.register_tokens,
        "no_embed_class": True,
        "pos_embed": "learn",
    }


def positions(grid: int, width: int) -> Float[Tensor, "N width"]:
    """Fixed 2-D sine-cosine table (as MAE and I-JEPA), rows in raster order."""
    from timm.layers import build_sincos2d_pos_embed

    return build_sincos2d_pos_embed([grid, grid], width)


def gather_tokens(
    tokens: Float[Tensor, "B N d"], indices: Int64[Tensor, "B K"]
) -> Float[Tensor, "B K d"]:
    """tokens[b, indices[b, k]]."""
    return tokens.gather(1, indices.unsqueeze(-1).expand(-1, -1, tokens.shape[-1]))


def initialise(module: nn.Module, generator: torch.Generator) -> None:
    """Normal weights of standard deviation `GAIN` / sqrt(fan-in), zero biases.

    The official code also scales residual projections by depth, but its later re-initialisation
    of every linear layer undoes that; we follow what ran, with the gain kept instead of the 0.02.
    """
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
