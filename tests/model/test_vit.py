"""Encoder and predictor: timm compatibility, kept patches, positions, and initial values."""

import json
import math
from pathlib import Path

import pytest
import timm
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from timm.models.vision_transformer import VisionTransformer
from torch import nn

from sparsejepa.model.vit import (
    GAIN,
    Encoder,
    EncoderConfig,
    Predictor,
    PredictorConfig,
    load_encoder,
    round_to_half,
    save_encoder,
    timm_arguments,
)
from sparsejepa.randomness import generator
from tests.repository import ROOT

TINY = EncoderConfig(
    image_size=16, width=32, depth=2, heads=2, mean=(0.5, 0.4, 0.3), std=(0.2, 0.25, 0.3)
)


def tiny_encoder(seed: int = 0) -> Encoder:
    return Encoder(TINY, generator(seed, "encoder")).eval()


def images(count: int, size: int = 16) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=generator(1, "images"))


@torch.no_grad()
def test_the_weights_open_in_plain_timm():
    """`encoder.vit`'s weights load into timm's class, no key renamed, and give the same features.

    timm expects normalised images, the encoder normalises by itself.
    """
    encoder = tiny_encoder()
    plain = VisionTransformer(**timm_arguments(TINY)).eval()
    plain.load_state_dict(encoder.vit.state_dict(), strict=True)
    batch = images(3)
    normalised = (batch - encoder.mean) / encoder.std
    features = plain.forward_features(normalised)
    torch.testing.assert_close(encoder(batch), features, rtol=0, atol=2e-6)
    assert features.shape == (3, 16, 32)
    options = {"norm": True, "output_fmt": "NLC", "intermediates_only": True}
    layers = torch.cat(plain.forward_intermediates(normalised, **options), dim=-1)
    torch.testing.assert_close(encoder.last_layers(batch, 2), layers, rtol=0, atol=2e-6)
    torch.testing.assert_close(encoder.last_layers(batch, 1), encoder(batch), rtol=0, atol=0)
    for count in (0, 3):
        with pytest.raises(ValueError, match=f"layers {count} must be 1 to the encoder's 2"):
            encoder.last_layers(batch, count)


def test_initial_weights_have_one_spread():
    """Std GAIN / √fan-in in every block: no rescaling by depth; zero biases; mask token 0.02.

    At I-JEPA's width of 1280 that is its 0.02. Sampling error of a std over n numbers: 1/√(2n).
    """
    assert pytest.approx(0.02, rel=0.01) == GAIN / math.sqrt(1280)
    config = EncoderConfig(width=64, depth=4)
    encoder = Encoder(config, generator(3))
    projection = nn.Linear(64, 256)
    nn.init.constant_(projection.weight, 0.5)
    sizes = PredictorConfig(width=256, depth=2, heads=4)
    predictor = Predictor(sizes, config, projection, generator(0, "predictor"), 64)
    assert (predictor.projection.weight == 0.5).all()  # it brings its own
    layers = [encoder.vit.patch_embed.proj, predictor.output]
    for block in [*encoder.vit.blocks, *predictor.blocks]:
        layers += [block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2]
    for layer in layers:
        expected = GAIN / math.sqrt(layer.weight[0].numel())
        assert layer.weight.std().item() == pytest.approx(expected, rel=0.05)
        assert layer.bias.abs().max() == 0
    assert predictor.mask_token.std().item() == pytest.approx(0.02, rel=0.2)
    assert predictor.mask_token.shape == (256,)


@pytest.mark.parametrize(
    ("config", "settings", "sentence"),
    [
        (EncoderConfig, {"patch_size": 5}, "image_size 32 is no multiple of patch_size 5"),
        (EncoderConfig, {"width": 130}, "EncoderConfig.width 130 must be a multiple of 4"),
        (EncoderConfig, {"heads": 3}, "heads 3"),
        (EncoderConfig, {"register_tokens": -1}, "register_tokens must be at least 0, not -1"),
        (PredictorConfig, {"width": 30, "heads": 2}, "PredictorConfig.width 30 must be a"),
        (PredictorConfig, {"depth": 0}, "depth must be at least 1, not 0"),
    ],
)
def test_impossible_sizes_are_refused(config: type, settings: dict, sentence: str):
    """Sizes that no transformer can have are refused before anything is built."""
    with pytest.raises(ValueError, match=sentence):
        config(**settings)


OWN = EncoderConfig(16, timm="vit_tiny_patch16_224", options={"patch_size": 4, "depth": 2})


@torch.no_grad()
def test_a_backbone_by_timm_s_name(tmp_path: Path):
    """Its own sizes, our positions and seed; its file is loaded again, and opens in timm."""
    assert (OWN.grid, OWN.width, OWN.depth, OWN.heads) == (4, 192, 2, 3)
    encoder, again = (Encoder(OWN, generator(0)).eval() for _ in range(2))
    batch, keep = images(2), torch.tensor([[0, 3, 7], [15, 2, 4]])
    assert encoder(batch, keep).shape == (2, 3, 192)
    assert torch.equal(encoder(batch, keep), again(batch, keep))
    round_to_half(encoder)
    save_encoder(tmp_path / "own.safetensors", encoder)
    loaded = load_encoder(tmp_path / "own.safetensors")
    assert loaded.config == OWN and torch.equal(loaded(batch), encoder(batch))
    plain = timm.create_model(OWN.timm, **timm_arguments(OWN)).eval()
    plain.load_state_dict(load_file(tmp_path / "own.safetensors"), strict=True)
    features = plain.forward_features((batch - encoder.mean) / encoder.std)
    torch.testing.assert_close(features, encoder(batch), rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("vit_nowhere", {}),
        ("resnet18", {}),
        ("eva02_tiny_patch14_224", {}),
        ("vit_tiny_patch16_224", {"class_token": True}),
        ("vit_tiny_patch16_224", {"drop_path_rate": 0.1}),
        ("", {"patch_size": 8}),
    ],
)
def test_a_backbone_that_does_not_fit_is_refused(name: str, options: dict):
    """Before anything is built, in one sentence that names it."""
    with pytest.raises(ValueError, match=name or "options") as caught:
        EncoderConfig(32, timm=name, options=options)
    assert "\n" not in str(caught.value)


@torch.no_grad()
def test_an_encoder_comes_back(tmp_path: Path):
    """Configuration and every rounded weight; in float32 and eval mode, the same features.

    Not rounded are whole numbers, such as BatchNorm's count: float16 holds the first 2048.
    """
    made, path = tiny_encoder(), tmp_path / "encoder.safetensors"
    before = {name: value.clone() for name, value in made.vit.state_dict().items()}
    round_to_half(made)
    for name, value in made.vit.state_dict().items():
        assert ((value - before[name]).abs() <= before[name].abs() * 2**-11 + 2**-25).all()
    save_encoder(path, made)
    loaded = load_encoder(path)
    assert loaded.config == made.config and not loaded.training
    assert {value.dtype for value in loaded.state_dict().values()} == {torch.float32}
    assert torch.equal(loaded(images(2)), made(images(2)))
    made.vit.extra = nn.BatchNorm1d(32)
    made.vit.extra.num_batches_tracked.fill_(4097)
    round_to_half(made)
    save_encoder(path, made)
    assert load_file(path)["extra.num_batches_tracked"].item() == 4097
    assert made.vit.extra.num_batches_tracked.item() == 4097


def weights(path: Path) -> dict[str, torch.Tensor]:
    """Copies: a file that is being read must not be written."""
    return {name: value.clone() for name, value in load_file(path).items()}


def rewritten(path: Path, other: dict | None = None, **config) -> None:
    with safe_open(path, "pt") as file:
        facts = json.loads(file.metadata()["encoder"])
    save_file(other or weights(path), path, {"encoder": json.dumps(facts | config)})


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda p: p.write_bytes(p.read_bytes()[:-5]), "is not a whole file of weights"),
        (lambda p: torch.save(weights(p), p), "is not a whole file of weights"),
        (lambda p: p.write_text("version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
        (lambda p: save_file(weights(p), p), "not made by this library"),
        (lambda p: save_file(weights(p), p, {"encoder": "{"}), "does not hold the weights"),
        (lambda p: rewritten(p, {"module.a": torch.zeros(1)}), "does not hold .*Missing key"),
        (lambda p: rewritten(p, width=64), "does not hold .*size mismatch"),
        (lambda p: rewritten(p, colour=1), "has no field 'colour'"),
        (lambda p: rewritten(p, mean=["a"]), r"mean\[0\] must be float, not 'a'"),
    ],
)
def test_an_unfit_file_is_refused_in_one_sentence(tmp_path: Path, spoil, sentence: str):
    """Another format, a pointer, other keys or shapes: said, and never advised to be deleted."""
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, tiny_encoder())
    spoil(path)
    with pytest.raises(ValueError, match=sentence) as caught:
        load_encoder(path)
    said = str(caught.value)
    assert str(path) in said and "\n" not in said and "delete" not in said and len(said) < 600
    with pytest.raises(FileNotFoundError, match="absent"):
        load_encoder(tmp_path / "absent.safetensors")


@pytest.mark.parametrize("folder", sorted(ROOT.glob("book/runs/reference/trainings/*")), ids=str)
@torch.no_grad()
def test_a_t4_s_float16_holds_the_activations(folder: Path):
    """Of committed encoders, computed in float32: every layer's output is a tenth of 65,504."""
    encoder = load_encoder(folder / "encoder.safetensors")
    largest = []
    for part in encoder.vit.modules():
        part.register_forward_hook(lambda *given: largest.append(given[2].abs().max().item()))
    size = encoder.config.image_size
    for batch in (images(8, size), torch.zeros(1, 3, size, size), torch.ones(1, 3, size, size)):
        encoder(batch)
    assert 1 < max(largest) < 6550
