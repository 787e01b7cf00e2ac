"""Masks, encoder and predictor on timm parts, group penalties, and the JEPA loss."""
