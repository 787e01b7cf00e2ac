"""All randomness is a function of (seed, purpose, counter), never of what ran before."""

import hashlib

import torch


def generator(seed: int, *path: int | str) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments.

    A run that is killed and resumed at step 700 draws the crops and masks of step 700 from
    `generator(seed, "crops", 700)`, as the uninterrupted run does: no generator state has to be
    saved, and one more draw in one place shifts nothing elsewhere.
    """
    digest = hashlib.sha256(repr((seed, *path)).encode()).digest()
    # 63 bits: manual_seed takes a signed 64-bit integer.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
