"""Trainings are kept by what decides them, and made once."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch

from sparsejepa.config import from_mapping
from sparsejepa.model.vit import load_encoder
from sparsejepa.training import artefacts
from sparsejepa.training.artefacts import Trainings, training_key
from sparsejepa.training.pretrain import PretrainConfig
from tests.repository import ROOT
from tests.training.tiny import tiny_config, tiny_images

FILES = ("encoder.safetensors", "groups.safetensors", "training.json", "timing.json")
KEPT = sorted(ROOT.glob("book/runs/reference/trainings/*/training.json"))
CONFIG, IMAGES, PIXELS = tiny_config(), tiny_images(), "0" * 64


def watch(encoder: torch.nn.Module) -> dict[str, float]:
    return {"weight": next(encoder.parameters()).sum().item()}


def test_a_training_is_made_once(tmp_path: Path):
    """Taken again with other `checkpoint_minutes` and from another folder, to the bit."""
    first = Trainings(tmp_path / "a").get(CONFIG, IMAGES, PIXELS, watch, "jepa", half=True)
    assert first.folder.name.startswith("jepa-") and first.seconds > 0
    assert not (first.folder / "checkpoints").exists()
    assert {path.name for path in first.folder.iterdir()} == set(FILES)

    def refuse(*_: object) -> None:
        raise AssertionError("trained again")

    other = Trainings(tmp_path / "b", (tmp_path / "a",))
    config = dataclasses.replace(CONFIG, checkpoint_minutes=1.0)
    again = other.get(config, IMAGES, PIXELS, refuse)
    assert other.used == [first.folder]
    for one, two in zip(first.encoder.parameters(), again.encoder.parameters(), strict=True):
        assert torch.equal(one, two) and torch.equal(one, one.half().float())
    assert torch.equal(first.norms, again.norms) and first.history == again.history
    assert "seconds" not in first.history[0]


@pytest.mark.parametrize("accuracies", [(0.1, 0.3, 0.2), (0.1, 0.2, 0.3)])
def test_the_best_online_encoder_is_kept_beside(tmp_path: Path, accuracies: tuple[float, ...]):
    """Not where it is the last one, which is the result."""
    weights = []

    def measured(encoder: torch.nn.Module) -> dict[str, float]:
        weights.append(next(encoder.parameters()).half().float().clone())
        return {"knn": accuracies[len(weights) - 1]}

    config = dataclasses.replace(CONFIG, epochs=3)
    best = Trainings(tmp_path).get(config, IMAGES, PIXELS, measured).folder / "best.safetensors"
    same = best.is_file() and torch.equal(next(load_encoder(best).parameters()), weights[1])
    assert same == (accuracies[-1] < max(accuracies))


def test_another_configuration_is_another_training():
    """Seed, pixels and nested fields count; fields with their defaults do not."""
    others = ({"seed": 1}, {"flip": False}, {"precision": "auto"}, {"compile": "on"})
    configs = [CONFIG, *(dataclasses.replace(CONFIG, **other) for other in others)]
    # Another processor's deviation of the images may differ in the last digit.
    for last in (0.2755085806404625, 0.2755085806404626):
        encoder = dataclasses.replace(CONFIG.model.encoder, std=(0.1, 0.2, last))
        model = dataclasses.replace(CONFIG.model, encoder=encoder)
        configs.append(dataclasses.replace(CONFIG, model=model))
    keys = [training_key(config, PIXELS) for config in configs]
    assert keys[-1] == keys[-2] and len({*keys, training_key(CONFIG, "1" * 64)}) == len(keys)
    # Off, and auto on a CPU, are one training; on is another by rounding.
    assert training_key(dataclasses.replace(CONFIG, compile="off"), PIXELS) == keys[0]


def test_trainings_of_other_code_are_used_only_if_certified(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    """Else the training is made anew, in its place, and the reader is told."""
    folder = Trainings(tmp_path).get(CONFIG, IMAGES, PIXELS, watch).folder
    facts = json.loads((folder / "training.json").read_text())
    (folder / "training.json").write_text(json.dumps(facts | {"code_sha256": "0", "steps": 10**6}))
    certified = Trainings(tmp_path, certified=lambda _: True)
    assert certified.get(CONFIG, IMAGES, PIXELS, watch).steps == 10**6
    assert Trainings(tmp_path).get(CONFIG, IMAGES, PIXELS, watch).steps == facts["steps"]
    assert "trained by other code and is not used" in capsys.readouterr().out


def test_a_killed_training_goes_on(tmp_path: Path):
    """From its checkpoint, to the same bits; checkpoints of other code are discarded."""
    whole, calls = Trainings(tmp_path / "whole").get(CONFIG, IMAGES, PIXELS, watch), []

    def killed(encoder: torch.nn.Module) -> dict[str, float]:
        calls.append(encoder)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return watch(encoder)

    with pytest.raises(KeyboardInterrupt):
        Trainings(tmp_path / "cut").get(CONFIG, IMAGES, PIXELS, killed)
    resumed = Trainings(tmp_path / "cut").get(CONFIG, IMAGES, PIXELS, killed)
    assert len(calls) == 2 + CONFIG.epochs - 1
    for one, two in zip(whole.encoder.parameters(), resumed.encoder.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("path", KEPT, ids=lambda path: path.parent.name)
def test_committed_trainings_are_found(path: Path):
    """A default or a name of the configuration that changes would lose them."""
    facts = json.loads(path.read_text())
    config = from_mapping(PretrainConfig, facts["config"])
    key = training_key(config, facts["pixel_sha256"])
    assert key == artefacts._key(facts["config"], facts["pixel_sha256"])
