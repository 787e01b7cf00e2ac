"""Moved to `jepa`."""

from sparsejepa.model.jepa import Jepa, JepaOutput, ModelConfig  # noqa: F401
from sparsejepa.model.regularisers import RegulariserConfig  # noqa: F401
