"""Short runs are trained once and measured alike."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from sparsejepa.chapters.sparsity import PROBES, Measurement
from sparsejepa.companion import experiments
from sparsejepa.companion.experiments import measure_untrained, measure_variant
from sparsejepa.model.objective import ModelConfig
from sparsejepa.model.sparsity import SparsityConfig
from sparsejepa.training import pretrain as training
from tests.companion.tiny_yardstick import yardstick
from tests.training.tiny import MODEL, tiny_config

R1 = ModelConfig(MODEL.encoder, MODEL.predictor, SparsityConfig("R1", 2, strength=0.05))


def before_each_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[], None]) -> None:
    """Calls `act` whenever a run is about to take a step."""
    real = training.train_step

    def train_step(*arguments: Any) -> None:
        act()
        real(*arguments)

    monkeypatch.setattr(training, "train_step", train_step)


def same(one: Measurement, other: Measurement) -> bool:
    """Equal to the bit, but for the time that training took."""
    histories = [
        [{k: v for k, v in entry.items() if k != "seconds"} for entry in found.history]
        for found in (one, other)
    ]
    masks = all(torch.equal(one.correct[name], other.correct[name]) for name in PROBES)
    return masks and one.measures == other.measures and histories[0] == histories[1]


def forbidden(*arguments: Any) -> None:
    raise AssertionError("nothing should be computed here")


def test_a_finished_variant_is_read_and_not_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """The second call neither trains nor probes, and gives what the first one gave."""
    made = measure_variant(tiny_config(), yardstick(), tmp_path)
    assert set(made.correct) == set(PROBES) and len(made.history) == 2 and made.steps == 10
    monkeypatch.setattr(experiments, "pretrain", forbidden)
    monkeypatch.setattr(experiments, "probe", forbidden)
    # How often a training is saved makes no other variant of it.
    rarely = tiny_config(checkpoint_minutes=77.0)
    for config in (tiny_config(), rarely):
        kept = measure_variant(config, yardstick(), tmp_path)
        assert same(made, kept) and kept.seconds == made.seconds
        assert list(kept.correct) == list(made.correct)


@pytest.mark.parametrize("changes", [{"seed": 1}, {"epochs": 1}, {"model": R1}])
def test_another_variant_has_a_folder_of_its_own(tmp_path: Path, changes: dict[str, Any]):
    """Whatever decides a training decides where it is kept."""
    measure_variant(tiny_config(), yardstick(), tmp_path)
    measure_variant(tiny_config(**changes), yardstick(), tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_killed_study_goes_on_where_it_was(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """After a kill in the second variant only the steps that are missing are taken."""
    configs = [tiny_config(), tiny_config(model=R1)]
    whole = [measure_variant(config, yardstick(), tmp_path / "whole") for config in configs]
    steps = 0

    def count() -> None:
        nonlocal steps
        steps += 1
        if steps == 18:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        before_each_step(patch, count)
        with pytest.raises(KeyboardInterrupt):
            for config in configs:
                measure_variant(config, yardstick(), tmp_path / "cut")
        # Ten of the first, five of the second that its last checkpoint holds, two that are lost.
        again = [measure_variant(config, yardstick(), tmp_path / "cut") for config in configs]
    assert steps == 18 + 5
    assert all(same(one, other) for one, other in zip(whole, again, strict=True))


def test_another_yardstick_measures_anew_and_does_not_train(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    """Longer probes read the same encoder again."""
    first = measure_variant(tiny_config(), yardstick(), tmp_path)
    before_each_step(monkeypatch, forbidden)
    longer = measure_variant(tiny_config(), yardstick(probe_steps=200), tmp_path)
    assert longer.measures == first.measures and longer.history == first.history
    assert not same(first, longer)


def test_a_damaged_measurement_says_so(tmp_path: Path):
    """One sentence that names the file."""
    measure_untrained(tiny_config(), yardstick(), tmp_path)
    (file,) = tmp_path.rglob("measured.safetensors")
    file.write_bytes(file.read_bytes()[:-9] + b"x" * 9)
    with pytest.raises(ValueError, match=r"measured\.safetensors is damaged"):
        measure_untrained(tiny_config(), yardstick(), tmp_path)


def test_r2_of_strength_zero_is_jepa(tmp_path: Path):
    """To the bit: plain JEPA stands for the start of R2's path."""
    zero = ModelConfig(MODEL.encoder, MODEL.predictor, SparsityConfig("R2", groups=2, strength=0.0))
    found = [
        measure_variant(tiny_config(model=model, optimizer="muon"), yardstick(), tmp_path)
        for model in (MODEL, zero)
    ]
    assert found[0].measures == found[1].measures
    assert all(torch.equal(found[0].correct[p], found[1].correct[p]) for p in PROBES)
    assert [e["loss"] for e in found[0].history] == [e["loss"] for e in found[1].history]
