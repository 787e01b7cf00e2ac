"""Running notebooks, provenance, intervals and figures."""
