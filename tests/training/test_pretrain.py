"""The training loop: what it computes, what it refuses, and what it leaves alone."""

import gc
import math
import weakref
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from sparsejepa.data.batches import channel_statistics, crop_and_resize
from sparsejepa.model.jepa import Jepa, method_config
from sparsejepa.model.masks import MaskConfig
from sparsejepa.model.penalties import SparsityConfig, group_column_norms
from sparsejepa.training import pretrain as module
from sparsejepa.training.checkpoint import load_checkpoint
from sparsejepa.training.pretrain import PretrainConfig, pretrain
from tests.training.tiny import (
    MODEL,
    SPARSE,
    before_step,
    interrupt,
    nothing,
    same_bits,
    timeless,
    tiny_config,
    tiny_images,
    train,
    weights,
)


def test_a_seed_fixes_everything(tmp_path: Path):
    """Same seed: weights and history equal to the bit. Another seed: every matrix differs.

    PyTorch's global random state is neither read nor moved.
    """
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = train(tmp_path / "a")
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(2)
    again, other = train(tmp_path / "b"), train(tmp_path / "c", seed=1)
    assert same_bits(weights(first), weights(again))
    assert timeless(first.history) == timeless(again.history)
    for name, value in weights(first).items():
        fixed = "pos" in name or name.endswith((".mean", ".std"))
        if value.ndim > 1:
            assert torch.equal(value, weights(other)[name]) == fixed, name


def test_every_step_moves_the_target_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """target <- m · target + (1 - m) · the new context, m = 0.9, 0.925 … 1 in the five steps.

    So the average is taken once a step, after the optimiser, and starts from the initial weights.
    """
    real, expected = module.train_step, dict(Jepa(MODEL, seed=0).target_encoder.state_dict())

    def train_step(*arguments):
        momentum = 0.9 + 0.025 * arguments[4].progress.step
        real(*arguments)
        context = arguments[4].jepa.context_encoder.state_dict()
        target = arguments[4].jepa.target_encoder.state_dict()
        for name, before in expected.items():
            mean = momentum * before.double() + (1 - momentum) * context[name].double()
            torch.testing.assert_close(target[name].double(), mean, rtol=0, atol=3e-7)
            expected[name] = target[name].clone()

    monkeypatch.setattr(module, "train_step", train_step)
    result = train(tmp_path, epochs=1, ema=(0.9, 1.0), peak_learning_rate=0.1)
    initial = Jepa(MODEL, seed=0).target_encoder
    moved = [not torch.equal(p, expected[name]) for name, p in initial.named_parameters()]
    assert result.steps == 5 and sum(moved) == len(moved) - 1  # all but the positions


def test_sparsejepa_makes_exact_zeros_while_it_trains(tmp_path: Path):
    """With a penalty, columns of W^(g) become exactly zero; the log counts the same share."""
    initial = Jepa(SPARSE, seed=0)
    norms = group_column_norms(initial.predictor.projection.weight.detach(), initial.penalty.groups)
    # The thresholds of 20 steps, 0.1 · lambda at their peak and half on average, sum to lambda.
    changes = {"strength": norms.median().item(), "average_over": 1}
    sparse = replace(SPARSE, sparsity=replace(SPARSE.sparsity, **changes))
    result = train(tmp_path, model=sparse, epochs=4)
    blocks = result.jepa.predictor.projection.weight.detach().view(2, 4, 16)
    zero = (blocks == 0).all(1)
    assert 0 < zero.sum() < zero.numel()
    shares = [epoch["zero_columns"] for epoch in result.history]
    assert shares == sorted(shares) and shares[-1] == pytest.approx(zero.float().mean().item())


def test_history_has_an_entry_an_epoch(tmp_path: Path):
    """Steps, means and what the watch measured on the target; images that fill no batch wait."""
    seen = []

    def watch(encoder) -> dict[str, float]:
        seen.append(encoder)
        return {"seen": float(len(seen))}

    config = tiny_config(epochs=3)
    result = pretrain(config, tiny_images(45), tmp_path, watch, device="cpu")
    told = [(entry["epoch"], entry["step"], entry["seen"]) for entry in result.history]
    assert told == [(1, 5, 1), (2, 10, 2), (3, 15, 3)] and result.steps == 15
    assert all(encoder is result.jepa.target_encoder for encoder in seen)
    assert 0 < result.history[0]["seconds"] < result.history[-1]["seconds"] == result.seconds


def test_an_epoch_visits_every_image_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """Batches of an epoch part the images; two epochs differ in their order."""
    orders = []

    def spy(images, *arguments):
        orders.append(images[:, 0, 0, 0].tolist())
        return crop_and_resize(images, *arguments)

    monkeypatch.setattr(module, "crop_and_resize", spy)
    images = tiny_images()
    images[:, 0, 0, 0] = torch.arange(40)
    train(tmp_path, images)
    epochs = [sum(orders[:5], []), sum(orders[5:], [])]
    assert [sorted(order) for order in epochs] == [list(range(40))] * 2 and epochs[0] != epochs[1]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("epochs", 0),
        ("seed", -1),
        ("ema", (1.5, 1.0)),
        ("peak_learning_rate", math.nan),
        ("weight_decay", (0.04, math.inf)),
        ("warmup", 1.1),
        ("crop_scale", (0.0, 1.0)),
        ("crop_scale", (1.0, 0.5)),
    ],
)
def test_configurations_that_make_no_sense_are_refused(tmp_path: Path, name: str, value: object):
    """Before anything is written, in one sentence that names the field."""
    with pytest.raises(ValueError, match=f"{name} .*must [^\n]*$"):
        tiny_config(**{name: value})
    with pytest.raises(ValueError, match="masks.grid 8 is not the encoder's 4"):
        tiny_config(masks=MaskConfig(grid=8))
    with pytest.raises(ValueError, match="7 images do not fill one batch of 8"):
        train(tmp_path / "run", tiny_images(7))
    assert not (tmp_path / "run").exists()


def test_the_timing_copy_is_freed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A run of `minutes` times a copy of the network, which accelerate must not keep."""
    seen, real = [], module.TrainingState

    def spy(jepa, *arguments):
        seen.append(weakref.ref(jepa))
        return real(jepa, *arguments)

    def watch(encoder) -> dict[str, float]:
        gc.collect()
        return {"alive": float(sum(network() is not None for network in seen))}

    monkeypatch.setattr(module, "TrainingState", spy)
    config = tiny_config(epochs=1, minutes=1000.0)
    result = pretrain(config, tiny_images(), tmp_path, watch, device="cpu")
    assert len(seen) == 2 and result.history[-1]["alive"] == 1


TINY = {"epochs": 1, "batch_size": 8, "precision": "fp32"}
SIZES = {"width": 16, "depth": 1, "heads": 2, "predictor": MODEL.predictor}


def test_a_method_s_name_is_enough(tmp_path: Path):
    """Sizes and strengths are settings; the rest is as in a configuration, to the bit."""
    settings = TINY | SIZES | {"groups": 2, "strength": 0.5}
    short = pretrain("sparsejepa", tiny_images(), str(tmp_path / "a"), **settings)
    mean, std = channel_statistics(tiny_images())
    encoder = replace(MODEL.encoder, mean=mean, std=std)
    sparsity = SparsityConfig(groups=2, strength=0.5)
    model = method_config("sparsejepa", encoder, MODEL.predictor, sparsity)
    config = PretrainConfig(model, MaskConfig(4, context_length=4), **TINY)
    long = pretrain(config, tiny_images(), tmp_path / "b", nothing)
    assert same_bits(weights(short), weights(long)) and "zero_columns" in short.history[0]
    other = pretrain(config, tiny_images(), tmp_path / "c", seed=1)
    assert not same_bits(weights(other), weights(long))
    with pytest.raises(ValueError, match="PretrainConfig has no field 'epoch'"):
        pretrain("jepa", tiny_images(), tmp_path, epoch=1)


class Shifted(Jepa):
    """An own objective: a constant more."""

    def forward(self, images, masks, step):
        found = super().forward(images, masks, step)
        return replace(found, prediction_loss=found.prediction_loss + 100)


def test_an_own_module_is_trained_in_place(tmp_path: Path):
    """With the loop's checkpoints; another network's run in the folder is refused."""
    own = Shifted(MODEL, 0)
    result = pretrain(own, tiny_images(), tmp_path, **TINY)
    assert result.jepa is own and result.history[0]["loss"] > 100
    again = pretrain(Shifted(MODEL, 1), tiny_images(), tmp_path, **TINY)
    assert same_bits(weights(again), weights(result))
    with pytest.raises(ValueError, match="network 'Shifted' -> 'Jepa'"):
        pretrain(Jepa(MODEL, 0), tiny_images(), tmp_path, **TINY)


def test_the_launcher_does_not_change_the_precision(tmp_path: Path, monkeypatch):
    """`accelerate launch --mixed_precision bf16` leaves a float32 run a float32 run."""
    plain = train(tmp_path / "plain", epochs=1)
    monkeypatch.setenv("ACCELERATE_MIXED_PRECISION", "bf16")
    assert same_bits(weights(train(tmp_path / "launched", epochs=1)), weights(plain))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_gpu_trains_and_resumes(tmp_path: Path, precision: str):
    """A few finite steps on CUDA in each format; an interrupted run ends at the same loss."""
    config = tiny_config(epochs=4, precision=precision)
    whole = pretrain(config, tiny_images(), tmp_path / "whole", nothing)
    assert whole.jepa.predictor.mask_token.is_cuda and whole.precision.name == precision
    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        before_step(patch, 12, interrupt)
        pretrain(config, tiny_images(), tmp_path / "cut", nothing)
    facts = load_checkpoint(tmp_path / "cut" / "checkpoint.pt")[1]
    assert facts["progress"]["step"] == 10 and bool(facts["scaler"]) == (precision == "fp16")
    resumed = pretrain(config, tiny_images(), tmp_path / "cut", nothing)
    for one, other in zip(whole.history, resumed.history, strict=True):
        assert one["loss"] == pytest.approx(other["loss"], abs=2e-2)
