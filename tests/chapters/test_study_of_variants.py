"""Short runs are trained once and measured alike."""

from pathlib import Path
from typing import Any

import pytest
import torch

from sparsejepa.chapters.sparsity import PROBES, Measurement
from sparsejepa.model.jepa import ModelConfig
from sparsejepa.model.penalties import SparsityConfig
from sparsejepa.training import artefacts
from sparsejepa.training.pretrain import PretrainConfig
from tests.companion.tiny_yardstick import tiny_study
from tests.training.tiny import MODEL, tiny_config


def same(one: Measurement, other: Measurement) -> bool:
    """Equal to the bit, but for the time that training took."""
    losses = ([entry["loss"] for entry in found.history] for found in (one, other))
    answers = all(torch.equal(one.correct[name], other.correct[name]) for name in PROBES)
    return answers and one.measures == other.measures and next(losses) == next(losses)


def variant(folder: Path, config: PretrainConfig, **options: Any) -> Measurement:
    """Measured by a study that has just begun, so that only trainings are known to it."""
    return tiny_study(folder, **options).variant(config)


def test_longer_probes_measure_anew_and_do_not_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Longer probes read the same encoder again; how often a training is saved is no difference."""
    first = variant(tmp_path, tiny_config())

    def forbidden(*arguments: Any) -> None:
        raise AssertionError("nothing should be trained here")

    monkeypatch.setattr(artefacts, "pretrain", forbidden)
    assert same(first, variant(tmp_path, tiny_config(checkpoint_minutes=77.0)))
    longer = variant(tmp_path, tiny_config(), probe_steps=200)
    assert longer.measures == first.measures and longer.history == first.history
    assert not same(first, longer)


def test_a_variant_is_measured_once(tmp_path: Path):
    """However many comparisons ask for it."""
    study = tiny_study(tmp_path)
    assert study.variant(tiny_config()) is study.variant(tiny_config(checkpoint_minutes=7.0))


def test_r2_of_strength_zero_is_jepa(tmp_path: Path):
    """To the bit: plain JEPA stands for the start of R2's path."""
    zero = ModelConfig(MODEL.encoder, MODEL.predictor, SparsityConfig("R2", groups=2, strength=0.0))
    found = [
        variant(tmp_path, tiny_config(model=model, optimizer="muon")) for model in (MODEL, zero)
    ]
    assert same(*found)
