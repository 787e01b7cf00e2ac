"""Every method as a combination of parts: the one table that lists them.

What each one is and where it is from, in words: `method_notes.py`, which no run imports, so that
mending a sentence asks for no training.
"""

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType

from sparsejepa.model.objective import ModelConfig, RegulariserConfig
from sparsejepa.model.sparsity import SparsityConfig
from sparsejepa.model.vit import EncoderConfig, PredictorConfig

# Sizes, groups and strengths are those of the run; all else is the row's. Random groups and groups
# by head are no methods but `SparsityConfig.grouping`.
METHODS: Mapping[str, ModelConfig] = MappingProxyType(
    {
        "jepa": ModelConfig(),
        "sparsejepa": ModelConfig(sparsity=SparsityConfig("R1")),
        "sparsejepa-r1b": ModelConfig(sparsity=SparsityConfig("R1b")),
        "sparsejepa-r2": ModelConfig(sparsity=SparsityConfig("R2")),
        "sparsejepa-r3": ModelConfig(sparsity=SparsityConfig("R3")),
        "l1": ModelConfig(sparsity=SparsityConfig("L1")),
        # Weights 25, 25, 1 of invariance (JEPA's prediction), variance and covariance: VICReg.
        "cjepa": ModelConfig(regulariser=RegulariserConfig("VICReg", 25.0, 25.0)),
        # (1 - lambda) · prediction + lambda · SIGReg, lambda = 0.02: LeJEPA's own example.
        "sigreg": ModelConfig(
            regulariser=RegulariserConfig("SIGReg", 0.98, 0.02),
            target="shared",
            normalise_targets=False,
            distance="squared",
        ),
        # 25 · prediction + 125 · RDMReg, 512 slices: Rectified LpJEPA's setting of its ViT.
        "rectified": ModelConfig(
            regulariser=RegulariserConfig("RDMReg", 25.0, 125.0, slices=512),
            target="shared",
            normalise_targets=False,
            rectify_targets=True,
            distance="squared",
        ),
        "ec-ijepa": ModelConfig(condition=True),
        "tjepa": ModelConfig(encoder=EncoderConfig(register_tokens=1)),
        "mae": ModelConfig(target="pixels", distance="squared"),
    }
)


def method_config(
    name: str, encoder: EncoderConfig, predictor: PredictorConfig, sparsity: SparsityConfig
) -> ModelConfig:
    """The method `name` in the given sizes, with the groups and strengths of `sparsity`.

    `sparsity` says nothing where the method has no reading of SparseJEPA.

    Raises:
        ValueError: there is no such method; says which there are.
    """
    if name not in METHODS:
        raise ValueError(f"method must be one of {', '.join(METHODS)}, not {name!r}.")
    row = METHODS[name]
    reading = row.sparsity.reading
    return dataclasses.replace(
        row,
        encoder=dataclasses.replace(encoder, register_tokens=row.encoder.register_tokens),
        predictor=predictor,
        sparsity=SparsityConfig()
        if reading == "none"
        else dataclasses.replace(sparsity, reading=reading),
    )
