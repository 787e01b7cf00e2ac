import dataclasses
import json

import pytest

from sparsejepa.config import from_mapping


@dataclasses.dataclass(frozen=True)
class Inner:
    depth: int = 6


@dataclasses.dataclass(frozen=True)
class Outer:
    name: str
    rate: float = 0.1
    steps: int = 10
    flip: bool = False
    limit: float | None = None
    sides: tuple[int, ...] = (1, 2)
    span: tuple[float, float] = (0.0, 1.0)
    inner: Inner = Inner()


def test_round_trip() -> None:
    """asdict and back is the identity, also through JSON, which has no tuples; defaults stay."""
    for outer in (Outer("a", 0.3, 5, True, 1.5, (3,), (0.5, 1.0), Inner(1)), Outer("b")):
        assert from_mapping(Outer, json.loads(json.dumps(dataclasses.asdict(outer)))) == outer


def test_whole_numbers_become_floats() -> None:
    """YAML reads 1 as an integer; the fields have their own types."""
    built = from_mapping(Outer, {"name": "a", "rate": 1, "span": [0, 1]})
    assert all(type(value) is float for value in (built.rate, *built.span))


def test_unknown_key_is_named_with_the_known_ones() -> None:
    """A misspelt key is an error that shows the right spelling, in nested mappings too."""
    with pytest.raises(ValueError, match="Outer has no field 'raet'; its fields are name, rate"):
        from_mapping(Outer, {"name": "a", "raet": 0.1})
    with pytest.raises(ValueError, match="Inner has no field 'width'; its fields are depth"):
        from_mapping(Outer, {"name": "a", "inner": {"width": 3}})


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("name", 3, "must be str, not 3"),
        ("rate", "0.1", "must be float, not '0.1'"),
        ("steps", None, "must be int, not None"),
        ("flip", 1, "must be bool, not 1"),
        ("limit", "none", "must be float or NoneType, not 'none'"),
        ("inner", 3, "must be Inner, not 3"),
        ("steps", True, "must be int, not True"),
        ("limit", True, "must be float or NoneType, not True"),
        ("span", [0.1], "must hold 2 values, not [0.1]"),
        ("span", [0.1, True], "[1] must be float, not True"),
        ("sides", [1, 2.5], "[1] must be int, not 2.5"),
    ],
)
def test_wrong_type_is_named(key: str, value: object, sentence: str) -> None:
    """The sentence names the field, the type it has, and the value given; in tuples too."""
    with pytest.raises(ValueError) as error:
        from_mapping(Outer, {"name": "a", key: value})
    assert str(error.value).startswith(f"Outer.{key}") and sentence in str(error.value)
