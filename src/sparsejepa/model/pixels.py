"""Moved to `jepa`."""

from sparsejepa.model.jepa import patch_pixels  # noqa: F401
