"""The sparsity study: measurements, comparisons by seeds or by images, and figures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from sparsejepa.chapters.sparsity import (
    PROBES,
    Measurement,
    along_path,
    compare,
    fall_of_norms,
    shared_information,
)
from sparsejepa.intervals import paired_difference
from sparsejepa.model.jepa import Jepa, ModelConfig
from sparsejepa.model.penalties import SparsityConfig
from sparsejepa.randomness import generator
from sparsejepa.training import artefacts
from sparsejepa.training.pretrain import PretrainConfig
from tests.companion.tiny_yardstick import image_set_of, tiny_study
from tests.training.tiny import MODEL, tiny_config, tiny_images


def test_planted_features_are_read_and_noise_is_not(tmp_path: Path):
    """Images painted in their classes' colours: 100 % by every probe; classes of noise: chance."""

    def by_pixels(*images: torch.Tensor) -> Measurement:
        sets = [image_set_of(x, (4, 3, 2)) for x in images]
        names = ("train", "test", "scenes_train", "scenes_test")
        changes = dict(zip(names, sets * 2, strict=True))
        return tiny_study(tmp_path, probe_steps=400, **changes).pixels(2)

    classes = torch.arange(120)[:, None] % torch.tensor([4, 3, 2]) * 60
    painted = classes.byte()[:, None, None].expand(-1, 16, 16, -1).contiguous()
    found = by_pixels(painted, painted[:40])
    assert {name: found.accuracy(name) for name in PROBES} == dict.fromkeys(PROBES, 1.0)
    blind = by_pixels(tiny_images(120, 5), tiny_images(400, 6))
    for name, chance in zip(PROBES, (1 / 4, 1 / 4, 1 / 3, 1 / 2), strict=True):
        allowed = 4 * np.sqrt(chance * (1 - chance) / 400)
        assert blind.accuracy(name) == pytest.approx(chance, abs=allowed)


def test_majority_answers_the_most_frequent_training_class(tmp_path: Path):
    """Its accuracy is that class's share of the test images."""
    known, asked = image_set_of(tiny_images(6), (4, 3, 2)), image_set_of(tiny_images(8), (4, 3, 2))
    known.labels["label"] = torch.tensor([0, 2, 2, 2, 1, 0])
    asked.labels["label"] = torch.tensor([2, 2, 1, 0, 0, 0, 0, 0])
    found = tiny_study(tmp_path, train=known, test=asked).majority()
    assert found.accuracy("linear probe") == found.accuracy("kNN") == 2 / 8
    assert found.accuracy("distance") == 0.5


def structure_of(jepa: Jepa) -> dict[str, float]:
    pooled = torch.randn(30, 16, generator=generator(0, "pooled"))
    weight = jepa.predictor.projection.weight
    return tiny_study(Path()).structure(jepa.target_encoder, weight, tiny_config(), pooled)


def test_structure_counts_what_is_zero():
    """Half of the columns of one of two groups: a quarter of all, and half read by one group."""
    jepa = Jepa(MODEL, seed=0)
    with torch.no_grad():
        jepa.predictor.projection.weight[:4, :8] = 0
    found = structure_of(jepa)
    assert found["zero_columns"] == found["zero_weights"] == 0.25
    assert found["groups_per_latent"] == 1.5 and found["unread_latents"] == 0


def test_groups_in_use_are_those_of_all_tokens_together():
    """Tokens that all keep one group use it alone; the penalty is scale times root of groups."""
    jepa = Jepa(MODEL, seed=0)
    whole = structure_of(jepa)
    # The final norm gives every token the length 4 = root of 16 channels.
    spread = (whole["group_norms"] / 4) ** 2
    assert spread == pytest.approx(whole["effective_groups"], rel=1e-2)
    assert whole["groups_in_use"] == pytest.approx(2, rel=0.05)
    with torch.no_grad():
        jepa.target_encoder.vit.norm.weight[8:] = 0
    half = structure_of(jepa)
    assert (half["effective_groups"], half["groups_in_use"]) == pytest.approx((1, 1))


def test_only_scale_and_norms_see_a_rescaling():
    """Channels of the final norm times 0.01: penalty and scale fall a hundredfold, no more does."""
    jepa = Jepa(MODEL, seed=0)
    before = structure_of(jepa)
    # The final norm's own output has mean square 1.
    assert before["latent_scale"] == pytest.approx(1, abs=1e-3)
    with torch.no_grad():
        jepa.target_encoder.vit.norm.weight.mul_(0.01)
        jepa.target_encoder.vit.norm.bias.mul_(0.01)
    expected = before | {name: before[name] * 0.01 for name in ("latent_scale", "group_norms")}
    assert structure_of(jepa) == pytest.approx(expected, rel=1e-4)


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
    # Nothing of fewer than 50 rows a column, nor of features that are the same for all images.
    assert shared_information(torch.randn(99, 2, generator=generator(0, "few")), 0) == {}
    assert shared_information(torch.full((200, 3), 0.7), 0) == {}


def right(values: np.ndarray) -> Measurement:
    return Measurement({"kNN": torch.tensor(values)}, {})


def test_runs_are_compared_by_seeds_or_on_their_images():
    """From three on Student's interval of their differences; below, the first's test images."""
    rng = np.random.default_rng(0)
    first = [right(rng.random(500) < share) for share in (0.50, 0.55, 0.60)]
    second = [right(rng.random(500) < share) for share in (0.45, 0.52, 0.53)]
    found = compare(first, second, "kNN", seed=0)
    gaps = [a.accuracy("kNN") - b.accuracy("kNN") for a, b in zip(first, second, strict=True)]
    low, high = stats.t.interval(0.95, 2, np.mean(gaps), stats.sem(gaps))
    assert (found.low, found.high, found.seeds) == pytest.approx((low, high, 3))
    images = paired_difference(first[0].correct["kNN"], second[0].correct["kNN"], 3, 0.99)
    for count in (1, 2):
        found = compare(first[:count], second[:count], "kNN", seed=3, level=0.99)
        ends = (images.value, images.low, images.high)
        assert (found.value, found.low, found.high) == ends and found.seeds == 1


def test_a_path_is_compared_with_its_own_control():
    """Every strength above 0 by every probe, the intervals wider than a single one's."""
    rng = np.random.default_rng(2)
    path = {
        strength: Measurement({p: torch.tensor(rng.random(300) < 0.5) for p in PROBES}, {})
        for strength in (0.0, 0.1, 1.0)
    }
    rows = along_path(path, seed=0)
    assert [row["strength"] for row in rows] == [0.1, 1.0] * len(PROBES)
    single = compare([path[0.1]], [path[0.0]], PROBES[0], 0)
    low, high = rows[0]["interval"]
    assert rows[0]["value"] == single.value and low < single.low and high > single.high


def test_the_fall_of_norms_is_a_scale_times_a_spread():
    """Tokens half as large over a quarter of the groups: 1/2 times 1/2."""
    keys = ("group_norms", "latent_scale", "effective_groups", "groups_in_use")
    before = dict(zip(keys, (8.0, 1.0, 4.0, 4.0), strict=True))
    after = dict(zip(keys, (2.0, 0.5, 1.0, 1.0), strict=True))
    found = fall_of_norms(before, after)
    assert (found["sum of norms ×"], found["scale ×"], found["spread ×"]) == (0.25, 0.5, 0.5)


def same(one: Measurement, other: Measurement) -> bool:
    """Equal to the bit, but for the time that training took."""
    losses = ([entry["loss"] for entry in found.history] for found in (one, other))
    answers = all(torch.equal(one.correct[name], other.correct[name]) for name in PROBES)
    return answers and one.measures == other.measures and next(losses) == next(losses)


def variant(folder: Path, config: PretrainConfig, **options: Any) -> Measurement:
    """Measured by a study that has just begun, so that only trainings are known to it."""
    return tiny_study(folder, **options).variant(config)


def test_longer_probes_measure_anew_and_do_not_train(tmp_path: Path, monkeypatch):
    """Longer probes read the same encoder again; how often a training is saved is no difference."""
    first = variant(tmp_path, tiny_config())
    monkeypatch.delattr(artefacts, "pretrain")
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
    configs = (tiny_config(model=model, optimizer="muon") for model in (MODEL, zero))
    assert same(*(variant(tmp_path, config) for config in configs))
