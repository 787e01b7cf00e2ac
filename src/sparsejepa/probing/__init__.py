"""Frozen features, linear and nearest-neighbour probes, and measures of collapse."""
