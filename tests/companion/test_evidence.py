"""Numbers at their addresses: names and positions, and what is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsejepa.companion.evidence import look_up, making_command, number_at
from sparsejepa.companion.files import write_json


@given(st.recursive(st.integers(), lambda inner: st.lists(inner, min_size=1, max_size=3)))
def test_look_up_walks_lists(results: Any):
    """A number counts into a list, -1 is the last."""
    depth, place = 0, results
    while isinstance(place, list):
        depth, place = depth + 1, place[-1]
    key = ".".join(["a"] + ["-1"] * depth)
    assert look_up({"a": results}, key) == place
    for wrong in (f"{key}.0", "b", "a.x"):
        with pytest.raises(ValueError, match="no '"):
            look_up({"a": results}, wrong)


def test_look_up_takes_the_longest_name():
    """Names may hold dots, as shares do; a list is not counted into beyond its ends."""
    results = {"dropped": {"0.2": {"value": 1}, "0": {"2": 3}}, "list": [5]}
    assert look_up(results, "dropped.0.2.value") == 1
    with pytest.raises(ValueError, match=r"no '1' in list \(there: \[5\]\)"):
        look_up(results, "list.1")


@pytest.mark.parametrize("value", [True, None, "1", {"mean": 1}, [1]])
def test_what_is_no_number_is_refused(tmp_path: Path, value: Any):
    """JSON's true would count as 1."""
    write_json(tmp_path / "p/n/r/results.json", {"rise": value})
    write_json(tmp_path / "p/n/r/manifest.json", {"parameters": {"seeds": 3}})
    with pytest.raises(ValueError, match="finds no number at p/n/r:rise"):
        number_at(tmp_path, "p/n/r:rise")
    assert number_at(tmp_path, "p/n/r:manifest.parameters.seeds") == 3


def test_look_up_finds_an_entry_by_its_values():
    """Which has to be the only one; values may hold dots."""
    rows = [{"L": 1, "ε": 0.1, "t": 5}, {"L": 2, "ε": 0.1, "t": 6}, {"L": 2, "ε": 5.1e-13, "t": 7}]
    assert look_up({"order": rows}, "order.[L=2; ε=0.1].t") == 6
    assert look_up({"order": rows}, "order.[ε=5.1e-13].t") == 7
    for wrong in ("[L=2]", "[L=3]", "[L]", "L=1"):
        with pytest.raises(ValueError, match="no '"):
            look_up({"order": rows}, f"order.{wrong}.t")


def test_a_run_has_a_command():
    """The one that the manifest of a named run holds too."""
    expected = "sparsejepa run notebooks/01_pretrain.ipynb --preset reference --run jepa-seed0"
    assert making_command("reference/01_pretrain/jepa-seed0") == expected
