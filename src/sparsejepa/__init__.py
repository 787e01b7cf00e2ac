"""Pretrain, probe and measure joint embedding predictive architectures.

    from sparsejepa import load_image_set, pretrain

    result = pretrain("sparsejepa", load_image_set("cifar100", "train"), "run", epochs=10)

Each name is imported when it is first used: the book builds without torch.
"""

import importlib
from typing import Any

__version__ = "0.1.0"

# Where each public name lives.
_HOMES = {
    "load_image_set": "data.image_set",
    "Jepa": "model.jepa",
    "METHODS": "model.jepa",
    "Penalty": "model.penalties",
    "PENALTIES": "model.penalties",
    "pretrain": "training.pretrain",
    "linear_probe": "probing.linear",
    "knn_accuracy": "probing.neighbours",
    "rankme": "probing.spectrum",
    "total_correlation": "information.multiinformation",
    "decompose": "information.multiinformation",
    "jepa_score": "density.jepa_score",
}

__all__ = ["__version__", *_HOMES]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
