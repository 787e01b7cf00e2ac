"""Short runs are trained once and measured alike."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsejepa.companion import experiments
from sparsejepa.companion.experiments import measure_pixels, measure_untrained, measure_variant
from sparsejepa.companion.measurements import (
    PROBES,
    Measurement,
    Yardstick,
    first_images,
    measure_majority,
    shared_information,
    structure,
)
from sparsejepa.data import image_set
from sparsejepa.data.image_set import ImageSet, load_image_set, pixel_sha256
from sparsejepa.model.objective import Jepa, ModelConfig
from sparsejepa.model.sparsity import SparsityConfig
from sparsejepa.randomness import generator
from sparsejepa.training import pretrain as training
from sparsejepa.training.pretrain import PretrainConfig
from tests.training.tiny import MODEL, tiny_config, tiny_images

R1 = ModelConfig(MODEL.encoder, MODEL.predictor, SparsityConfig("R1", 2, strength=0.05))


def image_set_of(images: torch.Tensor, classes: tuple[int, int, int]) -> ImageSet:
    """Images whose three labels run through their classes."""
    rows = torch.arange(len(images))
    names = ("label", "count", "distance")
    labels = {name: rows % number for name, number in zip(names, classes, strict=True)}
    return ImageSet("tiny", "train", images, labels, {}, pixel_sha256(images), "drawn")


def yardstick(**changes: Any) -> Yardstick:
    """40 images to train on, 12 to test, other images for count and distance."""
    sets = [image_set_of(tiny_images(n, seed), (4, 3, 2)) for n, seed in ((40, 0), (12, 1))]
    others = [image_set_of(tiny_images(n, seed), (4, 3, 2)) for n, seed in ((24, 2), (10, 3))]
    found = Yardstick(*sets, *others, groups=2, seed=0, probe_steps=5)
    return dataclasses.replace(found, **changes)


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


def test_planted_features_are_read_and_noise_is_not(tmp_path: Path):
    """Images painted in their classes' colours: 100 % by every probe; classes of noise: chance."""
    rows = torch.arange(160)
    painted = torch.zeros(160, 16, 16, 3, dtype=torch.uint8)
    for channel, classes in enumerate((4, 3, 2)):
        painted[..., channel] = (rows % classes * 60).byte()[:, None, None]
    sets = [image_set_of(painted[part], (4, 3, 2)) for part in (slice(0, 120), slice(120, 160))]
    planted = yardstick(probe_steps=400, train=sets[0], scenes_train=sets[0], test=sets[1])
    planted = dataclasses.replace(planted, scenes_test=sets[1])
    found = measure_pixels(2, planted, tmp_path)
    assert {name: found.accuracy(name) for name in PROBES} == dict.fromkeys(PROBES, 1.0)
    noise = [image_set_of(tiny_images(n, seed), (4, 3, 2)) for n, seed in ((120, 5), (400, 6))]
    blind = dataclasses.replace(
        planted, train=noise[0], scenes_train=noise[0], test=noise[1], scenes_test=noise[1]
    )
    for name, classes in zip(PROBES, (4, 4, 3, 2), strict=True):
        chance = 1 / classes
        allowed = 4 * np.sqrt(chance * (1 - chance) / 400)
        assert measure_pixels(2, blind, tmp_path / "noise").accuracy(name) == pytest.approx(
            chance, abs=allowed
        )


def test_majority_answers_the_most_frequent_training_class():
    """Its accuracy is that class's share of the test images."""
    known, asked = image_set_of(tiny_images(6), (4, 3, 2)), image_set_of(tiny_images(8), (4, 3, 2))
    known.labels["label"] = torch.tensor([0, 2, 2, 2, 1, 0])
    asked.labels["label"] = torch.tensor([2, 2, 1, 0, 0, 0, 0, 0])
    found = measure_majority(yardstick(train=known, test=asked))
    assert found.accuracy("linear probe") == found.accuracy("kNN") == 2 / 8
    assert found.accuracy("distance") == 0.5


def structure_of(jepa: Jepa, config: PretrainConfig) -> dict[str, float]:
    pooled = torch.randn(30, 16, generator=generator(0, "pooled"))
    return structure(jepa, config, yardstick(), pooled)


def test_structure_counts_what_is_zero():
    """Half of the columns of one of two groups: a quarter of all, and half read by one group."""
    jepa = Jepa(MODEL, seed=0)
    with torch.no_grad():
        jepa.predictor.projection.weight[:4, :8] = 0
    found = structure_of(jepa, tiny_config())
    assert found["zero_columns"] == found["zero_weights"] == 0.25
    assert found["groups_per_latent"] == 1.5 and found["unread_latents"] == 0


def test_groups_in_use_are_those_of_all_tokens_together():
    """Tokens that all keep one group use it alone; the penalty is scale times root of groups."""
    jepa = Jepa(MODEL, seed=0)
    norm = jepa.target_encoder.vit.norm
    with torch.no_grad():
        norm.weight[8:] = 0
    found = structure_of(jepa, tiny_config())
    assert found["effective_groups"] == pytest.approx(1)
    assert found["groups_in_use"] == pytest.approx(1)
    with torch.no_grad():
        norm.weight.fill_(1)
    found = structure_of(jepa, tiny_config())
    # The final norm gives every token the length 4 = root of 16 channels.
    spread = (found["group_norms"] / 4) ** 2
    assert spread == pytest.approx(found["effective_groups"], rel=1e-2)
    assert found["groups_in_use"] == pytest.approx(2, rel=0.05)


def test_only_scale_and_norms_see_a_rescaling():
    """Channels of the final norm times 0.01: penalty and scale fall a hundredfold, no more does."""
    jepa = Jepa(MODEL, seed=0)
    before = structure_of(jepa, tiny_config())
    # The final norm's own output has mean square 1.
    assert before["latent_scale"] == pytest.approx(1, abs=1e-3)
    with torch.no_grad():
        jepa.target_encoder.vit.norm.weight.mul_(0.01)
        jepa.target_encoder.vit.norm.bias.mul_(0.01)
    after = structure_of(jepa, tiny_config())
    scaled = {"latent_scale", "group_norms"}
    for name, value in before.items():
        expected = value * 0.01 if name in scaled else value
        assert after[name] == pytest.approx(expected, rel=1e-4), name


def test_scenes_are_drawn_no_further_than_needed(monkeypatch: pytest.MonkeyPatch):
    """The first images are those of the whole set, labels included."""
    monkeypatch.setattr(image_set, "SCENES", {"test": 30})
    few, whole = first_images("scenes", "test", 7), load_image_set("scenes", "test").take(7)
    assert torch.equal(few.images, whole.images) and few.pixel_sha256 == whole.pixel_sha256
    assert all(torch.equal(few.labels[name], whole.labels[name]) for name in whole.labels)


def test_what_features_share_is_known_for_a_gaussian_pair():
    """Correlation 0.8 shares -½ ln(1 - 0.64) = 0.51 nats, over d - 1 = 1; the interval holds it."""
    noise = torch.randn(4000, 2, generator=generator(0, "pair"))
    pair = torch.stack([noise[:, 0], 0.8 * noise[:, 0] + 0.6 * noise[:, 1]], dim=1)
    found = shared_information(pair, 0)
    truth = -0.5 * np.log(1 - 0.64)
    assert found["total_correlation_low"] <= truth <= found["total_correlation_high"]
    assert found["total_correlation_high"] - found["total_correlation_low"] < 0.1
    copied = shared_information(torch.cat([pair, pair.sum(1, keepdim=True)], dim=1), 0)
    assert np.isfinite(copied["total_correlation"])


def test_nothing_is_said_of_what_features_share_where_it_is_undefined():
    """Fewer than 50 rows a column, and features that are the same for all images."""
    assert shared_information(torch.randn(99, 2, generator=generator(0, "few")), 0) == {}
    assert shared_information(torch.full((200, 3), 0.7), 0) == {}
