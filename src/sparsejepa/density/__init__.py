"""Densities that an encoder holds: JEPA-SCORE, outliers, and the baselines for both."""
