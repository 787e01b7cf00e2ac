"""Which number format is chosen, and that only matrix products are computed in it."""

import pytest
import torch
from accelerate.state import PartialState

from sparsejepa.training import precision as module
from sparsejepa.training.precision import choose_device, choose_precision
from sparsejepa.training.pretrain import pretrain
from tests.training.tiny import SPARSE, tiny_config, tiny_images, train, weights

CPU, CUDA = torch.device("cpu"), torch.device("cuda")


@pytest.mark.parametrize(
    ("device", "native", "name", "autocast"),
    [
        (CUDA, True, "bf16", torch.bfloat16),
        (CUDA, False, "fp16", torch.float16),
        (CPU, True, "bf16", torch.bfloat16),
        (CPU, False, "fp32", None),
    ],
)
def test_bf16_is_chosen_only_in_hardware(monkeypatch, device, native, name, autocast):
    """A T4 emulates bf16 slowly, which PyTorch counts: it gets float16, with a scaled loss."""

    def supported(including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    monkeypatch.setattr(module, "_cpu_has_bf16", lambda: native)
    chosen = choose_precision(device)
    assert (chosen.name, chosen.autocast) == (name, autocast)
    assert chosen.scale_loss == (name == "fp16") and chosen.fused_attention == (device == CUDA)
    assert choose_precision(device, "bf16").name == "bf16"


def test_a_mac_computes_on_its_cpu(tmp_path, monkeypatch: pytest.MonkeyPatch):
    """mps has no float64: neither we nor accelerate, which would, may choose it; CUDA both may."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert choose_device() == CUDA
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr(PartialState, "default_device", torch.device("mps"))
    assert choose_device() == CPU
    result = pretrain(tiny_config(model=SPARSE, epochs=1), tiny_images(), tmp_path)
    assert result.jepa.predictor.mask_token.device == CPU and "hoyer" in result.history[0]


def test_fp16_on_a_cpu_is_refused():
    """There is no loss scaling there, so gradients would vanish."""
    with pytest.raises(ValueError, match="fp16 needs a CUDA device, not cpu"):
        choose_precision(CPU, "fp16")


def test_weights_and_their_average_stay_float32(tmp_path):
    """A bf16 run ends with float32 weights, close to those of a float32 run but not equal."""
    half, full = train(tmp_path / "bf16", precision="bf16"), train(tmp_path / "fp32")
    assert half.precision.name == "bf16" and full.precision.name == "fp32"
    assert {value.dtype for value in weights(half).values()} == {torch.float32}
    losses = [run.history[-1]["loss"] for run in (half, full)]
    assert losses[0] != losses[1] and losses == pytest.approx([losses[1]] * 2, abs=1e-2)
