"""T-JEPA's register token in the optimiser."""

from dataclasses import replace

from sparsejepa.model.objective import Jepa
from sparsejepa.training.state import parameter_groups
from tests.training.tiny import MODEL


def test_a_register_token_does_not_decay():
    """It has three axes in timm, yet is a vector like the mask token."""
    jepa = Jepa(replace(MODEL, encoder=replace(MODEL.encoder, register_tokens=1)), 0)
    token = jepa.context_encoder.vit.reg_token
    decaying, others = ({id(p) for p in group["params"]} for group in parameter_groups(jepa, []))
    assert token.ndim == 3 and id(token) in others and id(token) not in decaying
