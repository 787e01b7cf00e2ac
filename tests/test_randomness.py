import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.randomness import generator

PATHS = st.lists(st.integers(0, 1000) | st.text(max_size=8), max_size=3).map(tuple)


def draw(*path: int | str) -> list[int]:
    return torch.randint(2**62, (4,), generator=generator(*path)).tolist()


@given(st.integers(0, 1000), st.integers(0, 1000), PATHS, PATHS)
def test_other_arguments_other_numbers(a: int, b: int, path: tuple, other: tuple) -> None:
    """Seed and path each change the draws, and nothing else: the global generator is left alone."""
    before = torch.random.get_rng_state()
    assert (draw(a, *path) == draw(b, *other)) == ((a, *path) == (b, *other))
    assert torch.equal(torch.random.get_rng_state(), before)


def test_numbers_and_their_names_differ() -> None:
    """Step 7 and a purpose called "7" are two things, as are ("ab",) and ("a", "b")."""
    assert draw(0, 7) != draw(0, "7")
    assert draw(0, "ab") != draw(0, "a", "b")


def test_a_number_is_its_value() -> None:
    """A seed out of pandas or NumPy is the same seed, and a purpose the same purpose."""
    plain = generator.__wrapped__ if hasattr(generator, "__wrapped__") else generator
    for number in (np.int64(3), np.uint8(3), torch.tensor(3)):
        drawn = torch.rand(3, generator=plain(number, np.str_("crops"), number))
        assert torch.equal(drawn, torch.rand(3, generator=generator(3, "crops", 3)))
    with pytest.raises(TypeError):
        plain(1.5)


def test_same_in_another_process() -> None:
    """A resumed run, with another hash seed, draws the same numbers."""
    code = "import torch; from sparsejepa.randomness import generator as g; "
    code += "print(torch.randint(2**62, (4,), generator=g(3, 'masks', 5)).tolist())"
    drawn = subprocess.check_output([sys.executable, "-c", code], text=True)
    assert drawn.strip() == str(draw(3, "masks", 5))
