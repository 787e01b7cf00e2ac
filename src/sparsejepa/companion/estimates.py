"""Moved to `sparsejepa.intervals`; the names stay importable from here for now."""

from sparsejepa.intervals import Estimate, estimate, paired_estimate  # noqa: F401
