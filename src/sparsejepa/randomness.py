"""All randomness is a function of (seed, purpose, counter), never of what ran before."""

import hashlib
import operator

import torch


def generator(seed: int, *path: int | str) -> torch.Generator:
    """A CPU generator that depends on nothing but its arguments.

    A run that is killed and resumed at step 700 draws the crops and masks of step 700 from
    `generator(seed, "crops", 700)`, as the uninterrupted run does: no generator state has to be
    saved, and one more draw in one place shifts nothing elsewhere.

    Raises:
        TypeError: a part of the path is neither a whole number nor a string.
    """
    # NumPy's numbers and strings have a repr of their own, yet are the same seed and purpose.
    key = tuple(str(p) if isinstance(p, str) else int(operator.index(p)) for p in (seed, *path))
    digest = hashlib.sha256(repr(key).encode()).digest()
    # 63 bits: manual_seed takes a signed 64-bit integer.
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "little") >> 1)
