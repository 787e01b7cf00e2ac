"""Frozen dataclasses from plain mappings: unknown keys and wrong types are errors."""

import dataclasses
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, TypeVar

C = TypeVar("C")
ABOVE_ZERO, AT_LEAST_ZERO, AT_LEAST_ONE = ((low, math.inf) for low in (math.ulp(0.0), 0.0, 1))


def from_mapping(cls: type[C], mapping: Mapping[str, Any]) -> C:
    """Builds the dataclass `cls`, recursing into fields that are dataclasses themselves.

    Raises:
        ValueError: a key that `cls` lacks, or a value whose type is not the field's.
    """
    hints = typing.get_type_hints(cls)
    if unknown := sorted(set(mapping) - set(hints)):
        raise ValueError(
            f"{cls.__name__} has no field {unknown[0]!r}; its fields are {', '.join(hints)}."
        )
    values = {k: _checked(f"{cls.__name__}.{k}", hints[k], value) for k, value in mapping.items()}
    return cls(**values)


def check_choices(instance: Any) -> None:
    """For a `__post_init__`: every field typed as a Literal holds one of its choices.

    Raises:
        ValueError: one does not; says which it may hold.
    """
    for key, hint in typing.get_type_hints(type(instance)).items():
        if typing.get_origin(hint) is typing.Literal:
            _checked(f"{type(instance).__name__}.{key}", hint, getattr(instance, key))


def check_ranges(instance: Any, **ranges: tuple[int | float, int | float]) -> None:
    """For a `__post_init__`: the numbers of each field lie in its range, ends included.

    Raises:
        ValueError: one does not. NaN is in no range, infinity in none either.
    """
    for key, (low, high) in ranges.items():
        given = getattr(instance, key)
        values = given if isinstance(given, tuple) else (given,)
        if not all(low <= value <= high and value < math.inf for value in values):
            bound = f"at least {low:g}" if high == math.inf else f"{low:g} to {high:g}"
            bound = "above 0" if (low, high) == ABOVE_ZERO else bound
            raise ValueError(f"{type(instance).__name__}.{key} must be {bound}, not {given}.")


def _checked(name: str, hint: Any, value: Any) -> Any:
    """`value` as the type `hint`: JSON and YAML know neither tuples nor floats such as 1."""
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        return from_mapping(hint, value)
    if origin is tuple and isinstance(value, list | tuple):
        kinds = arguments[:1] * len(value) if arguments[-1] is ... else arguments
        if len(value) != len(kinds):
            raise ValueError(f"{name} must hold {len(kinds)} values, not {value!r}.")
        pairs = enumerate(zip(kinds, value, strict=True))
        return tuple(_checked(f"{name}[{i}]", kind, one) for i, (kind, one) in pairs)
    if hint is float and type(value) is int:
        return float(value)
    if origin is typing.Literal:
        right, names = value in arguments, f"one of {', '.join(map(str, arguments))}"
    else:
        allowed = arguments if isinstance(hint, types.UnionType) else (hint,)
        plain = tuple(typing.get_origin(a) or a for a in allowed)
        right = isinstance(value, plain) and (bool in plain or not isinstance(value, bool))
        names = " or ".join(getattr(a, "__name__", str(a)) for a in allowed)
    if not right:
        raise ValueError(f"{name} must be {names}, not {value!r}.")
    return value
