"""Moved to `penalties`."""

from sparsejepa.model.penalties import *  # noqa: F401, F403
