from pathlib import Path

import pytest
import timm
import torch
import torch.nn.functional as F
from safetensors.torch import save_file

from sparsejepa.data.batches import to_unit
from sparsejepa.model.vit import Encoder, EncoderConfig, load_encoder, save_encoder
from sparsejepa.probing.backbones import load_backbone
from sparsejepa.probing.features import pooled_features
from sparsejepa.randomness import generator

OURS = EncoderConfig(image_size=8, patch_size=4, width=8, depth=3, heads=2, mean=(0.4, 0.5, 0.6))


def images(size: int, count: int = 2) -> torch.Tensor:
    return torch.randint(256, (count, size, size, 3), generator=generator(0, "images")).byte()


@pytest.fixture
def own_file(tmp_path: Path) -> Path:
    save_encoder(tmp_path / "encoder.safetensors", Encoder(OURS, generator(0, "weights")))
    return tmp_path / "encoder.safetensors"


@pytest.fixture
def timm_file(tmp_path: Path) -> tuple[Path, torch.nn.Module]:
    """Weights of a timm model with a classifier of 7 classes, and the model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = timm.create_model("test_vit", num_classes=7).eval()
    save_file(model.state_dict(), tmp_path / "weights.safetensors")
    return tmp_path / "weights.safetensors", model


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("test_vit", lambda tokens: tokens[:, 1:]),
        ("test_resnet", lambda maps: maps.flatten(2).mT),
        ("test_mambaout", lambda maps: maps.flatten(1, 2)),
    ],
)
def test_a_timm_model_brings_its_preprocessing(name: str, places) -> None:
    """The average is over the patches of tokens, or the places of the last map."""
    backbone = load_backbone(name, pretrained=False)
    settings = timm.data.resolve_model_data_config(backbone.network)
    mean, std = (torch.tensor(settings[key]).view(1, 3, 1, 1) for key in ("mean", "std"))
    with torch.no_grad():
        found = backbone.network.forward_features((to_unit(images(160)) - mean) / std)
    expected = places(found).mean(1)
    torch.testing.assert_close(pooled_features(backbone, images(160)), expected)


@torch.no_grad()
def test_class_tokens_are_left_out() -> None:
    """Of a network that does not say how many it has, too; where no token a patch is, refused."""
    backbone = load_backbone("coat_lite_tiny", pretrained=False, resize=True)
    assert backbone(torch.rand(1, 3, 224, 224)).shape[1] == 49
    for name in ("pit_ti_224", "crossvit_tiny_240"):
        with pytest.raises(ValueError, match=f"{name} has "):
            load_backbone(name, pretrained=False, resize=True)(torch.rand(1, 3, 224, 224))


def test_a_file_of_ours_gives_our_features(own_file: Path) -> None:
    """With the encoder's own normalisation, to the bit; its embedding is their mean."""
    backbone, encoder = load_backbone(str(own_file)), load_encoder(own_file)
    expected = pooled_features(encoder, images(8))
    assert torch.equal(pooled_features(backbone, images(8)), expected)
    with torch.no_grad():
        torch.testing.assert_close(backbone.embedding()(to_unit(images(8))), expected)


def test_a_file_of_timm_weights(tmp_path: Path, timm_file) -> None:
    """Of either format; the classifier is left out."""
    file, model = timm_file
    torch.save(model.state_dict(), tmp_path / "weights.pth")
    for weights in (file, tmp_path / "weights.pth"):
        found = load_backbone("test_vit", weights).network.state_dict()
        assert all(torch.equal(model.state_dict()[key], found[key]) for key in found)


@torch.no_grad()
def test_another_image_size_is_one_sentence(own_file: Path) -> None:
    """Refused with both sizes and the way out, by convolutional networks too, which would run."""
    with pytest.raises(ValueError, match="takes images of 8x8 pixels, not 12x12: load it with res"):
        pooled_features(load_backbone(str(own_file)), images(12))
    expected = F.interpolate(to_unit(images(24)), (8, 8), mode="bicubic", antialias=True)
    found = load_backbone(str(own_file), resize=True)(to_unit(images(24)))
    torch.testing.assert_close(found, load_encoder(own_file)(expected.clamp(0, 1)))
    backbone = load_backbone("test_resnet", pretrained=False)
    assert not backbone.training and not any(p.requires_grad for p in backbone.parameters())
    with pytest.raises(ValueError, match="160x160 pixels, not 32x32"):
        pooled_features(backbone, images(32))


def test_the_untrained_control_depends_on_the_seed_alone() -> None:
    before = torch.get_rng_state()
    one, two, other = (
        load_backbone("test_vit", pretrained=False, seed=seed).network.state_dict()
        for seed in (0, 0, 1)
    )
    assert all(torch.equal(one[key], two[key]) for key in one)
    assert not torch.equal(one["blocks.0.attn.qkv.weight"], other["blocks.0.attn.qkv.weight"])
    assert torch.equal(torch.get_rng_state(), before)


def test_errors_of_names_and_files(tmp_path: Path, own_file: Path, timm_file) -> None:
    broken = tmp_path / "broken.pth"
    broken.write_bytes(b"nothing")
    for name, weights, message in (
        ("vit_tinny_patch16_224", None, "no model 'vit_tinny_patch16_224'; did you mean vit_tiny"),
        ("test_vit", own_file, "are not those of the network"),
        (str(timm_file[0]), None, "does not say of which network"),
        ("test_vit", broken, "is not a whole file of weights"),
        ("vit_base_patch32_plus_256", None, "no vit_base_patch32_plus_256 with these weights .No"),
    ):
        with pytest.raises(ValueError, match=message):
            load_backbone(name, weights)
    with pytest.raises(FileNotFoundError, match="no file of weights"):
        load_backbone("test_vit", tmp_path / "missing.safetensors")


def test_weights_that_cannot_be_fetched(monkeypatch: pytest.MonkeyPatch) -> None:
    def offline(*_: object, **__: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(timm, "create_model", offline)
    for name in ("test_vit", "hf-hub:owner/model", "timm/test_vit"):
        with pytest.raises(ConnectionError, match="could not be fetched .no route to host.: give"):
            load_backbone(name)
