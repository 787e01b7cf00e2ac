"""What every method of the table must do, whatever its parts."""

import re

import pytest
import torch

from sparsejepa.model.jepa import METHODS, Jepa, method_config
from sparsejepa.model.penalties import SparsityConfig
from sparsejepa.model.vit import EncoderConfig, PredictorConfig
from tests.model.tiny import images, masks
from tests.repository import ROOT

ENCODER = EncoderConfig(width=16, depth=2, heads=2)
PREDICTOR = PredictorConfig(width=16, depth=1, heads=2)
SPARSITY = SparsityConfig(groups=4, grouping="random", strength=1e-3)


def method(name: str, seed: int = 0) -> Jepa:
    return Jepa(method_config(name, ENCODER, PREDICTOR, SPARSITY), seed)


def train(jepa: Jepa, steps: int) -> list[float]:
    """Losses of AdamW steps on one batch; every trained parameter must get a gradient, no other."""
    batch, kept = images(8), masks(8)
    adamw = torch.optim.AdamW([p for p in jepa.parameters() if p.requires_grad], lr=2e-3)
    losses = []
    for step in range(steps):
        output = jepa(batch, kept, step)
        output.loss.backward()
        for name, parameter in jepa.named_parameters():
            has_gradient = parameter.grad is not None and bool(parameter.grad.any())
            assert has_gradient == parameter.requires_grad, name
        adamw.step()
        adamw.zero_grad()
        if jepa.penalty.own_parameters():
            jepa.penalty.after_step(1e-3)
        jepa.update_target(0.99)
        losses.append(output.loss.item())
    return losses


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns(name: str):
    """Over 20 steps on one batch the loss is finite and falls; targets get no gradient."""
    jepa = method(name)
    losses = train(jepa, 20)
    assert all(abs(loss) < float("inf") for loss in losses)
    assert sum(losses[-3:]) < 0.95 * sum(losses[:3])
    assert not any(p.requires_grad for p in jepa.target_encoder.parameters())


@pytest.mark.parametrize("name", METHODS)
def test_every_method_is_a_function_of_its_seed(name: str):
    """The same steps give the same weights to the bit; the global generator is not used.

    Encoders and predictors start from JEPA's weights, but for parts that JEPA has not.
    """
    before = torch.get_rng_state()
    first, again, plain = method(name), method(name), method("jepa").state_dict()
    ours = first.state_dict()
    assert all(torch.equal(ours[k], t) for k, t in plain.items() if k.startswith("context_enc"))
    for key in ("predictor.projection.weight", "predictor.mask_token"):
        assert torch.equal(ours[key], plain[key])
    assert train(first, 2) == train(again, 2)
    weights = again.state_dict()
    assert all(torch.equal(t, weights[key]) for key, t in first.state_dict().items())
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("name", METHODS)
def test_losses_and_measures(name: str):
    """Under bf16 the loss is float32, within 2 % of float32's, as is every gradient.

    Methods with something sparse say how much, in finite numbers; plain JEPA says nothing.
    """
    jepa, batch, kept = method(name), images(8), masks(8)
    with torch.no_grad():
        exact = jepa(batch, kept, 0).loss
    measures = jepa.measures()
    assert all(isinstance(v, float) and abs(v) < float("inf") for v in measures.values())
    sparse = jepa.config.sparsity.reading != "none" or jepa.config.regulariser.term != "none"
    assert bool(measures) == sparse == bool(measures.keys() & {"hoyer", "activation_density"})
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = jepa(batch, kept, 0)
    assert output.loss.dtype == output.target_spread.dtype == torch.float32
    assert output.loss.item() == pytest.approx(exact.item(), rel=0.02)
    output.loss.backward()
    assert {p.grad.dtype for p in jepa.parameters() if p.requires_grad} == {torch.float32}


def test_sizes_and_strengths_are_the_run_s_and_parts_the_row_s():
    """The table fixes the parts; an unused `sparsity` is forgotten, a used one gets the reading."""
    for name, row in METHODS.items():
        config = method_config(name, ENCODER, PREDICTOR, SPARSITY)
        assert config.encoder.width == 16 and config.predictor == PREDICTOR
        assert config.encoder.register_tokens == row.encoder.register_tokens
        assert (config.regulariser, config.target) == (row.regulariser, row.target)
        assert config.sparsity.reading == row.sparsity.reading
        used = row.sparsity.reading != "none"
        assert config.sparsity.groups == (4 if used else SparsityConfig().groups)
    with pytest.raises(ValueError, match="method must be one of jepa, .*, not 'ijepa'"):
        method_config("ijepa", ENCODER, PREDICTOR, SPARSITY)


def test_the_book_s_table_has_every_method():
    """Its rows are the table's, in its order."""
    page = (ROOT / "book" / "method.md").read_text()
    table = page.split("(all-methods)=")[1].split(":::{list-table}")[1].split("\n:::")[0]
    assert re.findall(r"^  - `([\w-]+)`$", table, flags=re.M) == list(METHODS)
