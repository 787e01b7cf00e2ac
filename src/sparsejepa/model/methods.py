"""Moved to `jepa`."""

from sparsejepa.model.jepa import METHODS, method_config  # noqa: F401
