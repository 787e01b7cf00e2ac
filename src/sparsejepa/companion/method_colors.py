"""Moved to `sparsejepa.plots`."""

from sparsejepa.plots import COLORS, method_color

__all__ = ["COLORS", "method_color"]
