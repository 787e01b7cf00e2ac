import dataclasses

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


def test_builds_what_the_mapping_says() -> None:
    """Given fields are set, the others keep their defaults, nested mappings become dataclasses."""
    built = from_mapping(Outer, {"name": "a", "inner": {"depth": 2}, "flip": True})
    assert built == Outer("a", flip=True, inner=Inner(2))


def test_round_trip() -> None:
    """asdict and back is the identity."""
    outer = Outer("a", 0.3, 5, True, 1.5, (3,), (0.5, 1.0), Inner(1))
    assert from_mapping(Outer, dataclasses.asdict(outer)) == outer


def test_lists_become_tuples_and_whole_numbers_floats() -> None:
    """JSON has no tuples, and YAML reads 1 as an integer; the fields have their own types."""
    built = from_mapping(Outer, {"name": "a", "rate": 1, "sides": [4, 5]})
    assert built.sides == (4, 5)
    assert built.rate == 1.0 and type(built.rate) is float


def test_optional_field_takes_both() -> None:
    """A field of `float | None` takes a float and None."""
    assert from_mapping(Outer, {"name": "a", "limit": None}).limit is None
    assert from_mapping(Outer, {"name": "a", "limit": 0.5}).limit == 0.5


def test_unknown_key_is_named_with_the_known_ones() -> None:
    """A misspelt key is an error that shows the right spelling, in nested mappings too."""
    with pytest.raises(ValueError, match="Outer has no field 'raet'; its fields are name, rate"):
        from_mapping(Outer, {"name": "a", "raet": 0.1})
    with pytest.raises(ValueError, match="Inner has no field 'width'; its fields are depth"):
        from_mapping(Outer, {"name": "a", "inner": {"width": 3}})


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("name", 3, "str"),
        ("rate", "0.1", "float"),
        ("steps", 1.5, "int"),
        ("steps", None, "int"),
        ("flip", 1, "bool"),
        ("limit", "none", "float or NoneType"),
        ("sides", 3, "tuple"),
        ("inner", 3, "Inner"),
    ],
)
def test_wrong_type_is_named(key: str, value: object, expected: str) -> None:
    """The sentence names the field, the type it has, and the value given."""
    with pytest.raises(ValueError) as error:
        from_mapping(Outer, {"name": "a", key: value})
    assert str(error.value).startswith(f"Outer.{key} must be {expected}")
    assert repr(value) in str(error.value)


@pytest.mark.parametrize("key", ["steps", "rate", "limit"])
def test_a_truth_value_is_no_number(key: str) -> None:
    """Python counts True as 1; a number field refuses it."""
    with pytest.raises(ValueError, match=f"Outer.{key} must be"):
        from_mapping(Outer, {"name": "a", key: True})


def test_elements_of_tuples_are_checked() -> None:
    """Their types, their number, and whole numbers where floats are wanted."""
    built = from_mapping(Outer, {"name": "a", "span": [0, 1]})
    assert built.span == (0.0, 1.0) and all(type(v) is float for v in built.span)
    for span, sentence in (
        (["a", 1], r"Outer.span\[0\] must be float, not 'a'"),
        ([0.1], r"Outer.span must hold 2 values, not \[0.1\]"),
        ([0.1, True], r"Outer.span\[1\] must be float, not True"),
    ):
        with pytest.raises(ValueError, match=sentence):
            from_mapping(Outer, {"name": "a", "span": span})
    with pytest.raises(ValueError, match=r"Outer.sides\[1\] must be int, not 2.5"):
        from_mapping(Outer, {"name": "a", "sides": [1, 2.5]})
